//! Queues messages for writing.

use std::task::{Context, Poll, ready};

use sockeye_proto::{Fragment, Role, SendError, State};

use super::Driver;
use crate::endpoint::CODECS;
use crate::endpoint::compress_job::{CompressJob, PART_LEN};
use crate::endpoint::output::BY_REFERENCE_MIN;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::OutboundMessage;
use crate::message::prepared::{Frame, PreparedMessage};

/// Once this many bytes are queued, `feed` writes by itself, while they are still in the cache.
const WRITE_EAGERLY_FROM: usize = 128 * 1024;

impl Driver {
    /// Queues a message when it is ready. Pending while too much is queued already.
    #[inline]
    pub(crate) fn poll_feed(&mut self, cx: &mut Context<'_>, message: &OutboundMessage) -> Poll<Result<(), Error>> {
        ready!(self.poll_room_for(cx, message.len()))?;
        if let Err(error) = self.queue(message) {
            return self.poll_error(cx, error);
        }
        self.write_if_much(cx);
        Poll::Ready(Ok(()))
    }

    /// Returns an error to a caller that may ignore it in a loop, and lets other tasks run now and then.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_error(&self, cx: &mut Context<'_>, error: Error) -> Poll<Result<(), Error>> {
        ready!(self.settings.runtime.poll_coop(cx));
        Poll::Ready(Err(error))
    }

    /// Queues a prepared message when it is ready. Pending while too much is queued already.
    pub(crate) fn poll_feed_prepared(
        &mut self,
        cx: &mut Context<'_>,
        prepared: &PreparedMessage,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_room_for(cx, prepared.message().len()))?;
        if let Err(error) = self.queue_prepared(prepared) {
            return self.poll_error(cx, error);
        }
        self.write_if_much(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    pub(crate) fn write_if_much(&mut self, cx: &mut Context<'_>) {
        if self.output.len() >= WRITE_EAGERLY_FROM {
            // The next call writes the rest, and reports a failure.
            let _ = self.poll_drain(cx);
        }
    }

    /// Ready when a message of this length may be queued.
    #[inline]
    pub(crate) fn poll_room_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        match self.has_room_for(len) {
            true => Poll::Ready(Ok(())),
            false => self.poll_until_room_for(cx, len),
        }
    }

    #[cold]
    fn poll_until_room_for(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), Error>> {
        while !self.has_room_for(len) {
            // There will never be room again.
            if self.connection.state() != State::Open {
                return Poll::Ready(Err(self.send_error(SendError::Closed)));
            }
            if self.poll_drain(cx).is_pending() {
                ready!(self.poll_blocked(cx));
            }
            self.find_close_after_write_failure(cx);
            self.check_writable()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether [`queue`](Self::queue) may be called.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        let waiting = self.output.len();
        (waiting == 0 || waiting.saturating_add(len) <= self.settings.write_buffer_max) && self.compress_job().is_none()
    }

    /// Records that a message was dropped after its sender was told that it is queued. The next flush fails.
    pub(crate) fn record_dropped_message(&mut self) {
        self.has_dropped_output = true;
    }

    /// The error with which [`queue`](Self::queue) would fail.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match self.check_writable() {
            Ok(()) if self.connection.state() == State::Open => None,
            Ok(()) => Some(self.send_error(SendError::Closed)),
            Err(error) => Some(error),
        }
    }

    /// Queues a message, however much is queued already.
    // [6455-10.3-2]
    #[inline]
    pub(crate) fn queue(&mut self, message: &OutboundMessage) -> Result<(), Error> {
        self.check_writable()?;
        let len = message.len();
        if self.connection.would_compress(len, message.compress()) {
            return self.queue_compressed(message);
        }
        self.queue_uncompressed(message, len)
    }

    #[inline(always)]
    fn queue_uncompressed(&mut self, message: &OutboundMessage, len: usize) -> Result<(), Error> {
        let is_by_reference = len >= BY_REFERENCE_MIN && matches!(self.connection.role(), Role::Server);
        let copied_len = if is_by_reference { 0 } else { len };
        let out = self.output.buffer_for(copied_len, self.settings.write_buffer_max);
        match self.connection.start_message(message.kind(), len as u64, out) {
            Ok(Some(key)) => key.append(message.as_slice(), out),
            // A large payload is written from where it is.
            Ok(None) if is_by_reference => self.output.push_payload(message.payload()),
            Ok(None) => message.append_to(out),
            Err(error) => return Err(self.send_error(error)),
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn queue_compressed(&mut self, outgoing: &OutboundMessage) -> Result<(), Error> {
        let (message, len) = (outgoing.to_message(), outgoing.len());
        self.budget.charge_compressed(len.min(PART_LEN));
        let is_begun = if len > PART_LEN {
            self.queue_first_part(message)
        } else {
            let out = self.output.buffer_for(len, self.settings.write_buffer_max);
            let sent = self.connection.send_with(message.data(), outgoing.compress(), out);
            sent.map(|()| true)
        };
        match is_begun {
            Ok(true) => Ok(()),
            Ok(false) => self.queue_uncompressed(outgoing, len),
            Err(error) => Err(self.send_error(error)),
        }
    }

    /// Compresses and queues the first part of a message, and leaves the others to [`poll_drain`](Self::poll_drain). Returns
    /// `false` if compression does not make the first part smaller.
    fn queue_first_part(&mut self, message: Message) -> Result<bool, SendError> {
        let mut job = CompressJob::new(message, self.output.end());
        let (first, _) = job.next_part();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let is_begun = self.connection.start_compressed(first, out)?;
        if is_begun {
            self.change_backlog(|backlog| backlog.compress_job = Some(job));
        }
        Ok(is_begun)
    }

    /// Queues the next part of the message that is being compressed.
    #[cold]
    #[inline(never)]
    pub(super) fn queue_part(&mut self) {
        let job = self.backlog.as_mut().and_then(|backlog| backlog.compress_job.as_mut());
        let Some(job) = job else { return };
        let (part, fragment) = job.next_part();
        let len = part.bytes().len();
        let out = self.output.buffer_for(0, self.settings.write_buffer_max);
        let sent = self.connection.send_fragment(part, fragment, out);
        if sent.is_err() {
            // The connection has failed or ended.
            self.cancel_compress_job();
        } else if fragment == Fragment::Last {
            self.change_backlog(|backlog| backlog.compress_job = None);
        }
        self.budget.charge_compressed(len);
    }

    /// Drops the rest of the message that is being compressed.
    pub(super) fn cancel_compress_job(&mut self) {
        if self.compress_job().is_some() {
            self.change_backlog(|backlog| backlog.compress_job = None);
            self.has_dropped_output = true;
        }
    }

    /// Queues a prepared message, however much is queued already.
    pub(crate) fn queue_prepared(&mut self, prepared: &PreparedMessage) -> Result<(), Error> {
        if matches!(self.connection.role(), Role::Client { .. }) {
            let message = OutboundMessage::new(prepared.message().clone(), prepared.compress());
            return self.queue(&message);
        }
        self.check_writable()?;
        let Frame { framing, bytes } = prepared.frame_for(&self.connection, CODECS);
        let sent = self.connection.start_framed(prepared.message().data(), *framing);
        sent.map_err(|error| self.send_error(error))?;
        if bytes.len() >= BY_REFERENCE_MIN {
            self.output.push_payload(bytes.clone());
        } else {
            let out = self.output.buffer_for(bytes.len(), self.settings.write_buffer_max);
            out.extend_from_slice(bytes);
        }
        Ok(())
    }
}
