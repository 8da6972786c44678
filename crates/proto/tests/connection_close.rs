//! The closing handshake: contents of close frames, starting and answering a close (RFC 6455 §5.5.1, §7.1 to §7.4).

mod common;

use common::{
    Endpoint, Frame, Got, Local, binary, check_fails, client_fails, close, continuation, frame, ping, server_fails,
    text,
};
use sockeye_proto::{
    CloseCause, CloseCode, CloseFrame, CloseInfo, InvalidClose, ProtocolError, SendError, Side, State, TransportAction,
};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// Codes that must not be sent (RFC 6455 §7.4), including the bounds of each range.
const INVALID_CODES: [u16; 17] = [
    0, 1, 100, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 5001, 32_767, 32_768, 65_535,
];
const VALID_CODES: [u16; 15] = [
    1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4999,
];

impl Endpoint {
    fn close(&mut self, code: u16, reason: &str) {
        self.connection.close(CloseCode(code), reason).unwrap();
    }

    fn close_info(&self) -> &CloseInfo {
        self.connection.close_info().expect("closing")
    }
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame::new(CloseCode(code), reason).unwrap()
}

fn empty_close() -> Frame {
    frame(0x8, "")
}

// RFC 6455 §5.5.1, §7.4: contents of close frames.

#[test]
fn server_receives_close_with_a_body_of_one_byte_fails_1002() {
    // checks [6455-5.5.1-1]
    server_fails([0x88, 0x81, 0, 0, 0, 0, 0x03], ProtocolError::TruncatedCloseCode);
}

#[test]
fn client_receives_close_with_a_body_of_one_byte_fails_1002() {
    // checks [6455-5.5.1-1]
    client_fails([0x88, 0x01, 0x03], ProtocolError::TruncatedCloseCode);
}

#[test]
fn server_receives_invalid_close_code_fails_1002() {
    // checks [6455-7.4.1-1, 6455-7.4.1-2, 6455-7.4.1-3, 6455-7.4.1-4, 6455-7.4.2-1, 6455-7.4.2-2]
    for code in INVALID_CODES {
        let [high, low] = code.to_be_bytes();
        let error = ProtocolError::InvalidCloseCode(CloseCode(code));
        server_fails([0x88, 0x82, 0, 0, 0, 0, high, low], error);
    }
}

#[test]
fn client_receives_invalid_close_code_fails_1002() {
    // checks [6455-7.4.1-1, 6455-7.4.1-2, 6455-7.4.1-3, 6455-7.4.1-4, 6455-7.4.2-1, 6455-7.4.2-2]
    for code in INVALID_CODES {
        let [high, low] = code.to_be_bytes();
        client_fails(
            [0x88, 0x02, high, low],
            ProtocolError::InvalidCloseCode(CloseCode(code)),
        );
    }
}

#[test]
fn server_receives_close_reason_that_is_not_utf8_fails_1007() {
    // checks [6455-8.1-1]
    server_fails([0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff], ProtocolError::InvalidUtf8);
    // The first two of three bytes of U+20AC.
    server_fails(
        [0x88, 0x84, 0, 0, 0, 0, 0x03, 0xe8, 0xe2, 0x82],
        ProtocolError::InvalidUtf8,
    );
}

#[test]
fn client_receives_close_reason_that_is_not_utf8_fails_1007() {
    client_fails([0x88, 0x03, 0x03, 0xe8, 0xff], ProtocolError::InvalidUtf8);
    client_fails([0x88, 0x04, 0x03, 0xe8, 0xe2, 0x82], ProtocolError::InvalidUtf8);
}

#[test]
fn server_receives_every_valid_close_code_and_echoes_it() {
    // checks [6455-5.5.1-5, 6455-5.5.1-7, 6455-7.1.5-1, 6455-7.4.2-3]
    for code in VALID_CODES {
        check_echo(
            Local::Server,
            close(code, "reason"),
            close(code, ""),
            close_frame(code, "reason"),
        );
    }
}

#[test]
fn client_receives_every_valid_close_code_and_echoes_it() {
    // checks [6455-5.5.1-3, 6455-5.5.1-5, 6455-5.5.1-7, 6455-7.1.5-1, 6455-7.4.2-3]
    for code in VALID_CODES {
        check_echo(
            Local::Client,
            close(code, "reason"),
            close(code, ""),
            close_frame(code, "reason"),
        );
    }
}

#[test]
fn server_receives_close_without_code_and_echoes_none() {
    // checks [6455-7.1.5-2]
    check_echo(Local::Server, empty_close(), empty_close(), close_frame(1005, ""));
}

#[test]
fn client_receives_close_without_code_and_echoes_none() {
    check_echo(Local::Client, empty_close(), empty_close(), close_frame(1005, ""));
}

#[test]
fn close_reason_is_limited_to_123_bytes_in_both_directions() {
    let reason = "r".repeat(123);
    for local in BOTH {
        check_echo(local, close(1000, &reason), close(1000, ""), close_frame(1000, &reason));
        let mut endpoint = Endpoint::new(local);
        endpoint.close(1000, &reason);
        assert_eq!(endpoint.transmits(), [close(1000, &reason)]);
    }
}

#[track_caller]
fn check_echo(local: Local, received: Frame, answer: Frame, known: CloseFrame) {
    let mut endpoint = Endpoint::new(local);
    let expected = Got::Close(known.code.0, known.reason.clone());
    assert_eq!(
        endpoint.receives([received.clone(), received]),
        [expected],
        "the second means nothing"
    );
    assert_eq!(endpoint.transmits(), [answer]);
    let close_info = endpoint.close_info();
    assert_eq!(
        (close_info.initiator(), close_info.cause()),
        (Side::Peer, CloseCause::Peer)
    );
    assert_eq!(
        (close_info.code(), close_info.reason()),
        (known.code, known.reason.as_str())
    );
    assert_eq!(close_info.received(), Some(&known));
    assert_eq!(close_info.sent().unwrap().code, known.code);
    assert!(close_info.is_clean());
    assert_eq!(endpoint.transmits(), [], "one close frame each, no loop");
}

#[test]
fn invalid_close_is_rejected_without_effect() {
    // checks [6455-7.4.1-1, 6455-7.4.1-2, 6455-7.4.1-3, 6455-7.4.1-4, 6455-7.4.2-1, 6455-7.4.2-2]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for code in INVALID_CODES.into_iter().filter(|&code| code != 1005) {
            let rejected = endpoint.connection.close(CloseCode(code), "");
            assert_eq!(rejected, Err(InvalidClose::Code(CloseCode(code))));
        }
        let rejected = endpoint.connection.close(CloseCode::NO_STATUS, "reason without a code");
        assert_eq!(rejected, Err(InvalidClose::Code(CloseCode::NO_STATUS)));
        let rejected = endpoint.connection.close(CloseCode::NORMAL, &"r".repeat(124));
        assert_eq!(rejected, Err(InvalidClose::ReasonTooLong { len: 124 }));
        endpoint.is(State::Open, TransportAction::Open);
        assert_eq!(endpoint.transmits(), []);
        assert_eq!(endpoint.connection.close_info(), None);
    }
}

#[test]
fn close_without_code_sends_an_empty_frame() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.close(1005, "");
        assert_eq!(endpoint.transmits(), [empty_close()]);
        assert_eq!(endpoint.close_info().sent(), Some(&close_frame(1005, "")));
    }
}

// RFC 6455 §7.1: which side closes, answers, and closes TCP.

#[test]
fn server_half_closes_tcp_after_the_close_answer() {
    // checks [6455-5.5.1-8, 6455-5.5.1-9, 6455-7.1.1-2, 6455-7.1.2-1]
    let mut server = Endpoint::server();
    server.close(1000, "done");
    server.is(State::CloseSent, TransportAction::Open);
    assert_eq!(server.transmits(), [close(1000, "done")]);
    assert_eq!(server.receives([close(1000, "done")]), [Got::close(1000, "done")]);
    server.is(State::Draining, TransportAction::HalfClose);
    assert_eq!(server.transmits(), []);
    server.connection.handle_transport_end();
    server.is(State::Closed, TransportAction::Close);
    assert_eq!(
        (server.close_info().initiator(), server.close_info().cause()),
        (Side::Local, CloseCause::Local)
    );
    assert!(server.close_info().is_clean());
}

#[test]
fn client_closes_and_waits_for_the_server_to_close_tcp() {
    // checks [6455-5.5.1-8, 6455-5.5.1-10, 6455-7.1.1-3, 6455-7.1.2-1]
    let mut client = Endpoint::client();
    client.close(1000, "done");
    client.is(State::CloseSent, TransportAction::Open);
    assert_eq!(client.transmits(), [close(1000, "done")]);
    assert_eq!(client.receives([close(1000, "done")]), [Got::close(1000, "done")]);
    client.is(State::Draining, TransportAction::Open);
    client.connection.handle_transport_end();
    client.is(State::Closed, TransportAction::Close);
    assert_eq!(
        (client.close_info().initiator(), client.close_info().cause()),
        (Side::Local, CloseCause::Local)
    );
    assert!(client.close_info().is_clean());
}

#[test]
fn server_answers_close_and_half_closes_tcp() {
    // checks [6455-5.5.1-5, 6455-5.5.1-6, 6455-5.5.1-9]
    let mut server = Endpoint::server();
    server.receives([close(1001, "")]);
    server.is(State::Draining, TransportAction::HalfClose);
    assert_eq!(server.transmits(), [close(1001, "")]);
}

#[test]
fn client_answers_close_and_waits_for_the_server_to_close_tcp() {
    // checks [6455-5.5.1-5, 6455-5.5.1-6, 6455-5.5.1-10]
    let mut client = Endpoint::client();
    client.receives([close(1001, "")]);
    client.is(State::Draining, TransportAction::Open);
    assert_eq!(client.transmits(), [close(1001, "")]);
}

#[test]
fn server_closes_at_the_same_time_as_the_client() {
    // checks [6455-5.5.1-12, 6455-7.1.2-2]
    let mut server = Endpoint::server();
    server.close(1001, "ours");
    server.receives([close(4000, "theirs")]);
    // One close frame each: the peer's frame counts as the answer to ours, regardless of its contents.
    assert_eq!(server.transmits(), [close(1001, "ours")]);
    server.is(State::Draining, TransportAction::HalfClose);
    check_both_frames_known(&server);
}

#[test]
fn client_closes_at_the_same_time_as_the_server() {
    // checks [6455-5.5.1-12, 6455-7.1.2-2]
    let mut client = Endpoint::client();
    client.close(1001, "ours");
    client.receives([close(4000, "theirs")]);
    assert_eq!(client.transmits(), [close(1001, "ours")]);
    client.is(State::Draining, TransportAction::Open);
    check_both_frames_known(&client);
}

#[track_caller]
fn check_both_frames_known(endpoint: &Endpoint) {
    let close_info = endpoint.close_info();
    assert_eq!(close_info.sent(), Some(&close_frame(1001, "ours")));
    assert_eq!(close_info.received(), Some(&close_frame(4000, "theirs")));
    assert_eq!((close_info.code().0, close_info.reason()), (4000, "theirs"));
    assert_eq!((close_info.initiator(), close_info.is_clean()), (Side::Local, true));
}

#[test]
fn first_close_of_the_application_wins() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.close(1000, "first");
        endpoint.close(1011, "second");
        assert_eq!(endpoint.transmits(), [close(1000, "first")]);
        endpoint.close(1011, "third");
        assert_eq!(endpoint.transmits(), []);
        // Closing after the peer's close frame has no effect either.
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([close(1000, "")]);
        endpoint.close(1011, "late");
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
        assert_eq!(endpoint.close_info().initiator(), Side::Peer);
    }
}

#[test]
fn messages_are_received_until_the_close_of_the_peer() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        assert_eq!(endpoint.receives([text("be").fin(false)]), []);
        endpoint.close(1000, "");
        endpoint.transmits();
        let got = endpoint.receives([
            continuation("fore"),
            ping("p"),
            text("and after"),
            close(1000, ""),
            text("never"),
        ]);
        let expected = [
            Got::text("before"),
            Got::ping("p"),
            Got::text("and after"),
            Got::close(1000, ""),
        ];
        assert_eq!(got, expected);
        assert_eq!(endpoint.transmits(), []);
    }
}

#[test]
fn data_after_close_is_ignored_even_if_invalid() {
    // checks [6455-7.1.7-5]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([close(1000, "")]);
        let junk = [frame(0x3, "reserved"), text([0xff]), continuation(""), close(999, "")];
        assert_eq!(endpoint.receives(junk), []);
        assert_eq!(endpoint.receives_bytes(&[0xff; 100]), []);
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
        assert_eq!(endpoint.close_info().cause(), CloseCause::Peer);
    }
}

#[test]
fn nothing_is_sent_after_a_close() {
    // checks [6455-5.5.1-4, 6455-6.1-1, 6455-6.1-2]
    let closings: [fn(&mut Endpoint); 4] = [
        |endpoint| endpoint.close(1000, ""),
        |endpoint| drop(endpoint.receives([close(1000, "")])),
        |endpoint| drop(endpoint.receives([frame(0x3, "")])),
        |endpoint| endpoint.connection.handle_transport_end(),
    ];
    for local in BOTH {
        for closing in closings {
            let mut endpoint = Endpoint::new(local);
            closing(&mut endpoint);
            endpoint.transmits();
            let connection = &mut endpoint.connection;
            let mut out = Vec::new();
            let text = sockeye_proto::Data::Text("a");
            assert_eq!(connection.send(text, &mut out), Err(SendError::Closed));
            let last = sockeye_proto::Fragment::Last;
            assert_eq!(connection.send_fragment(text, last, &mut out), Err(SendError::Closed));
            let kind = sockeye_proto::MessageKind::Text;
            assert_eq!(connection.start_message(kind, 1, &mut out), Err(SendError::Closed));
            assert_eq!(connection.ping(b""), Err(SendError::Closed));
            assert_eq!(out, b"");
            assert_eq!(endpoint.transmits(), []);
        }
    }
}

#[test]
fn server_receives_protocol_error_after_its_close_and_sends_no_second_close() {
    let mut server = Endpoint::server();
    server.close(1000, "");
    assert_eq!(server.transmits(), [close(1000, "")]);
    assert_eq!(
        server.receives_bytes(&[0x81, 0x00]),
        [Got::ProtocolError(ProtocolError::UnmaskedFrame)]
    );
    check_error_after_close(&mut server, ProtocolError::UnmaskedFrame);
}

#[test]
fn client_receives_protocol_error_after_its_close_and_sends_no_second_close() {
    let mut client = Endpoint::client();
    client.close(1000, "");
    assert_eq!(client.transmits(), [close(1000, "")]);
    let masked = [0x81, 0x80, 0, 0, 0, 0];
    assert_eq!(
        client.receives_bytes(&masked),
        [Got::ProtocolError(ProtocolError::MaskedFrame)]
    );
    check_error_after_close(&mut client, ProtocolError::MaskedFrame);
}

#[track_caller]
fn check_error_after_close(endpoint: &mut Endpoint, error: ProtocolError) {
    assert_eq!(endpoint.transmits(), []);
    endpoint.is(State::Draining, TransportAction::HalfClose);
    let close_info = endpoint.close_info();
    assert_eq!(
        (close_info.initiator(), close_info.cause()),
        (Side::Local, CloseCause::ProtocolError(error))
    );
    assert_eq!(close_info.sent(), Some(&close_frame(1000, "")));
    assert_eq!((close_info.received(), close_info.is_clean()), (None, false));
}

#[test]
fn queued_close_frame_is_not_replaced_by_a_protocol_error() {
    // The peer violates the protocol before our close frame is sent. The frame of the application is sent nevertheless.
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.close(1000, "");
        assert_eq!(
            endpoint.receives([frame(0x3, "")]),
            [Got::ProtocolError(ProtocolError::ReservedOpcode(3))]
        );
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
    }
}

#[test]
fn close_frame_split_across_inputs_is_received() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let wire = endpoint.as_peer_sends(close(4001, "gr\u{fc}n")).bytes();
        let got: Vec<Got> = wire.chunks(1).flat_map(|byte| endpoint.receives_bytes(byte)).collect();
        assert_eq!(got, [Got::close(4001, "gr\u{fc}n")]);
        assert_eq!(endpoint.transmits(), [close(4001, "")]);
    }
}

#[test]
fn messages_before_a_protocol_error_in_the_same_input_are_delivered() {
    let wire = [binary("one").bytes(), text("two").bytes(), frame(0x3, "").bytes()].concat();
    let before = [Got::binary("one"), Got::text("two")];
    check_fails(Local::Client, &wire, &before, ProtocolError::ReservedOpcode(3));
    let wire = [
        binary("one").masked([1; 4]).bytes(),
        frame(0x4, "").masked([1; 4]).bytes(),
    ]
    .concat();
    check_fails(
        Local::Server,
        &wire,
        &[Got::binary("one")],
        ProtocolError::ReservedOpcode(4),
    );
}
