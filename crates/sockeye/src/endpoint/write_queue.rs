//! Bytes that wait to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use sockeye_proto::frame::HEADER_LEN_MAX;

use super::buffer_pool;
use crate::message::payload::{APPENDED_LEN_MIN, Payload};
use crate::transport::Transport;

/// Payloads of this size or more are written from their own memory instead of being copied behind their header.
pub(super) const BY_REFERENCE_MIN: usize = 16 * 1024;

/// Maximum number of bytes of control frames in the buffer. A peer that sends a burst of pings gets a pong for each. If
/// it does not read them, only its newest ping is answered beyond this limit.
const CONTROL_LEN_MAX: u16 = 2 * 1024;

/// A ping, a pong and a close frame, with 125 bytes of payload each.
const CONTROL_FRAMES_LEN_MAX: usize = 3 * (HEADER_LEN_MAX + 125);

/// Minimum capacity of a new buffer: small, because a broadcast takes one for every connection at once.
const BUFFER_LEN_MIN: usize = 256;

/// Once this many bytes of a buffer are written, the rest is moved to the front, unless the buffer is empty.
const COMPACT_FROM: usize = 32 * 1024;

/// The same threshold before a buffer grows. It is lower because growing copies the bytes anyway, and the capacity is
/// limited to what may be queued.
const COMPACT_BEFORE_GROWING_FROM: usize = 8 * 1024;

/// Maximum number of slices per `writev`.
const SLICES_MAX: usize = 16;

/// Bytes in the order in which they are written: large payloads and the buffers between them, then one buffer.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    /// Segments that are written before `buffer`, if there is a large payload. Boxed, because an idle connection has
    /// none.
    queue: Option<Box<SegmentQueue>>,
    buffer: Vec<u8>,
    /// The number of written bytes of the first segment: the front of `queue`, otherwise the buffer.
    written: usize,
    /// The end of the last control frame, in bytes since the connection began.
    control_end: u64,
    /// Bytes of control frames queued since all earlier ones were written.
    control_len: u16,
    /// Bytes written since the connection began.
    written_total: u64,
    /// The low part of the number of messages that were encoded: see [`Driver::stats`](super::Driver::stats).
    pub(super) messages: u32,
    /// Whether the transport may still buffer bytes that it accepted.
    needs_flush: bool,
}

/// Large payloads, and the buffers before and between them. Never empty.
#[derive(Debug, Default)]
struct SegmentQueue {
    segments: VecDeque<Segment>,
    len: usize,
}

#[derive(Debug)]
enum Segment {
    /// The content of the buffer when a large payload was queued behind it.
    Buffer(Vec<u8>),
    /// A large payload, or a complete frame with one.
    Payload(Payload),
}

impl WriteQueue {
    /// The number of bytes that wait to be written.
    pub(super) fn len(&self) -> usize {
        let queued = self.queue.as_ref().map_or(0, |queue| queue.len);
        queued + self.buffer.len() - self.written
    }

    /// Bytes written since the connection began.
    pub(super) fn written_total(&self) -> u64 {
        self.written_total
    }

    /// The value of [`written_total`](Self::written_total) once everything queued now is written.
    pub(super) fn end(&self) -> u64 {
        self.written_total + self.len() as u64
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.is_empty() && !self.needs_flush
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.queue.is_none()
    }

    /// The buffer to append frames to.
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = buffer_pool::take_write();
        }
        &mut self.buffer
    }

    /// The buffer to append frames to, with room for a frame with a payload of `payload_len` bytes.
    #[inline]
    pub(super) fn buffer_for(&mut self, payload_len: usize, write_buffer_max: usize) -> &mut Vec<u8> {
        let buffer = self.buffer();
        let needed = payload_len.max(APPENDED_LEN_MIN).saturating_add(HEADER_LEN_MAX);
        if needed > buffer.capacity() - buffer.len() {
            self.make_room(needed, write_buffer_max);
        }
        &mut self.buffer
    }

    #[cold]
    fn make_room(&mut self, needed: usize, write_buffer_max: usize) {
        // Make room by removing written bytes before growing.
        if self.queue.is_none() && self.written >= COMPACT_BEFORE_GROWING_FROM {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
        let needed = self.buffer.len().saturating_add(needed);
        if needed > self.buffer.capacity() {
            grow(&mut self.buffer, needed, write_buffer_max);
        }
    }

    /// Calls `append` to append at most one control frame of each kind, if there is room for them.
    pub(super) fn append_control(&mut self, write_buffer_max: usize, append: impl FnOnce(&mut Vec<u8>)) {
        if self.control_len >= CONTROL_LEN_MAX {
            return;
        }
        let buffer = self.buffer_for(CONTROL_FRAMES_LEN_MAX, write_buffer_max);
        let before = buffer.len();
        append(buffer);
        self.control_len += (self.buffer.len() - before) as u16;
        self.control_end = self.end();
    }

    /// Whether the last control frame has been written since the previous call.
    #[inline]
    pub(super) fn take_control_written(&mut self) -> bool {
        let is_written = self.control_len > 0 && self.control_end <= self.written_total;
        if is_written {
            self.control_len = 0;
        }
        is_written
    }

    /// Queues a large payload behind the buffer's content, without a copy.
    pub(super) fn push_payload(&mut self, payload: Payload) {
        let queue = self.queue.get_or_insert_default();
        if !self.buffer.is_empty() {
            queue.push(Segment::Buffer(std::mem::take(&mut self.buffer)));
        }
        queue.push(Segment::Payload(payload));
    }

    /// Returns the buffer to the pool if it is empty.
    pub(super) fn release(&mut self) {
        if self.buffer.is_empty() {
            buffer_pool::return_write(std::mem::take(&mut self.buffer));
        }
    }

    /// Drops all queued bytes.
    pub(super) fn clear(&mut self) {
        buffer_pool::return_write(std::mem::take(&mut self.buffer));
        *self = self.without_content();
    }

    /// An empty queue with the same counters.
    pub(super) fn without_content(&self) -> Self {
        Self {
            written_total: self.written_total,
            messages: self.messages,
            ..Self::default()
        }
    }

    /// Writes until the transport has taken everything. [`written_total`](Self::written_total) says whether it has taken
    /// anything, also if this is pending.
    pub(super) fn poll_write(&mut self, io: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write_some(io, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.needs_flush = true;
            self.advance(written);
        }
        if self.needs_flush {
            ready!(io.poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some(&self, io: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(queue) = &self.queue else {
            return io.poll_write(cx, &self.buffer[self.written..]);
        };
        let segments = queue
            .segments
            .iter()
            .map(Segment::bytes)
            .chain([self.buffer.as_slice()]);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut len = 0;
        for (slice, bytes) in slices.iter_mut().zip(segments) {
            let unwritten = if len == 0 { &bytes[self.written..] } else { bytes };
            *slice = IoSlice::new(unwritten);
            len += 1;
        }
        io.poll_write_vectored(cx, &slices[..len])
    }

    /// Writes what the transport takes, even if the runtime does not know that it is writable. Returns the number of
    /// written bytes.
    #[cold]
    pub(super) fn try_write(&mut self, io: &Transport) -> usize {
        let mut total = 0;
        while !self.is_empty() {
            let bytes = match &self.queue {
                Some(queue) => queue.segments.front().map_or(&[][..], Segment::bytes),
                None => &self.buffer,
            };
            let written = io.try_write(&bytes[self.written..]);
            if written == 0 {
                break;
            }
            total += written;
            self.needs_flush = true;
            self.advance(written);
        }
        total
    }

    fn advance(&mut self, written: usize) {
        self.written_total += written as u64;
        self.written += written;
        while let Some(queue) = &mut self.queue {
            match queue.pop(self.written) {
                Some(segment_len) => self.written -= segment_len,
                None if queue.segments.is_empty() => self.queue = None,
                None => return,
            }
        }
        if self.written == self.buffer.len() {
            buffer_pool::return_write(std::mem::take(&mut self.buffer));
            self.written = 0;
        } else if self.written >= COMPACT_FROM && self.written >= self.buffer.len() / 2 {
            // If output is queued as fast as it is written, the buffer never becomes empty. Each byte moved here is
            // paid for by at least one byte written.
            self.buffer.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Grows by doubling as `Vec` does, but not beyond what may be queued plus the control frames behind it, because the
/// peer decides how much is queued.
fn grow(buffer: &mut Vec<u8>, needed: usize, write_buffer_max: usize) {
    let room_max = write_buffer_max.saturating_add(HEADER_LEN_MAX + usize::from(CONTROL_LEN_MAX));
    let doubled = (2 * buffer.capacity()).max(BUFFER_LEN_MIN).min(room_max);
    buffer.reserve_exact(needed.max(doubled) - buffer.len());
}

impl SegmentQueue {
    fn push(&mut self, segment: Segment) {
        self.len += segment.bytes().len();
        self.segments.push_back(segment);
    }

    /// Drops the first segment if `written` bytes are all of it. Returns its length.
    fn pop(&mut self, written: usize) -> Option<usize> {
        let segment_len = self.segments.front()?.bytes().len();
        if written < segment_len {
            return None;
        }
        self.len -= segment_len;
        if let Some(Segment::Buffer(buffer)) = self.segments.pop_front() {
            buffer_pool::return_write(buffer);
        }
        Some(segment_len)
    }
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Buffer(buffer) => buffer,
            Self::Payload(payload) => payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use sockeye_proto::Compress;

    use super::*;
    use crate::message::Message;
    use crate::message::outbound::Outbound;

    const WRITE_BUFFER_MAX: usize = 100 * 1024;

    #[test]
    fn buffer_capacity_is_limited_to_the_queue_limit() {
        let message = Outbound::new(Message::text("12345"), Compress::Auto);
        let mut queue = WriteQueue::default();
        while queue.len() + 7 <= WRITE_BUFFER_MAX {
            let out = queue.buffer_for(message.len(), WRITE_BUFFER_MAX);
            out.extend_from_slice(&[0x81, 5]);
            message.append_to(out);
        }
        for _ in 0..100 {
            queue.append_control(WRITE_BUFFER_MAX, |out| out.extend_from_slice(&[0; 127]));
        }
        let room = queue.buffer.capacity();
        let control_len = usize::from(CONTROL_LEN_MAX) + CONTROL_FRAMES_LEN_MAX;
        assert!(room <= WRITE_BUFFER_MAX + HEADER_LEN_MAX + control_len, "{room}");
    }

    #[test]
    fn pong_behind_large_message_grows_buffer_only_for_itself() {
        let len = 10 * WRITE_BUFFER_MAX;
        let mut queue = WriteQueue::default();
        let out = queue.buffer_for(len, WRITE_BUFFER_MAX);
        out.resize(HEADER_LEN_MAX + len, 0);
        queue.append_control(WRITE_BUFFER_MAX, |out| out.extend_from_slice(&[0x8a, 0]));
        let room = queue.buffer.capacity();
        assert!(room <= len + 2 * HEADER_LEN_MAX + CONTROL_FRAMES_LEN_MAX, "{room}");
    }
}
