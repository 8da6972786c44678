//! Runs a session through `sockeye-proto`.

use std::borrow::Cow;
use std::sync::Arc;

use sockeye_proto::{CloseCode, Config, Connection, Event, Instant, MaskingKey, MessageKind, ProtocolError, Role};

use super::{EMPTY_FRAGMENTS_MAX, End, Heard, MESSAGE_SIZE_MAX, Receiver, Verdict};

/// The verdict, and details that the rules need.
#[derive(Debug)]
pub(super) struct SockeyeVerdict {
    pub(super) verdict: Verdict,
    pub(super) fault: Option<ProtocolError>,
    /// Number of bytes passed in when the error occurred.
    pub(super) fault_at: Option<usize>,
}

/// Limit on consecutive empty fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmptyFragments {
    Limited,
    /// No limit, like tungstenite.
    Unlimited,
}

/// Passes the stream in, cut into these pieces.
pub(super) fn receive<'a>(
    receiver: Receiver,
    empty_fragments: EmptyFragments,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> SockeyeVerdict {
    let mut connection = connection(receiver, empty_fragments);
    let mut sockeye = SockeyeVerdict {
        verdict: Verdict {
            heard: Vec::new(),
            end: End::Waiting,
        },
        fault: None,
        fault_at: None,
    };
    let mut given = 0;
    let mut scratch = Vec::new();
    for piece in pieces {
        given += piece.len();
        scratch.clear();
        scratch.extend_from_slice(piece);
        let mut rest = &mut scratch[..];
        loop {
            let received = connection.handle_bytes(Instant::ORIGIN, rest);
            let consumed = received.consumed;
            let Some(event) = received.event else {
                break;
            };
            match hear(event) {
                Ok(heard) => {
                    if matches!(heard, Heard::Close(..)) {
                        sockeye.verdict.end = End::Closed;
                    }
                    sockeye.verdict.heard.push(heard);
                }
                Err(fault) => {
                    let code = sent_code(&mut connection);
                    assert_eq!(
                        code,
                        Some(fault.close_code()),
                        "the close frame that leaves has the code of {fault:?}"
                    );
                    sockeye.verdict.end = End::Refused {
                        code: fault.close_code().0,
                        fault: fault.to_string(),
                    };
                    (sockeye.fault, sockeye.fault_at) = (Some(fault), Some(given));
                }
            }
            rest = &mut rest[consumed..];
        }
    }
    sockeye
}

fn connection(receiver: Receiver, empty_fragments: EmptyFragments) -> Connection {
    let role = match receiver {
        Receiver::Server => Role::Server,
        Receiver::Client => Role::Client {
            mask: || MaskingKey([1, 2, 3, 4]),
        },
    };
    let mut config = Config::default();
    config.limits.message_size_max = MESSAGE_SIZE_MAX as u64;
    config.limits.empty_fragments_max = match empty_fragments {
        EmptyFragments::Limited => EMPTY_FRAGMENTS_MAX,
        EmptyFragments::Unlimited => u32::MAX,
    };
    Connection::new(role, Arc::new(config), Instant::ORIGIN)
}

fn hear(event: Event<'_>) -> Result<Heard, ProtocolError> {
    Ok(match event {
        Event::Message { kind, payload } => {
            let payload = Cow::into_owned(payload);
            match kind {
                MessageKind::Text => Heard::Text(String::from_utf8(payload).expect("text is checked")),
                MessageKind::Binary => Heard::Binary(payload),
            }
        }
        Event::Chunk { .. } => unreachable!("messages are delivered whole by default"),
        Event::Ping(payload) => Heard::Ping(payload.to_vec()),
        Event::Pong(payload) => Heard::Pong(payload.to_vec()),
        Event::Close(frame) => Heard::Close(frame.code.0, frame.reason),
        Event::ProtocolError(fault) => return Err(fault),
    })
}

/// The code of the close frame that is sent after an error.
fn sent_code(connection: &mut Connection) -> Option<CloseCode> {
    let mut out = Vec::new();
    connection.poll_transmit(&mut out);
    connection.close_info()?.sent().map(|frame| frame.code)
}
