#![doc = include_str!("../README.md")]

mod address;
mod batch;
mod client;
mod connection;
mod convert;
mod dial;
mod error;
mod exclusive;
mod flusher;
mod halves;
#[cfg(feature = "hyper")]
pub mod hyper;
mod message;
mod outgoing;
mod payload;
mod prepared;
mod request;
mod response;
mod sender_sink;
mod serve;
mod server;
mod settings;
mod shared;
mod split;
mod sync;
mod tasks;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wakers;
mod websocket;

pub use address::Address;
pub use client::{Client, ClientBuilder, connect};
pub use dial::ConnectError;
pub use error::{Error, ErrorKind};
pub use message::{Message, Text};
pub use payload::Payload;
pub use prepared::PreparedMessage;
pub use request::RequestBuilder;
pub use response::{Acceptance, Rejection};
pub use sender_sink::SenderSink;
pub use serve::{Listener, Serve, ServeError};
pub use server::{Incoming, Server, ServerBuilder, accept};
pub use settings::{Limits, Timeouts};
pub use split::{Receiver, Sender};
pub use websocket::{TrySendAllError, TrySendError, WebSocket};

pub use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub use sockeye_proto::handshake::{Denial, HostPolicy, Origin, OriginPolicy};
pub use sockeye_proto::{
    CLOSE_REASON_LEN_MAX, CloseCause, CloseCode, CloseFrame, CloseInfo, Compress, Keepalive, ProtocolError, Side,
    truncate_close_reason,
};

#[cfg(feature = "tls")]
pub use tls::NoRootCertificates;

/// The TLS library, in the version whose configurations [`ClientBuilder::tls_config`] and [`ServerBuilder::tls_config`]
/// take.
#[cfg(feature = "tls")]
pub use rustls;

/// The types of HTTP that public signatures use, in the version that they are of.
pub use http;

/// The rules of the opening handshake (RFC 6455 §4), and the values in it.
pub mod handshake {
    pub use sockeye_proto::handshake::{
        Authority, ClientRequest, HandshakeBuildError, HandshakeError, Key, OriginError, Scheme, Subprotocol, Uri,
        UriError,
    };
}
