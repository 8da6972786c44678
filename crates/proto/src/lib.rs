#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod close;
mod close_code;
mod config;
mod connection;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "deflate/disabled.rs"]
mod deflate;
pub mod frame;
mod grow;
pub mod handshake;
mod message;
mod protocol_error;
mod time;
mod utf8;

pub use close::{CLOSE_REASON_LEN_MAX, CloseFrame, InvalidClose, truncate_close_reason};
pub use close_code::CloseCode;
pub use config::{Config, Keepalive, Limits};
pub use connection::{
    CloseCause, CloseInfo, Connection, Event, FrameInfo, RawMessage, Received, Role, SendError, Side, State,
    TransportAction,
};
pub use frame::MaskingKey;
pub use message::{Compress, Data, Fragment, MessageKind, ReceiveMode};
pub use protocol_error::ProtocolError;
pub use time::Instant;
