#![doc = include_str!("../README.md")]

mod address;
mod batch;
mod client;
mod connection;
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
mod sender_sink;
mod server;
mod settings;
mod shared;
mod split;
mod sync;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wakers;
mod websocket;

pub use address::Address;
pub use client::{Client, ClientBuilder, connect};
pub use dial::ConnectError;
pub use error::Error;
pub use message::{Message, Text};
pub use payload::Payload;
pub use prepared::PreparedMessage;
pub use sender_sink::SenderSink;
pub use server::{Incoming, Server, ServerBuilder, accept};
pub use settings::{Limits, Timeouts};
pub use split::{Receiver, Sender};
pub use websocket::{TrySendAllError, TrySendError, WebSocket};

pub use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
pub use sockeye_proto::handshake;
pub use sockeye_proto::handshake::{
    Acceptance, Denial, HostPolicy, Origin, OriginPolicy, Rejection, Request, Response, StatusCode,
};
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
