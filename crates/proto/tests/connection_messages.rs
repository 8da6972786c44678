//! Messages: fragments, control frames between them, text, and the limits on them (RFC 6455 §5.4 to §5.6, §8.1).

mod common;

use common::{
    Endpoint, Frame, Got, KEY, Local, binary, check_fails, client_fails, client_receives, close, continuation, ping,
    pong, server_fails, server_receives, text, wire,
};
use sockeye_proto::{Config, ProtocolError};

/// Encodes `frames` masked, as a client sends them.
fn masked(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    wire(frames.into_iter().map(|frame| frame.masked(KEY)))
}

// RFC 6455 §5.4: fragmentation.

#[test]
fn server_receives_continuation_without_message_fails_1002() {
    // checks [6455-5.4-13]
    server_fails(masked([continuation("a")]), ProtocolError::UnexpectedContinuation);
    server_fails(
        masked([continuation("").fin(false)]),
        ProtocolError::UnexpectedContinuation,
    );
}

#[test]
fn client_receives_continuation_without_message_fails_1002() {
    client_fails([0x80, 0x01, b'a'], ProtocolError::UnexpectedContinuation);
    client_fails([0x00, 0x00], ProtocolError::UnexpectedContinuation);
}

#[test]
fn server_receives_continuation_after_a_finished_message_fails_1002() {
    // checks [6455-6.2-4]
    let frames = [text("a").fin(false), continuation("b"), continuation("c")];
    check_fails(
        Local::Server,
        &masked(frames),
        &[Got::text("ab")],
        ProtocolError::UnexpectedContinuation,
    );
}

#[test]
fn client_receives_continuation_after_a_finished_message_fails_1002() {
    let frames = [text("a").fin(false), continuation("b"), continuation("c")];
    check_fails(
        Local::Client,
        &wire(frames),
        &[Got::text("ab")],
        ProtocolError::UnexpectedContinuation,
    );
}

#[test]
fn server_receives_new_message_between_fragments_fails_1002() {
    // checks [6455-5.4-6]
    for second in [text("b"), binary("b"), text("b").fin(false), binary("")] {
        server_fails(
            masked([text("a").fin(false), second]),
            ProtocolError::ExpectedContinuation,
        );
    }
}

#[test]
fn client_receives_new_message_between_fragments_fails_1002() {
    // checks [6455-5.4-6]
    for second in [text("b"), binary("b"), text("b").fin(false), binary("")] {
        client_fails(
            wire([binary("a").fin(false), second]),
            ProtocolError::ExpectedContinuation,
        );
    }
}

#[test]
fn server_receives_fragments_as_one_message() {
    // checks [6455-5.4-2, 6455-5.4-5, 6455-5.4-8, 6455-6.2-3]
    let frames = [binary("a").fin(false), continuation("bc").fin(false), continuation("d")];
    server_receives(masked(frames), &[Got::binary("abcd")]);
}

#[test]
fn client_receives_fragments_as_one_message() {
    // checks [6455-5.4-2, 6455-5.4-5, 6455-5.4-8]
    // Binary "a" without FIN, continuation "bc" without FIN, continuation "d" with it.
    let fragments = [0x02, 0x01, b'a', 0x00, 0x02, b'b', b'c', 0x80, 0x01, b'd'];
    client_receives(fragments, &[Got::binary("abcd")]);
}

#[test]
fn server_receives_fragments_each_masked_with_its_own_key() {
    let frames = [
        text("Hello").fin(false).masked([1, 2, 3, 4]),
        continuation(", ").fin(false).masked([0xff; 4]),
        ping("now").masked([0; 4]),
        continuation("world").masked([9, 8, 7, 6]),
    ];
    server_receives(wire(frames), &[Got::ping("now"), Got::text("Hello, world")]);
}

#[test]
fn server_receives_control_frames_between_fragments_immediately() {
    // checks [6455-5.4-7, 6455-6.2-2]
    let frames = [
        text("a").fin(false),
        ping("1"),
        continuation("b").fin(false),
        pong("2"),
        ping(""),
        continuation("c"),
    ];
    let expected = [Got::ping("1"), Got::pong("2"), Got::ping(""), Got::text("abc")];
    server_receives(masked(frames), &expected);
}

#[test]
fn client_receives_control_frames_between_fragments_immediately() {
    // checks [6455-5.4-7, 6455-6.2-2]
    let frames = [
        binary("").fin(false),
        ping("1"),
        continuation("b").fin(false),
        pong("2"),
        continuation(""),
    ];
    client_receives(wire(frames), &[Got::ping("1"), Got::pong("2"), Got::binary("b")]);
}

#[test]
fn server_receives_close_between_fragments_and_drops_the_message() {
    let mut server = Endpoint::server();
    let got = server.receives([text("never").fin(false), close(1001, "bye"), continuation("delivered")]);
    assert_eq!(got, [Got::close(1001, "bye")]);
}

#[test]
fn client_receives_close_between_fragments_and_drops_the_message() {
    let mut client = Endpoint::client();
    let got = client.receives([text("never").fin(false), close(1001, "bye"), continuation("delivered")]);
    assert_eq!(got, [Got::close(1001, "bye")]);
}

#[test]
fn server_receives_empty_messages() {
    server_receives(masked([text(""), binary("")]), &[Got::text(""), Got::binary("")]);
    server_receives(masked([text("").fin(false), continuation("")]), &[Got::text("")]);
    let frames = [binary("").fin(false), continuation("").fin(false), continuation("x")];
    server_receives(masked(frames), &[Got::binary("x")]);
}

#[test]
fn client_receives_empty_messages() {
    client_receives([0x81, 0x00, 0x82, 0x00], &[Got::text(""), Got::binary("")]);
    client_receives([0x01, 0x00, 0x80, 0x00], &[Got::text("")]);
    client_receives([0x02, 0x00, 0x00, 0x00, 0x80, 0x01, b'x'], &[Got::binary("x")]);
}

// RFC 6455 §8.1, Unicode Table 3-7: text.

/// Invalid UTF-8 regardless of what follows, one sample per kind of error.
const BAD_TEXT: &[&[u8]] = &[
    b"\x80",                              // starts with a continuation byte
    b"\xbf",                              //
    b"\xc0\x80",                          // overlong, two bytes
    b"\xc1\xbf",                          //
    b"\xe0\x80\x80",                      // overlong, three bytes
    b"\xe0\x9f\xbf",                      //
    b"\xf0\x80\x80\x80",                  // overlong, four bytes
    b"\xf0\x8f\xbf\xbf",                  //
    b"\xed\xa0\x80",                      // U+D800, the first surrogate
    b"\xed\xbf\xbf",                      // U+DFFF, the last surrogate
    b"\xed\xa0\xbd\xed\xb8\x80",          // a surrogate pair
    b"\xf4\x90\x80\x80",                  // U+110000
    b"\xf5\x80\x80\x80",                  // invalid lead bytes
    b"\xfe",                              //
    b"\xff",                              //
    b"\xc3\x28",                          // truncated by another character
    b"\xe2\x82\x28",                      //
    b"\xf0\x9f\x98\x28",                  //
    b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80e", // Autobahn 6.3.1
];

#[test]
fn server_receives_text_that_is_not_utf8_fails_1007() {
    // checks [6455-5.6-1, 6455-7.4.1-5, 6455-8.1-1]
    for bad in BAD_TEXT {
        server_fails(masked([text(bad)]), ProtocolError::InvalidUtf8);
        let long = [b"ok ".repeat(40), bad.to_vec(), b"ok ".repeat(40)].concat();
        server_fails(masked([text(long)]), ProtocolError::InvalidUtf8);
    }
}

#[test]
fn client_receives_text_that_is_not_utf8_fails_1007() {
    // checks [6455-5.6-1, 6455-8.1-1]
    for bad in BAD_TEXT {
        client_fails(wire([text(bad)]), ProtocolError::InvalidUtf8);
        let long = [b"ok ".repeat(40), bad.to_vec(), b"ok ".repeat(40)].concat();
        client_fails(wire([text(long)]), ProtocolError::InvalidUtf8);
    }
}

#[test]
fn server_receives_invalid_utf8_in_fragments_fails_1007() {
    for bad in BAD_TEXT {
        for cut in 0..=bad.len() {
            let (head, tail) = bad.split_at(cut);
            server_fails(
                masked([text(head).fin(false), continuation(tail)]),
                ProtocolError::InvalidUtf8,
            );
        }
    }
}

#[test]
fn client_receives_invalid_utf8_in_fragments_fails_1007() {
    for bad in BAD_TEXT {
        for cut in 0..=bad.len() {
            let (head, tail) = bad.split_at(cut);
            client_fails(
                wire([text(head).fin(false), continuation(tail)]),
                ProtocolError::InvalidUtf8,
            );
        }
    }
}

#[test]
fn server_receives_invalid_utf8_fails_at_the_first_invalid_byte() {
    // Autobahn 6.4: long before the frame or the message is complete.
    let frame = text(b"abc\xf4\x90").fin(false).declaring(1000).masked(KEY).bytes();
    let (before, last) = frame.split_at(frame.len() - 1);
    let mut server = Endpoint::server();
    assert_eq!(server.receives_bytes(before), []);
    assert_eq!(
        server.receives_bytes(last),
        [Got::ProtocolError(ProtocolError::InvalidUtf8)]
    );
}

#[test]
fn client_receives_invalid_utf8_fails_at_the_first_invalid_byte() {
    // Text without FIN, 16-bit length 1000, "abc", and the first two bytes of U+110000.
    let mut client = Endpoint::client();
    assert_eq!(client.receives_bytes(b"\x01\x7e\x03\xe8abc\xf4"), []);
    assert_eq!(
        client.receives_bytes(b"\x90"),
        [Got::ProtocolError(ProtocolError::InvalidUtf8)]
    );
}

#[test]
fn server_receives_text_with_truncated_code_point_fails_1007() {
    for cut in ["\u{e9}", "\u{6f22}", "\u{1f600}"].map(|code_point| code_point.as_bytes()) {
        for len in 1..cut.len() {
            server_fails(masked([text(&cut[..len])]), ProtocolError::InvalidUtf8);
            let frames = [text(&cut[..len]).fin(false), continuation("")];
            server_fails(masked(frames), ProtocolError::InvalidUtf8);
        }
    }
}

#[test]
fn client_receives_text_with_truncated_code_point_fails_1007() {
    for cut in ["\u{e9}", "\u{6f22}", "\u{1f600}"].map(|code_point| code_point.as_bytes()) {
        for len in 1..cut.len() {
            client_fails(wire([text(&cut[..len])]), ProtocolError::InvalidUtf8);
            let frames = [text(&cut[..len]).fin(false), continuation("")];
            client_fails(wire(frames), ProtocolError::InvalidUtf8);
        }
    }
}

#[test]
fn server_receives_code_points_split_by_fragments_and_pings() {
    // checks [6455-5.6-1]
    let whole = "x\u{e9}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}";
    for cut in 0..=whole.len() {
        let (head, tail) = whole.as_bytes().split_at(cut);
        let frames = [text(head).fin(false), ping("\u{e9}"), continuation(tail)];
        server_receives(masked(frames), &[Got::ping("\u{e9}"), Got::text(whole)]);
    }
}

#[test]
fn client_receives_code_points_split_by_fragments_and_pings() {
    let whole = "x\u{e9}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}";
    for cut in 0..=whole.len() {
        let (head, tail) = whole.as_bytes().split_at(cut);
        let frames = [text(head).fin(false), ping([0xff]), continuation(tail)];
        client_receives(wire(frames), &[Got::ping([0xff]), Got::text(whole)]);
    }
}

#[test]
fn server_receives_any_bytes_as_binary_ping_and_pong() {
    // checks [6455-5.6-2]
    for bad in BAD_TEXT {
        let expected = [Got::binary(bad), Got::ping(bad), Got::pong(bad)];
        server_receives(masked([binary(bad), ping(bad), pong(bad)]), &expected);
    }
}

// RFC 6455 §10.4: the size limit applies to all fragments together and is checked at the header.

fn with_limit(local: Local, message_size_max: u64) -> Endpoint {
    let mut config = Config::default();
    config.limits.message_size_max = message_size_max;
    Endpoint::with(local, config)
}

#[track_caller]
fn check_limit(local: Local, frames: impl IntoIterator<Item = Frame>, expected: &[Got]) {
    assert_eq!(with_limit(local, 10).receives(frames), expected);
}

#[test]
fn server_receives_messages_around_the_limit() {
    let local = Local::Server;
    check_limit(local, [binary([1; 9])], &[Got::binary([1; 9])]);
    check_limit(local, [binary([1; 10])], &[Got::binary([1; 10])]);
    check_limit(
        local,
        [binary([1; 11])],
        &[Got::ProtocolError(ProtocolError::MessageTooBig)],
    );
}

#[test]
fn client_receives_messages_around_the_limit() {
    let local = Local::Client;
    check_limit(local, [binary([1; 9])], &[Got::binary([1; 9])]);
    check_limit(local, [binary([1; 10])], &[Got::binary([1; 10])]);
    check_limit(
        local,
        [binary([1; 11])],
        &[Got::ProtocolError(ProtocolError::MessageTooBig)],
    );
}

#[test]
fn server_receives_fragments_around_the_limit() {
    // checks [6455-10.4-1, 6455-10.4-2]
    for (last, expected) in [
        (4, Got::text("fffffffff")),
        (5, Got::text("ffffffffff")),
        (6, Got::ProtocolError(ProtocolError::MessageTooBig)),
    ] {
        let frames = [
            text("fff").fin(false),
            continuation("ff").fin(false),
            continuation("f".repeat(last)),
        ];
        check_limit(Local::Server, frames, &[expected]);
    }
}

#[test]
fn client_receives_fragments_around_the_limit() {
    for (last, expected) in [
        (4, Got::binary("fffffffff")),
        (5, Got::binary("ffffffffff")),
        (6, Got::ProtocolError(ProtocolError::MessageTooBig)),
    ] {
        let frames = [
            binary("fff").fin(false),
            continuation("ff").fin(false),
            continuation("f".repeat(last)),
        ];
        check_limit(Local::Client, frames, &[expected]);
    }
}

#[test]
fn server_receives_header_over_the_limit_fails_1009_before_the_payload() {
    let mut server = with_limit(Local::Server, 10);
    assert_eq!(server.receives([binary([1; 10]).fin(false)]), []);
    let header = continuation("").fin(false).declaring(1);
    assert_eq!(
        server.receives([header]),
        [Got::ProtocolError(ProtocolError::MessageTooBig)]
    );
    assert_eq!(server.transmits(), [close(1009, "message too big")]);
}

#[test]
fn client_receives_header_over_the_limit_fails_1009_before_the_payload() {
    // checks [6455-10.4-1]
    let mut client = with_limit(Local::Client, 10);
    assert_eq!(
        client.receives([binary("").declaring(11)]),
        [Got::ProtocolError(ProtocolError::MessageTooBig)]
    );
    assert_eq!(client.transmits(), [close(1009, "message too big")]);
}

#[test]
fn size_limit_is_per_message_and_excludes_control_frames() {
    for local in [Local::Server, Local::Client] {
        let mut endpoint = with_limit(local, 10);
        for _ in 0..3 {
            let got = endpoint.receives([binary([1; 9]).fin(false), ping([0; 100]), continuation("x")]);
            assert_eq!(got[1], Got::binary([1, 1, 1, 1, 1, 1, 1, 1, 1, b'x']));
            assert_eq!(endpoint.receives([text("0123456789")]), [Got::text("0123456789")]);
        }
    }
}

#[test]
fn a_limit_of_zero_allows_empty_messages_only() {
    let mut server = with_limit(Local::Server, 0);
    assert_eq!(server.receives([text("")]), [Got::text("")]);
    assert_eq!(
        server.receives([text("a")]),
        [Got::ProtocolError(ProtocolError::MessageTooBig)]
    );
}

#[test]
fn largest_possible_limit_does_not_overflow() {
    let mut server = with_limit(Local::Server, u64::MAX);
    assert_eq!(server.receives([binary("ab").fin(false)]), []);
    assert_eq!(server.receives([continuation("cd").declaring(i64::MAX as u64)]), []);
    assert!(server.connection.buffered_len() <= 16);
}

// Empty fragments.

#[track_caller]
fn check_empty_fragments(local: Local, count: usize, expected: &[Got]) {
    let mut endpoint = Endpoint::new(local);
    let first = [binary("").fin(false)];
    let rest = (1..count).map(|_| continuation("").fin(false));
    assert_eq!(endpoint.receives(first.into_iter().chain(rest)), expected);
}

#[test]
fn server_receives_too_many_empty_fragments_fails_1008() {
    check_empty_fragments(Local::Server, 999, &[]);
    check_empty_fragments(Local::Server, 1000, &[]);
    check_empty_fragments(
        Local::Server,
        1001,
        &[Got::ProtocolError(ProtocolError::TooManyEmptyFragments)],
    );
}

#[test]
fn client_receives_too_many_empty_fragments_fails_1008() {
    check_empty_fragments(Local::Client, 999, &[]);
    check_empty_fragments(Local::Client, 1000, &[]);
    check_empty_fragments(
        Local::Client,
        1001,
        &[Got::ProtocolError(ProtocolError::TooManyEmptyFragments)],
    );
}

#[test]
fn non_empty_fragment_resets_the_empty_fragment_count() {
    let empty = || (0..999).map(|_| continuation("").fin(false));
    let mut server = Endpoint::server();
    assert_eq!(server.receives([binary("").fin(false)].into_iter().chain(empty())), []);
    assert_eq!(server.receives([continuation("x").fin(false)]), []);
    assert_eq!(server.receives(empty().chain([ping("")])), [Got::ping("")]);
    assert_eq!(
        server.receives([continuation("").fin(false), continuation("")]),
        [Got::binary("x")]
    );
}

#[test]
fn ping_does_not_reset_the_empty_fragment_count() {
    let mut server = Endpoint::server();
    let mut got = server.receives([binary("").fin(false)]);
    for _ in 0..1000 {
        got.extend(server.receives([ping(""), continuation("").fin(false)]));
    }
    assert_eq!(
        got.pop(),
        Some(Got::ProtocolError(ProtocolError::TooManyEmptyFragments))
    );
    assert_eq!(server.transmits(), [close(1008, "too many empty fragments")]);
}

#[test]
fn server_receives_65_536_small_fragments_as_one_message() {
    // checks [6455-5.4-3]
    // Autobahn 9.3.1 and 9.4.1: 4 MiB in fragments of 64 bytes.
    let mut server = Endpoint::server();
    assert_eq!(server.receives([binary([7; 64]).fin(false)]), []);
    assert_eq!(
        server.receives((2..65_536).map(|_| continuation([7; 64]).fin(false))),
        []
    );
    assert_eq!(
        server.receives([continuation([7; 64])]),
        [Got::binary(vec![7; 4 << 20])]
    );
}

#[test]
fn client_receives_65_536_small_fragments_as_one_message() {
    let mut client = Endpoint::client();
    assert_eq!(client.receives([text("0123456701234567").fin(false)]), []);
    assert_eq!(
        client.receives((2..65_536).map(|_| continuation("0123456701234567").fin(false))),
        []
    );
    let expected = Got::Text("01234567".repeat(2 * 65_536));
    assert_eq!(client.receives([continuation("0123456701234567")]), [expected]);
}
