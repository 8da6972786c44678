//! Two endpoints in virtual time: keepalive and the closing handshake.

mod common;

use std::time::Duration;

use common::{Endpoint, Got, Local, Node, Pair, at, binary, ping, pong};
use sockeye_proto::{CloseCause, CloseCode, Config, Data, Keepalive, Side, State};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// The payload of the first keepalive ping.
const FIRST: [u8; 4] = [0; 4];

fn without_keepalive() -> Config {
    let mut config = Config::default();
    config.keepalive = None;
    config
}

/// A pair in which only `local` has keepalive enabled.
fn kept_alive_by(local: Local, latency_ms: u64) -> Pair {
    match local {
        Local::Client => Pair::with(latency_ms, Config::default(), without_keepalive()),
        Local::Server => Pair::with(latency_ms, without_keepalive(), Config::default()),
    }
}

fn peer_of(local: Local) -> Local {
    match local {
        Local::Client => Local::Server,
        Local::Server => Local::Client,
    }
}

#[track_caller]
fn check_end(node: &Node, closed_at: u64, cause: CloseCause, is_clean: bool) {
    assert_eq!(node.closed_at, Some(closed_at));
    let connection = &node.endpoint.connection;
    let close_info = connection.close_info().expect("closed");
    assert_eq!(
        (connection.state(), close_info.cause(), close_info.is_clean()),
        (State::Closed, cause, is_clean)
    );
}

// Keepalive.

#[test]
fn server_pings_after_20_s_of_silence_and_measures_rtt() {
    check_keepalive(Local::Server);
}

#[test]
fn client_pings_after_20_s_of_silence_and_measures_rtt() {
    check_keepalive(Local::Client);
}

#[track_caller]
fn check_keepalive(local: Local) {
    let mut pair = kept_alive_by(local, 35);
    pair.run_until(19_999);
    assert_eq!(pair.node(peer_of(local)).log, []);
    pair.run_until(30_000);
    assert_eq!(pair.node(peer_of(local)).log, [(20_035, Got::ping(FIRST))]);
    assert_eq!(pair.node(local).log, [(20_070, Got::pong(FIRST))]);
    assert_eq!(pair.node(local).rtt_ms(), Some(70));
    // The next ping is sent 20 s after the pong and has a new payload.
    pair.run_until(40_104);
    assert_eq!(pair.node(peer_of(local)).pings_received(), 1);
    pair.run_until(40_105);
    assert_eq!(pair.node(peer_of(local)).log[1], (40_105, Got::ping([0, 0, 0, 1])));
}

#[test]
fn rtt_matches_the_link_latency() {
    for latency_ms in [0, 1, 50, 1000, 4999] {
        let mut pair = Pair::new(latency_ms);
        pair.client.ping(b"how far?");
        pair.run_until(2 * latency_ms);
        assert_eq!(pair.client.rtt_ms(), Some(2 * u128::from(latency_ms)));
    }
}

#[test]
fn an_idle_pair_stays_open_for_a_day() {
    // checks [6455-7.1.7-6, 6455-7.2.1-2, 6455-7.3-1]
    let mut pair = Pair::new(50);
    pair.run_until(24 * 60 * 60 * 1000);
    assert_eq!((pair.client.closed_at, pair.server.closed_at), (None, None));
    // Both ping at the same time, at most once every 20 s.
    assert!((4000..=4320).contains(&pair.client.pings_received()));
    assert!((4000..=4320).contains(&pair.server.pings_received()));
}

#[test]
fn traffic_postpones_the_ping() {
    let mut pair = kept_alive_by(Local::Client, 10);
    for second in (0..120).step_by(15) {
        pair.run_until(second * 1000);
        pair.server.send(Data::Text("tick"));
    }
    pair.run_until(105_010 + 19_999);
    assert_eq!(pair.server.pings_received(), 0);
    pair.run_until(105_010 + 20_010);
    assert_eq!(pair.server.pings_received(), 1);
}

#[test]
fn unresponsive_peer_times_out() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 0);
        pair.run_until(3000);
        pair.node(peer_of(local)).send(Data::Text("the last byte"));
        pair.run_until(3000);
        pair.cut_link();
        pair.run_until(32_999);
        assert_eq!(pair.node(local).endpoint.connection.state(), State::Open);
        pair.run_until(100_000);
        // 20 s without progress, a ping, and 10 s more.
        check_end(pair.node(local), 33_000, CloseCause::KeepaliveTimeout, false);
        let connection = &pair.node(local).endpoint.connection;
        let close_info = connection.close_info().unwrap();
        assert_eq!((close_info.code(), close_info.sent()), (CloseCode::ABNORMAL, None));
        assert_eq!(close_info.to_string(), "the peer does not answer");
    }
}

#[test]
fn both_sides_detect_a_dead_link() {
    let mut pair = Pair::new(20);
    pair.run_until(5000);
    pair.client.send(Data::Text("hello"));
    pair.run_until(5020);
    pair.cut_link();
    pair.run_until(100_000);
    check_end(&pair.client, 30_000, CloseCause::KeepaliveTimeout, false);
    check_end(&pair.server, 35_020, CloseCause::KeepaliveTimeout, false);
}

#[test]
fn pong_counts_until_the_deadline() {
    for local in BOTH {
        for (latency_ms, is_alive) in [(4999, true), (5000, true), (5001, false)] {
            let mut pair = kept_alive_by(local, latency_ms);
            pair.run_until(32_000);
            let node = pair.node(local);
            assert_eq!(node.closed_at.is_none(), is_alive, "{latency_ms}");
            assert_eq!(node.rtt_ms().is_some(), is_alive);
        }
    }
}

#[test]
fn unsolicited_pong_is_progress_but_not_an_answer() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 0);
        pair.node(local).loses_output = true;
        pair.run_until(25_000);
        let unrelated = pair.node(local).endpoint.as_peer_sends(pong("unrelated")).bytes();
        pair.node(local).drip(&unrelated, unrelated.len(), 0);
        pair.run_until(34_999);
        let node = pair.node(local);
        assert_eq!(
            (node.closed_at, node.got(), node.rtt_ms()),
            (None, vec![Got::pong("unrelated")], None)
        );
        // The ping is still unanswered, so 10 s without progress end the connection.
        pair.run_until(60_000);
        check_end(pair.node(local), 35_000, CloseCause::KeepaliveTimeout, false);
    }
}

#[test]
fn slow_message_before_the_pong_keeps_the_connection_alive() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 10);
        pair.run_until(19_999);
        // The peer started a message just before our ping arrived, so its pong is queued behind the message.
        let node = pair.node(local);
        let message = node.endpoint.as_peer_sends(binary([7; 1000])).bytes();
        node.drip(&message, 100, 9_000);
        let pieces = message.len().div_ceil(100) as u64;
        // No pong for 99 s, but never 10 s without progress.
        pair.node(local).ping(b"waits");
        pair.run_until(19_999 + pieces * 9_000);
        let node = pair.node(local);
        assert_eq!(node.closed_at, None);
        assert_eq!(node.got(), [Got::binary([7; 1000]), Got::pong("waits")]);
        assert_eq!(node.rtt_ms(), Some(u128::from(pieces * 9_000)));
    }
}

#[test]
fn ping_has_no_deadline_until_written() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.advance_to(20_000);
        assert_eq!(endpoint.queues(), [ping(FIRST)]);
        assert_eq!(endpoint.connection.poll_timeout(), None);
        endpoint.connection.handle_transmitted(at(100_000));
        assert_eq!(endpoint.connection.poll_timeout(), Some(at(110_000)));
        endpoint.advance_to(100_070);
        endpoint.receives([pong(FIRST)]);
        assert_eq!(endpoint.connection.rtt(), Some(Duration::from_millis(70)));
    }
}

#[test]
fn transmit_delay_postpones_the_deadlines() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.advance_to(20_000);
        assert_eq!(endpoint.queues(), [ping(FIRST)]);
        endpoint
            .connection
            .handle_transmitted_with_delay(at(20_000), Duration::from_secs(40));
        assert_eq!(endpoint.connection.poll_timeout(), Some(at(70_000)));

        let mut endpoint = Endpoint::new(local);
        endpoint.connection.close(CloseCode::NORMAL, "").unwrap();
        endpoint.queues();
        endpoint
            .connection
            .handle_transmitted_with_delay(at(0), Duration::from_secs(40));
        assert_eq!(endpoint.connection.poll_timeout(), Some(at(45_000)));
    }
}

#[test]
fn write_progress_of_a_full_transport_prevents_timeout() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        // They postpone the ping.
        endpoint.advance_to(15_000);
        endpoint.connection.handle_write_progress(at(15_000));
        assert_eq!(endpoint.connection.poll_timeout(), Some(at(35_000)));
        endpoint.advance_to(35_000);
        assert_eq!(endpoint.transmits(), [ping(FIRST)]);
        // They also postpone the timeout.
        for second in (36..200).step_by(9) {
            endpoint.advance_to(second * 1000);
            endpoint.connection.handle_write_progress(endpoint.now());
        }
        assert_eq!(endpoint.connection.state(), State::Open);
        let last = endpoint.now_ms;
        endpoint.advance_to(last + 9_999);
        assert_eq!(endpoint.connection.state(), State::Open);
        endpoint.advance_to(last + 10_000);
        assert_eq!(endpoint.connection.state(), State::Closed);
    }
}

#[test]
fn stalled_message_times_out() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 10);
        pair.run_until(20_000);
        pair.node(peer_of(local)).loses_output = true;
        let node = pair.node(local);
        let message = node.endpoint.as_peer_sends(binary([7; 1000])).bytes();
        node.drip(&message[..300], 100, 9_000);
        pair.run_until(100_000);
        check_end(
            pair.node(local),
            20_000 + 3 * 9_000 + 10_000,
            CloseCause::KeepaliveTimeout,
            false,
        );
        assert_eq!(pair.node(local).got(), []);
    }
}

#[test]
fn application_pings_do_not_extend_the_keepalive_timeout() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 10);
        pair.cut_link();
        for second in (1..100).step_by(5) {
            pair.run_until(second * 1000);
            if pair.node(local).closed_at.is_none() {
                pair.node(local).ping(b"are you there?");
            }
        }
        // 10 s after the first unanswered ping.
        check_end(pair.node(local), 11_000, CloseCause::KeepaliveTimeout, false);
    }
}

#[test]
fn application_can_ping_repeatedly() {
    for local in BOTH {
        // The round-trip time exceeds the interval between pings, so each ping replaces the previous one.
        let mut pair = kept_alive_by(local, 600);
        for second in 1..200 {
            pair.run_until(second * 1000);
            pair.node(local).ping(&second.to_be_bytes());
        }
        pair.run_until(210_000);
        assert_eq!(pair.node(local).closed_at, None);
        assert_eq!(pair.node(local).rtt_ms(), Some(1200));
    }
}

#[test]
fn suspended_process_does_not_time_out_its_peer() {
    for local in BOTH {
        let mut pair = kept_alive_by(local, 10);
        // Suspended between its ping and the pong, which stays in the socket buffer until long after the deadline.
        pair.run_until(20_000);
        pair.node(local).is_suspended = true;
        pair.run_until(60_000);
        pair.node(local).is_suspended = false;
        pair.run_until(70_000);
        // Received bytes are processed before deadlines.
        assert_eq!(pair.node(local).log, [(60_000, Got::pong(FIRST))]);
        assert_eq!(pair.node(local).closed_at, None);
    }
}

#[test]
fn without_keepalive_no_ping_is_sent_and_no_timeout_occurs() {
    let mut pair = Pair::with(10, without_keepalive(), without_keepalive());
    pair.cut_link();
    pair.run_until(1_000_000_000);
    assert_eq!(pair.client.endpoint.connection.poll_timeout(), None);
    assert_eq!((pair.client.closed_at, pair.server.closed_at), (None, None));
}

#[test]
fn keepalive_times_are_configurable() {
    let mut config = Config::default();
    let millis = std::time::Duration::from_millis;
    config.keepalive = Some(Keepalive::default().interval(millis(300)).timeout(millis(50)));
    let mut pair = Pair::with(0, config, without_keepalive());
    pair.run_until(299);
    assert_eq!(pair.server.log, []);
    pair.run_until(300);
    assert_eq!(pair.server.log, [(300, Got::ping(FIRST))]);
    pair.cut_link();
    pair.run_until(10_000);
    check_end(&pair.client, 650, CloseCause::KeepaliveTimeout, false);
}

#[test]
fn early_handle_timeout_does_nothing() {
    let mut pair = Pair::new(10);
    for ms in (0..20_000).step_by(100) {
        pair.client.endpoint.connection.handle_timeout(at(ms));
        assert!(!pair.client.endpoint.connection.wants_transmit(), "{ms}");
    }
}

// Messages.

#[test]
fn messages_arrive_in_order_in_both_directions() {
    // checks [6455-5.4-5]
    let mut pair = Pair::new(10);
    for number in 0..10_u8 {
        pair.client.send(Data::Text("from the client"));
        pair.server.send(Data::Binary(&[number]));
        pair.run_until(u64::from(number) * 7);
    }
    pair.run_until(100);
    assert_eq!(pair.server.got(), vec![Got::text("from the client"); 10]);
    let numbers: Vec<Got> = (0..10_u8).map(|number| Got::binary([number])).collect();
    assert_eq!(pair.client.got(), numbers);
}

// The closing handshake.

#[test]
fn client_closes_and_the_server_closes_tcp_first() {
    // checks [6455-5.5.1-8, 6455-7.1.1-2, 6455-7.1.1-3, 6455-7.3-2]
    let mut pair = Pair::new(50);
    pair.run_until(1000);
    pair.client.close(1000, "bye");
    pair.run_until(10_000);
    assert_eq!(pair.server.log, [(1050, Got::close(1000, "bye"))]);
    assert_eq!(pair.client.log, [(1100, Got::close(1000, ""))]);
    assert_eq!(
        (pair.server.half_closed_at, pair.client.half_closed_at),
        (Some(1050), Some(1100))
    );
    check_end(&pair.client, 1100, CloseCause::Local, true);
    check_end(&pair.server, 1150, CloseCause::Peer, true);
    check_first(&pair, Side::Local, Side::Peer);
}

#[test]
fn server_closes_and_closes_tcp_first() {
    // checks [6455-5.5.1-9, 6455-7.1.1-2, 6455-7.3-2]
    let mut pair = Pair::new(50);
    pair.run_until(1000);
    pair.server.close(1001, "restart");
    pair.run_until(10_000);
    assert_eq!(pair.client.log, [(1050, Got::close(1001, "restart"))]);
    assert_eq!(pair.server.log, [(1100, Got::close(1001, ""))]);
    assert_eq!(
        (pair.server.half_closed_at, pair.client.half_closed_at),
        (Some(1100), Some(1150))
    );
    check_end(&pair.client, 1150, CloseCause::Peer, true);
    check_end(&pair.server, 1200, CloseCause::Local, true);
    check_first(&pair, Side::Peer, Side::Local);
}

#[test]
fn simultaneous_close_lets_the_server_close_tcp_first() {
    let mut pair = Pair::new(50);
    pair.run_until(1000);
    pair.client.close(1000, "client");
    pair.server.close(1001, "server");
    pair.run_until(10_000);
    assert_eq!(pair.client.log, [(1050, Got::close(1001, "server"))]);
    assert_eq!(pair.server.log, [(1050, Got::close(1000, "client"))]);
    assert_eq!(
        (pair.server.half_closed_at, pair.client.half_closed_at),
        (Some(1050), Some(1100))
    );
    check_end(&pair.client, 1100, CloseCause::Local, true);
    check_end(&pair.server, 1150, CloseCause::Local, true);
    check_first(&pair, Side::Local, Side::Local);
}

#[track_caller]
fn check_first(pair: &Pair, client: Side, server: Side) {
    let first = |node: &Node| node.endpoint.connection.close_info().unwrap().initiator();
    assert_eq!((first(&pair.client), first(&pair.server)), (client, server));
}

#[test]
fn message_in_flight_during_close_is_delivered() {
    for local in BOTH {
        let mut pair = Pair::new(50);
        pair.node(local).close(1000, "");
        pair.run_until(20);
        pair.node(peer_of(local)).send(Data::Text("crossing"));
        pair.run_until(10_000);
        assert_eq!(pair.node(local).got(), [Got::text("crossing"), Got::close(1000, "")]);
    }
}

#[test]
fn client_times_out_after_5_s_without_a_close_answer() {
    check_unanswered_close(Local::Client);
}

#[test]
fn server_times_out_after_5_s_without_a_close_answer() {
    check_unanswered_close(Local::Server);
}

#[track_caller]
fn check_unanswered_close(local: Local) {
    let mut pair = Pair::new(50);
    pair.run_until(1000);
    pair.cut_link();
    pair.node(local).close(1000, "");
    pair.run_until(100_000);
    check_end(pair.node(local), 6000, CloseCause::CloseTimeout, false);
    check_end(pair.node(peer_of(local)), 30_000, CloseCause::KeepaliveTimeout, false);
}

#[test]
fn client_waits_5_s_for_the_server_to_close_tcp() {
    let mut pair = Pair::new(50);
    pair.server.never_closes_tcp = true;
    pair.run_until(1000);
    pair.client.close(1000, "");
    pair.run_until(100_000);
    check_end(&pair.client, 6000, CloseCause::Local, true);
}

#[test]
fn server_waits_1_s_for_the_client_to_close_tcp() {
    let mut pair = Pair::new(50);
    pair.client.never_closes_tcp = true;
    pair.run_until(1000);
    pair.server.close(1000, "");
    pair.run_until(100_000);
    check_end(&pair.server, 1100 + 1000, CloseCause::Local, true);
}

#[test]
fn close_is_answered_after_a_delay_of_the_application() {
    let mut pair = Pair::new(50);
    pair.server.is_suspended = true;
    pair.client.close(1000, "");
    pair.run_until(4000);
    pair.server.is_suspended = false;
    pair.run_until(10_000);
    check_end(&pair.client, 4050, CloseCause::Local, true);
    check_end(&pair.server, 4100, CloseCause::Peer, true);
}
