//! A client and a server in virtual time, with a script of actions of the applications, the network and the clock. Sent
//! messages are received once and in order, and both connections end, whatever happens.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::codecs::POOLED;
use sockeye_fuzz::reading::{CLIENT, SERVER};
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::{
    CloseCause, CloseCode, Config, Connection, Data, Event, Fragment, Instant, MessageKind, ReceiveMode, Role,
    SendError, State, TransportAction,
};

/// Maximum number of rounds until both have ended: a close frame each way and a few deadlines.
const ROUNDS_MAX: usize = 16;

fuzz_target!(|input: &[u8]| {
    let [choices, script @ ..] = input else { return };
    let config = Arc::new(Config::default());
    let mut pair = Pair {
        now: Instant::ORIGIN,
        sides: [CLIENT, SERVER].map(|role| Side::new(role, &config, *choices)),
        is_disturbed: false,
    };
    for operation in script.chunks_exact(2) {
        pair.run(operation[0], operation[1]);
        pair.sides.iter_mut().for_each(Side::check);
    }
    pair.finish();
});

struct Pair {
    now: Instant,
    sides: [Side; 2],
    /// Whether the clock or the network may have caused lost messages.
    is_disturbed: bool,
}

struct Side {
    connection: Connection,
    state: State,
    /// Bytes on their way to the peer.
    wire: Vec<u8>,
    /// Whether the sending half is closed after those bytes.
    has_ended: bool,
    /// Whether the connection was notified of the end of its input.
    has_heard_end: bool,
    reads_directly: bool,
    sent: Vec<(MessageKind, Vec<u8>)>,
    /// The message being sent in fragments.
    sending: Option<(MessageKind, Vec<u8>)>,
    received: Vec<(MessageKind, Vec<u8>)>,
    /// The message being received in chunks.
    receiving: Option<(MessageKind, Vec<u8>)>,
    pings: Vec<Vec<u8>>,
}

impl Pair {
    fn run(&mut self, operation: u8, argument: u8) {
        let now = self.now;
        let who = usize::from(operation & 1);
        let side = &mut self.sides[who];
        match operation >> 1 & 15 {
            0 | 1 => side.send(&message(argument), operation >> 5),
            2 => side.send_fragment(&message(argument), operation >> 5),
            3 => side.ping(&[operation, argument][..usize::from(argument & 1) + 1]),
            4 => side.close(argument),
            5 => side.transmit(now),
            6..=9 => {
                side.transmit(now);
                self.carry(
                    who,
                    1 + usize::from(argument) * if operation >> 5 == 7 { 400 } else { 1 },
                );
            }
            10 => self.carry(who, usize::MAX),
            11 => {
                let receive_mode = if argument & 1 == 0 {
                    ReceiveMode::Whole
                } else {
                    ReceiveMode::Chunks
                };
                side.connection.set_receive_mode(receive_mode);
            }
            12 => {
                self.now = self.now + Duration::from_millis(u64::from(argument) * 100);
                for side in &mut self.sides {
                    side.connection.handle_timeout(self.now);
                }
                self.is_disturbed = true;
            }
            13 if argument == 0 => {
                // The transport fails: bytes on their way to this side are lost.
                side.hear_end();
                self.sides[1 - who].wire.clear();
                self.sides[1 - who].has_ended = true;
                self.is_disturbed = true;
            }
            14 => side.start_compressed(&message(argument), operation >> 5),
            _ => {}
        }
    }

    /// Delivers up to `len` bytes from `who` to the other side, and the end of the transport after them.
    fn carry(&mut self, who: usize, len: usize) {
        let [client, server] = &mut self.sides;
        let (from, to) = if who == 0 { (client, server) } else { (server, client) };
        let piece: Vec<u8> = from.wire.drain(..len.min(from.wire.len())).collect();
        to.receive(self.now, piece);
        from.note_end();
        if from.wire.is_empty() && from.has_ended {
            to.hear_end();
        }
        to.note_end();
    }

    /// Drives both connections until they end.
    fn finish(&mut self) {
        for side in &mut self.sides {
            if let Some((kind, _)) = side.sending {
                let data = if kind == MessageKind::Text {
                    Data::Text("")
                } else {
                    Data::Binary(b"")
                };
                side.append_fragment(data, Fragment::Last);
            }
        }
        for round in 0..ROUNDS_MAX {
            for who in [0, 1] {
                let now = self.now;
                self.sides[who].transmit(now);
                self.carry(who, usize::MAX);
                self.sides[1 - who].transmit(now);
                self.carry(1 - who, usize::MAX);
            }
            self.sides.iter_mut().for_each(Side::check);
            if self.sides.iter().all(|side| side.state == State::Closed) {
                return self.check_all_arrived();
            }
            if round == 0 {
                self.sides[0].close(0);
                continue;
            }
            // Nothing is in flight, so advance the clock.
            let deadlines = self.sides.iter().filter_map(|side| side.connection.poll_timeout());
            let Some(deadline) = deadlines.min() else { continue };
            self.now = self.now.max(deadline);
            for side in &mut self.sides {
                side.connection.handle_timeout(self.now);
            }
        }
        panic!(
            "the connections do not end: {:?}",
            self.sides.each_ref().map(|side| &side.connection)
        );
    }

    fn check_all_arrived(&self) {
        let [client, server] = &self.sides;
        for (from, to) in [(client, server), (server, client)] {
            let close_info = to.connection.close_info().expect("closed");
            let is_abnormal = matches!(
                close_info.cause(),
                CloseCause::TransportEnd | CloseCause::KeepaliveTimeout | CloseCause::CloseTimeout
            );
            assert!(self.is_disturbed || !is_abnormal, "{close_info}");
            // Once and in order: even if a connection was lost, the received messages are a prefix of those sent.
            assert!(
                from.sent.starts_with(&to.received),
                "received messages that were not sent"
            );
            if let Some(frame) = close_info.received() {
                // Messages sent before the close frame arrive before it.
                assert_eq!(to.received.len(), from.sent.len(), "messages were lost");
                assert_eq!(
                    from.connection.close_info().and_then(|close_info| close_info.sent()),
                    Some(frame)
                );
            }
            assert!(self.is_disturbed || close_info.is_clean(), "{close_info:?}");
        }
    }
}

impl Side {
    fn new(role: Role, config: &Arc<Config>, choices: u8) -> Self {
        let mut connection = Connection::new(role, config.clone(), Instant::ORIGIN);
        if choices & 3 == 3 {
            let params = NegotiatedParams {
                takeover: Takeover::Keep,
                peer_takeover: Takeover::Keep,
                window_bits: WindowBits::MAX,
                peer_window_bits: WindowBits::MAX,
            };
            connection.enable_deflate(&DeflateConfig::default(), params, POOLED);
        }
        Self {
            connection,
            state: State::Open,
            wire: vec![],
            has_ended: false,
            has_heard_end: false,
            reads_directly: choices & 4 != 0,
            sent: vec![],
            sending: None,
            received: vec![],
            receiving: None,
            pings: vec![],
        }
    }

    fn send(&mut self, message: &[u8], choice: u8) {
        let data = data(message, choice);
        let result = self.connection.send(data, &mut self.wire);
        let expected = match (self.connection.state(), &self.sending) {
            (State::Open, None) => Ok(()),
            (State::Open, Some(_)) => Err(SendError::MessageInProgress),
            _ => Err(SendError::Closed),
        };
        assert_eq!(result, expected);
        if result.is_ok() {
            self.sent.push((data.kind(), message.to_vec()));
        }
    }

    fn send_fragment(&mut self, part: &[u8], choice: u8) {
        let fragment = if choice & 2 == 0 {
            Fragment::More
        } else {
            Fragment::Last
        };
        self.append_fragment(data(part, choice), fragment);
    }

    fn start_compressed(&mut self, part: &[u8], choice: u8) {
        let data = data(part, choice);
        let result = self.connection.start_compressed(data, &mut self.wire);
        match (self.connection.state(), &self.sending) {
            (State::Open, None) => assert!(result.is_ok()),
            (State::Open, Some(_)) => assert_eq!(result, Err(SendError::MessageInProgress)),
            _ => assert_eq!(result, Err(SendError::Closed)),
        }
        if result == Ok(true) {
            self.sending = Some((data.kind(), part.to_vec()));
        }
    }

    fn append_fragment(&mut self, data: Data<'_>, fragment: Fragment) {
        // A compressed message in progress may be finished while the connection is closing.
        let may_go_on = self.connection.state() == State::Open || self.connection.is_compressing();
        let result = self.connection.send_fragment(data, fragment, &mut self.wire);
        let is_other_kind = self.sending.as_ref().is_some_and(|(kind, _)| *kind != data.kind());
        let expected = match may_go_on {
            true if is_other_kind => Err(SendError::MessageInProgress),
            true => Ok(()),
            false => Err(SendError::Closed),
        };
        assert_eq!(result, expected);
        if result.is_ok() {
            let (kind, mut message) = self.sending.take().unwrap_or((data.kind(), vec![]));
            message.extend_from_slice(data.bytes());
            match fragment {
                Fragment::More => self.sending = Some((kind, message)),
                Fragment::Last => self.sent.push((kind, message)),
            }
        }
    }

    fn ping(&mut self, payload: &[u8]) {
        let result = self.connection.ping(payload);
        assert_eq!(result.is_ok(), self.connection.state() == State::Open);
        if result.is_ok() {
            self.pings.push(payload.to_vec());
        }
    }

    fn close(&mut self, argument: u8) {
        let (code, reason) = match argument & 3 {
            0 => (CloseCode::NORMAL, ""),
            1 => (CloseCode::NO_STATUS, ""),
            2 => (CloseCode(4000 + u16::from(argument)), "bye"),
            _ => (CloseCode::GOING_AWAY, "é"),
        };
        self.connection.close(code, reason).expect("may be sent");
        assert!(self.connection.state() != State::Open);
    }

    fn transmit(&mut self, now: Instant) {
        let before = self.wire.len();
        let wants = self.connection.wants_transmit();
        let did = self.connection.poll_transmit(&mut self.wire);
        assert_eq!(wants, did);
        assert!(!self.connection.wants_transmit());
        self.connection.handle_transmitted(now);
        if self.has_ended {
            self.wire.truncate(before);
        }
        self.note_end();
    }

    fn receive(&mut self, now: Instant, mut piece: Vec<u8>) {
        let mut rest = &mut piece[..];
        loop {
            if self.reads_directly
                && let Some((buffer, len_max)) = self.connection.direct_read_buffer()
            {
                let len = len_max.min(buffer.capacity() - buffer.len()).min(rest.len());
                buffer.extend_from_slice(rest.split_off_mut(..len).unwrap_or_default());
                match self.connection.handle_direct_read(now) {
                    Some(Event::Message { kind, payload }) => self.received.push((kind, payload.into_owned())),
                    Some(event) => panic!("unexpected event of a direct read: {event:?}"),
                    None => {}
                }
                if !rest.is_empty() {
                    continue;
                }
            }
            let received = self.connection.handle_bytes(now, rest);
            let consumed = received.consumed;
            match received.event {
                None => break,
                Some(Event::Message { kind, payload }) => self.received.push((kind, payload.into_owned())),
                Some(Event::Chunk {
                    kind,
                    data,
                    first,
                    last,
                }) => {
                    assert_eq!(first, self.receiving.is_none());
                    let (begun, mut message) = self.receiving.take().unwrap_or((kind, vec![]));
                    assert_eq!(begun, kind);
                    message.extend_from_slice(data);
                    match last {
                        true => self.received.push((kind, message)),
                        false => self.receiving = Some((kind, message)),
                    }
                }
                Some(Event::Ping(_) | Event::Pong(_) | Event::Close(_)) => {}
                Some(Event::ProtocolError(error)) => panic!("unexpected protocol error: {error}"),
            }
            rest = &mut rest[consumed..];
        }
    }

    fn hear_end(&mut self) {
        if !self.has_heard_end {
            self.has_heard_end = true;
            self.connection.handle_transport_end();
        }
        self.note_end();
    }

    /// Performs the transport action.
    fn note_end(&mut self) {
        match self.connection.transport_action() {
            TransportAction::Open => {}
            TransportAction::HalfClose if self.connection.wants_transmit() => {}
            TransportAction::HalfClose | TransportAction::Close => self.has_ended = true,
        }
    }

    /// Checks invariants.
    fn check(&mut self) {
        let state = self.connection.state();
        let order = |state| match state {
            State::Open => 0,
            State::CloseSent => 1,
            State::Draining => 2,
            State::Closed => 3,
        };
        assert!(order(state) >= order(self.state), "{state:?} after {:?}", self.state);
        self.state = state;
        assert_eq!(state == State::Open, self.connection.close_info().is_none());
        match state {
            State::Closed => {
                assert_eq!(self.connection.transport_action(), TransportAction::Close);
                assert_eq!(self.connection.poll_timeout(), None);
                assert!(!self.connection.wants_transmit());
                assert_eq!(self.connection.buffered_len(), 0);
            }
            State::CloseSent | State::Draining => assert!(self.connection.poll_timeout().is_some()),
            State::Open => {}
        }
    }
}

/// Text or binary.
fn data(bytes: &[u8], choice: u8) -> Data<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) if choice & 1 == 0 => Data::Text(text),
        _ => Data::Binary(bytes),
    }
}

/// Messages with every length encoding, some large enough for direct reads.
fn message(argument: u8) -> Vec<u8> {
    let len = match argument {
        0..200 => usize::from(argument & 31),
        200..230 => 110 + usize::from(argument - 200),
        230..252 => usize::from(argument) * 7,
        252 | 253 => 65_535 + usize::from(argument & 1),
        _ => 100_000 + usize::from(argument),
    };
    vec![b'a' + argument % 26; len]
}
