//! A connection with its clock, and its events as owned values.

use core::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use sockeye_proto::{
    Config, Connection, Event, Instant, MaskingKey, MessageKind, ProtocolError, Role, State, TransportAction,
};

use super::frame::{Frame, KEY};

/// Which side is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    Server,
    Client,
}

/// An owned [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Chunk {
        kind: MessageKind,
        data: Vec<u8>,
        first: bool,
        last: bool,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    ProtocolError(ProtocolError),
}

impl Got {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::Binary(bytes.as_ref().to_vec())
    }

    pub(crate) fn chunk(kind: MessageKind, data: impl AsRef<[u8]>, first: bool, last: bool) -> Self {
        let data = data.as_ref().to_vec();
        Self::Chunk {
            kind,
            data,
            first,
            last,
        }
    }

    pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::Ping(payload.as_ref().to_vec())
    }

    pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::Pong(payload.as_ref().to_vec())
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::Close(code, reason.to_owned())
    }
}

impl From<Event<'_>> for Got {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message {
                kind: MessageKind::Text,
                payload,
            } => Self::Text(String::from_utf8(payload.into_owned()).expect("text messages are valid UTF-8")),
            Event::Message {
                kind: MessageKind::Binary,
                payload,
            } => Self::Binary(payload.into_owned()),
            Event::Chunk {
                kind,
                data,
                first,
                last,
            } => Self::chunk(kind, data, first, last),
            Event::Ping(payload) => Self::ping(payload),
            Event::Pong(payload) => Self::pong(payload),
            Event::Close(frame) => Self::Close(frame.code.0, frame.reason),
            Event::ProtocolError(error) => Self::ProtocolError(error),
        }
    }
}

/// The instant `ms` milliseconds after the origin.
pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(ms))
}

thread_local! {
    static KEYS_DRAWN: Cell<u32> = const { Cell::new(0) };
}

/// Returns a new masking key for each call and counts the calls.
pub(crate) fn mask() -> MaskingKey {
    let drawn = KEYS_DRAWN.get() + 1;
    KEYS_DRAWN.set(drawn);
    MaskingKey((u32::from_be_bytes(KEY) ^ drawn).to_be_bytes())
}

/// Number of masking keys generated on this thread.
pub(crate) fn keys_drawn() -> u32 {
    KEYS_DRAWN.get()
}

pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    pub(crate) now_ms: u64,
    pub(crate) local: Local,
    pub(crate) message_size_max: usize,
    keys_seen: RefCell<Vec<[u8; 4]>>,
}

/// Result of [`Connection::recognize_message`].
struct Found {
    got: Got,
    consumed: usize,
}

/// Uses the fast path. Its result must equal that of `handle_bytes`.
fn find(connection: &mut Connection, now: Instant, input: &[u8]) -> Option<Found> {
    let found = connection.recognize_message(now, input)?;
    let payload = found.to_vec();
    if found.len() <= 24 {
        let small = found.to_array::<24>().map(|bytes| bytes[..found.len()].to_vec());
        assert_eq!(small, payload);
    } else {
        assert_eq!(found.to_array::<24>(), None);
    }
    Some(match payload {
        Some(payload) => Found {
            got: Got::from(Event::Message {
                kind: found.kind(),
                payload: payload.into(),
            }),
            consumed: found.frame_len(),
        },
        None => Found {
            got: Got::ProtocolError(ProtocolError::InvalidUtf8),
            consumed: found.frame_len(),
        },
    })
}

impl Endpoint {
    pub(crate) fn new(local: Local) -> Self {
        Self::with(local, Config::default())
    }

    pub(crate) fn server() -> Self {
        Self::new(Local::Server)
    }

    pub(crate) fn client() -> Self {
        Self::new(Local::Client)
    }

    pub(crate) fn with(local: Local, config: Config) -> Self {
        let role = match local {
            Local::Server => Role::Server,
            Local::Client => Role::Client { mask },
        };
        Self {
            message_size_max: config.limits.message_size_max.try_into().unwrap_or(usize::MAX),
            connection: Connection::new(role, Arc::new(config), at(0)),
            now_ms: 0,
            local,
            keys_seen: RefCell::default(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        at(self.now_ms)
    }

    /// Advances virtual time and handles a passed deadline, as a driver does.
    pub(crate) fn advance_to(&mut self, ms: u64) {
        assert!(ms >= self.now_ms, "time must not go backwards");
        self.now_ms = ms;
        if self
            .connection
            .poll_timeout()
            .is_some_and(|deadline| deadline <= at(ms))
        {
            self.connection.handle_timeout(at(ms));
        }
    }

    /// Passes one input until it is consumed. Returns the events.
    pub(crate) fn receives_bytes(&mut self, wire: &[u8]) -> Vec<Got> {
        let mut input = wire.to_vec();
        let mut rest = &mut input[..];
        let mut got = Vec::new();
        loop {
            let now = at(self.now_ms);
            let found = find(&mut self.connection, now, rest);
            let received = self.connection.handle_bytes(now, rest);
            let consumed = received.consumed;
            let event = received.event.map(Got::from);
            if let Some(found) = found {
                assert_eq!((Some(&found.got), consumed), (event.as_ref(), found.consumed));
            }
            assert!(consumed <= rest.len(), "more consumed than given");
            rest = &mut rest[consumed..];
            match event {
                Some(event) => got.push(event),
                None if self.connection.is_inflating() => {}
                None => break,
            }
        }
        assert_eq!(rest.len(), 0, "without an event, all input is consumed");
        got
    }

    /// Passes frames as one input, masked if this is a server.
    pub(crate) fn receives(&mut self, frames: impl IntoIterator<Item = Frame>) -> Vec<Got> {
        let wire: Vec<u8> = frames
            .into_iter()
            .flat_map(|frame| self.as_peer_sends(frame).bytes())
            .collect();
        self.receives_bytes(&wire)
    }

    /// Returns the frame as the peer sends it.
    pub(crate) fn as_peer_sends(&self, frame: Frame) -> Frame {
        match self.local {
            Local::Server => frame.masked(KEY),
            Local::Client => frame,
        }
    }

    /// Returns the pending control frames, unmasked, and records them as written.
    #[track_caller]
    pub(crate) fn transmits(&mut self) -> Vec<Frame> {
        let frames = self.queues();
        self.connection.handle_transmitted(at(self.now_ms));
        frames
    }

    /// Returns the pending control frames, unmasked, without recording them as written.
    #[track_caller]
    pub(crate) fn queues(&mut self) -> Vec<Frame> {
        let mut out = Vec::new();
        let wanted = self.connection.wants_transmit();
        let sent = self.connection.poll_transmit(&mut out);
        assert_eq!(sent, wanted, "wants_transmit and poll_transmit agree");
        assert_eq!(sent, !out.is_empty());
        assert!(!self.connection.wants_transmit(), "one poll returns everything");
        self.read_sent(&out)
    }

    /// Parses sent frames and checks that a client masks each with a new key and a server masks none.
    #[track_caller]
    pub(crate) fn read_sent(&self, out: &[u8]) -> Vec<Frame> {
        let mut frames = Frame::parse_all(out);
        for frame in &mut frames {
            assert_eq!(frame.mask.is_some(), self.local == Local::Client, "only clients mask");
            if let Some(key) = frame.mask.take() {
                let mut seen = self.keys_seen.borrow_mut();
                assert!(!seen.contains(&key), "each frame has a new key");
                seen.push(key);
            }
        }
        frames
    }

    #[track_caller]
    pub(crate) fn is(&self, state: State, transport: TransportAction) {
        assert_eq!(
            (self.connection.state(), self.connection.transport_action()),
            (state, transport)
        );
    }
}
