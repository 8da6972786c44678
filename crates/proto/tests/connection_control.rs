//! Pings and pongs (RFC 6455 §5.5.2, §5.5.3). `pair.rs` tests the keepalive over time.

mod common;

use common::{Endpoint, Got, Local, close, continuation, ping, pong, text};
use sockeye_proto::{CloseCode, SendError, State, TransportAction};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

#[test]
fn server_receives_ping_and_answers_with_its_payload() {
    // checks [6455-5.5.2-1, 6455-5.5.3-1]
    for payload in [&b""[..], b"a", b"\xff\x00", &[7; 124], &[7; 125]] {
        let mut server = Endpoint::server();
        assert_eq!(server.receives([ping(payload)]), [Got::ping(payload)]);
        assert_eq!(server.transmits(), [pong(payload)]);
        assert_eq!(server.transmits(), []);
    }
}

#[test]
fn client_receives_ping_and_answers_with_its_payload() {
    // checks [6455-5.5.2-1, 6455-5.5.3-1]
    for payload in [&b""[..], b"a", b"\xff\x00", &[7; 124], &[7; 125]] {
        let mut client = Endpoint::client();
        assert_eq!(client.receives([ping(payload)]), [Got::ping(payload)]);
        assert_eq!(client.transmits(), [pong(payload)]);
        assert_eq!(client.transmits(), []);
    }
}

#[test]
fn ping_received_byte_by_byte_is_answered() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let wire = endpoint.as_peer_sends(ping("payload")).bytes();
        let got: Vec<Got> = wire.chunks(1).flat_map(|byte| endpoint.receives_bytes(byte)).collect();
        assert_eq!(got, [Got::ping("payload")]);
        assert_eq!(endpoint.transmits(), [pong("payload")]);
    }
}

#[test]
fn server_receives_many_pings_and_answers_the_newest() {
    // checks [6455-5.5.3-2]
    let mut server = Endpoint::server();
    let got = server.receives((0..100_u8).map(|number| ping([number])));
    assert_eq!(got.len(), 100);
    assert_eq!(server.transmits(), [pong([99])]);
}

#[test]
fn client_receives_many_pings_and_answers_the_newest() {
    let mut client = Endpoint::client();
    let got = client.receives((0..100_u8).map(|number| ping([number])));
    assert_eq!(got.len(), 100);
    assert_eq!(client.transmits(), [pong([99])]);
}

#[test]
fn pings_with_polls_in_between_are_all_answered() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for number in 0..3 {
            endpoint.receives([ping([number])]);
            assert_eq!(endpoint.transmits(), [pong([number])]);
        }
    }
}

#[test]
fn ping_between_fragments_is_answered_immediately() {
    // checks [6455-5.5.2-3]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        assert_eq!(
            endpoint.receives([text("a").fin(false), ping("now")]),
            [Got::ping("now")]
        );
        assert_eq!(endpoint.transmits(), [pong("now")]);
        assert_eq!(endpoint.receives([continuation("b")]), [Got::text("ab")]);
    }
}

#[test]
fn server_receives_unsolicited_pong_and_ignores_it() {
    // checks [6455-5.5.3-3]
    let mut server = Endpoint::server();
    assert_eq!(server.receives([pong(""), pong("x")]), [Got::pong(""), Got::pong("x")]);
    assert_eq!(server.transmits(), []);
    assert_eq!(server.connection.rtt(), None);
    server.is(State::Open, TransportAction::Open);
}

#[test]
fn client_receives_unsolicited_pong_and_ignores_it() {
    let mut client = Endpoint::client();
    assert_eq!(client.receives([pong(""), pong("x")]), [Got::pong(""), Got::pong("x")]);
    assert_eq!(client.transmits(), []);
    assert_eq!(client.connection.rtt(), None);
    client.is(State::Open, TransportAction::Open);
}

#[test]
fn server_receives_ping_after_close_and_does_not_answer() {
    let mut server = Endpoint::server();
    assert_eq!(server.receives([close(1000, ""), ping("late")]), [Got::close(1000, "")]);
    assert_eq!(server.transmits(), [close(1000, "")]);
}

#[test]
fn client_receives_ping_after_close_and_does_not_answer() {
    let mut client = Endpoint::client();
    assert_eq!(client.receives([close(1000, ""), ping("late")]), [Got::close(1000, "")]);
    assert_eq!(client.transmits(), [close(1000, "")]);
}

#[test]
fn ping_received_before_our_close_is_answered_first() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([ping("early")]);
        endpoint.connection.ping(b"ours, too late").unwrap();
        endpoint.connection.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(endpoint.receives([ping("late")]), [Got::ping("late")]);
        assert_eq!(endpoint.transmits(), [pong("early"), close(1000, "")]);
        assert_eq!(endpoint.transmits(), []);
    }
}

#[test]
fn no_pong_is_sent_after_our_close_frame() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.connection.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
        assert_eq!(endpoint.receives([ping("late")]), [Got::ping("late")]);
        assert_eq!(endpoint.transmits(), []);
    }
}

#[test]
fn pong_precedes_ping_and_close_stops_both() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.connection.ping(b"ours").unwrap();
        endpoint.receives([ping("theirs")]);
        assert_eq!(endpoint.transmits(), [pong("theirs"), ping("ours")]);

        endpoint.connection.ping(b"ours").unwrap();
        endpoint.receives([close(1000, "")]);
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
    }
}

#[test]
fn ping_payload_is_limited_to_125_bytes() {
    // checks [6455-5.5-1]
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for len in [0, 124, 125] {
            assert_eq!(endpoint.connection.ping(&vec![1; len]), Ok(()));
            assert_eq!(endpoint.transmits(), [ping(vec![1; len])]);
        }
        let too_long = endpoint.connection.ping(&[1; 126]);
        assert_eq!(too_long, Err(SendError::PingTooLong { len: 126 }));
        assert_eq!(endpoint.transmits(), []);
    }
}

#[test]
fn only_the_matching_pong_gives_the_rtt() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.connection.ping(b"a").unwrap();
        endpoint.now_ms = 1000;
        // The round-trip time starts when the ping is written.
        endpoint.transmits();
        endpoint.now_ms = 1007;
        endpoint.receives([pong("b"), pong("")]);
        assert_eq!(endpoint.connection.rtt(), None);
        endpoint.now_ms = 1042;
        endpoint.receives([pong("a")]);
        assert_eq!(endpoint.connection.rtt().unwrap().as_millis(), 42);
        // A second identical pong is unsolicited.
        endpoint.now_ms = 2000;
        endpoint.receives([pong("a")]);
        assert_eq!(endpoint.connection.rtt().unwrap().as_millis(), 42);
    }
}

#[test]
fn pong_to_a_replaced_ping_is_not_measured() {
    let mut client = Endpoint::client();
    client.connection.ping(b"old").unwrap();
    client.transmits();
    client.connection.ping(b"new").unwrap();
    client.transmits();
    client.now_ms = 10;
    client.receives([pong("old")]);
    assert_eq!(client.connection.rtt(), None);
    client.receives([pong("new")]);
    assert_eq!(client.connection.rtt().unwrap().as_millis(), 10);
}

#[test]
fn clock_going_backwards_does_not_panic() {
    let mut client = Endpoint::client();
    client.now_ms = 1000;
    client.connection.ping(b"").unwrap();
    client.transmits();
    client.now_ms = 500;
    client.receives([pong("")]);
    assert_eq!(client.connection.rtt().unwrap().as_millis(), 0);
}

#[test]
fn flood_of_pings_and_pongs_queues_one_pong() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for _ in 0..10_000 {
            let got = endpoint.receives([ping([1; 125]), pong([2; 125]), ping("")]);
            assert_eq!(got.len(), 3);
            assert_eq!(endpoint.connection.buffered_len(), 0);
        }
        assert_eq!(endpoint.transmits(), [pong("")]);
    }
}

#[test]
fn an_unsolicited_pong_leaves_beside_the_answer_to_a_ping() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([ping("theirs")]);
        let mut out = Vec::new();
        for len in [0, 125] {
            out.clear();
            assert_eq!(endpoint.connection.send_pong(&vec![1; len], &mut out), Ok(()));
            assert_eq!(endpoint.read_sent(&out), [pong(vec![1; len])]);
        }
        let too_long = endpoint.connection.send_pong(&[1; 126], &mut out);
        assert_eq!(too_long, Err(SendError::PongTooLong { len: 126 }));
        assert_eq!(endpoint.transmits(), [pong("theirs")]);
        endpoint.connection.close(CloseCode::NORMAL, "").unwrap();
        let late = endpoint.connection.send_pong(b"", &mut out);
        assert_eq!(late, Err(SendError::Closed));
    }
}

#[test]
fn started_ping_is_answered_by_its_pong_and_shares_an_unanswered_ping() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let first = endpoint.connection.start_ping().unwrap();
        assert_eq!(endpoint.connection.start_ping(), Ok(first));
        let sent = endpoint.transmits();
        assert_eq!(sent.len(), 1);
        assert!(!endpoint.connection.is_ping_answered(first));
        endpoint.receives([pong(&sent[0].payload)]);
        assert!(endpoint.connection.is_ping_answered(first));
        // A later ping answers for the earlier one too.
        let second = endpoint.connection.start_ping().unwrap();
        assert!(second != first && !endpoint.connection.is_ping_answered(second));
        endpoint.connection.ping(b"third").unwrap();
        endpoint.transmits();
        endpoint.receives([pong("third")]);
        assert!(endpoint.connection.is_ping_answered(second));
    }
}
