//! Receiving without waiting.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::endpoint::{Driver, NotReceived};
use crate::message::Message;

pub(crate) use crate::error::try_recv::TryRecvError;

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
