//! The connection: the protocol's state machine, a transport, and nothing that belongs to a task.
//!
//! [`Driver`] moves bytes between the two. Its `poll_*` methods keep all their progress in the driver itself, so a
//! future over them can be dropped at any await point and nothing is lost: that is the whole of cancel safety here.

mod alarm;
mod backlog;
mod buffers;
mod carrier;
mod clock;
mod codecs;
mod driver;
mod input;
mod large;
mod linger;
mod output;
mod parts;
mod turn;

use std::any::Any;

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use clock::deadline;
pub(crate) use codecs::OF_THREAD as CODECS;
pub(crate) use driver::{Driver, FlushEnd, Passed};

/// What a connection runs over: TCP, TLS, a pipe in memory, a stream of HTTP/2.
pub(crate) trait Io: AsyncRead + AsyncWrite + Any + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Any + Send + Unpin> Io for T {}
