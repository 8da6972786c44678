//! The end of TCP, with and without a closing handshake: close info, deadlines, discarded bytes (RFC 6455 §7).

mod common;

use common::{Endpoint, Got, Local, at, close, frame, text};
use sockeye_proto::{CloseCause, CloseCode, CloseFrame, CloseInfo, Event, ProtocolError, Side, State, TransportAction};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

impl Endpoint {
    fn close(&mut self, code: u16, reason: &str) {
        self.connection.close(CloseCode(code), reason).unwrap();
    }

    fn close_info(&self) -> &CloseInfo {
        self.connection.close_info().expect("closing")
    }

    fn deadline_ms(&self) -> Option<u64> {
        let deadline = self.connection.poll_timeout()?;
        Some(deadline.since_origin().as_millis() as u64)
    }
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame::new(CloseCode(code), reason).unwrap()
}

// RFC 6455 §7.1.5, §7.1.7: TCP ends without a closing handshake.

#[test]
fn server_receives_end_of_tcp_without_close_is_1006() {
    // checks [6455-7.1.4-1, 6455-7.1.5-3, 6455-7.1.6-1]
    let mut server = Endpoint::server();
    server.connection.handle_transport_end();
    check_abnormal(&server, CloseCause::TransportEnd);
}

#[test]
fn client_receives_end_of_tcp_without_close_is_1006() {
    // checks [6455-7.1.4-1, 6455-7.1.5-3, 6455-7.1.6-1, 6455-7.2.1-1]
    let mut client = Endpoint::client();
    client.connection.handle_transport_end();
    check_abnormal(&client, CloseCause::TransportEnd);
}

#[track_caller]
fn check_abnormal(endpoint: &Endpoint, cause: CloseCause) {
    endpoint.is(State::Closed, TransportAction::Close);
    let close_info = endpoint.close_info();
    assert_eq!(
        (close_info.cause(), close_info.code(), close_info.reason()),
        (cause, CloseCode::ABNORMAL, "")
    );
    assert_eq!((close_info.received(), close_info.is_clean()), (None, false));
    assert_eq!(
        endpoint.connection.poll_timeout(),
        None,
        "a closed connection waits for nothing"
    );
    assert!(!endpoint.connection.wants_transmit());
    assert_eq!(endpoint.connection.buffered_len(), 0);
}

#[test]
fn end_of_tcp_inside_a_frame_delivers_nothing() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        let wire = endpoint.as_peer_sends(text("never delivered")).bytes();
        for cut in 0..wire.len() {
            let mut endpoint = Endpoint::new(local);
            assert_eq!(endpoint.receives_bytes(&wire[..cut]), []);
            endpoint.connection.handle_transport_end();
            assert_eq!(endpoint.receives_bytes(&wire[cut..]), []);
            check_abnormal(&endpoint, CloseCause::TransportEnd);
        }
        endpoint.receives([text("x").fin(false)]);
        endpoint.connection.handle_transport_end();
        check_abnormal(&endpoint, CloseCause::TransportEnd);
    }
}

#[test]
fn end_of_tcp_in_answer_to_our_close_frame_is_normal() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.close(4001, "ours");
        endpoint.transmits();
        endpoint.connection.handle_transport_end();
        check_abnormal(&endpoint, CloseCause::Local);
        assert_eq!(endpoint.close_info().sent(), Some(&close_frame(4001, "ours")));
        assert_eq!(endpoint.close_info().initiator(), Side::Local);
        assert!(endpoint.close_info().is_normal());
    }
}

#[test]
fn end_of_tcp_before_our_close_frame_is_written_is_abnormal() {
    // checks [6455-7.1.4-1]
    for local in BOTH {
        for is_queued in [false, true] {
            let mut endpoint = Endpoint::new(local);
            endpoint.close(1001, "ours");
            if is_queued {
                endpoint.queues();
            }
            endpoint.connection.handle_transport_end();
            check_abnormal(&endpoint, CloseCause::TransportEnd);
            assert_eq!(endpoint.close_info().sent(), Some(&close_frame(1001, "ours")));
            assert!(!endpoint.close_info().is_normal() && endpoint.close_info().is_retryable());
        }
    }
}

#[test]
fn close_code_of_the_peer_determines_is_normal_and_is_retryable() {
    for (code, is_normal, is_retryable) in [
        (1000, true, false),
        (1001, true, true),
        (1002, false, false),
        (1011, false, true),
        (1012, false, true),
        (1013, false, true),
        (1014, false, true),
        (3000, false, false),
        (4999, false, false),
    ] {
        for local in BOTH {
            let mut endpoint = Endpoint::new(local);
            endpoint.receives([close(code, "")]);
            assert_eq!(endpoint.close_info().is_normal(), is_normal, "{code}");
            assert_eq!(endpoint.close_info().is_retryable(), is_retryable, "{code}");
            // The code in an answer to our close frame has no influence.
            let mut endpoint = Endpoint::new(local);
            endpoint.close(1000, "");
            endpoint.receives([close(code, "")]);
            assert!(endpoint.close_info().is_normal() && !endpoint.close_info().is_retryable());
        }
    }
    let mut endpoint = Endpoint::server();
    endpoint.receives([frame(0x8, "")]);
    assert!(endpoint.close_info().is_normal(), "a close frame without a code");
    assert!(!endpoint.close_info().is_retryable(), "a close frame without a code");
}

#[test]
fn end_of_tcp_after_a_protocol_error_keeps_the_cause() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([frame(0x3, "")]);
        endpoint.transmits();
        for _ in 0..2 {
            endpoint.connection.handle_transport_end();
            check_abnormal(&endpoint, CloseCause::ProtocolError(ProtocolError::ReservedOpcode(3)));
        }
    }
}

// Deadlines: 5 s for the closing handshake and after a protocol error, 1 s for draining.

#[test]
fn server_times_out_waiting_for_the_close_answer() {
    check_close_timeout(Local::Server);
}

#[test]
fn client_times_out_waiting_for_the_close_answer() {
    check_close_timeout(Local::Client);
}

#[track_caller]
fn check_close_timeout(local: Local) {
    let mut endpoint = Endpoint::new(local);
    endpoint.advance_to(1000);
    // The deadline starts when our close frame is written. Incoming data does not extend it.
    endpoint.close(1000, "");
    endpoint.queues();
    assert_eq!(endpoint.deadline_ms(), None, "no deadline before the frame is written");
    endpoint.connection.handle_transmitted(at(1000));
    assert_eq!(endpoint.deadline_ms(), Some(6000));
    endpoint.advance_to(5999);
    assert_eq!(
        endpoint.receives([text("and on it goes")]),
        [Got::text("and on it goes")]
    );
    endpoint.connection.handle_timeout(at(5999));
    endpoint.is(State::CloseSent, TransportAction::Open);
    endpoint.advance_to(6000);
    check_abnormal(&endpoint, CloseCause::CloseTimeout);
    assert_eq!(endpoint.close_info().sent(), Some(&close_frame(1000, "")));
}

#[test]
fn server_drains_for_1_s_after_the_closing_handshake() {
    let mut server = Endpoint::server();
    server.advance_to(1000);
    server.receives([close(1000, "")]);
    check_linger(&mut server, 2000);
    assert!(server.close_info().is_clean(), "the handshake was complete");

    let mut server = Endpoint::server();
    server.close(1000, "");
    server.transmits();
    server.advance_to(4500);
    server.receives([close(1000, "")]);
    // Less than one second remains of the five.
    check_linger(&mut server, 5000);
    assert!(server.close_info().is_clean());
}

#[test]
fn client_waits_up_to_5_s_for_the_server_to_close_tcp() {
    // checks [6455-5.5.1-11, 6455-7.1.1-3]
    let mut client = Endpoint::client();
    client.advance_to(1000);
    client.receives([close(1000, "")]);
    check_linger(&mut client, 6000);
    assert!(client.close_info().is_clean(), "the handshake was complete");

    let mut client = Endpoint::client();
    client.close(1000, "");
    client.transmits();
    client.advance_to(4000);
    client.receives([close(1000, "")]);
    check_linger(&mut client, 5000);
    assert!(client.close_info().is_clean());
}

#[test]
fn drain_deadline_starts_when_our_close_frame_is_written() {
    for (local, patience_ms) in [(Local::Server, 1000), (Local::Client, 5000)] {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([close(1000, "")]);
        // The application was busy and sends its output only now.
        endpoint.advance_to(900);
        endpoint.queues();
        assert_eq!(endpoint.deadline_ms(), None);
        // Our own data precedes it.
        endpoint.advance_to(60_000);
        endpoint.is(State::Draining, endpoint.connection.transport_action());
        endpoint.connection.handle_transmitted(endpoint.now());
        assert_eq!(endpoint.deadline_ms(), Some(60_000 + patience_ms));
        // Only the first call counts.
        endpoint.connection.handle_transmitted(at(60_500));
        assert_eq!(endpoint.deadline_ms(), Some(60_000 + patience_ms));
    }
}

#[test]
fn server_reads_for_5_s_after_a_protocol_error() {
    let mut server = Endpoint::server();
    server.advance_to(1000);
    server.receives([frame(0x3, "")]);
    check_linger(&mut server, 6000);
    assert_eq!(
        server.close_info().cause(),
        CloseCause::ProtocolError(ProtocolError::ReservedOpcode(3))
    );
}

#[test]
fn client_reads_for_5_s_after_a_protocol_error() {
    let mut client = Endpoint::client();
    client.advance_to(1000);
    client.receives([frame(0x3, "")]);
    check_linger(&mut client, 6000);
    assert_eq!(
        client.close_info().cause(),
        CloseCause::ProtocolError(ProtocolError::ReservedOpcode(3))
    );
}

/// Checks that the connection drains until `deadline_ms`, whatever arrives, and is closed then.
#[track_caller]
fn check_linger(endpoint: &mut Endpoint, deadline_ms: u64) {
    endpoint.transmits();
    assert_eq!(endpoint.deadline_ms(), Some(deadline_ms));
    endpoint.advance_to(deadline_ms - 1);
    endpoint.receives([text("junk")]);
    endpoint.connection.handle_timeout(at(deadline_ms - 1));
    assert_eq!(
        (endpoint.connection.state(), endpoint.deadline_ms()),
        (State::Draining, Some(deadline_ms))
    );
    endpoint.advance_to(deadline_ms);
    endpoint.is(State::Closed, TransportAction::Close);
    assert_eq!(endpoint.deadline_ms(), None);
}

#[test]
fn close_timeout_is_configurable() {
    let mut config = sockeye_proto::Config::default();
    config.close_timeout = std::time::Duration::from_millis(300);
    for local in BOTH {
        let mut endpoint = Endpoint::with(local, config.clone());
        endpoint.close(1000, "");
        endpoint.transmits();
        assert_eq!(endpoint.deadline_ms(), Some(300));
        let mut endpoint = Endpoint::with(local, config.clone());
        endpoint.receives([close(1000, "")]);
        endpoint.transmits();
        assert_eq!(
            endpoint.deadline_ms(),
            Some(300),
            "a shorter timeout also shortens the linger"
        );
    }
}

// Input while draining is discarded, up to 64 MiB.

#[test]
fn server_discards_64_mib_while_draining_then_closes() {
    check_discard(Endpoint::server(), |server| drop(server.receives([close(1000, "")])));
    check_discard(Endpoint::server(), |server| drop(server.receives([frame(0x3, "")])));
}

#[test]
fn client_discards_64_mib_while_draining_then_closes() {
    check_discard(Endpoint::client(), |client| drop(client.receives([close(1000, "")])));
    check_discard(Endpoint::client(), |client| {
        drop(client.receives([frame(0x3, "").declaring(0)]))
    });
}

#[track_caller]
fn check_discard(mut endpoint: Endpoint, end: fn(&mut Endpoint)) {
    end(&mut endpoint);
    endpoint.transmits();
    let junk = vec![0; 4 << 20];
    for _ in 0..15 {
        assert_eq!(endpoint.receives_bytes(&junk), []);
    }
    assert_eq!(endpoint.connection.state(), State::Draining);
    let close_info = endpoint.close_info().clone();
    assert_eq!(endpoint.receives_bytes(&junk), []);
    assert_eq!(endpoint.receives_bytes(&[0; 1]), []);
    endpoint.is(State::Closed, TransportAction::Close);
    assert_eq!(
        endpoint.close_info(),
        &close_info,
        "too much junk does not change what is known"
    );
    assert_eq!(endpoint.receives_bytes(&[0; 100]), []);
}

#[test]
fn draining_discards_exactly_64_mib() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([close(1000, "")]);
        endpoint.transmits();
        endpoint.receives_bytes(&vec![0; 64 << 20]);
        assert_eq!(endpoint.connection.state(), State::Draining);
        endpoint.receives_bytes(&[0]);
        assert_eq!(endpoint.connection.state(), State::Closed);
    }
}

#[test]
fn flood_while_draining_does_not_prevent_sending_our_close_frame() {
    for local in BOTH {
        // One large read: an invalid frame followed by much data, before anything could be sent.
        let mut endpoint = Endpoint::new(local);
        let mut wire = endpoint.as_peer_sends(frame(0x3, "")).bytes();
        wire.resize(1 << 20, 0);
        assert_eq!(
            endpoint.receives_bytes(&wire),
            [Got::ProtocolError(ProtocolError::ReservedOpcode(3))]
        );
        endpoint.is(State::Draining, TransportAction::HalfClose);
        assert_eq!(endpoint.transmits(), [close(1002, "reserved opcode")]);
        // From here on, discarded bytes are counted.
        endpoint.receives_bytes(&vec![0; 64 << 20]);
        assert_eq!(endpoint.connection.state(), State::Draining);
        endpoint.receives_bytes(&[0]);
        endpoint.is(State::Closed, TransportAction::Close);
    }
}

#[test]
fn take_closing_moves_the_remaining_work() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([close(1001, "bye")]);
        let close_info = endpoint.close_info().clone();
        let mut ending = endpoint.connection.take_closing();
        endpoint.is(State::Closed, TransportAction::Close);
        assert_eq!(endpoint.close_info(), &close_info);
        assert_eq!(endpoint.transmits(), []);
        assert_eq!(endpoint.deadline_ms(), None);
        // The returned connection continues the close.
        let mut out = Vec::new();
        assert!(ending.poll_transmit(&mut out));
        assert_eq!(endpoint.read_sent(&out), [close(1001, "")]);
        ending.handle_transmitted(at(0));
        assert!(ending.poll_timeout().is_some());
        ending.handle_transport_end();
        assert_eq!(
            (ending.state(), ending.close_info()),
            (State::Closed, Some(&close_info))
        );
    }
}

#[test]
fn a_closed_connection_ignores_everything() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.connection.handle_transport_end();
        let close_info = endpoint.close_info().clone();
        endpoint.receives([text("a"), close(1000, ""), frame(0x3, "")]);
        endpoint.close(1000, "");
        endpoint.connection.handle_timeout(at(u64::MAX / 1_000_000));
        endpoint.connection.handle_transport_end();
        assert!(endpoint.connection.direct_read_buffer().is_none());
        assert_eq!(endpoint.connection.handle_direct_read(at(0)), None::<Event<'_>>);
        endpoint.is(State::Closed, TransportAction::Close);
        assert_eq!(endpoint.transmits(), []);
        assert_eq!(endpoint.close_info(), &close_info);
    }
}
