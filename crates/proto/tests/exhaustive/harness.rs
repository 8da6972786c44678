//! Runs inputs through connections, compares the outcome with the model, counts, and distributes work over threads.

use std::io::Write as _;
use std::ops::{Add, AddAssign};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant as Clock;

use sockeye_proto::{
    CloseCause, Config, Connection, Event, Instant, MaskingKey, MessageKind, ProtocolError, ReceiveMode, Role, State,
    TransportAction,
};

use crate::frame::{Frame, Local};
use crate::model::{Delivered, End, Expected, Limits, Rule};

/// How much of a family to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A part that takes a second in debug mode.
    Small,
    /// Everything.
    Whole,
}

/// Number of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Distinct inputs: a role with the bytes from its peer or the arguments of a call.
    pub(crate) inputs: u64,
    /// Runs of split inputs, in addition to the run of each in one piece.
    pub(crate) splits: u64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            inputs: self.inputs + other.inputs,
            splits: self.splits + other.splits,
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Runs `work` for each number below `part_count` on all CPUs and adds the counts.
pub(crate) fn in_parallel(part_count: u32, work: impl Fn(u32) -> Count + Sync) -> Count {
    let next = AtomicU32::new(0);
    let take_parts = || {
        let mut count = Count::default();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= part_count {
                return count;
            }
            count += work(part);
        }
    };
    let thread_count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..thread_count).map(|_| scope.spawn(take_parts)).collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().expect("a worker failed"));
        counts.fold(Count::default(), Add::add)
    })
}

/// Runs a family, prints its counts, and checks that all of it was run.
pub(crate) fn timed(name: &str, expected: Count, family: impl FnOnce() -> Count) -> Count {
    let begin = Clock::now();
    let count = family();
    print_line(name, count, begin.elapsed().as_secs_f64());
    assert_eq!(count, expected, "{name}");
    count
}

/// Prints a line that the test harness does not capture.
pub(crate) fn print_line(name: &str, Count { inputs, splits }: Count, seconds: f64) {
    let line = format!("{name:<12} {inputs:>12} inputs {splits:>12} splits {seconds:>8.1} s\n");
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// A configuration with these limits and no keepalive.
pub(crate) fn config(limits: Limits) -> Arc<Config> {
    let mut config = Config::default();
    config.limits.message_size_max = limits.message_size_max;
    config.limits.empty_fragments_max = limits.empty_fragments_max;
    config.keepalive = None;
    Arc::new(config)
}

/// Passes inputs to new connections. Reuses its buffers.
#[derive(Default)]
pub(crate) struct Checker {
    receive_mode: ReceiveMode,
    input: Vec<u8>,
    /// The message whose chunks are being delivered.
    chunks: Option<Vec<u8>>,
    out: Vec<u8>,
    answer: Vec<u8>,
}

impl Checker {
    /// Receives messages in chunks and joins them.
    pub(crate) fn in_chunks() -> Self {
        Self {
            receive_mode: ReceiveMode::Chunks,
            ..Self::default()
        }
    }

    /// Passes `wire`, split at `cuts`, to a new connection and checks the outcome.
    pub(crate) fn check(
        &mut self,
        local: Local,
        config: &Arc<Config>,
        wire: &[u8],
        cuts: &[usize],
        expected: &Expected,
    ) {
        if let Err(wrong) = self.run(local, config, wire, cuts, expected) {
            panic!("{local:?} receives {wire:02x?} split at {cuts:?}: {wrong}; expected {expected:?}");
        }
    }

    /// Checks the input in one piece and split at every position in its first 64 bytes. Returns the number of splits.
    pub(crate) fn check_cut_in_two(
        &mut self,
        local: Local,
        config: &Arc<Config>,
        wire: &[u8],
        expected: &Expected,
    ) -> u64 {
        self.check(local, config, wire, &[], expected);
        let cuts = 1..wire.len().min(64);
        let count = cuts.len() as u64;
        cuts.for_each(|cut| self.check(local, config, wire, &[cut], expected));
        count
    }

    fn run(
        &mut self,
        local: Local,
        config: &Arc<Config>,
        wire: &[u8],
        cuts: &[usize],
        expected: &Expected,
    ) -> Result<(), String> {
        let role = match local {
            Local::Server => Role::Server,
            Local::Client => Role::Client { mask: no_mask },
        };
        let mut connection = Connection::new(role, config.clone(), Instant::ORIGIN);
        connection.set_receive_mode(self.receive_mode);
        self.input.clear();
        self.input.extend_from_slice(wire);
        self.chunks = None;
        let mut delivered = expected.delivered.iter();
        let mut error = None;
        let mut begin = 0;
        for end in cuts.iter().copied().chain([wire.len()]) {
            let mut piece = &mut self.input[begin..end];
            begin = end;
            loop {
                let piece_len = piece.len();
                // The fast path must agree. Once is enough, because it only applies to complete messages.
                let found = connection
                    .recognize_message(Instant::ORIGIN, piece)
                    .filter(|_| cuts.is_empty())
                    .map(|found| (found.kind(), found.frame_len(), found.to_vec()));
                let received = connection.handle_bytes(Instant::ORIGIN, piece);
                let consumed = received.consumed;
                if let Some((kind, frame_len, payload)) = found {
                    let event = match payload {
                        Some(payload) => Event::Message {
                            kind,
                            payload: payload.into(),
                        },
                        None => Event::ProtocolError(ProtocolError::InvalidUtf8),
                    };
                    if (frame_len, Some(&event)) != (consumed, received.event.as_ref()) {
                        return Err(format!("{event:?} by the short way"));
                    }
                }
                match received.event {
                    None if consumed == piece_len => break,
                    None => return Err("not all is consumed".into()),
                    Some(event) if error.is_some() => return Err(format!("{event:?} after the error")),
                    Some(Event::ProtocolError(found)) => error = Some(found),
                    Some(Event::Chunk {
                        kind,
                        data,
                        first,
                        last,
                    }) => {
                        let message = append(&mut self.chunks, data, first, last)?;
                        let is_right = message.is_none_or(|message| {
                            let payload = message.into();
                            let event = Event::Message { kind, payload };
                            delivered.next().is_some_and(|expected| is_same(&event, expected))
                        });
                        if !is_right {
                            return Err("another message in chunks".into());
                        }
                    }
                    Some(event) => {
                        let is_right = delivered.next().is_some_and(|expected| is_same(&event, expected));
                        if !is_right {
                            return Err(format!("{event:?}"));
                        }
                    }
                }
                piece = &mut piece[consumed..];
            }
        }
        if let Some(missing) = delivered.next() {
            return Err(format!("{missing:?} is missing, the error is {error:?}"));
        }
        // Memory is bounded by received bytes: twice a message, a split control frame, the minimum capacity of a
        // vector.
        let held = connection.buffered_len();
        if held > 2 * wire.len() + 16 {
            return Err(format!("{held} bytes are held"));
        }
        self.check_end(local, &mut connection, error, &expected.end)
    }

    fn check_end(
        &mut self,
        local: Local,
        connection: &mut Connection,
        error: Option<ProtocolError>,
        end: &End,
    ) -> Result<(), String> {
        self.out.clear();
        self.answer.clear();
        connection.poll_transmit(&mut self.out);
        let (state, transport) = (connection.state(), connection.transport_action());
        let cause = connection.close_info().map(|closure| closure.cause());
        let is_right = match (end, error) {
            (End::Open(pong), None) => {
                if let Some(payload) = pong {
                    self.expect_answer(local, 0xa, payload);
                }
                self.out == self.answer && (state, transport, cause) == (State::Open, TransportAction::Open, None)
            }
            (End::Closed(code), None) => {
                // RFC 6455 §5.5.1: the code is echoed. §7.1.1: the server closes TCP.
                let body = code.to_be_bytes();
                self.expect_answer(local, 0x8, if *code == 1005 { &[] } else { &body });
                let next = match local {
                    Local::Server => TransportAction::HalfClose,
                    Local::Client => TransportAction::Open,
                };
                self.out == self.answer && (state, transport, cause) == (State::Draining, next, Some(CloseCause::Peer))
            }
            (End::Failed(rules), Some(error)) => {
                let rule = rule_of(error);
                let mut body = rule.close_code().to_be_bytes().to_vec();
                body.extend_from_slice(error.reason().as_bytes());
                self.expect_answer(local, 0x8, &body);
                rules.contains(rule)
                    && self.out == self.answer
                    && (state, transport) == (State::Draining, TransportAction::HalfClose)
                    && cause == Some(CloseCause::ProtocolError(error))
                    && connection.buffered_len() == 0
            }
            _ => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(format!("{error:?}, {state:?}, {transport:?}, sends {:02x?}", self.out)),
        }
    }

    /// Expects one sent frame. A client masks it with zeros, which do not change the payload.
    fn expect_answer(&mut self, local: Local, opcode: u8, payload: &[u8]) {
        let mask_bit = match local {
            Local::Server => 0,
            Local::Client => 0x80,
        };
        self.answer
            .extend_from_slice(&[0x80 | opcode, mask_bit | payload.len() as u8]);
        if local == Local::Client {
            self.answer.extend_from_slice(&[0; 4]);
        }
        self.answer.extend_from_slice(payload);
    }
}

/// Encodes several frames.
pub(crate) fn wire_of<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<u8> {
    let mut wire = Vec::new();
    frames.into_iter().for_each(|frame| frame.append_to(&mut wire));
    wire
}

/// Appends a chunk. Returns the message if the chunk is the last.
fn append(chunks: &mut Option<Vec<u8>>, data: &[u8], first: bool, last: bool) -> Result<Option<Vec<u8>>, String> {
    if first != chunks.is_none() {
        return Err("a chunk is the first if none was before, and else not".into());
    }
    chunks.get_or_insert_default().extend_from_slice(data);
    Ok(chunks.take_if(|_| last))
}

fn no_mask() -> MaskingKey {
    MaskingKey([0; 4])
}

fn is_same(event: &Event<'_>, expected: &Delivered) -> bool {
    match (event, expected) {
        (Event::Message { kind, payload }, Delivered::Text(text)) => *kind == MessageKind::Text && **payload == **text,
        (Event::Message { kind, payload }, Delivered::Binary(bytes)) => {
            *kind == MessageKind::Binary && **payload == **bytes
        }
        (Event::Ping(payload), Delivered::Ping(expected)) | (Event::Pong(payload), Delivered::Pong(expected)) => {
            payload == expected
        }
        (Event::Close(frame), Delivered::Close(code, reason)) => {
            frame.code.0 == *code && frame.reason.as_bytes() == &reason[..]
        }
        _ => false,
    }
}

/// Maps an error to the rule in the model. Panics if there is none.
fn rule_of(error: ProtocolError) -> Rule {
    match error {
        ProtocolError::ReservedBits => Rule::ReservedBits,
        ProtocolError::ReservedOpcode(_) => Rule::ReservedOpcode,
        ProtocolError::UnmaskedFrame => Rule::Unmasked,
        ProtocolError::MaskedFrame => Rule::Masked,
        ProtocolError::NonMinimalLength => Rule::LengthNotShortest,
        ProtocolError::LengthOverflow => Rule::LengthTopBit,
        ProtocolError::FragmentedControl => Rule::ControlFragmented,
        ProtocolError::OversizedControl => Rule::ControlTooLong,
        ProtocolError::UnexpectedContinuation => Rule::NothingToContinue,
        ProtocolError::ExpectedContinuation => Rule::MessageNotFinished,
        ProtocolError::TruncatedCloseCode => Rule::CloseBodyOfOneByte,
        ProtocolError::InvalidCloseCode(_) => Rule::CloseCode,
        ProtocolError::InvalidUtf8 => Rule::NotUtf8,
        ProtocolError::TooManyEmptyFragments => Rule::TooManyEmptyFragments,
        ProtocolError::MessageTooBig => Rule::MessageTooBig,
        other => panic!("the model does not know {other:?}"),
    }
}
