//! Delivery of messages: borrowed in place, in chunks, and via direct reads.

mod common;

use std::borrow::Cow;

use common::{Endpoint, Got, KEY, Local, at, binary, close, continuation, ping, text};
use sockeye_proto::{Event, MessageKind, ProtocolError, ReceiveMode, State};

const BOTH: [Local; 2] = [Local::Server, Local::Client];
const TEXT: MessageKind = MessageKind::Text;
const BINARY: MessageKind = MessageKind::Binary;

// Messages borrowed from the input.

#[test]
fn complete_message_is_borrowed_from_the_input() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for len in [0, 1, 125, 126, 70_000] {
            let mut input = endpoint.as_peer_sends(binary(vec![7; len])).bytes();
            let received = endpoint.connection.handle_bytes(at(0), &mut input);
            let Some(Event::Message { payload, .. }) = received.event else {
                panic!("expected a message");
            };
            assert!(matches!(payload, Cow::Borrowed(_)));
            assert_eq!(payload, vec![7; len]);
        }
        assert_eq!(endpoint.connection.buffered_len(), 0);
    }
}

#[test]
fn split_message_is_owned_by_the_event() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let mut input = endpoint.as_peer_sends(text("hello")).bytes();
        let last = input.len() - 2;
        let (head, tail) = input.split_at_mut(last);
        assert_eq!(endpoint.connection.handle_bytes(at(0), head).event, None);
        let received = endpoint.connection.handle_bytes(at(0), tail);
        assert!(matches!(
            received.event,
            Some(Event::Message {
                payload: Cow::Owned(_),
                ..
            })
        ));
        assert_eq!(endpoint.connection.buffered_len(), 0);
    }
}

#[test]
fn each_call_consumes_input_up_to_its_event() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let frames = [text("a"), ping("b"), binary("c")].map(|frame| endpoint.as_peer_sends(frame).bytes());
        let mut input = [&frames.concat()[..], &[0x81]].concat();
        let mut rest = &mut input[..];
        for frame in &frames {
            let received = endpoint.connection.handle_bytes(at(0), rest);
            assert!(received.event.is_some());
            let consumed = received.consumed;
            assert_eq!(consumed, frame.len());
            rest = &mut rest[consumed..];
        }
        let received = endpoint.connection.handle_bytes(at(0), rest);
        assert_eq!((received.consumed, received.event), (1, None));
    }
}

#[test]
fn empty_input_has_no_effect() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let wire = endpoint.as_peer_sends(text("a")).bytes();
        for byte in wire.chunks(1).take(wire.len() - 1) {
            assert_eq!(endpoint.receives_bytes(byte), []);
            let deadline = endpoint.connection.poll_timeout();
            endpoint.now_ms += 10;
            assert_eq!(endpoint.receives_bytes(&[]), []);
            assert_eq!(endpoint.connection.poll_timeout(), deadline, "not counted as progress");
        }
        assert_eq!(endpoint.receives_bytes(&wire[wire.len() - 1..]), [Got::text("a")]);
    }
}

// Messages in chunks.

fn in_chunks(local: Local) -> Endpoint {
    let mut endpoint = Endpoint::new(local);
    assert!(endpoint.connection.set_receive_mode(ReceiveMode::Chunks));
    endpoint
}

#[test]
fn complete_message_is_one_chunk() {
    for local in BOTH {
        let mut endpoint = in_chunks(local);
        let got = endpoint.receives([text("abc"), binary(""), ping("p")]);
        let expected = [
            Got::chunk(TEXT, "abc", true, true),
            Got::chunk(BINARY, "", true, true),
            Got::ping("p"),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn chunks_end_at_fragment_and_input_boundaries() {
    for local in BOTH {
        let mut endpoint = in_chunks(local);
        assert_eq!(
            endpoint.receives([text("ab").fin(false)]),
            [Got::chunk(TEXT, "ab", true, false)]
        );
        assert_eq!(endpoint.receives([ping("")]), [Got::ping("")]);
        let wire = endpoint.as_peer_sends(continuation("cdef")).bytes();
        let (head, tail) = wire.split_at(wire.len() - 2);
        assert_eq!(endpoint.receives_bytes(head), [Got::chunk(TEXT, "cd", false, false)]);
        assert_eq!(endpoint.receives_bytes(tail), [Got::chunk(TEXT, "ef", false, true)]);
        assert_eq!(endpoint.connection.buffered_len(), 0, "nothing is stored");
    }
}

#[test]
fn empty_chunks_only_start_or_end_a_message() {
    for local in BOTH {
        let mut endpoint = in_chunks(local);
        let got = endpoint.receives([
            binary("").fin(false),
            continuation("").fin(false),
            continuation("x").fin(false),
            continuation("").fin(false),
            continuation(""),
        ]);
        let expected = [
            Got::chunk(BINARY, "", true, false),
            Got::chunk(BINARY, "x", false, false),
            Got::chunk(BINARY, "", false, true),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn utf8_is_validated_across_chunks() {
    for local in BOTH {
        let mut endpoint = in_chunks(local);
        // U+20AC split into two fragments is legal, and the chunks keep that split.
        let got = endpoint.receives([text(b"\xe2\x82").fin(false), continuation(b"\xac")]);
        let expected = [
            Got::chunk(TEXT, b"\xe2\x82", true, false),
            Got::chunk(TEXT, b"\xac", false, true),
        ];
        assert_eq!(got, expected);
        let got = endpoint.receives([text(b"\xe2\x82").fin(false), continuation(b"x")]);
        let expected = [
            Got::chunk(TEXT, b"\xe2\x82", true, false),
            Got::ProtocolError(ProtocolError::InvalidUtf8),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn size_limit_applies_to_chunks() {
    let mut config = sockeye_proto::Config::default();
    config.limits.message_size_max = 3;
    for local in BOTH {
        let mut endpoint = Endpoint::with(local, config.clone());
        endpoint.connection.set_receive_mode(ReceiveMode::Chunks);
        let got = endpoint.receives([binary("abc").fin(false), continuation("d")]);
        let expected = [
            Got::chunk(BINARY, "abc", true, false),
            Got::ProtocolError(ProtocolError::MessageTooBig),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn receive_mode_changes_only_between_messages() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([text("a").fin(false)]);
        assert!(
            !endpoint.connection.set_receive_mode(ReceiveMode::Chunks),
            "not inside a message"
        );
        assert!(
            endpoint.connection.set_receive_mode(ReceiveMode::Whole),
            "what it is already"
        );
        assert_eq!(endpoint.receives([continuation("b")]), [Got::text("ab")]);

        assert!(endpoint.connection.set_receive_mode(ReceiveMode::Chunks));
        assert_eq!(
            endpoint.receives([text("c").fin(false)]),
            [Got::chunk(TEXT, "c", true, false)]
        );
        assert!(!endpoint.connection.set_receive_mode(ReceiveMode::Whole));
        assert_eq!(
            endpoint.receives([continuation("d")]),
            [Got::chunk(TEXT, "d", false, true)]
        );

        assert!(endpoint.connection.set_receive_mode(ReceiveMode::Whole));
        assert_eq!(endpoint.receives([text("e")]), [Got::text("e")]);
    }
}

// Direct reads.

/// Passes `wire` in pieces of `piece_len`, using direct reads whenever possible. Also returns the number of bytes read
/// directly.
#[track_caller]
fn receives_directly(endpoint: &mut Endpoint, wire: &[u8], piece_len: usize) -> (Vec<Got>, usize) {
    let mut got = Vec::new();
    let mut rest = wire;
    let mut direct = 0;
    while !rest.is_empty() {
        let mut piece = &rest[..piece_len.min(rest.len())];
        if let Some((buffer, at_most)) = endpoint.connection.direct_read_buffer() {
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0, "the limit must be positive");
            piece = &piece[..piece.len().min(at_most).min(room)];
            buffer.extend_from_slice(piece);
            direct += piece.len();
            got.extend(endpoint.connection.handle_direct_read(at(0)).map(Got::from));
        } else {
            got.extend(endpoint.receives_bytes(piece));
        }
        rest = &rest[piece.len()..];
    }
    (got, direct)
}

#[test]
fn large_message_via_direct_reads_is_equal() {
    let payload: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    for local in BOTH {
        for piece_len in [1000, 4097, 65_536, 150_001] {
            let mut endpoint = Endpoint::new(local);
            let wire = endpoint.as_peer_sends(binary(&payload)).bytes();
            let (got, direct) = receives_directly(&mut endpoint, &wire, piece_len);
            assert!(direct > 100_000, "{direct} bytes were read directly");
            assert!(got == [Got::binary(&payload)]);
            assert_eq!(endpoint.connection.buffered_len(), 0);
            assert!(endpoint.connection.direct_read_buffer().is_none());
        }
    }
}

#[test]
fn text_and_fragments_support_direct_reads() {
    let part = "a\u{e9}\u{20ac}\u{1f600}".repeat(20_000);
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        // The fragment boundary splits a code point.
        let (head, tail) = part.as_bytes().split_at(part.len() - 2);
        let wire: Vec<u8> = [
            text(head).fin(false),
            ping("between"),
            continuation([tail, part.as_bytes()].concat()),
            text("next"),
        ]
        .into_iter()
        .flat_map(|frame| endpoint.as_peer_sends(frame).bytes())
        .collect();
        let (got, direct) = receives_directly(&mut endpoint, &wire, 10_007);
        assert!(direct > part.len());
        assert!(got == [Got::ping("between"), Got::Text(part.repeat(2)), Got::text("next")]);
    }
}

#[test]
fn invalid_utf8_in_a_direct_read_fails_immediately() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let mut payload = vec![b'x'; 200_000];
        payload[150_000] = 0xff;
        let wire = endpoint.as_peer_sends(text(&payload)).bytes();
        let (got, direct) = receives_directly(&mut endpoint, &wire[..160_000], 10_000);
        assert!(direct > 0);
        assert_eq!(got, [Got::ProtocolError(ProtocolError::InvalidUtf8)]);
        assert_eq!(endpoint.connection.state(), State::Draining);
        assert_eq!(endpoint.connection.buffered_len(), 0);
    }
}

#[test]
fn direct_read_buffer_requires_32_kib_received_and_outstanding() {
    const MIN: usize = 32 * 1024;
    // Frame, number of its bytes that arrived, whether direct reads are possible.
    let cases = [
        (2 * MIN, MIN - 1, false),
        (2 * MIN, MIN, true),
        (2 * MIN - 1, MIN, false),
        (3 * MIN, 2 * MIN, true),
        (3 * MIN, 2 * MIN + 1, false),
    ];
    for (len, arrived, is_offered) in cases {
        let mut server = Endpoint::server();
        let wire = binary(vec![1; len]).masked(KEY).bytes();
        let header_len = wire.len() - len;
        server.receives_bytes(&wire[..header_len + arrived]);
        let offered = server.connection.direct_read_buffer().map(|(_, at_most)| at_most);
        assert_eq!(offered, is_offered.then_some(len - arrived), "{len} {arrived}");
        // Not using it has no effect.
        assert!(server.receives_bytes(&wire[header_len + arrived..]) == [Got::binary(vec![1; len])]);
    }
}

#[test]
fn direct_read_buffer_is_none_for_chunks_and_after_the_end() {
    let wire = binary(vec![1; 100_000]).masked(KEY).bytes();
    let mut server = in_chunks(Local::Server);
    server.receives_bytes(&wire[..50_000]);
    assert!(server.connection.direct_read_buffer().is_none());

    let mut server = Endpoint::server();
    server.receives_bytes(&wire[..50_000]);
    assert!(server.connection.direct_read_buffer().is_some());
    server.connection.handle_transport_end();
    assert!(server.connection.direct_read_buffer().is_none());
    assert_eq!(server.connection.handle_direct_read(at(0)), None);
}

#[test]
fn direct_reads_continue_while_awaiting_the_close_answer() {
    let mut server = Endpoint::server();
    let wire = [binary(vec![1; 100_000]), close(1000, "")]
        .map(|frame| frame.masked(KEY).bytes())
        .concat();
    server.receives_bytes(&wire[..50_000]);
    server.connection.close(sockeye_proto::CloseCode::NORMAL, "").unwrap();
    let (got, direct) = receives_directly(&mut server, &wire[50_000..], 10_000);
    assert!(direct > 0);
    assert!(got == [Got::binary(vec![1; 100_000]), Got::close(1000, "")]);
}

#[test]
fn empty_direct_read_has_no_effect() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        assert_eq!(endpoint.connection.handle_direct_read(at(500)), None);
        let wire = endpoint.as_peer_sends(binary(vec![1; 100_000])).bytes();
        endpoint.receives_bytes(&wire[..50_000]);
        let deadline = endpoint.connection.poll_timeout();
        assert!(endpoint.connection.direct_read_buffer().is_some());
        assert_eq!(endpoint.connection.handle_direct_read(at(1000)), None);
        assert_eq!(endpoint.connection.poll_timeout(), deadline);
        assert!(endpoint.receives_bytes(&wire[50_000..]) == [Got::binary(vec![1; 100_000])]);
    }
}
