//! C8 to C11: peers that do not read, do not answer, do not close, or disappear.

use sockeye_proto::handshake::{HandshakeError, HandshakeLimits, ServerHandshake, ServerProgress};
use sockeye_proto::{CloseCause, CloseCode, Config, Data, State, TransportAction};

use crate::common::{Endpoint, Frame, Got, Local, close, frame, ping, pong, text};
use crate::cost::{connection, flood, sent_to};
use crate::handshake_support::{plus, with};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

#[test]
fn cve_rustsec_2020_0043_pings_of_a_non_reading_peer_queue_one_pong() {
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let piece = sent_to(local, [ping([7; 125])]);
        let cost = flood(&mut connection, &[], &piece, 100_000);
        assert_eq!((cost.error, cost.event_count), (None, 100_000));
        assert!(
            cost.bytes_max <= 2 * 125,
            "the pending pong and its replacement: {cost:?}"
        );
        let mut out = Vec::new();
        connection.poll_transmit(&mut out);
        assert_eq!(Frame::parse_all(&out).len(), 1);
    }
}

#[test]
fn cve_2024_23672_unanswered_close_times_out_after_5_s() {
    for local in BOTH {
        let mut endpoint = closing(local);
        endpoint.transmits();
        endpoint.advance_to(4999);
        endpoint.is(State::CloseSent, TransportAction::Open);
        endpoint.advance_to(5000);
        check_timed_out(&endpoint, CloseCause::CloseTimeout);
    }
}

#[test]
fn cve_2026_79677_close_deadline_starts_when_the_frame_is_written() {
    for local in BOTH {
        let mut endpoint = closing(local);
        endpoint.queues();
        // The peer's TCP window is zero. The write timeout is the caller's: see the test of the same CVE in the crate
        // `sockeye`.
        endpoint.advance_to(9000);
        assert_eq!(endpoint.connection.poll_timeout(), None);
        endpoint.connection.handle_transmitted(endpoint.now());
        endpoint.advance_to(13_999);
        endpoint.is(State::CloseSent, TransportAction::Open);
        endpoint.advance_to(14_000);
        check_timed_out(&endpoint, CloseCause::CloseTimeout);
    }
}

#[test]
fn cve_2026_79677_incoming_data_does_not_extend_the_close_deadline() {
    for local in BOTH {
        let mut endpoint = closing(local);
        endpoint.transmits();
        for ms in (0..5000).step_by(10) {
            endpoint.advance_to(ms);
            endpoint.receives([text("more"), ping("")]);
        }
        endpoint.advance_to(5000);
        check_timed_out(&endpoint, CloseCause::CloseTimeout);
    }
}

#[test]
fn cve_2026_77791_closing_connection_does_not_busy_loop() {
    let ends: [fn(&mut Endpoint); 3] = [
        |endpoint| endpoint.connection.close(CloseCode::NORMAL, "").expect("valid"),
        |endpoint| drop(endpoint.receives([close(1000, "")])),
        |endpoint| drop(endpoint.receives([frame(0x3, "")])),
    ];
    for local in BOTH {
        for end in ends {
            let mut endpoint = Endpoint::new(local);
            end(&mut endpoint);
            endpoint.transmits();
            let mut wakes = 0;
            while let Some(deadline) = endpoint.connection.poll_timeout() {
                assert!(
                    deadline > endpoint.now(),
                    "a deadline that has passed would be waited for again at once"
                );
                endpoint.advance_to(deadline.since_origin().as_millis() as u64);
                assert_eq!(endpoint.transmits(), []);
                wakes += 1;
            }
            assert_eq!(wakes, 1);
            endpoint.is(State::Closed, TransportAction::Close);
        }
    }
}

#[test]
fn cve_2024_22201_dead_peer_times_out_after_30_s() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint
            .connection
            .send(Data::Text("never acknowledged"), &mut vec![])
            .unwrap();
        endpoint.advance_to(20_000);
        assert_eq!(endpoint.transmits().len(), 1, "a ping");
        endpoint.advance_to(29_999);
        endpoint.is(State::Open, TransportAction::Open);
        endpoint.advance_to(30_000);
        check_timed_out(&endpoint, CloseCause::KeepaliveTimeout);
    }
}

#[test]
fn cve_2024_22201_flood_while_draining_is_discarded_then_closed() {
    const READ_MAX: usize = 64 << 20;
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let piece = [0xff; 64 * 1024];
        let end = sent_to(local, [close(1000, "")]);
        flood(&mut connection, &end, &[], 0);
        connection.poll_transmit(&mut Vec::new());
        connection.handle_transmitted(Default::default());
        let cost = flood(&mut connection, &[], &piece, READ_MAX / piece.len() + 1);
        assert_eq!((cost.event_count, cost.bytes_max), (0, 0));
        assert_eq!(connection.state(), State::Closed);
    }
}

#[test]
fn cve_2021_3690_pongs_leak_no_memory() {
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let piece = sent_to(local, [pong([7; 125]), pong("")]);
        let cost = flood(&mut connection, &[], &piece, 100_000);
        assert_eq!((cost.error, cost.event_count), (None, 200_000));
        assert_eq!((cost.bytes_max, cost.bytes_left), (0, 0));
    }
}

#[test]
fn cve_ghsa_9mqv_5hh9_4cgg_failed_upgrade_leaks_no_memory() {
    let request = with("Sec-WebSocket-Key", &["Sec-WebSocket-Key: short"]);
    let info = allocation_counter::measure(|| {
        for _ in 0..1000 {
            let handshake = ServerHandshake::new(HandshakeLimits::default());
            let step = handshake.handle_bytes(&request);
            assert!(matches!(step, ServerProgress::Invalid(invalid) if invalid.error == HandshakeError::KeyInvalid));
        }
    });
    assert_eq!((info.bytes_current, info.count_current), (0, 0));
    assert!(info.bytes_max <= 8 * 1024, "{info:?}");
}

#[test]
fn cve_2026_126343_reset_at_any_byte_of_a_request_is_an_error_value() {
    let request = plus(&["Sec-WebSocket-Protocol: chat", "Origin: http://server.example.com"]);
    for len in 0..request.len() {
        let step = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(&request[..len]);
        let ServerProgress::Incomplete(handshake) = step else {
            panic!("{len} bytes are not a complete request");
        };
        let status = handshake
            .handle_timeout()
            .map(|invalid| invalid.response.status().as_u16());
        assert_eq!(status, (len > 0).then_some(408));
    }
}

#[test]
fn cve_2026_129500_reset_at_any_byte_of_a_frame_is_1006() {
    for local in BOTH {
        let wire = sent_to(local, [text("a").fin(false), ping("p"), close(1000, "bye")]);
        for len in 0..wire.len() {
            let mut endpoint = Endpoint::new(local);
            endpoint.receives_bytes(&wire[..len]);
            endpoint.connection.handle_transport_end();
            check_timed_out(&endpoint, CloseCause::TransportEnd);
            assert_eq!(endpoint.connection.buffered_len(), 0);
        }
    }
}

#[test]
fn cve_2022_41940_reset_in_any_state_closes_and_may_repeat() {
    let states: [fn(&mut Endpoint); 5] = [
        |_| {},
        |endpoint| endpoint.connection.close(CloseCode::NORMAL, "").expect("valid"),
        |endpoint| drop(endpoint.receives([close(1000, "")])),
        |endpoint| drop(endpoint.receives([frame(0x3, "")])),
        |endpoint| endpoint.connection.ping(b"unanswered").expect("connection is open"),
    ];
    for local in BOTH {
        for state in states {
            let mut endpoint = Endpoint::new(local);
            state(&mut endpoint);
            for _ in 0..2 {
                endpoint.connection.handle_transport_end();
                endpoint.is(State::Closed, TransportAction::Close);
            }
            assert_eq!(endpoint.receives([text("late")]), [] as [Got; 0]);
            assert!(endpoint.connection.poll_timeout().is_none());
        }
    }
}

#[test]
fn cve_2022_21676_malformed_request_gets_a_response() {
    let requests: [&[u8]; 6] = [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x81\x80\x00\x00\x00\x00\r\n\r\n",
    ];
    for request in requests {
        let progress = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request);
        let ServerProgress::Invalid(invalid) = progress else {
            panic!("{}: {progress:?}", request.escape_ascii());
        };
        assert!((400..=505).contains(&invalid.response.status().as_u16()));
    }
}

/// An endpoint whose application has just closed the connection.
fn closing(local: Local) -> Endpoint {
    let mut endpoint = Endpoint::new(local);
    endpoint.connection.close(CloseCode::NORMAL, "").unwrap();
    endpoint
}

#[track_caller]
fn check_timed_out(endpoint: &Endpoint, cause: CloseCause) {
    endpoint.is(State::Closed, TransportAction::Close);
    let close_info = endpoint.connection.close_info().expect("closed");
    assert_eq!(
        (close_info.cause(), close_info.code().0, close_info.is_clean()),
        (cause, 1006, false)
    );
    assert_eq!(endpoint.connection.poll_timeout(), None);
}
