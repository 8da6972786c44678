//! Receiving without waiting.

use std::task::Context;

use super::Driver;
use crate::endpoint::fast_path;
use crate::endpoint::state::EndReport;
use crate::error::Error;
use crate::message::Message;

/// What [`Driver::try_recv`] gives where there is no message.
pub(crate) enum NotReceived {
    Empty,
    Ended(Result<(), Error>),
}

impl Driver {
    /// The next message, if it lies whole in what was read.
    // Inlined into the loop of the caller, as `poll_recv` is: the message then stays in registers.
    #[inline]
    pub(crate) fn next_arrived(&mut self) -> Option<Message> {
        match self.backlog.is_none() && !self.budget.is_overdrawn() {
            true => fast_path::take_whole_message(&mut self.connection, &mut self.input, &mut self.budget),
            false => None,
        }
    }

    /// The next message that has arrived. If there is none, everything is done that `recv` does before it waits: what is
    /// queued is written, the transport is read, deadlines are looked at.
    ///
    /// Also empty where other tasks are to have their turn. A `recv` that comes next yields; a `try_recv` goes on.
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
            if !self.budget.is_overdrawn() && (self.backlog.is_some() || self.has_input()) {
                *delivered = self.next_message();
                if delivered.is_some() {
                    return Ok(());
                }
            }
            if self.has_ended() {
                return Err(NotReceived::Ended(self.try_end(cx)));
            }
            if self.budget.is_spent() {
                let _ = self.poll_drain(cx);
                self.handle_deadlines(self.runtime().now());
                self.budget.pause();
                return Ok(());
            }
            if self.poll_more(cx).is_pending() {
                return Ok(());
            }
        }
    }

    /// Gives the end, as `recv` does, and leaves what remains to be done for it to the background.
    #[cold]
    fn try_end(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.poll_finish(cx).is_pending() {
            self.finish_in_background();
        }
        // A `recv` that comes next lets other tasks run first.
        if self.end == EndReport::NotReturned {
            self.end = EndReport::Returned {
                has_yielded: false,
                is_stream_over: false,
            };
        }
        self.close_result()
    }
}
