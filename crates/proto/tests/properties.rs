//! Properties that hold for every input: every split gives the same events, the reference decoder agrees, sent messages
//! are received, nothing panics, and memory is bounded.

mod common;

use common::{Endpoint, Frame, Got, KEY, Local, at, decode_naively, frame};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sockeye_proto::{CloseInfo, Config, Data, Fragment, Limits, ReceiveMode, State, TransportAction};

/// Small limits that random messages reach.
fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.message_size_max, limits.empty_fragments_max) = (1000, 3);
    limits
}

/// Runs `cases` cases, scaled by `PROPTEST_CASES` relative to its default of 256. Turn failures into named tests; seeds
/// are not stored in a file.
fn cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: u32::try_from(u64::from(cases) * u64::from(default.cases) / 256).unwrap_or(u32::MAX),
        failure_persistence: None,
        ..default
    }
}

fn endpoint(local: Local, limits: Limits) -> Endpoint {
    let mut config = Config::default();
    config.limits = limits;
    Endpoint::with(local, config)
}

fn any_local() -> impl Strategy<Value = Local> {
    prop_oneof![Just(Local::Server), Just(Local::Client)]
}

/// Mostly valid text, some truncated, some invalid.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-z]{0,5}(\u{e9}|\u{20ac}|\u{1f600}|){0,5}".prop_map(String::into_bytes),
        2 => ("[a-z\u{20ac}\u{1f600}]{1,6}", any::<Index>()).prop_map(|(text, cut)| {
            text.as_bytes()[..cut.index(text.len())].to_vec()
        }),
        1 => vec(any::<u8>(), 0..20),
        // Almost valid UTF-8: the bounds of the ranges in Unicode Table 3-7.
        1 => vec(select(&b"\x7f\x80\x8f\x90\x9f\xa0\xbf\xc2\xdf\xe0\xed\xef\xf0\xf4\xf5"[..]), 1..6),
        1 => (100..140_usize).prop_map(|len| vec![b'x'; len]),
        1 => (300..600_usize).prop_map(|len| vec![b'y'; len]),
    ]
}

/// Frames of a mostly conforming peer: unfragmented messages, and valid or invalid fragments.
fn any_frames(local: Local) -> impl Strategy<Value = Vec<Frame>> {
    let message = (1..=2_u8, vec(any_payload(), 1..5), any::<bool>()).prop_map(|(opcode, payloads, pings)| {
        let last = payloads.len() - 1;
        let fragments = payloads.into_iter().enumerate().flat_map(move |(i, payload)| {
            let fragment = frame(if i == 0 { opcode } else { 0 }, payload).fin(i == last);
            let between = (pings && i < last).then(|| frame(0x9, "between"));
            [Some(fragment), between].into_iter().flatten()
        });
        fragments.collect::<Vec<_>>()
    });
    let control = (9..=10_u8, any_payload()).prop_map(|(opcode, mut payload)| {
        payload.truncate(125);
        vec![frame(opcode, payload)]
    });
    let close = prop_oneof![
        Just(frame(0x8, "")),
        (900..5100_u16, any_payload()).prop_map(|(code, mut reason)| {
            reason.truncate(123);
            frame(0x8, [&code.to_be_bytes()[..], &reason].concat())
        }),
    ];
    let anything = (any::<bool>(), 0..8_u8, 0..16_u8, any_payload(), any::<Option<u64>>());
    let anything = anything.prop_map(|(fin, rsv, opcode, payload, declared)| {
        let frame = frame(opcode, payload).fin(fin).rsv(if rsv == 7 { 7 } else { 0 });
        vec![match declared {
            Some(len) if len % 4 == 0 => frame.declaring(len >> (len % 64)),
            _ => frame,
        }]
    });
    let step = prop_oneof![
        12 => message,
        4 => control,
        1 => close.prop_map(|frame| vec![frame]),
        1 => anything,
    ];
    (step, any::<[u8; 4]>(), 0..60_u8).prop_map(move |(frames, key, oddity)| {
        let masks = (local == Local::Server) != (oddity == 0);
        let frames = frames.into_iter();
        frames
            .map(|frame| if masks { frame.masked(key) } else { frame })
            .collect()
    })
}

/// A stream from a peer: frames, sometimes with a changed byte or truncated.
fn any_stream(local: Local) -> impl Strategy<Value = Vec<u8>> {
    let damage = prop_oneof![
        6 => Just(None),
        1 => (any::<Index>(), any::<u8>()).prop_map(Some),
    ];
    (vec(any_frames(local), 0..8), damage, any::<Index>(), 0..4_u8).prop_map(|(frames, damage, end, cuts)| {
        let mut stream: Vec<u8> = frames.iter().flatten().flat_map(Frame::bytes).collect();
        if let Some((place, byte)) = damage
            && !stream.is_empty()
        {
            let place = place.index(stream.len());
            stream[place] ^= byte;
        }
        if cuts == 0 {
            stream.truncate(end.index(stream.len() + 1));
        }
        stream
    })
}

fn any_local_and_stream() -> impl Strategy<Value = (Local, Vec<u8>)> {
    any_local().prop_flat_map(|local| any_stream(local).prop_map(move |stream| (local, stream)))
}

/// Lengths of the pieces in which an input arrives.
fn any_pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        vec(1..4_usize, 1..4),
        vec(1..40_usize, 1..20),
        vec(prop_oneof![Just(0), 1..20_usize, 100..300_usize], 1..20),
    ]
}

/// The observable state of an endpoint after its input.
#[derive(Debug, PartialEq)]
struct Outcome {
    got: Vec<Got>,
    transmits: Vec<Frame>,
    closure: Option<CloseInfo>,
    state: State,
    transport: TransportAction,
}

fn outcome(mut endpoint: Endpoint, got: Vec<Got>) -> Outcome {
    Outcome {
        got,
        transmits: endpoint.transmits(),
        closure: endpoint.connection.close_info().cloned(),
        state: endpoint.connection.state(),
        transport: endpoint.connection.transport_action(),
    }
}

/// Passes `stream` in pieces, repeating their lengths. Checks the memory bound after each.
fn receive_in_pieces(mut endpoint: Endpoint, stream: &[u8], pieces: &[usize], is_direct: bool) -> Outcome {
    let limit = endpoint.message_size_max;
    let mut got = Vec::new();
    let mut rest = stream;
    for len in pieces.iter().copied().chain([1]).cycle() {
        if rest.is_empty() {
            break;
        }
        let mut piece = &rest[..len.min(rest.len())];
        match endpoint.connection.direct_read_buffer().filter(|_| is_direct) {
            Some((buffer, at_most)) => {
                piece = &piece[..piece.len().min(at_most)];
                buffer.extend_from_slice(piece);
                got.extend(endpoint.connection.handle_direct_read(at(0)).map(Got::from));
            }
            None => got.extend(endpoint.receives_bytes(piece)),
        }
        rest = &rest[piece.len()..];
        let held = endpoint.connection.buffered_len();
        assert!(
            held <= 2 * (stream.len() - rest.len()) + 8,
            "{held} held after {}",
            stream.len() - rest.len()
        );
        assert!(held <= 2 * limit + 2 * 125, "{held} held");
    }
    outcome(endpoint, got)
}

fn receive_whole(endpoint: Endpoint, stream: &[u8]) -> Outcome {
    receive_in_pieces(endpoint, stream, &[usize::MAX], false)
}

/// Joins chunks into messages. Omits the chunks of an unfinished message, because they depend on the split.
fn joined(chunks: Vec<Got>) -> Vec<Got> {
    let mut joined = Vec::new();
    let mut message: Option<Vec<u8>> = None;
    for got in chunks {
        let Got::Chunk {
            kind,
            data,
            first,
            last,
        } = got
        else {
            joined.push(got);
            continue;
        };
        assert_eq!(
            first,
            message.is_none(),
            "`first` must be set exactly on the first chunk"
        );
        let mut whole = message.take().unwrap_or_default();
        whole.extend(data);
        match (last, kind) {
            (false, _) => message = Some(whole),
            (true, sockeye_proto::MessageKind::Text) => joined.push(Got::Text(String::from_utf8(whole).unwrap())),
            (true, sockeye_proto::MessageKind::Binary) => joined.push(Got::Binary(whole)),
        }
    }
    joined
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn every_split_gives_the_same_events((local, stream) in any_local_and_stream(), pieces in any_pieces()) {
        let whole = receive_whole(endpoint(local, limits()), &stream);
        let split = receive_in_pieces(endpoint(local, limits()), &stream, &pieces, false);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn every_split_in_two_gives_the_same_events((local, stream) in any_local_and_stream()) {
        let whole = receive_whole(endpoint(local, limits()), &stream);
        for cut in 0..stream.len() {
            let split = receive_in_pieces(endpoint(local, limits()), &stream, &[cut, usize::MAX], false);
            prop_assert_eq!(&whole, &split, "split at {}", cut);
        }
    }

    #[test]
    fn chunks_concatenate_to_the_same_messages((local, stream) in any_local_and_stream(), pieces in any_pieces()) {
        let whole = receive_whole(endpoint(local, limits()), &stream);
        let mut in_chunks = endpoint(local, limits());
        in_chunks.connection.set_receive_mode(ReceiveMode::Chunks);
        let mut chunks = receive_in_pieces(in_chunks, &stream, &pieces, false);
        chunks.got = joined(chunks.got);
        prop_assert_eq!(whole, chunks);
    }

    #[test]
    fn reference_decoder_agrees((local, stream) in any_local_and_stream(), pieces in any_pieces()) {
        let split = receive_in_pieces(endpoint(local, limits()), &stream, &pieces, false);
        prop_assert_eq!(split.got, decode_naively(local, &limits(), &stream));
    }

    #[test]
    fn reference_decoder_agrees_on_random_bytes(
        local in any_local(), stream in vec(any::<u8>(), 0..200), pieces in any_pieces(),
    ) {
        let split = receive_in_pieces(endpoint(local, limits()), &stream, &pieces, false);
        prop_assert_eq!(split.got, decode_naively(local, &limits(), &stream));
    }

    #[test]
    fn reference_decoder_agrees_on_every_header(
        local in any_local(), first in any::<u8>(), second in any::<u8>(), rest in vec(any::<u8>(), 0..160),
    ) {
        let stream = [&[first, second][..], &rest].concat();
        let whole = receive_whole(endpoint(local, Limits::default()), &stream);
        prop_assert_eq!(whole.got, decode_naively(local, &Limits::default(), &stream));
    }
}

/// Calls of an application, in any order.
#[derive(Clone, Debug)]
enum Step {
    Text(String),
    Binary(Vec<u8>),
    TextFragment(String, bool),
    BinaryFragment(Vec<u8>, bool),
    Ping(Vec<u8>),
    Pass(u64),
    Bytes(Vec<u8>),
    Close(u16, String),
    End,
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![4 => any::<String>(), 1 => Just("x".repeat(126)), 1 => Just("\u{20ac}".repeat(22_000))]
}

fn any_sending() -> impl Strategy<Value = Step> {
    prop_oneof![
        any_text().prop_map(Step::Text),
        vec(any::<u8>(), 0..300).prop_map(Step::Binary),
        (any_text(), any::<bool>()).prop_map(|(text, last)| Step::TextFragment(text, last)),
        (vec(any::<u8>(), 0..300), any::<bool>()).prop_map(|(bytes, last)| Step::BinaryFragment(bytes, last)),
        vec(any::<u8>(), 0..126).prop_map(Step::Ping),
    ]
}

fn fragment(is_last: bool) -> Fragment {
    if is_last { Fragment::Last } else { Fragment::More }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn sent_messages_are_received(
        local in any_local(), steps in vec(any_sending(), 0..20), pieces in any_pieces(),
    ) {
        let mut sender = Endpoint::new(local);
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let mut begun: Option<Got> = None;
        for step in steps {
            let connection = &mut sender.connection;
            let (sent, event) = match &step {
                Step::Text(text) => (connection.send(Data::Text(text), &mut out), Got::text(text)),
                Step::Binary(bytes) => (connection.send(Data::Binary(bytes), &mut out), Got::binary(bytes)),
                Step::TextFragment(text, last) => {
                    (connection.send_fragment(Data::Text(text), fragment(*last), &mut out), Got::text(text))
                }
                Step::BinaryFragment(bytes, last) => {
                    (connection.send_fragment(Data::Binary(bytes), fragment(*last), &mut out), Got::binary(bytes))
                }
                Step::Ping(payload) => (connection.ping(payload), Got::ping(payload)),
                _ => unreachable!("sending only"),
            };
            connection.poll_transmit(&mut out);
            let is_fragment = matches!(step, Step::TextFragment(..) | Step::BinaryFragment(..));
            let is_open_end = matches!(step, Step::TextFragment(_, false) | Step::BinaryFragment(_, false));
            match (begun.take(), is_fragment, event) {
                (before, false, Got::Ping(payload)) => {
                    prop_assert_eq!(sent, Ok(()));
                    expected.push(Got::Ping(payload));
                    begun = before;
                }
                (None, _, event) => {
                    prop_assert_eq!(sent, Ok(()));
                    if is_open_end { begun = Some(event) } else { expected.push(event) }
                }
                (Some(Got::Text(mut whole)), true, Got::Text(text)) => {
                    prop_assert_eq!(sent, Ok(()));
                    whole.push_str(&text);
                    if is_open_end { begun = Some(Got::Text(whole)) } else { expected.push(Got::Text(whole)) }
                }
                (Some(Got::Binary(mut whole)), true, Got::Binary(bytes)) => {
                    prop_assert_eq!(sent, Ok(()));
                    whole.extend(bytes);
                    if is_open_end { begun = Some(Got::Binary(whole)) } else { expected.push(Got::Binary(whole)) }
                }
                (before, ..) => {
                    prop_assert_eq!(sent, Err(sockeye_proto::SendError::MessageInProgress));
                    begun = before;
                }
            }
        }
        let peer = if local == Local::Server { Local::Client } else { Local::Server };
        for is_direct in [false, true] {
            let pieces: Vec<usize> = pieces.iter().map(|len| len * 97).collect();
            let received = receive_in_pieces(Endpoint::new(peer), &out, &pieces, is_direct);
            prop_assert!(received.got == expected);
            prop_assert_eq!(received.state, State::Open);
        }
        sender.read_sent(&out);
    }

    #[test]
    fn no_order_of_calls_panics_or_reopens_a_closed_connection(
        local in any_local(),
        steps in vec(
            prop_oneof![
                4 => any_sending(),
                4 => (0..12_000_u64).prop_map(Step::Pass),
                6 => any_stream(Local::Server).prop_map(Step::Bytes),
                6 => any_stream(Local::Client).prop_map(Step::Bytes),
                1 => (any::<u16>(), "[a-z]{0,130}").prop_map(|(code, reason)| Step::Close(code, reason)),
                1 => Just(Step::End),
            ],
            0..30,
        ),
    ) {
        let mut endpoint = endpoint(local, limits());
        let mut out = Vec::new();
        let mut ended: Option<CloseInfo> = None;
        for step in steps {
            let connection = &mut endpoint.connection;
            match step {
                Step::Text(text) => { let _ = connection.send(Data::Text(&text), &mut out); }
                Step::Binary(bytes) => { let _ = connection.send(Data::Binary(&bytes), &mut out); }
                Step::TextFragment(text, last) => {
                    let _ = connection.send_fragment(Data::Text(&text), fragment(last), &mut out);
                }
                Step::BinaryFragment(bytes, last) => {
                    let _ = connection.send_fragment(Data::Binary(&bytes), fragment(last), &mut out);
                }
                Step::Ping(payload) => { let _ = connection.ping(&payload); }
                Step::Pass(ms) => endpoint.advance_to(endpoint.now_ms + ms),
                Step::Bytes(bytes) => {
                    let got = endpoint.receives_bytes(&bytes);
                    prop_assert!(ended.is_none() || got.is_empty(), "no events after the end");
                }
                Step::Close(code, reason) => { let _ = connection.close(code.into(), &reason); }
                Step::End => connection.handle_transport_end(),
            }
            out.clear();
            let sent = endpoint.transmits();
            prop_assert!(sent.len() <= 3, "at most a pong, a ping and a close");
            let connection = &endpoint.connection;
            let is_over = matches!(connection.state(), State::Draining | State::Closed);
            match &ended {
                None if is_over => ended = connection.close_info().cloned(),
                None => {}
                // A failed connection stays failed, a closed one stays closed, and the close info does not change.
                Some(closure) => {
                    prop_assert!(is_over);
                    prop_assert!(sent.is_empty());
                    prop_assert_eq!(connection.close_info(), Some(closure));
                    prop_assert_eq!(connection.buffered_len(), 0);
                }
            }
            prop_assert_eq!(connection.close_info().is_none(), connection.state() == State::Open);
            let is_waiting = connection.poll_timeout().is_some();
            prop_assert_eq!(is_waiting, connection.state() != State::Closed, "there is a deadline until the connection is closed");
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn large_message_is_equal_via_direct_and_normal_reads(
        local in any_local(),
        fragments in vec(30_000..200_000_usize, 1..4),
        is_text in any::<bool>(),
        damage in prop_oneof![2 => Just(None), 1 => any::<Index>().prop_map(Some)],
        pieces in vec(prop_oneof![1..20_000_usize, 30_000..70_000_usize], 1..10),
    ) {
        let len = fragments.iter().sum();
        let mut payload: Vec<u8> = "a\u{e9}\u{20ac}\u{1f600}".bytes().cycle().take(len).collect();
        if let Some(place) = damage {
            payload[place.index(len)] = 0xff;
        }
        let mut rest = &payload[..];
        let mut stream = Vec::new();
        for (i, &len) in fragments.iter().enumerate() {
            let (head, tail) = rest.split_at(len);
            let opcode = match i {
                0 => if is_text { 0x1 } else { 0x2 },
                _ => 0x0,
            };
            let frame = frame(opcode, head).fin(tail.is_empty());
            stream.extend(if local == Local::Server { frame.masked(KEY) } else { frame }.bytes());
            rest = tail;
        }
        let whole = receive_whole(Endpoint::new(local), &stream);
        prop_assert!(whole.got == decode_naively(local, &Limits::default(), &stream));
        for is_direct in [false, true] {
            let split = receive_in_pieces(Endpoint::new(local), &stream, &pieces, is_direct);
            prop_assert!(split == whole, "direct: {}", is_direct);
        }
    }
}
