//! The oracle of the targets that pass frames to one side of a connection.
//!
//! An input consists of a byte of options, a byte that seeds the splits, and frames. The frames are passed to one
//! connection at once and to another in pieces. Both must report the events of the reference decoder and have the same
//! final state and answer, and memory, allocations and calls must be bounded by the number of received bytes.

use std::sync::Arc;

use sockeye_proto::{CloseCause, Config, Connection, Event, Instant, Limits, MaskingKey, ReceiveMode, Role, State};

use crate::cuts::Cuts;
use crate::frames::{self, Rules};
use crate::memory::Meter;
use crate::trace::Trace;

/// Memory allowed beyond twice the received bytes: the payload of a control frame, its pong, and two close frames.
const SMALL: usize = 2048;

/// Memory allowed beyond the message size limit.
const SLACK: usize = 64 * 1024;

/// The final state of a connection.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: State,
    cause: Option<CloseCause>,
    answer: Vec<u8>,
}

/// The server role for [`check`].
pub const SERVER: Role = Role::Server;

/// The client role for [`check`].
pub const CLIENT: Role = Role::Client {
    mask: || MaskingKey([0x11, 0x22, 0x33, 0x44]),
};

/// Runs one input.
///
/// # Panics
///
/// If the connection behaves incorrectly.
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
        reports_unfinished: receive_mode == ReceiveMode::Chunks,
    };
    let mut config = Config::default();
    config.limits = limits;
    let config = Arc::new(config);

    let expected = frames::read(wire, rules);
    let run = |cuts, method| run(role, &config, receive_mode, wire, cuts, method);
    let (whole, whole_end) = run(None, Method::InPlace);
    assert_eq!(whole, expected, "in one piece, compared with the reference: {rules:?}");
    let (cut, cut_end) = run(Some(Cuts::new(*seed)), Method::InPlace);
    assert_eq!(cut, expected, "split, compared with the reference: {rules:?}");
    assert_eq!(cut_end, whole_end, "split, compared with one piece: {rules:?}");
    let (copied, copied_end) = run(Some(Cuts::new(*seed)), Method::Copied);
    assert_eq!(copied, expected, "fast path, compared with the reference: {rules:?}");
    assert_eq!(copied_end, whole_end, "fast path, compared with one piece: {rules:?}");
}

/// How complete messages are received.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    /// With `handle_bytes`, unmasked in place.
    InPlace,
    /// With `recognize_message`, unmasked while copying.
    Copied,
}

fn run(
    role: Role,
    config: &Arc<Config>,
    receive_mode: ReceiveMode,
    wire: &[u8],
    cuts: Option<Cuts>,
    method: Method,
) -> (Trace, End) {
    let mut trace = Trace::with_room_for(wire.len());
    let mut input = wire.to_vec();
    let now = Instant::ORIGIN;
    let meter = Meter::start();
    let mut connection = Connection::new(role, config.clone(), now);
    assert!(connection.set_receive_mode(receive_mode), "no message has started");

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
            if method == Method::Copied
                && let Some(found) = connection.recognize_message(now, piece)
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
                assert_eq!(consumed, len, "without an event, all input is consumed");
                break;
            };
            // An invalid header is not consumed. After it, all input is consumed and ignored.
            let is_spurious = consumed == 0 && !matches!(event, Event::ProtocolError(_));
            assert!(!is_spurious, "an event without consumed input: {event:?}");
            trace.event(&event);
            drop(event);
            // Consumed bytes were unmasked in place and must not be passed again.
            piece = &mut piece[consumed..];
        }
    }
    let held = connection.buffered_len();
    let mut answer = vec![];
    connection.poll_transmit(&mut answer);

    // Linear: a frame has at least two bytes and causes at most one event per piece.
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
        "{peak} bytes held after {} were received",
        wire.len()
    );
    assert!(
        held <= peak,
        "buffered_len is {held}, but at most {peak} bytes were held"
    );
    // Each byte is copied a few times at most: into the message buffer, which doubles, or into a pong.
    let asked_max = 8 * wire.len() + 64 * calls + SMALL;
    assert!(asked <= asked_max, "{asked} bytes allocated, {} received", wire.len());

    let end = End {
        state: connection.state(),
        cause: connection.close_info().map(|close_info| close_info.cause()),
        answer,
    };
    (trace, end)
}
