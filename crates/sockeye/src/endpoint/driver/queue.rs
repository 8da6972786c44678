//! Queues messages for writing.

use std::task::{Context, Poll, ready};

use sockeye_proto::{Compress, Fragment, Role, SendError, State};

use super::Driver;
use crate::endpoint::codec_pool::THREAD_CODECS;
use crate::endpoint::compress_job::{CompressJob, PART_LEN};
use crate::endpoint::write_queue::BY_REFERENCE_MIN;
use crate::error::Error;
use crate::message::Message;
use crate::message::outbound::Outbound;
use crate::message::prepared::{Frame, PreparedMessage};

/// Once this many bytes are queued, `feed` writes them, while they are still in the cache.
const WRITE_EAGERLY_FROM: usize = 128 * 1024;

impl Driver {
    /// Queues a message. Pending while the queue is full.
    #[inline]
    pub(crate) fn poll_feed(&mut self, cx: &mut Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        if message.prepared().is_some() || self.busy.is_some() {
            return self.poll_feed_slow(cx, message);
        }
        ready!(self.poll_capacity_for(cx, message.plain_len()))?;
        if let Err(error) = self.queue_plain(message) {
            return self.poll_error(cx, error);
        }
        self.write_if_over_threshold(cx);
        Poll::Ready(Ok(()))
    }

    /// Returns an error to a caller that may ignore it in a loop. Lets other tasks run now and then.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_error(&self, cx: &mut Context<'_>, error: Error) -> Poll<Result<(), Error>> {
        ready!(self.group.runtime.poll_coop(cx));
        Poll::Ready(Err(error))
    }

    /// [`poll_feed`](Self::poll_feed) for a prepared message, or while the connection is busy.
    #[inline(never)]
    fn poll_feed_slow(&mut self, cx: &mut Context<'_>, message: &Outbound) -> Poll<Result<(), Error>> {
        ready!(self.poll_capacity_for(cx, message.len()))?;
        if let Err(error) = self.queue(message) {
            return self.poll_error(cx, error);
        }
        self.clear_queue_full();
        self.write_if_over_threshold(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    pub(crate) fn write_if_over_threshold(&mut self, cx: &mut Context<'_>) {
        if self.write_queue.len() >= WRITE_EAGERLY_FROM {
            self.carry_counts();
            // If this is pending or fails, the next call continues or reports the failure.
            let _ = self.poll_drain(cx);
        }
    }

    /// Records that a message was dropped although its sender was told that it is queued. The next flush fails.
    pub(crate) fn record_dropped_message(&mut self) {
        self.has_dropped_output = true;
    }

    /// Checks whether messages can still be sent, as far as is known. Otherwise returns the error that
    /// [`queue`](Self::queue) would return.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.check_writable()?;
        match self.connection.state() {
            State::Open => Ok(()),
            _ => Err(self.send_error(SendError::Closed)),
        }
    }

    /// Queues a message, regardless of the limit.
    #[inline]
    pub(crate) fn queue(&mut self, message: &Outbound) -> Result<(), Error> {
        self.queue_unmeasured(message)?;
        if self.busy.is_some() {
            self.start_sample(None);
        }
        Ok(())
    }

    /// [`queue`](Self::queue) for a message whose time in the queue is not measured from now on.
    #[inline]
    pub(super) fn queue_unmeasured(&mut self, message: &Outbound) -> Result<(), Error> {
        match message.prepared() {
            None => self.queue_plain(message),
            Some(prepared) => self.queue_prepared(prepared, message.compress_choice()),
        }
    }

    /// Queues a message that is not prepared, regardless of the limit.
    // [6455-10.3-2]
    #[inline]
    fn queue_plain(&mut self, message: &Outbound) -> Result<(), Error> {
        self.check_writable()?;
        let len = message.plain_len();
        if self.connection.would_compress(len, message.compress_choice()) {
            return self.queue_compressed(message);
        }
        self.queue_uncompressed(message, len)
    }

    #[inline(always)]
    fn queue_uncompressed(&mut self, message: &Outbound, len: usize) -> Result<(), Error> {
        let is_by_reference = len >= BY_REFERENCE_MIN && matches!(self.connection.role(), Role::Server);
        let copied_len = if is_by_reference { 0 } else { len };
        let out = self.write_queue.buffer_for(copied_len, self.group.write_buffer_max);
        match self.connection.start_message(message.kind(), len as u64, out) {
            Ok(Some(key)) => key.append(message.as_slice(), out),
            // A large payload is written from its own memory.
            Ok(None) if is_by_reference => self.write_queue.push_payload(message.payload()),
            Ok(None) => message.append_to(out),
            Err(error) => return Err(self.send_error(error)),
        }
        self.write_queue.messages += 1;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn queue_compressed(&mut self, outgoing: &Outbound) -> Result<(), Error> {
        let (message, len) = (outgoing.to_message(), outgoing.plain_len());
        self.budget.charge_compressed(len.min(PART_LEN));
        let is_begun = if len > PART_LEN {
            self.queue_first_part(message)
        } else {
            let out = self.write_queue.buffer_for(len, self.group.write_buffer_max);
            let sent = self
                .connection
                .send_with(message.data(), outgoing.compress_choice(), out);
            sent.map(|()| true)
        };
        match is_begun {
            Ok(true) => {
                self.write_queue.messages += 1;
                Ok(())
            }
            Ok(false) => self.queue_uncompressed(outgoing, len),
            Err(error) => Err(self.send_error(error)),
        }
    }

    /// Compresses and queues the first part of a message. [`poll_drain`](Self::poll_drain) handles the other parts.
    /// Returns `false` if compression does not make the first part smaller.
    fn queue_first_part(&mut self, message: Message) -> Result<bool, SendError> {
        let mut job = CompressJob::new(message, self.write_queue.end());
        let (first, _) = job.next_part();
        let out = self.write_queue.buffer_for(0, self.group.write_buffer_max);
        let is_begun = self.connection.start_compressed(first, out)?;
        if is_begun {
            self.with_busy_state(|busy| busy.compress_job = Some(job));
        }
        Ok(is_begun)
    }

    /// Queues the next part of the message that is being compressed.
    pub(super) fn queue_part(&mut self) {
        let job = self.busy.as_mut().and_then(|busy| busy.compress_job.as_mut());
        let Some(job) = job else { return };
        let (part, fragment) = job.next_part();
        let len = part.bytes().len();
        let out = self.write_queue.buffer_for(0, self.group.write_buffer_max);
        let sent = self.connection.send_fragment(part, fragment, out);
        if sent.is_err() {
            // The connection has failed or ended.
            self.cancel_compress_job();
        } else if fragment == Fragment::Last {
            self.with_busy_state(|busy| busy.compress_job = None);
        }
        self.budget.charge_compressed(len);
    }

    /// Drops the rest of the message that is being compressed.
    pub(super) fn cancel_compress_job(&mut self) {
        if self.compress_job().is_some() {
            self.with_busy_state(|busy| busy.compress_job = None);
            self.has_dropped_output = true;
        }
    }

    /// Queues a prepared message, regardless of the limit.
    fn queue_prepared(&mut self, prepared: &PreparedMessage, compress: Compress) -> Result<(), Error> {
        if matches!(self.connection.role(), Role::Client { .. }) {
            let message = Outbound::new(prepared.message().clone(), compress);
            return self.queue_plain(&message);
        }
        self.check_writable()?;
        let Frame { info, bytes } = prepared.frame_for(&self.connection, compress, THREAD_CODECS);
        let sent = self.connection.start_framed(prepared.message().data(), *info);
        sent.map_err(|error| self.send_error(error))?;
        if bytes.len() >= BY_REFERENCE_MIN {
            self.write_queue.push_payload(bytes.clone());
        } else {
            let out = self.write_queue.buffer_for(bytes.len(), self.group.write_buffer_max);
            out.extend_from_slice(bytes);
        }
        self.write_queue.messages += 1;
        Ok(())
    }
}
