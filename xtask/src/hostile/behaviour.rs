//! The behaviours: what the hostile peers do, what they may cost, and who ends the connection.

use std::{sync::Arc, time::Duration};

use super::{
    peer::{Script, Step},
    wire::{self, Bytes, first, frame, header},
};

/// One kind of misbehaviour.
#[derive(Debug)]
pub(super) struct Behaviour {
    pub(super) name: &'static str,
    /// Extra command-line flags of the server.
    pub(super) arguments: &'static [&'static str],
    pub(super) needs_compression: bool,
    /// The scripts; the peers are distributed evenly over them.
    pub(super) scripts: Vec<Arc<Script>>,
    pub(super) bounds: Bounds,
    pub(super) end: End,
}

/// The maximum cost of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Peak user memory in bytes.
    pub(super) memory: u64,
    /// Processor time from the first byte until all peers are in position.
    pub(super) cpu: Duration,
    /// How long the server may keep the connection. Counted from the start, or from the moment when the peers leave or
    /// the signal is sent.
    pub(super) let_go: Duration,
}

/// Who ends the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The server, because of a deadline or a limit, while the peers stay connected.
    Server,
    /// The peers leave, and the server must release their connections at once.
    Peers,
    /// The server gets a signal and must shut down cleanly although no peer answers.
    Signal,
}

const KIB: u64 = 1024;

/// The default message limit, for behaviours that do not test it.
const DEFAULT_LIMIT: &[&str] = &["--max-message-size", "16MiB"];

/// A small limit, so that two thousand peers together can reach it.
const SMALL_LIMIT: &[&str] = &["--max-message-size", "16KiB"];
const SMALL_LIMIT_LEN: u64 = 16 * KIB;

/// Default limit of bytes queued for one peer.
const WRITE_LIMIT_LEN: u64 = 1024 * KIB;

/// Memory of an idle connection: 1.2 KiB of the library, plus the program and allocator overhead.
const IDLE_LEN: u64 = 3 * KIB;

/// Allowance for a busy connection, beyond what it makes the server buffer.
const CONNECTION_LEN: u64 = 4 * KIB;

/// Allowance for a connection before its handshake, beyond the head received so far. The task that waits for a request
/// is larger than one that waits for messages.
const HANDSHAKE_LEN: u64 = 4 * KIB;

/// The head limit of `sockeye echo`. With the allowance above it makes 16 KiB.
const HEAD_LIMIT_LEN: u64 = 12 * KIB;

/// The server's deadline for an opening handshake, and for a peer that reads nothing.
const TEN_SECONDS: Duration = Duration::from_secs(12);

/// All behaviours. The first is a well-behaved idle connection, as a reference.
pub(super) fn all() -> Vec<Behaviour> {
    vec![
        idle(),
        silent(),
        slow_handshake(),
        endless_header(),
        declared(),
        tiny_fragments(),
        empty_fragments(),
        ping_flood(),
        never_reading(),
        half_closed(),
        never_closing(),
        deaf_to_close(),
        reset(),
        bomb(),
        garbage(),
        one_byte_per_segment(),
    ]
}

fn idle() -> Behaviour {
    Behaviour {
        bounds: bounds(IDLE_LEN, 100, Duration::from_secs(2)),
        ..after_handshake("idle", [Step::Hold])
    }
}

/// Sends nothing.
fn silent() -> Behaviour {
    Behaviour {
        bounds: bounds(HANDSHAKE_LEN, 100, TEN_SECONDS),
        end: End::Server,
        ..before_handshake("silent", [Step::Hold])
    }
}

/// Sends one byte per second: each byte arrives in time, the handshake does not.
fn slow_handshake() -> Behaviour {
    let steps = [Step::Trickle(wire::request().into(), Duration::from_secs(1))];
    Behaviour {
        bounds: bounds(HANDSHAKE_LEN, 100, TEN_SECONDS),
        end: End::Server,
        ..before_handshake("slow-handshake", steps)
    }
}

/// Sends as much of a head as the server accepts without an answer, then more.
fn endless_header() -> Behaviour {
    let more = Step::Flood {
        bytes: wire::HEADER_FIELD.into(),
        len: wire::HEADER_FIELD.len(),
        interval: Duration::from_millis(100),
        fill: 0,
    };
    let steps = [
        Step::Send(wire::endless_header(12_200).into()),
        Step::Hold,
        Step::Send(wire::HEADER_FIELD.into()),
        more,
    ];
    Behaviour {
        bounds: bounds(HEAD_LIMIT_LEN + HANDSHAKE_LEN, 500, TEN_SECONDS),
        end: End::Server,
        ..before_handshake("endless-header", steps)
    }
}

/// Sends a frame header that declares 16 MiB, which the limit allows, and no payload.
fn declared() -> Behaviour {
    let steps = [Step::Send(header(first::BINARY, 16 << 20).into()), Step::Hold];
    Behaviour {
        bounds: bounds(IDLE_LEN + 2 * KIB, 100, Duration::from_secs(2)),
        ..after_handshake("declared-16MiB", steps)
    }
}

/// Sends a message up to the limit in one-byte fragments, without ending it.
fn tiny_fragments() -> Behaviour {
    let mut fragments = frame(first::BINARY_TO_BE_CONTINUED, b"a");
    for _ in 1..SMALL_LIMIT_LEN {
        fragments.extend(frame(first::CONTINUATION_TO_BE_CONTINUED, b"a"));
    }
    let steps = [
        Step::Send(fragments.into()),
        Step::Hold,
        Step::Send(frame(first::CONTINUATION, b"a").into()),
    ];
    Behaviour {
        arguments: SMALL_LIMIT,
        bounds: bounds(2 * SMALL_LIMIT_LEN + CONNECTION_LEN, 10_000, Duration::from_secs(20)),
        end: End::Server,
        ..after_handshake("tiny-fragments", steps)
    }
}

/// Sends the maximum number of empty fragments, then one more.
fn empty_fragments() -> Behaviour {
    let mut fragments = frame(first::BINARY_TO_BE_CONTINUED, b"");
    for _ in 1..1000 {
        fragments.extend(frame(first::CONTINUATION_TO_BE_CONTINUED, b""));
    }
    let one_more = frame(first::CONTINUATION_TO_BE_CONTINUED, b"");
    let steps = [Step::Send(fragments.into()), Step::Hold, Step::Send(one_more.into())];
    Behaviour {
        bounds: bounds(CONNECTION_LEN, 1000, Duration::from_secs(20)),
        end: End::Server,
        ..after_handshake("empty-fragments", steps)
    }
}

/// Sends pings of the maximum size forever, without reading the pongs.
fn ping_flood() -> Behaviour {
    let pings = frame(first::PING, &[b'p'; 125]).repeat(30);
    // More than the kernel buffers.
    let flood = flood(pings, 512 * KIB);
    Behaviour {
        bounds: bounds(2 * CONNECTION_LEN, 20_000, Duration::from_secs(30)),
        end: End::Server,
        ..without_reading(after_handshake("ping-flood", [flood]))
    }
}

/// Sends messages forever, without reading the echoes. On a busy machine it takes half a minute until all buffers are
/// full; ten seconds later the server drops each connection.
fn never_reading() -> Behaviour {
    let messages = frame(first::BINARY, &[b'm'; 8 * 1024]).repeat(8);
    let flood = flood(messages, u64::MAX);
    Behaviour {
        arguments: SMALL_LIMIT,
        bounds: bounds(
            SMALL_LIMIT_LEN + WRITE_LIMIT_LEN + 16 * KIB,
            20_000,
            Duration::from_secs(60),
        ),
        end: End::Server,
        ..without_reading(after_handshake("never-reading", [flood]))
    }
}

/// Closes the sending half of TCP: before the request, after it, and inside a frame.
fn half_closed() -> Behaviour {
    let half_a_frame = &frame(first::BINARY, &[b'h'; 1000])[..500];
    let scripts = [
        vec![Step::EndSending],
        handshake([Step::EndSending]),
        handshake([Step::Send(half_a_frame.into()), Step::EndSending]),
    ];
    Behaviour {
        scripts: scripts.map(deaf_script).to_vec(),
        bounds: bounds(CONNECTION_LEN, 200, Duration::from_secs(5)),
        end: End::Server,
        ..after_handshake("half-closed", [])
    }
}

/// Sends a close frame, ignores the answer, and keeps TCP open.
fn never_closing() -> Behaviour {
    let close = frame(first::CLOSE, &1000_u16.to_be_bytes());
    Behaviour {
        bounds: bounds(CONNECTION_LEN, 200, Duration::from_secs(5)),
        end: End::Server,
        ..without_reading(after_handshake("never-closing", [Step::Send(close.into()), Step::Hold]))
    }
}

/// The server is told to shut down, and no peer answers its close frame.
fn deaf_to_close() -> Behaviour {
    Behaviour {
        bounds: bounds(IDLE_LEN, 100, Duration::from_secs(7)),
        end: End::Signal,
        ..without_reading(after_handshake("deaf-to-close", [Step::Hold]))
    }
}

/// Resets the connection about once per second: before, during and after the handshake, inside a frame, after a close
/// frame.
fn reset() -> Behaviour {
    let reset = || Step::ResetAfter(Duration::from_secs(1));
    let half_a_request = &wire::request()[..50];
    let half_a_frame = &frame(first::BINARY, &[b'h'; 1000])[..500];
    let close = frame(first::CLOSE, &1000_u16.to_be_bytes());
    let scripts = [
        vec![reset()],
        vec![Step::Send(half_a_request.into()), reset()],
        handshake([reset()]),
        handshake([Step::Send(half_a_frame.into()), reset()]),
        handshake([Step::Send(close.into()), reset()]),
    ];
    Behaviour {
        scripts: scripts.map(deaf_script).to_vec(),
        bounds: bounds(CONNECTION_LEN, 200, Duration::from_secs(2)),
        ..after_handshake("reset", [])
    }
}

/// Sends compressed messages that inflate to a thousand times their size: all but the last byte, then the rest.
fn bomb() -> Behaviour {
    let mut bomb = wire::zeros_compressed(16 << 20);
    let last = bomb.split_off(bomb.len() - 1);
    let steps = vec![
        Step::Send(wire::request_with_compression().into()),
        Step::AwaitAnswer,
        Step::Send(frame(first::COMPRESSED_TO_BE_CONTINUED, &bomb).into()),
        Step::Hold,
        Step::Send(frame(first::CONTINUATION, &last).into()),
    ];
    Behaviour {
        arguments: &["--compression", "--max-message-size", "64KiB"],
        needs_compression: true,
        scripts: vec![deaf_script(steps)],
        bounds: bounds(64 * KIB + CONNECTION_LEN, 10_000, Duration::from_secs(20)),
        end: End::Server,
        ..after_handshake("bomb", [])
    }
}

/// Sends random bytes, instead of the handshake or after it.
fn garbage() -> Behaviour {
    let noise = || Step::Send(wire::noise(16 * 1024).into());
    let scripts = [vec![noise()], handshake([noise()])];
    Behaviour {
        scripts: scripts.map(deaf_script).to_vec(),
        bounds: bounds(CONNECTION_LEN, 500, Duration::from_secs(10)),
        end: End::Server,
        ..after_handshake("garbage", [])
    }
}

/// Sends the handshake and then messages in one-byte segments, 25 per second and peer.
fn one_byte_per_segment() -> Behaviour {
    let interval = Duration::from_millis(40);
    let messages = Step::Flood {
        bytes: frame(first::TEXT, b"twenty bytes of text").into(),
        len: 1,
        interval,
        fill: 0,
    };
    let script = Script {
        steps: vec![Step::Trickle(wire::request().into(), interval), messages],
        reads: true,
    };
    Behaviour {
        scripts: vec![Arc::new(script)],
        bounds: bounds(HANDSHAKE_LEN + KIB, 20_000, Duration::from_secs(2)),
        ..after_handshake("one-byte-segments", [])
    }
}

fn before_handshake<const N: usize>(name: &'static str, steps: [Step; N]) -> Behaviour {
    Behaviour {
        scripts: vec![Arc::new(Script {
            steps: steps.to_vec(),
            reads: true,
        })],
        ..after_handshake(name, [])
    }
}

/// Defaults of all behaviours: the peers read, leave by themselves, and the server runs with its default limits.
fn after_handshake<const N: usize>(name: &'static str, steps: [Step; N]) -> Behaviour {
    Behaviour {
        name,
        arguments: DEFAULT_LIMIT,
        needs_compression: false,
        scripts: vec![Arc::new(Script {
            steps: handshake(steps),
            reads: true,
        })],
        bounds: bounds(0, 0, Duration::ZERO),
        end: End::Peers,
    }
}

fn without_reading(behaviour: Behaviour) -> Behaviour {
    let deaf = |script: &Arc<Script>| deaf_script(script.steps.clone());
    Behaviour {
        scripts: behaviour.scripts.iter().map(deaf).collect(),
        ..behaviour
    }
}

fn deaf_script(steps: Vec<Step>) -> Arc<Script> {
    Arc::new(Script { steps, reads: false })
}

fn handshake<const N: usize>(then: [Step; N]) -> Vec<Step> {
    let opening = [Step::Send(wire::request().into()), Step::AwaitAnswer];
    opening.into_iter().chain(then).collect()
}

/// The step that repeats bytes once per second.
fn flood(bytes: Vec<u8>, fill: u64) -> Step {
    let len = bytes.len();
    let bytes: Bytes = bytes.into();
    let interval = Duration::from_secs(1);
    Step::Flood {
        bytes,
        len,
        interval,
        fill,
    }
}

const fn bounds(memory: u64, cpu_us: u64, let_go: Duration) -> Bounds {
    Bounds {
        memory,
        cpu: Duration::from_micros(cpu_us),
        let_go,
    }
}
