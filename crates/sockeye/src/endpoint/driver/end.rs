//! How a connection ends: failures, the end of the transport, and what is left to the background.

use std::pin::Pin;
use std::task::{Context, Waker};

use sockeye_proto::{CloseInfo, SendError, State, TransportAction};
use tokio::io::AsyncWrite;

use super::Driver;
use crate::endpoint::budget::Budget;
use crate::endpoint::linger;
use crate::error::{Error, Kind};
use crate::runtime::timer::Timer;

impl Driver {
    /// Whether the transport is closed, or to be closed now.
    pub(super) fn is_over(&self) -> bool {
        (self.failure.is_some() && !self.has_only_write_failed)
            || self.connection.transport_action() == TransportAction::Close
    }

    /// Notes that the transport ended. An error matters only if the closing handshake was not done: after it, a reset is
    /// as good as an end.
    // [6455-7.2.1-1]
    pub(super) fn end_transport(&mut self, error: Option<Error>) {
        self.connection.handle_transport_end();
        let is_in_order = |close_info: &CloseInfo| close_info.is_clean() || close_info.is_normal();
        match error {
            Some(error) if !self.connection.close_info().is_some_and(is_in_order) => self.fail(error),
            _ => self.close_transport(),
        }
    }

    /// Fails for good. The first failure stays. What had arrived before is still received, as far as the backlog takes it.
    pub(super) fn fail(&mut self, error: Error) {
        self.receive_into_backlog();
        self.connection.handle_transport_end();
        self.failure.get_or_insert(error);
        self.has_only_write_failed = false;
        self.close_transport();
    }

    pub(super) fn fail_writing(&mut self, error: Error) {
        self.failure = Some(error);
        self.has_only_write_failed = true;
    }

    pub(super) fn close_transport(&mut self) {
        if let Some(mut io) = self.io.take().filter(|_| !self.is_half_closed) {
            // RFC 6455 §7.1.1: TLS has an end of its own. What cannot leave at once is not waited for. [6455-7.1.1-1]
            let _ = Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        self.input.lease.release();
        self.timer = Timer::default();
        if self.stall().is_some() {
            self.change_backlog(|backlog| backlog.stall = None);
        }
        self.drop_output();
    }

    /// Whether the transport takes messages, as far as is known. If not, the error is the one that `recv` gives, or has a
    /// [normal](Error::is_normal_close) end for its reason.
    #[inline]
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(self.write_error(failure)),
        }
    }

    #[cold]
    pub(super) fn write_error(&self, failure: &Error) -> Error {
        match self
            .connection
            .close_info()
            .filter(|close_info| close_info.received().is_some())
        {
            Some(close_info) => Error::new(Kind::Closed(close_info.clone())),
            None => failure.clone(),
        }
    }

    /// Leaves what remains of a closing connection to a task, if there is a place for one.
    #[cold]
    pub(super) fn finish_in_background(&mut self) {
        if !self.is_lingering
            && let Some(slot) = linger::try_reserve()
        {
            slot.finish(self.take_ending());
        }
    }

    /// Moves what remains to be done into another driver. This one is closed then, and knows how the connection ended.
    pub(super) fn take_ending(&mut self) -> Self {
        // Who flushes is not told whether it will have left.
        self.has_dropped_output |= !self.is_drained();
        Self {
            connection: self.connection.take_ending(),
            io: self.io.take(),
            settings: self.settings.clone(),
            input: std::mem::take(&mut self.input),
            output: std::mem::take(&mut self.output),
            backlog: self.backlog.take(),
            timer: Timer::default(),
            budget: Budget::default(),
            failure: self.failure.clone(),
            is_lingering: true,
            ..*self
        }
    }

    /// Whether all that was queued has left; if not, the error that says why.
    pub(super) fn check_flushed(&self) -> Result<(), Error> {
        self.check_writable()?;
        match self.has_dropped_output {
            true => Err(self.send_error(SendError::Closed)),
            false => Ok(()),
        }
    }

    pub(super) fn send_error(&self, error: SendError) -> Error {
        match (error, self.connection.close_info()) {
            (SendError::Closed, Some(close_info)) => Error::new(Kind::Closed(close_info.clone())),
            (error, _) => error.into(),
        }
    }
}

/// A connection that is closing finishes in the background; any other is closed at once.
impl Drop for Driver {
    fn drop(&mut self) {
        let is_closing = matches!(self.connection.state(), State::CloseSent | State::Ending);
        if is_closing && self.io.is_some() {
            self.finish_in_background();
        }
        self.input.release();
        self.output.clear();
    }
}
