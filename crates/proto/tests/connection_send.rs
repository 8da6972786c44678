//! Sending: single-frame messages, headers for payloads sent by the caller, fragments (RFC 6455 §5.2, §5.4).

mod common;

use common::{Endpoint, Frame, KEY, Local, binary, close, continuation, keys_drawn, ping, pong, text};
use sockeye_proto::{CloseCode, Data, Fragment, MaskingKey, MessageKind, SendError};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

impl Endpoint {
    #[track_caller]
    fn sends(&mut self, data: Data<'_>) -> Vec<Frame> {
        let mut out = Vec::new();
        self.connection.send(data, &mut out).unwrap();
        self.read_sent(&out)
    }

    #[track_caller]
    fn sends_fragment(&mut self, data: Data<'_>, fragment: Fragment) -> Vec<Frame> {
        let mut out = Vec::new();
        self.connection.send_fragment(data, fragment, &mut out).unwrap();
        self.read_sent(&out)
    }
}

#[test]
fn server_sends_the_unmasked_hello_of_the_rfc() {
    // checks [6455-5.1-4, 6455-5.2-1, 6455-6.1-3, 6455-6.1-4]
    let mut out = Vec::new();
    Endpoint::server()
        .connection
        .send(Data::Text("Hello"), &mut out)
        .unwrap();
    assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
}

#[test]
fn client_sends_the_masked_hello_of_the_rfc() {
    // checks [6455-5.1-1, 6455-5.3-1, 6455-6.1-6]
    let role = sockeye_proto::Role::Client {
        mask: || MaskingKey(KEY),
    };
    let mut client = sockeye_proto::Connection::new(role, Default::default(), common::at(0));
    let mut out = Vec::new();
    client.send(Data::Text("Hello"), &mut out).unwrap();
    assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
}

#[test]
fn lengths_are_sent_in_the_shortest_encoding() {
    // checks [6455-5.2-5, 6455-5.2-6]
    for local in BOTH {
        let mask_len = if local == Local::Client { 4 } else { 0 };
        for (len, header_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (65_537, 10)] {
            let mut endpoint = Endpoint::new(local);
            let payload = vec![b'x'; len];
            let mut out = Vec::new();
            endpoint.connection.send(Data::Binary(&payload), &mut out).unwrap();
            assert_eq!(out.len(), header_len + mask_len + len);
            assert_eq!(endpoint.read_sent(&out), [binary(&payload)]);
        }
    }
}

#[test]
fn messages_are_appended_in_order_to_the_buffer() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let mut out = b"kept".to_vec();
        endpoint.connection.send(Data::Text("a"), &mut out).unwrap();
        endpoint.connection.send(Data::Binary(b"b"), &mut out).unwrap();
        assert_eq!(&out[..4], b"kept");
        assert_eq!(endpoint.read_sent(&out[4..]), [text("a"), binary("b")]);
    }
}

#[test]
fn server_sends_only_the_header_for_a_payload_of_the_caller() {
    let mut server = Endpoint::server();
    let mut out = Vec::new();
    let mask = server
        .connection
        .start_message(MessageKind::Binary, 70_000, &mut out)
        .unwrap();
    // FIN and binary, the marker for a 64-bit length, 70,000.
    assert_eq!((mask, &out[..]), (None, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70][..]));
}

#[test]
fn client_returns_the_key_for_a_payload_sent_by_the_caller() {
    let mut client = Endpoint::client();
    let mut out = Vec::new();
    let mask = client.connection.start_message(MessageKind::Text, 5, &mut out).unwrap();
    let mut payload = *b"Hello";
    mask.expect("clients mask").apply(&mut payload);
    out.extend(payload);
    assert_eq!(client.read_sent(&out), [text("Hello")]);
}

#[test]
fn control_frames_can_be_sent_between_fragments() {
    // checks [6455-5.4-1, 6455-6.1-3, 6455-6.1-4, 6455-6.1-5]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        assert_eq!(
            endpoint.sends_fragment(Data::Text("a"), Fragment::More),
            [text("a").fin(false)]
        );
        endpoint.receives([common::ping("now")]);
        endpoint.connection.ping(b"ours").unwrap();
        assert_eq!(endpoint.transmits(), [pong("now"), ping("ours")]);
        assert_eq!(
            endpoint.sends_fragment(Data::Text(""), Fragment::More),
            [continuation("").fin(false)]
        );
        assert_eq!(
            endpoint.sends_fragment(Data::Text("b"), Fragment::Last),
            [continuation("b")]
        );
        // The next message is a new one.
        assert_eq!(
            endpoint.sends_fragment(Data::Binary(b"c"), Fragment::Last),
            [binary("c")]
        );
        assert_eq!(endpoint.sends(Data::Text("d")), [text("d")]);
    }
}

#[test]
fn close_between_fragments_ends_the_message() {
    // checks [6455-6.1-2]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.sends_fragment(Data::Text("a"), Fragment::More);
        endpoint.connection.close(CloseCode::GOING_AWAY, "").unwrap();
        assert_eq!(endpoint.transmits(), [close(1001, "")]);
        let mut out = Vec::new();
        let late = endpoint
            .connection
            .send_fragment(Data::Text("b"), Fragment::Last, &mut out);
        assert_eq!((late, &out[..]), (Err(SendError::Closed), &b""[..]));
    }
}

#[test]
fn new_message_between_fragments_is_rejected_without_effect() {
    // checks [6455-5.4-6]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.sends_fragment(Data::Text("a"), Fragment::More);
        let mut out = Vec::new();
        let rejected = Err(SendError::MessageInProgress);
        let connection = &mut endpoint.connection;
        assert_eq!(connection.send(Data::Text("b"), &mut out), rejected);
        assert_eq!(connection.send(Data::Binary(b"b"), &mut out), rejected);
        assert_eq!(
            connection.send_fragment(Data::Binary(b"b"), Fragment::Last, &mut out),
            rejected
        );
        assert_eq!(
            connection.start_message(MessageKind::Text, 1, &mut out).err(),
            rejected.err()
        );
        assert_eq!(out, b"", "a rejected call appends nothing");
        assert_eq!(
            endpoint.sends_fragment(Data::Text("c"), Fragment::Last),
            [continuation("c")]
        );
    }
}

#[test]
fn send_errors_describe_the_problem() {
    let messages = [
        SendError::Closed,
        SendError::MessageInProgress,
        SendError::PingTooLong { len: 126 },
    ]
    .map(|error| error.to_string());
    let expected = [
        "the connection is closing or closed",
        "a fragmented message is not finished; send its last fragment first",
        "ping payload of 126 bytes exceeds the maximum of 125 bytes",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn client_uses_one_masking_key_per_frame() {
    // checks [6455-5.3-2, 6455-10.3-1]
    let mut client = Endpoint::client();
    let before = keys_drawn();
    client.sends(Data::Text("a"));
    client.sends_fragment(Data::Text("b"), Fragment::More);
    client.sends_fragment(Data::Text("c"), Fragment::Last);
    assert_eq!(keys_drawn() - before, 3);
    for _ in 0..10 {
        assert_eq!(client.transmits(), []);
    }
    assert_eq!(keys_drawn() - before, 3, "a poll that sends nothing uses no key");
    client.receives([ping("")]);
    client.connection.ping(b"").unwrap();
    client.transmits();
    assert_eq!(keys_drawn() - before, 5);
    client.connection.close(CloseCode::NORMAL, "").unwrap();
    client.transmits();
    client.transmits();
    assert_eq!(keys_drawn() - before, 6);
}
