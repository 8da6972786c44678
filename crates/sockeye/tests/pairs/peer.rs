//! The peers of the pair table: raw frames over the other end of a [`Link`], scripted for each kind. They share no code
//! with the crate under test.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::common::link::Link;

/// Bytes per second that a slow peer reads and writes.
pub(crate) const SLOW_RATE: usize = 4 * 1024;

/// How much a slow peer reads or writes at once.
const SLOW_STEP: usize = 512;

/// Payload sizes of the peer's messages, in rotation.
const SIZES: [usize; 4] = [20, 900, 5000, 300];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKind {
    /// Reads and writes without delay; answers our close frame after two more messages.
    Fast,
    /// Like `Fast`, at [`SLOW_RATE`] in each direction.
    Slow,
    /// Never reads or writes.
    Silent,
    /// Sends messages and a close frame, then reads until the end.
    Closing(Option<u16>, Moment),
    /// Sends messages and a close frame, but never reads.
    ClosingDeaf,
    /// Sends messages and closes its socket.
    Gone(Moment),
    /// Sends messages and resets the connection.
    Reset(Moment),
    /// Sends messages, shuts down its sending direction without a close frame, reads until the end.
    HalfGone(Moment),
}

/// When the peer acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    /// Before the first call.
    Early,
    /// While the calls run.
    Midway,
}

pub(crate) const PEERS: [PeerKind; 16] = [
    PeerKind::Fast,
    PeerKind::Slow,
    PeerKind::Silent,
    PeerKind::Closing(Some(1000), Moment::Early),
    PeerKind::Closing(Some(1000), Moment::Midway),
    PeerKind::Closing(Some(4001), Moment::Early),
    PeerKind::Closing(Some(4001), Moment::Midway),
    PeerKind::Closing(None, Moment::Early),
    PeerKind::Closing(None, Moment::Midway),
    PeerKind::ClosingDeaf,
    PeerKind::Gone(Moment::Early),
    PeerKind::Gone(Moment::Midway),
    PeerKind::Reset(Moment::Early),
    PeerKind::Reset(Moment::Midway),
    PeerKind::HalfGone(Moment::Early),
    PeerKind::HalfGone(Moment::Midway),
];

impl PeerKind {
    /// Whether the peer reads everything that reaches its socket.
    pub(crate) fn reads_to_the_end(self) -> bool {
        matches!(self, Self::Fast | Self::Slow | Self::Closing(..) | Self::HalfGone(_))
    }

    /// Whether the peer performs the closing handshake.
    pub(crate) fn is_orderly(self) -> bool {
        matches!(self, Self::Fast | Self::Slow | Self::Closing(..))
    }

    fn reads(self) -> bool {
        !matches!(self, Self::Silent | Self::ClosingDeaf)
    }

    fn script(self) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        let moment = match self {
            Self::Fast | Self::Slow => {
                steps.extend([
                    Step::Messages(8),
                    Step::AwaitClose,
                    Step::Messages(2),
                    Step::Close(Some(1000)),
                ]);
                steps.extend([Step::Shutdown, Step::AwaitEnd]);
                return steps;
            }
            Self::Silent => return steps,
            Self::ClosingDeaf => Moment::Midway,
            Self::Closing(_, moment) | Self::Gone(moment) | Self::Reset(moment) | Self::HalfGone(moment) => moment,
        };
        steps.push_back(Step::Messages(4));
        if moment == Moment::Midway {
            steps.extend([Step::Pause(Duration::from_millis(300)), Step::Messages(4)]);
        }
        match self {
            Self::Closing(code, _) => {
                steps.extend([Step::Close(code), Step::AwaitClose, Step::Shutdown, Step::AwaitEnd]);
            }
            Self::ClosingDeaf => steps.push_back(Step::Close(Some(1000))),
            Self::Gone(_) => steps.push_back(Step::Drop),
            Self::Reset(_) => steps.push_back(Step::Reset),
            Self::HalfGone(_) => steps.extend([Step::Shutdown, Step::AwaitEnd]),
            Self::Fast | Self::Slow | Self::Silent => unreachable!("returned above"),
        }
        steps
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Messages(usize),
    Pause(Duration),
    /// Waits for a close frame or the end of the input.
    AwaitClose,
    /// Waits for the end of the input.
    AwaitEnd,
    Close(Option<u16>),
    Shutdown,
    Drop,
    Reset,
}

/// What a peer has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The received messages: their sender and number.
    pub(crate) messages: Vec<(char, usize)>,
    /// The codes of the received close frames; 1005 if one has none.
    pub(crate) closes: Vec<u16>,
    pub(crate) pings: usize,
    /// Anything that should never arrive.
    pub(crate) faults: Vec<String>,
    /// The number of messages that the peer's socket took.
    pub(crate) sent: usize,
    /// Whether the end of the input was seen.
    pub(crate) is_ended: bool,
    /// Whether the script was completed.
    pub(crate) is_done: bool,
}

pub(crate) struct Peer {
    link: Option<Link>,
    kind: PeerKind,
    report: Arc<Mutex<Report>>,
    script: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    incoming: Vec<u8>,
    is_closed_by_us: bool,
    outgoing: Vec<u8>,
    written: usize,
    /// The ends of messages in `outgoing`.
    ends: VecDeque<usize>,
    next_message: usize,
    read_pause: Option<Pin<Box<Sleep>>>,
    write_pause: Option<Pin<Box<Sleep>>>,
    masks: bool,
}

/// The payload of a message: its sender, its number, and padding that depends on the number.
pub(crate) fn payload(tag: char, number: usize, len: usize) -> Vec<u8> {
    let mut payload = format!("{tag}{number}:").into_bytes();
    payload.resize(payload.len().max(len), padding(number));
    payload
}

fn padding(number: usize) -> u8 {
    b'a' + (number % 26) as u8
}

/// The sender and number of a message, if it is intact.
pub(crate) fn parse(payload: &[u8], size_of: impl Fn(usize) -> usize) -> Option<(char, usize)> {
    let colon = payload.iter().take(16).position(|byte| *byte == b':')?;
    let number: usize = std::str::from_utf8(&payload[1..colon]).ok()?.parse().ok()?;
    let padding = padding(number);
    let is_whole = payload.len() == size_of(number).max(colon + 1)
        && payload
            .len()
            .checked_sub(1)
            .is_some_and(|last| last == colon || payload[last] == padding)
        && (colon + 1 >= payload.len() || payload[(colon + 1 + payload.len()) / 2] == padding);
    is_whole.then_some((char::from(payload[0]), number))
}

/// The size of the peer's message with this number.
pub(crate) fn size_of(number: usize) -> usize {
    SIZES[number % SIZES.len()]
}

impl Peer {
    /// `masks` if the peer is a client.
    pub(crate) fn new(link: Link, kind: PeerKind, masks: bool, report: Arc<Mutex<Report>>) -> Self {
        Self {
            link: Some(link),
            kind,
            report,
            script: kind.script(),
            pause: None,
            incoming: Vec::new(),
            is_closed_by_us: false,
            outgoing: Vec::new(),
            written: 0,
            ends: VecDeque::new(),
            next_message: 0,
            read_pause: None,
            write_pause: None,
            masks,
        }
    }

    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        if self.kind.reads() {
            self.report.lock().unwrap().is_done = true;
        } else {
            // Keeps the socket open and does nothing.
            std::future::pending::<()>().await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let has_read = self.poll_read(cx).is_ready();
            let has_written = self.poll_write(cx).is_ready();
            let has_stepped = self.outgoing.len() == self.written && self.poll_step(cx).is_ready();
            if self.link.is_none() || (self.script.is_empty() && self.outgoing.len() == self.written) {
                return Poll::Ready(());
            }
            if !(has_read || has_written || has_stepped) {
                return Poll::Pending;
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(step) = self.script.front().copied() else {
            return Poll::Pending;
        };
        let is_ended = self.report.lock().unwrap().is_ended;
        match step {
            Step::Messages(count) => {
                for _ in 0..count {
                    let number = self.next_message;
                    self.next_message += 1;
                    let payload = payload('p', number, size_of(number));
                    self.push_frame(if number.is_multiple_of(2) { 1 } else { 2 }, &payload);
                    self.ends.push_back(self.outgoing.len());
                }
            }
            Step::Pause(duration) => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(duration)));
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            Step::AwaitClose if !self.is_closed_by_us && !is_ended => return Poll::Pending,
            Step::AwaitEnd if !is_ended => return Poll::Pending,
            Step::AwaitClose | Step::AwaitEnd => {}
            Step::Close(code) => {
                let payload = code.map(u16::to_be_bytes);
                self.push_frame(8, payload.as_ref().map_or(&[], |code| &code[..]));
            }
            Step::Shutdown => {
                if let Some(link) = &mut self.link {
                    let _ = Pin::new(link).poll_shutdown(cx);
                }
            }
            Step::Drop => self.link = None,
            Step::Reset => {
                if let Some(link) = self.link.take() {
                    link.reset();
                }
            }
        }
        self.script.pop_front();
        Poll::Ready(())
    }

    fn push_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mask = u8::from(self.masks) << 7;
        self.outgoing.push(0x80 | opcode);
        match payload.len() {
            len @ 0..=125 => self.outgoing.push(mask | len as u8),
            len => {
                self.outgoing.push(mask | 126);
                self.outgoing.extend((len as u16).to_be_bytes());
            }
        }
        if self.masks {
            // A valid key that does not change the payload.
            self.outgoing.extend([0; 4]);
        }
        self.outgoing.extend(payload);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outgoing.len() == self.written || is_paused(&mut self.write_pause, cx) {
            return Poll::Pending;
        }
        let Some(link) = &mut self.link else {
            return Poll::Pending;
        };
        let rest = &self.outgoing[self.written..];
        let rest = match self.kind {
            PeerKind::Slow => &rest[..rest.len().min(SLOW_STEP)],
            _ => rest,
        };
        match Pin::new(link).poll_write(cx, rest) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(len)) => {
                self.written += len;
                self.slow_down(len, |peer| &mut peer.write_pause);
                while self.ends.front().is_some_and(|end| *end <= self.written) {
                    self.ends.pop_front();
                    self.report.lock().unwrap().sent += 1;
                }
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => {
                // The other side has closed its socket. What has arrived is still read.
                self.ends.clear();
                self.written = self.outgoing.len();
                Poll::Ready(())
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.kind.reads() || self.report.lock().unwrap().is_ended || is_paused(&mut self.read_pause, cx) {
            return Poll::Pending;
        }
        let Some(link) = &mut self.link else {
            return Poll::Pending;
        };
        let mut block = [0; 4096];
        let len_max = if self.kind == PeerKind::Slow {
            SLOW_STEP
        } else {
            block.len()
        };
        let mut buf = ReadBuf::new(&mut block[..len_max]);
        match Pin::new(link).poll_read(cx, &mut buf) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.incoming.extend(buf.filled());
                let len = buf.filled().len();
                self.slow_down(len, |peer| &mut peer.read_pause);
                self.take_frames();
            }
            Poll::Ready(end) => {
                let mut report = self.report.lock().unwrap();
                report.is_ended = true;
                if !self.incoming.is_empty() && self.kind.is_orderly() && end.is_ok() {
                    report
                        .faults
                        .push(format!("{} bytes of a cut frame", self.incoming.len()));
                }
            }
        }
        Poll::Ready(())
    }

    fn slow_down(&mut self, len: usize, pause: impl FnOnce(&mut Self) -> &mut Option<Pin<Box<Sleep>>>) {
        if self.kind == PeerKind::Slow {
            let millis = (len * 1000 / SLOW_RATE).max(1);
            *pause(self) = Some(Box::pin(sleep(Duration::from_millis(millis as u64))));
        }
    }

    fn take_frames(&mut self) {
        let mut start = 0;
        while let Some((len, opcode, payload)) = self.frame_at(start) {
            start += len;
            self.take_frame(opcode, &payload);
        }
        self.incoming.drain(..start);
    }

    /// The length of the complete frame at `start`, its opcode, and its payload. The middle of a long payload stays
    /// masked.
    fn frame_at(&self, start: usize) -> Option<(usize, u8, Vec<u8>)> {
        let bytes = &self.incoming[start..];
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = bytes.get(2..2 + extended)?;
        let len = match extended {
            0 => usize::from(second & 0x7f),
            _ => head.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
        };
        let is_masked = second & 0x80 != 0;
        let begin = 2 + extended + if is_masked { 4 } else { 0 };
        let mut payload = bytes.get(begin..begin + len)?.to_vec();
        if is_masked == self.masks || first & 0xf0 != 0x80 {
            self.report
                .lock()
                .unwrap()
                .faults
                .push(format!("frame {first:#x} {second:#x}"));
        }
        if is_masked {
            let key = &bytes[begin - 4..begin];
            let colon = payload
                .iter()
                .zip(key.iter().cycle())
                .take(16)
                .position(|(byte, key)| byte ^ key == b':');
            let middle = (colon.unwrap_or(0) + 1 + len) / 2;
            for (at, byte) in payload.iter_mut().enumerate().take(128.min(len)) {
                *byte ^= key[at % 4];
            }
            for at in [middle, len.saturating_sub(1)] {
                if at >= 128 {
                    payload[at] ^= key[at % 4];
                }
            }
        }
        Some((begin + len, first & 0xf, payload))
    }

    fn take_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut report = self.report.lock().unwrap();
        if !report.closes.is_empty() {
            report.faults.push(format!("a frame {opcode:#x} after the close frame"));
        }
        match opcode {
            1 | 2 => match parse(payload, crate::op::size_of) {
                Some((tag, number)) if (opcode == 1) == number.is_multiple_of(2) => report.messages.push((tag, number)),
                _ => {
                    let start = String::from_utf8_lossy(&payload[..payload.len().min(16)]);
                    report
                        .faults
                        .push(format!("a message of {} bytes: {start:?}", payload.len()));
                }
            },
            8 => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                report.closes.push(code);
                self.is_closed_by_us = true;
            }
            9 => {
                report.pings += 1;
                drop(report);
                let is_closing = !self.script.iter().any(|step| matches!(step, Step::Close(_)));
                if self.kind.is_orderly() && !is_closing {
                    self.push_frame(10, payload);
                }
            }
            10 => {}
            _ => report.faults.push(format!("opcode {opcode:#x}")),
        }
    }
}

fn is_paused(pause: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    let is_paused = pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending());
    if !is_paused {
        *pause = None;
    }
    is_paused
}
