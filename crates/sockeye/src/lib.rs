#![doc = include_str!("../README.md")]

#[cfg(all(unix, feature = "blocking"))]
pub mod blocking;
mod client;
mod convert;
mod endpoint;
mod error;
mod integration;
mod message;
mod num;
mod observe;
mod reconnect;
mod runtime;
mod server;
mod settings;
mod stats;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;
mod transport;
mod typed;
mod websocket;

#[cfg(feature = "cookie_store")]
pub use client::cookies::CookieJar;
pub use client::cookies::CookieStore;
pub use client::proxy::{InvalidProxy, Proxy};
pub use client::request::{IntoRequest, RequestBuilder};
#[cfg(feature = "tls")]
pub use client::tls::ClientTls;
pub use client::url::WebSocketUrl;
pub use client::{Client, ClientBuilder, connect};
pub use error::{ConnectError, Error, ErrorKind, InvalidUrl, ProxyError};
#[cfg(feature = "axum")]
pub use integration::axum;
#[cfg(feature = "hyper")]
pub use integration::hyper;
#[cfg(feature = "tower")]
pub use integration::tower;
pub use message::event::Event;
pub use message::outbound::Outbound;
pub use message::payload::Payload;
pub use message::prepared::PreparedMessage;
pub use message::{Message, Text};
#[cfg(feature = "metrics")]
pub use observe::metrics::describe_metrics;
pub use reconnect::{Backoff, ReconnectEvent, Reconnecting, Undelivered};
#[cfg(feature = "futures-io")]
pub use runtime::custom::Runtime;
pub use server::response::{Acceptance, Rejection};
pub use server::serve::{Listener, Serve, ServeError};
pub use server::{Incoming, Server, ServerBuilder, accept};
pub use settings::{Limits, Timeouts};
pub use stats::{ConnectionStats, DirectionStats, Histogram};
#[cfg(feature = "json")]
pub use typed::Json;
pub use typed::{Decode, Encode, Typed, TypedError};
pub use websocket::WebSocket;
pub use websocket::io::WebSocketIo;
pub use websocket::message_reader::MessageReader;
pub use websocket::message_writer::MessageWriter;
pub use websocket::outbox::{Outbox, Overflow};
pub use websocket::permit::{Permit, TryReserveError};
pub use websocket::split::{Receiver, Sender};
pub use websocket::try_recv::TryRecvError;
pub use websocket::try_send::{TrySendAllError, TrySendError};

pub use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub use sockeye_proto::handshake::{Denial, HostPolicy, Origin, OriginPolicy};
pub use sockeye_proto::{
    CLOSE_REASON_LEN_MAX, CloseCause, CloseCode, CloseFrame, CloseInfo, Compress, Keepalive, MessageKind,
    ProtocolError, Side, truncate_close_reason,
};

#[cfg(feature = "futures-io")]
pub use transport::futures_io::FuturesIo;
#[cfg(feature = "tls")]
pub use transport::tls::NoRootCertificates;

/// The TLS library, in the version that [`ClientBuilder::tls_config`] and [`ServerBuilder::tls_config`] use.
#[cfg(feature = "tls")]
pub use rustls;

/// The crate of [`CookieJar`], in the version that it uses.
#[cfg(feature = "cookie_store")]
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
