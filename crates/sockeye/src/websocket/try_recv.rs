//! Receiving without waiting, and its error.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::endpoint::{Driver, NotReceived};
use crate::error::Error;
use crate::message::Message;

/// Error of `try_recv`: there is no message.
#[derive(Clone, Debug)]
pub enum TryRecvError {
    /// No message has arrived, or other tasks should run first: await `recv`.
    Empty,
    /// The connection has ended [normally](crate::WebSocket#the-end): `recv` returns `None`.
    Ended,
    /// The connection has failed with this error, which `recv` returns too.
    Failed(Error),
}

impl TryRecvError {
    /// Whether a message may still arrive.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no message has arrived"),
            Self::Ended => f.write_str("the connection has ended"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TryRecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Empty | Self::Ended => None,
            Self::Failed(error) => error.source(),
        }
    }
}

/// Receives a message that has arrived. `waker` is registered with the transport and the timer.
#[inline]
pub(crate) fn try_recv(driver: &mut Driver, waker: &Waker) -> Result<Message, TryRecvError> {
    if let Some(message) = driver.next_arrived() {
        return Ok(message);
    }
    try_recv_slow(driver, waker)
}

/// Reads the transport if no complete message is buffered.
#[inline(never)]
fn try_recv_slow(driver: &mut Driver, waker: &Waker) -> Result<Message, TryRecvError> {
    let runtime = driver.runtime();
    let received = poll_fn(|cx| Poll::Ready(driver.try_recv(cx)));
    // With an exhausted cooperative budget, the transport would appear empty.
    match runtime.poll_unconstrained(&mut Context::from_waker(waker), received) {
        Poll::Ready(Ok(message)) => Ok(message),
        Poll::Ready(Err(NotReceived::Ended(Ok(())))) => Err(TryRecvError::Ended),
        Poll::Ready(Err(NotReceived::Ended(Err(error)))) => Err(TryRecvError::Failed(error)),
        Poll::Ready(Err(NotReceived::Empty)) | Poll::Pending => Err(TryRecvError::Empty),
    }
}
