#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod close;
mod config;
mod connection;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "deflate/absent.rs"]
mod deflate;
mod fault;
pub mod frame;
mod grow;
pub mod handshake;
mod time;
mod utf8;

pub use close::{CLOSE_REASON_LEN_MAX, CloseCode, CloseFrame, InvalidClose, truncate_close_reason};
pub use config::{Config, Keepalive, Limits};
pub use connection::{
    Cause, Closure, Compress, Connection, Data, Delivery, Event, Fragment, Framing, MaskedMessage, MessageKind,
    Received, Role, SendError, Side, State, Transport,
};
pub use fault::Fault;
pub use frame::MaskingKey;
pub use time::Instant;
