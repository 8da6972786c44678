//! Receiving without waiting.

use std::task::Context;

use super::Driver;
use crate::endpoint::fast_path;
use crate::endpoint::state::EndStatus;
use crate::error::Error;
use crate::message::Message;

/// Why [`Driver::try_recv`] returned no message.
pub(crate) enum NotReceived {
    Empty,
    Ended(Result<(), Error>),
}

impl Driver {
    /// The next message, if it is completely in the input.
    // Inlined into the caller's loop as `poll_recv` is, so that the message stays in registers.
    #[inline]
    pub(crate) fn next_arrived(&mut self) -> Option<Message> {
        match self.busy.is_none() && !self.budget.is_overdrawn() {
            true => fast_path::take_whole_message(&mut self.connection, &mut self.input, &mut self.budget),
            false => None,
        }
    }

    /// The next message that has arrived. If there is none, does what `recv` does before it waits: writes what is
    /// queued, reads the transport and checks the deadlines.
    ///
    /// Also returns `Empty` when other tasks should run. The next `recv` then yields; the next `try_recv` continues.
    pub(crate) fn try_recv(&mut self, cx: &mut Context<'_>) -> Result<Message, NotReceived> {
        let mut delivered = None;
        match self.try_recv_into(cx, &mut delivered) {
            Err(error) => Err(error),
            Ok(()) => delivered.ok_or(NotReceived::Empty),
        }
    }

    #[inline(never)]
    fn try_recv_into(&mut self, cx: &mut Context<'_>, delivered: &mut Option<Message>) -> Result<(), NotReceived> {
        self.budget.resume();
        loop {
            if !self.budget.is_overdrawn() && (self.busy.is_some() || self.has_input()) {
                *delivered = self.next_message();
                if delivered.is_some() {
                    return Ok(());
                }
            }
            if self.is_receive_closed() {
                return Err(NotReceived::Ended(self.try_end(cx)));
            }
            if self.budget.is_spent() {
                let _ = self.poll_drain(cx);
                self.handle_deadlines(self.runtime().now());
                self.budget.pause();
                return Ok(());
            }
            if self.poll_io(cx).is_pending() {
                return Ok(());
            }
        }
    }

    /// Reports the end as `recv` does. The remaining work continues in the background.
    #[cold]
    fn try_end(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.poll_finish(cx).is_pending() {
            self.finish_in_background();
        }
        // Makes the next `recv` yield first.
        if self.end == EndStatus::NotReported {
            self.end = EndStatus::Reported {
                has_yielded: false,
                is_stream_terminated: false,
            };
        }
        self.close_result()
    }
}
