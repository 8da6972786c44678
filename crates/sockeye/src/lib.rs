#![doc = include_str!("../README.md")]

mod client;
mod endpoint;
mod error;
mod integration;
mod message;
mod runtime;
mod server;
mod settings;
mod sync;
mod transport;
mod websocket;

pub use client::address::Address;
pub use client::{Client, ClientBuilder, connect};
pub use error::{ConnectError, Error};
#[cfg(feature = "hyper")]
pub use integration::hyper;
pub use message::payload::Payload;
pub use message::prepared::PreparedMessage;
pub use message::{Message, Text};
pub use server::{Incoming, Server, ServerBuilder, accept};
pub use settings::{Limits, Timeouts};
pub use websocket::sender_sink::SenderSink;
pub use websocket::split::{Receiver, Sender};
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
pub use transport::tls::NoRootCertificates;

/// The TLS library, in the version whose configurations [`ClientBuilder::tls_config`] and [`ServerBuilder::tls_config`]
/// take.
#[cfg(feature = "tls")]
pub use rustls;
