#![doc = include_str!("../README.md")]

// On wasm32, the client in `browser` takes the place of everything that needs sockets.

#[cfg(all(unix, feature = "blocking"))]
pub mod blocking;
#[cfg(any(target_arch = "wasm32", test))]
#[cfg_attr(
    not(target_arch = "wasm32"),
    allow(dead_code, unreachable_pub, reason = "only its tests run")
)]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod client;
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "a browser shows no headers"))]
mod convert;
#[cfg(not(target_arch = "wasm32"))]
mod endpoint;
#[cfg_attr(
    target_arch = "wasm32",
    allow(
        dead_code,
        rustdoc::broken_intra_doc_links,
        reason = "a browser tells fewer errors apart"
    )
)]
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod integration;
#[cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, unreachable_pub, reason = "a browser encodes messages itself")
)]
mod message;
#[cfg(not(target_arch = "wasm32"))]
mod num;
#[cfg(not(target_arch = "wasm32"))]
mod observe;
#[cfg(not(target_arch = "wasm32"))]
mod reconnect;
#[cfg(not(target_arch = "wasm32"))]
mod runtime;
#[cfg(not(target_arch = "wasm32"))]
mod server;
#[cfg(not(target_arch = "wasm32"))]
mod settings;
#[cfg(not(target_arch = "wasm32"))]
mod stats;
#[cfg(not(target_arch = "wasm32"))]
mod sync;
#[cfg(all(feature = "test-util", not(target_arch = "wasm32")))]
pub mod test_util;
#[cfg(not(target_arch = "wasm32"))]
mod transport;
mod typed;
#[cfg(not(target_arch = "wasm32"))]
mod websocket;

#[cfg(all(target_arch = "wasm32", not(target_os = "unknown")))]
compile_error!("on wasm32, sockeye uses the WebSocket of a browser: build for wasm32-unknown-unknown");

#[cfg(target_arch = "wasm32")]
use browser::websocket;
#[cfg(target_arch = "wasm32")]
pub use browser::{
    client::{Client, ClientBuilder, RequestBuilder, connect},
    settings::{Limits, Timeouts},
};

#[cfg(not(target_arch = "wasm32"))]
pub use {
    client::cookies::CookieStore,
    client::proxy::{InvalidProxy, Proxy},
    client::request::{IntoRequest, RequestBuilder},
    client::url::WebSocketUrl,
    client::{Client, ClientBuilder, connect},
    message::event::Event,
    reconnect::{Backoff, ReconnectEvent, Reconnecting, Undelivered},
    server::response::{Acceptance, Rejection},
    server::serve::{Listener, Serve},
    server::serve_error::ServeError,
    server::{Incoming, Server, ServerBuilder, accept},
    settings::{Limits, Timeouts},
    stats::{ConnectionStats, DirectionStats, Histogram},
    websocket::io::WebSocketIo,
    websocket::message_reader::MessageReader,
    websocket::message_writer::MessageWriter,
    websocket::outbox::{Outbox, Overflow},
    websocket::permit::{Permit, TryReserveError},
    websocket::try_send::TrySendAllError,
};

#[cfg(all(feature = "cookie_store", not(target_arch = "wasm32")))]
pub use client::cookies::CookieJar;
#[cfg(all(feature = "tls", not(target_arch = "wasm32")))]
pub use client::tls::ClientTls;
pub use error::try_recv::TryRecvError;
pub use error::{ConnectError, Error, ErrorKind, InvalidUrl, ProxyError};
#[cfg(all(feature = "axum", not(target_arch = "wasm32")))]
pub use integration::axum;
#[cfg(all(feature = "hyper", not(target_arch = "wasm32")))]
pub use integration::hyper;
#[cfg(all(feature = "tower", not(target_arch = "wasm32")))]
pub use integration::tower;
pub use message::outbound::Outbound;
pub use message::payload::Payload;
pub use message::prepared::PreparedMessage;
pub use message::{Message, Text};
#[cfg(all(feature = "metrics", not(target_arch = "wasm32")))]
pub use observe::metrics::describe_metrics;
#[cfg(all(feature = "futures-io", not(target_arch = "wasm32")))]
pub use runtime::custom::Runtime;
#[cfg(feature = "json")]
pub use typed::Json;
pub use typed::{Decode, Encode, Typed, TypedError};
pub use websocket::WebSocket;
pub use websocket::split::{Receiver, Sender};
pub use websocket::try_send::TrySendError;

pub use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub use sockeye_proto::handshake::{Denial, HostPolicy, Origin, OriginPolicy};
pub use sockeye_proto::{
    CLOSE_REASON_LEN_MAX, CloseCause, CloseCode, CloseFrame, CloseInfo, Compress, Keepalive, MessageKind,
    ProtocolError, Side, truncate_close_reason,
};

#[cfg(all(feature = "futures-io", not(target_arch = "wasm32")))]
pub use transport::futures_io::FuturesIo;
#[cfg(all(feature = "tls", not(target_arch = "wasm32")))]
pub use transport::tls::NoRootCertificates;

/// The TLS library, in the version that [`ClientBuilder::tls_config`] and [`ServerBuilder::tls_config`] use.
#[cfg(all(feature = "tls", not(target_arch = "wasm32")))]
pub use rustls;

/// The crate of [`CookieJar`], in the version that it uses.
#[cfg(all(feature = "cookie_store", not(target_arch = "wasm32")))]
pub use cookie_store;

/// The HTTP types in public signatures, in the version that they use.
pub use http;

/// Errors and values of the opening handshake (RFC 6455 §4).
pub mod handshake {
    pub use sockeye_proto::handshake::{
        Authority, ClientRequest, HandshakeBuildError, HandshakeError, Key, OriginError, Scheme, Subprotocol, Uri,
        UriError,
    };
}
