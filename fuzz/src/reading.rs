//! The oracle of the targets that feed frames to one side of a connection.
//!
//! An input is a byte of choices, a byte that seeds the cuts, and frames. The frames are given to one connection whole
//! and to another in pieces. Both must tell what the naive reader reads, end alike and answer alike; and neither may
//! hold, ask for, or take more steps than the bytes that arrived allow.

use std::sync::Arc;

use sockeye_proto::{CloseCause, Config, Connection, Event, Instant, Limits, MaskingKey, ReceiveMode, Role, State};

use crate::cuts::Cuts;
use crate::frames::{self, Rules};
use crate::memory::Meter;
use crate::trace::Trace;

/// What is held beyond twice of what arrived: a control frame's payload and its pong, a close frame in both directions.
const SMALL: usize = 2048;

/// What may be held beyond the limit.
const SLACK: usize = 64 * 1024;

/// What remains of a connection when its input is over.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: State,
    cause: Option<CloseCause>,
    answer: Vec<u8>,
}

/// The server's side of [`check`].
pub const SERVER: Role = Role::Server;

/// The client's side of [`check`].
pub const CLIENT: Role = Role::Client {
    mask: || MaskingKey([0x11, 0x22, 0x33, 0x44]),
};

/// Runs one input.
///
/// # Panics
/// When the connection is wrong.
pub fn check(role: Role, input: &[u8]) {
    let [choices, seed, wire @ ..] = input else { return };
    let mut limits = Limits::default();
    limits.message_size_max = match choices & 3 {
        0 => limits.message_size_max,
        1 => 20,
        2 => 125,
        _ => 1000,
    };
    if choices & 4 != 0 {
        limits.empty_fragments_max = 2;
    }
    let receive_mode = match choices & 8 {
        0 => ReceiveMode::Whole,
        _ => ReceiveMode::Chunks,
    };
    let rules = Rules {
        masked: matches!(role, Role::Server),
        message_size_max: limits.message_size_max,
        empty_fragments_max: limits.empty_fragments_max,
        tells_unfinished: receive_mode == ReceiveMode::Chunks,
    };
    let mut config = Config::default();
    config.limits = limits;
    let config = Arc::new(config);

    let expected = frames::read(wire, rules);
    let run = |cuts, way| run(role, &config, receive_mode, wire, cuts, way);
    let (whole, whole_end) = run(None, Way::InPlace);
    assert_eq!(whole, expected, "whole, against the naive reader: {rules:?}");
    let (cut, cut_end) = run(Some(Cuts::new(*seed)), Way::InPlace);
    assert_eq!(cut, expected, "cut, against the naive reader: {rules:?}");
    assert_eq!(cut_end, whole_end, "cut, against whole: {rules:?}");
    let (copied, copied_end) = run(Some(Cuts::new(*seed)), Way::Copied);
    assert_eq!(copied, expected, "copied, against the naive reader: {rules:?}");
    assert_eq!(copied_end, whole_end, "copied, against whole: {rules:?}");
}

/// How messages that lie whole in the input are taken out of it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// By `handle_bytes`, unmasked where they are.
    InPlace,
    /// By `find_message`, unmasked while they are copied.
    Copied,
}

fn run(
    role: Role,
    config: &Arc<Config>,
    receive_mode: ReceiveMode,
    wire: &[u8],
    cuts: Option<Cuts>,
    way: Way,
) -> (Trace, End) {
    let mut trace = Trace::with_room_for(wire.len());
    let mut input = wire.to_vec();
    let now = Instant::ORIGIN;
    let meter = Meter::start();
    let mut connection = Connection::new(role, config.clone(), now);
    assert!(connection.set_receive_mode(receive_mode), "nothing has begun");

    let mut cuts = cuts;
    let (mut calls, mut pieces) = (0, 0);
    let mut left = &mut input[..];
    while !left.is_empty() {
        let mut piece = match &mut cuts {
            Some(cuts) => cuts.take(&mut left),
            None => std::mem::take(&mut left),
        };
        pieces += 1;
        loop {
            calls += 1;
            if way == Way::Copied
                && let Some(found) = connection.find_message(now, piece)
                && let Some(payload) = found.to_vec()
            {
                trace.message(found.kind(), &payload);
                let consumed = found.frame_len();
                piece = &mut piece[consumed..];
                continue;
            }
            let len = piece.len();
            let received = connection.handle_bytes(now, piece);
            let consumed = received.consumed;
            let Some(event) = received.event else {
                assert_eq!(consumed, len, "without an event all input is consumed");
                break;
            };
            // A header that is a fault is not consumed; after it everything is, unread.
            let is_for_nothing = consumed == 0 && !matches!(event, Event::ProtocolError(_));
            assert!(!is_for_nothing, "an event for nothing: {event:?}");
            trace.event(&event);
            drop(event);
            // What was consumed has been changed in place; the connection must not look at it again.
            piece = &mut piece[consumed..];
        }
    }
    let held = connection.buffered_len();
    let mut answer = vec![];
    connection.poll_transmit(&mut answer);

    // Linear: a frame has two bytes at least, and brings one event per piece that it lies in.
    let events_max = wire.len() / 2 + 2 * pieces + 1;
    assert!(
        calls <= events_max + pieces,
        "{calls} calls for {} bytes in {pieces} pieces",
        wire.len()
    );
    let (peak, asked) = (meter.peak(), meter.asked());
    let limit = config.limits.message_size_max as usize;
    assert!(peak <= limit + SLACK, "{peak} bytes held with a limit of {limit}");
    assert!(
        peak <= 2 * wire.len() + SMALL,
        "{peak} bytes held of {} that arrived",
        wire.len()
    );
    assert!(held <= peak, "buffered_len says {held}, {peak} were held");
    // Each byte is copied a few times at most: into the message's buffer, which doubles, or into a pong.
    let asked_max = 8 * wire.len() + 64 * calls + SMALL;
    assert!(asked <= asked_max, "{asked} bytes asked for, {} arrived", wire.len());

    let end = End {
        state: connection.state(),
        cause: connection.close_info().map(|close_info| close_info.cause()),
        answer,
    };
    (trace, end)
}
