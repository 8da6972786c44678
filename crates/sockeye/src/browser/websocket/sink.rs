//! The parts of `Sink` that connections and senders share.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use sockeye_proto::{CloseCode, Side};

use crate::browser::connection::Connection;
use crate::browser::drain::{Drain, Until};
use crate::error::Error;

/// The wait of one sink for capacity, kept between the polls of `poll_ready`.
#[derive(Debug, Default)]
pub(crate) struct CapacityWait(Option<Box<Drain>>);

impl CapacityWait {
    /// Waits until the browser's send buffer is below the limit. The next message may exceed the limit by its length.
    pub(crate) fn poll(&mut self, connection: &Rc<Connection>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let drain = self
            .0
            .get_or_insert_with(|| Box::new(Drain::new(connection.clone(), Until::Capacity(0))));
        let polled = Pin::new(&mut **drain).poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

/// The browser sends by itself.
pub(crate) fn poll_flush(connection: &Connection) -> Poll<Result<(), Error>> {
    let is_ours = |error: &Error| error.close_info().is_some_and(|info| info.initiator() == Side::Local);
    match connection.state().send_error() {
        // Everything was given to the browser before this side closed.
        Some(error) if error.is_normal_close() && is_ours(&error) => Poll::Ready(Ok(())),
        Some(error) => Poll::Ready(Err(error)),
        None => Poll::Ready(Ok(())),
    }
}

pub(crate) fn poll_close(connection: &Connection) -> Poll<Result<(), Error>> {
    connection.start_close(CloseCode::NORMAL, "")?;
    match connection.state().send_error() {
        Some(error) if !error.is_normal_close() => Poll::Ready(Err(error)),
        _ => Poll::Ready(Ok(())),
    }
}
