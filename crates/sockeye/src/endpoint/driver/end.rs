//! The end of a connection: failures, the end of the transport, and the hand-over to a background task.
//!
//! The functions that end a connection, and their effect on each part:
//!
//! | function | called when | state machine | transport | queued output |
//! |---|---|---|---|---|
//! | [`end_transport`](Driver::end_transport) | the peer ended TCP, reading failed, or a write failed and nothing is left to read | notified | closed; failed, unless the closing handshake was in order | dropped |
//! | [`fail`](Driver::fail) | a deadline passed, or as a part of `end_transport` | notified after parsing the input | failed | dropped |
//! | [`close_transport`](Driver::close_transport) | the state machine requests it, or as a part of the two above | already notified | closed or failed | dropped |
//! | [`abort`](Driver::abort) | the application aborts an unsplit connection, which is then dropped | not notified | closed without the closing message of TLS | released when the driver is dropped |
//! | [`abort_with`](Driver::abort_with) | the application aborts a split or blocking connection, or drops its receiver | notified | failed, unless it had ended | dropped |
//! | [`finish_in_background`](Driver::finish_in_background) | the end was reported before all of it was done, or a closing connection is dropped | moves to the background task, with the transport | a task closes it, within the deadlines | written by the task |
//!
//! [`poll_recv`](Driver::poll_recv) and [`try_recv`](Driver::try_recv) report the end through `poll_end` and `try_end`.
//! Both call [`poll_finish`](Driver::poll_finish) once to complete the closing handshake. If that is pending,
//! [`finish_in_background`](Driver::finish_in_background) spawns a task that continues it.
//! [`poll_close`](Driver::poll_close) is `poll_recv` until the end.

use std::task::{Context, Waker};

use sockeye_proto::{CloseInfo, SendError, State, TransportAction};

use super::Driver;
use crate::endpoint::budget::Budget;
use crate::endpoint::linger;
use crate::endpoint::state::{ClosedTransport, EndStatus};
use crate::error::{Error, Kind};
use crate::runtime::Timer;

impl Driver {
    /// Whether the transport is closed, or must be closed now.
    pub(super) fn is_transport_ended(&self) -> bool {
        self.transport.is_failed() || self.connection.transport_action() == TransportAction::Close
    }

    /// Handles the end of the transport. After the closing handshake, an error such as a reset counts as a normal end.
    // [6455-7.2.1-1]
    pub(super) fn end_transport(&mut self, error: Option<Error>) {
        self.connection.handle_transport_end();
        let is_in_order = |close_info: &CloseInfo| close_info.is_clean() || close_info.is_normal();
        match error {
            Some(error) if !self.connection.close_info().is_some_and(is_in_order) => self.fail(error),
            _ => self.close_transport(None),
        }
    }

    /// Fails the connection and closes the transport. The first failure is kept. Messages that arrived before can still
    /// be received, as far as [`Limits::read_ahead_max`](crate::Limits::read_ahead_max) allows.
    pub(super) fn fail(&mut self, error: Error) {
        self.read_buffered_ahead();
        self.connection.handle_transport_end();
        self.close_transport(Some(error));
    }

    /// Closes the transport, because of `error` if there is one.
    pub(super) fn close_transport(&mut self, error: Option<Error>) {
        if let Some(ClosedTransport {
            mut transport,
            is_write_closed: false,
        }) = self.transport.close(error)
        {
            // RFC 6455 §7.1.1: TLS has its own closing message. This does not wait until it is written. [6455-7.1.1-1]
            let _ = transport.poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        self.input.lease.release();
        self.timer = Timer::default();
        if self.stall().is_some() {
            self.with_busy_state(|busy| busy.stall = None);
        }
        self.drop_output();
        self.report_end();
    }

    /// Checks whether the transport can be written to, as far as is known. Otherwise returns the error that `recv`
    /// returns, or one for which [`is_normal_close`](Error::is_normal_close) is true.
    #[inline]
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        match self.transport.has_failure() {
            false => Ok(()),
            true => self.write_failure(),
        }
    }

    #[cold]
    fn write_failure(&self) -> Result<(), Error> {
        let close_info = self.connection.close_info();
        match (close_info, self.transport.failure()) {
            (Some(close_info), Some(_)) if close_info.received().is_some() => {
                Err(Error::new(Kind::Closed(close_info.clone())))
            }
            (_, Some(failure)) => Err(failure.clone()),
            (_, None) => Ok(()),
        }
    }

    /// Hands a closing connection to a background task, if a slot is available.
    #[cold]
    pub(super) fn finish_in_background(&mut self) {
        if self.end != EndStatus::Background
            && let Some(slot) = linger::try_acquire_slot(self.runtime())
        {
            slot.finish(self.take_closing());
        }
    }

    /// Moves the remaining work into another driver. This one is closed, and knows how the connection ended.
    pub(super) fn take_closing(&mut self) -> Self {
        // A flush on this driver cannot know whether the background task writes it.
        self.has_dropped_output |= !self.is_flushed();
        let (input, write_queue) = (self.input.without_content(), self.write_queue.without_content());
        let mut busy = self.busy.take();
        // The measurements stay here, where the application reads them.
        if let Some(latency) = busy.as_mut().and_then(|busy| busy.latency.take()) {
            self.with_busy_state(|busy| busy.latency = Some(latency));
            self.cancel_sample();
        }
        Self {
            connection: self.connection.take_closing(),
            transport: self.transport.take(),
            group: self.group.clone(),
            input: std::mem::replace(&mut self.input, input),
            write_queue: std::mem::replace(&mut self.write_queue, write_queue),
            busy,
            timer: Timer::default(),
            window_edge: self.window_edge,
            budget: Budget::default(),
            observes_control: false,
            has_dropped_output: self.has_dropped_output,
            end: EndStatus::Background,
            high_counts: self.high_counts,
            observer: std::mem::take(&mut self.observer),
        }
    }

    /// Checks that everything queued was written. Otherwise returns the reason.
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

/// Finishes a closing connection in the background. Closes any other immediately.
impl Drop for Driver {
    fn drop(&mut self) {
        let is_closing = matches!(self.connection.state(), State::CloseSent | State::Draining);
        if is_closing && self.transport.io().is_some() {
            self.finish_in_background();
        }
        self.report_end();
        self.input.release();
        self.write_queue.clear();
    }
}
