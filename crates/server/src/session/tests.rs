//! Tests of the session with frames of the protocol and virtual time.

use super::*;
use crate::protocol::{Reply, commands, encode};

/// A session that is driven by JSON frames.
struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    fn opening() -> Self {
        Self::with_config(Config::default())
    }

    fn with_config(config: Config) -> Self {
        let now = Instant::now();
        let first = Duration::from_secs(5);
        Self::pinged(config, Pings::Commands { first }, now)
    }

    fn pinged(config: Config, pings: Pings, now: Instant) -> Self {
        let session = Session::new(Arc::new(config), ClientId::from_random(1), pings, now);
        Self { session, now }
    }

    fn connected() -> Self {
        let mut client = Self::opening();
        client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
        client
    }

    fn subscribed(channel: &str) -> Self {
        let mut client = Self::connected();
        client
            .handle_frame(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#))
            .unwrap();
        client
    }

    /// Returns the result of each command of a frame: a reply as JSON, a call by its name, or nothing.
    fn handle_frame(&mut self, frame: &str) -> Result<Vec<String>, DisconnectCode> {
        let lines = commands(frame).map_err(|malformed| self.session.handle_command(Err(malformed), self.now));
        let lines = match lines {
            Ok(lines) => lines,
            Err(outcome) => return outcome.map(|_| Vec::new()),
        };
        let mut said = Vec::new();
        for line in lines {
            let id = line.as_ref().map_or(0, |command| command.id);
            match self.session.handle_command(line, self.now)? {
                Step::Nothing => {}
                Step::Reply(body) => said.push(encode(&Reply { id, body })),
                Step::Subscribe(_) => said.push("Subscribe".to_owned()),
                Step::Call(call) => said.push(format!("{call:?}").split(['(', ' ']).next().unwrap().to_owned()),
            }
        }
        Ok(said)
    }

    fn wait(&mut self, seconds: u64) -> Result<Option<PingDue>, DisconnectCode> {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now)
    }
}

#[track_caller]
fn check_error(client: &mut Client, frame: &str, code: u32) {
    let said = client.handle_frame(frame).unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&format!("\"error\":{{\"code\":{code},")), "{said:?}");
}

#[track_caller]
fn check_disconnect(client: &mut Client, frame: &str, code: DisconnectCode) {
    assert_eq!(client.handle_frame(frame), Err(code));
    // Every later call returns the same error.
    assert_eq!(client.handle_frame(r#"{"id":9,"ping":{}}"#), Err(code));
    assert_eq!(client.wait(1000), Err(code));
}

#[test]
fn connect_replies_with_client_id_and_ping_interval() {
    let said = Client::opening()
        .handle_frame(r#"{"id":1,"connect":{"name":"js"}}"#)
        .unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        said,
        [format!(
            concat!(
                r#"{{"id":1,"connect":{{"client":"00000000-0000-4000-8000-000000000001","#,
                r#""version":"sockeye {}","ping":25,"pong":true}}}}"#
            ),
            version
        )]
    );
}

#[test]
fn a_command_before_connect_disconnects() {
    for frame in [
        "{}",
        r#"{"id":1,"ping":{}}"#,
        r#"{"send":{}}"#,
        r#"{"id":1,"subscribe":{"channel":"c"}}"#,
    ] {
        check_disconnect(&mut Client::opening(), frame, DisconnectCode::BadRequest);
    }
}

#[test]
fn a_second_connect_disconnects() {
    check_disconnect(
        &mut Client::connected(),
        r#"{"id":2,"connect":{}}"#,
        DisconnectCode::BadRequest,
    );
}

#[test]
fn a_request_without_an_id_disconnects() {
    check_disconnect(&mut Client::opening(), r#"{"connect":{}}"#, DisconnectCode::BadRequest);
    for frame in [r#"{"ping":{}}"#, r#"{"id":0,"publish":{"channel":"c","data":1}}"#] {
        check_disconnect(&mut Client::connected(), frame, DisconnectCode::BadRequest);
    }
}

#[test]
fn malformed_frames_disconnect() {
    let deep = format!(
        r#"{{"id":2,"publish":{{"channel":"c","data":{}}}}}"#,
        "[".repeat(100_000)
    );
    for frame in ["", "\n", "hello", "{\"id\":", "[]", "\0", deep.as_str()] {
        check_disconnect(&mut Client::connected(), frame, DisconnectCode::BadRequest);
    }
}

#[test]
fn a_token_that_cannot_be_checked_is_refused() {
    check_disconnect(
        &mut Client::opening(),
        r#"{"id":1,"connect":{"token":"t"}}"#,
        DisconnectCode::InvalidToken,
    );
    let subscribe = r#"{"id":2,"subscribe":{"channel":"c","token":"t"}}"#;
    check_error(&mut Client::connected(), subscribe, 103);
}

#[test]
fn client_info_is_limited_and_marked_as_unverified() {
    let mut client = Client::opening();
    client
        .handle_frame(r#"{"id":1,"connect":{"data":{"name":"Ada"}}}"#)
        .unwrap();
    let info = client.session.info().unwrap().conn_info.clone();
    assert_eq!(info.unwrap().as_str(), r#"{"unverified":{"name":"Ada"}}"#);

    let connect = |len: usize| format!(r#"{{"id":1,"connect":{{"data":"{}"}}}}"#, "x".repeat(len - 2));
    assert!(Client::opening().handle_frame(&connect(4 << 10)).unwrap()[0].contains("\"client\""));
    let mut client = Client::opening();
    check_error(&mut client, &connect((4 << 10) + 1), 106);
    check_disconnect(&mut client, r#"{"id":2,"connect":{}}"#, DisconnectCode::BadRequest);
}

#[test]
fn commands_of_one_frame_are_handled_in_order() {
    let frame = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"ping\":{}}";
    let said = Client::opening().handle_frame(frame).unwrap();
    assert!(said[0].starts_with("{\"id\":1,\"connect\""));
    assert_eq!(said[1..], ["Subscribe", "{\"id\":3,\"ping\":{}}"]);
}

#[test]
fn a_second_subscription_to_a_channel_fails() {
    let mut client = Client::subscribed("c");
    check_error(&mut client, r#"{"id":3,"subscribe":{"channel":"c"}}"#, 105);
    assert_eq!(
        client
            .handle_frame(r#"{"id":4,"unsubscribe":{"channel":"c"}}"#)
            .unwrap(),
        ["Unsubscribe"]
    );
    assert_eq!(
        client.handle_frame(r#"{"id":5,"subscribe":{"channel":"c"}}"#).unwrap(),
        ["Subscribe"]
    );
    // The end of the first subscription is reported late, that of the second in time.
    let [subscription] = &*client.session.subscriptions else {
        panic!("not subscribed once")
    };
    let newest = subscription.clone();
    let mut first = newest.clone();
    first.generation = Generation::default().next();
    assert!(!client.session.handle_unsubscribed(&first));
    check_error(&mut client, r#"{"id":6,"subscribe":{"channel":"c"}}"#, 105);
    assert!(client.session.handle_unsubscribed(&newest));
    assert_eq!(
        client.handle_frame(r#"{"id":6,"subscribe":{"channel":"c"}}"#).unwrap(),
        ["Subscribe"]
    );
}

#[test]
fn unsubscribing_without_a_subscription_succeeds() {
    let said = Client::connected()
        .handle_frame(r#"{"id":3,"unsubscribe":{"channel":"c"}}"#)
        .unwrap();
    assert_eq!(said, [r#"{"id":3,"unsubscribe":{}}"#]);
}

#[test]
fn a_client_has_at_most_128_channels() {
    let mut client = Client::connected();
    for n in 0..128 {
        let said = client
            .handle_frame(&format!(r#"{{"id":2,"subscribe":{{"channel":"c{n}"}}}}"#))
            .unwrap();
        assert_eq!(said, ["Subscribe"]);
    }
    for n in 128..1_000 {
        check_error(
            &mut client,
            &format!(r#"{{"id":2,"subscribe":{{"channel":"c{n}"}}}}"#),
            106,
        );
    }
    assert_eq!(client.session.take_subscriptions().len(), 128);
}

#[test]
fn invalid_channel_names_are_rejected() {
    let long = "x".repeat(256);
    for name in ["", long.as_str(), "a\\u0000b", "a\\nb"] {
        for command in ["subscribe", "unsubscribe", "presence", "history"] {
            check_error(
                &mut Client::connected(),
                &format!(r#"{{"id":2,"{command}":{{"channel":"{name}"}}}}"#),
                107,
            );
        }
    }
}

#[test]
fn private_channels_are_closed_to_anonymous_clients() {
    for name in ["$private", "dialog#42"] {
        check_error(
            &mut Client::connected(),
            &format!(r#"{{"id":2,"subscribe":{{"channel":"{name}"}}}}"#),
            103,
        );
    }
}

#[test]
fn subscribers_may_publish_and_others_not() {
    let publish = r#"{"id":3,"publish":{"channel":"c","data":{"x":1}}}"#;
    assert_eq!(Client::subscribed("c").handle_frame(publish).unwrap(), ["Publish"]);
    check_error(&mut Client::connected(), publish, 103);
    check_error(
        &mut Client::subscribed("c"),
        r#"{"id":3,"publish":{"channel":"c"}}"#,
        107,
    );
}

#[test]
fn the_publish_policy_decides_who_may_publish() {
    for (policy, subscriber, other) in [
        (PublishPolicy::Nobody, false, false),
        (PublishPolicy::Everyone, true, true),
        (PublishPolicy::Subscribers, true, false),
    ] {
        let mut config = Config::default();
        config.channels.publish = policy;
        let mut client = Client::with_config(config);
        client
            .handle_frame("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"mine\"}}")
            .unwrap();
        for (channel, allowed) in [("mine", subscriber), ("other", other), ("$private", false)] {
            let said = client
                .handle_frame(&format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":1}}}}"#))
                .unwrap();
            assert_eq!(said == ["Publish"], allowed, "{policy:?} {channel}");
        }
    }
}

#[test]
fn presence_and_history_are_for_subscribers() {
    for command in ["presence", "presence_stats", "history"] {
        let frame = format!(r#"{{"id":3,"{command}":{{"channel":"c"}}}}"#);
        check_error(&mut Client::connected(), &frame, 103);
        assert_eq!(Client::subscribed("c").handle_frame(&frame).unwrap().len(), 1);
    }
}

#[test]
fn disabled_features_are_not_available() {
    let mut config = Config::default();
    config.channels.presence = false;
    config.channels.history_count_max = 0;
    let mut client = Client::with_config(config);
    client
        .handle_frame("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}")
        .unwrap();
    for command in ["presence", "presence_stats", "history", "refresh", "sub_refresh"] {
        check_error(
            &mut client,
            &format!(r#"{{"id":3,"{command}":{{"channel":"c"}}}}"#),
            108,
        );
    }
}

#[test]
fn recovery_needs_a_request_and_history() {
    let frame =
        r#"{"id":2,"subscribe":{"channel":"c","recover":true,"offset":7,"epoch":"e","flag":3,"join_leave":true}}"#;
    let mut client = Client::connected();
    let command = commands(frame).unwrap().next().unwrap();
    let Ok(Step::Subscribe(subscribe)) = client.session.handle_command(command, client.now) else {
        panic!("not a subscribe")
    };
    assert_eq!(
        subscribe.options,
        SubscriberOptions {
            join_leave: true,
            positioned: true
        }
    );
    assert_eq!(
        subscribe.recover_from,
        Some(Position {
            epoch: Epoch::new("e"),
            offset: 7
        })
    );
    assert!(subscribe.rejects_unrecovered);
}

#[test]
fn unknown_methods_fail_and_sends_are_ignored() {
    for frame in [r#"{"id":2,"teleport":{}}"#, r#"{"id":2}"#] {
        check_error(&mut Client::connected(), frame, 104);
    }
    // The same as Centrifugo without an RPC handler: not available, rather than method not found.
    check_error(
        &mut Client::connected(),
        r#"{"id":2,"rpc":{"method":"m","data":{}}}"#,
        108,
    );
    assert_eq!(
        Client::connected().handle_frame(r#"{"send":{"data":{}}}"#).unwrap(),
        [""; 0]
    );
}

#[test]
fn a_client_without_connect_for_10_seconds_may_reconnect() {
    let mut client = Client::opening();
    assert_eq!(client.wait(9), Ok(None));
    let Err(code) = client.wait(1) else {
        panic!("waits for ever")
    };
    // The client should reconnect, because the network may be slow.
    assert!(code.is_reconnect());

    let mut refused = Client::opening();
    let large = format!(r#"{{"id":1,"connect":{{"data":"{}"}}}}"#, "x".repeat(9000));
    check_error(&mut refused, &large, 106);
    assert_eq!(refused.wait(10), Err(DisconnectCode::Stale));
}

#[test]
fn a_client_pinged_by_frames_gets_no_pings_of_the_protocol() {
    let mut client = Client::pinged(Config::default(), Pings::Frames, Instant::now());
    assert!(client.session.deadline().is_some());
    let said = client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
    assert!(
        !said[0].contains("\"ping\"") && !said[0].contains("\"pong\""),
        "{said:?}"
    );
    assert_eq!(client.session.deadline(), None);
    assert_eq!(client.wait(1_000_000), Ok(None));
    assert_eq!(
        client.handle_frame(r#"{"id":2,"ping":{}}"#).unwrap(),
        [r#"{"id":2,"ping":{}}"#]
    );
}

#[test]
fn pings_come_every_25_seconds_and_want_a_pong() {
    let mut client = Client::connected();
    assert_eq!(client.wait(4), Ok(None));
    assert_eq!(client.wait(1), Ok(Some(PingDue)));
    for _ in 0..3 {
        assert_eq!(client.wait(7), Ok(None));
        assert_eq!(client.handle_frame("{}").unwrap(), [""; 0]);
        assert_eq!(client.wait(17), Ok(None));
        assert_eq!(client.wait(1), Ok(Some(PingDue)));
    }
}

#[test]
fn a_client_without_pong_is_disconnected_8_seconds_after_a_ping_despite_commands() {
    let mut client = Client::connected();
    client.wait(5).unwrap();
    assert_eq!(client.wait(7), Ok(None));
    client.handle_frame(r#"{"id":2,"ping":{}}"#).unwrap();
    assert_eq!(client.wait(1), Err(DisconnectCode::NoPong));
}

#[test]
fn an_unsolicited_pong_disconnects() {
    check_disconnect(&mut Client::connected(), "{}", DisconnectCode::BadRequest);
    let mut client = Client::connected();
    client.wait(5).unwrap();
    check_disconnect(&mut client, "{}\n{}", DisconnectCode::BadRequest);
}

#[test]
fn the_deadline_is_the_earliest_timeout() {
    let mut client = Client::opening();
    let start = client.now;
    let after = |client: &Client| (client.session.deadline().unwrap() - start).as_secs();
    assert_eq!(after(&client), 10);
    client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
    assert_eq!(after(&client), 5);
    client.wait(5).unwrap();
    assert_eq!(after(&client), 13);
    client.handle_frame("{}").unwrap();
    assert_eq!(after(&client), 30);
}

#[test]
fn no_frame_causes_a_panic() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const FRAMES: [&str; 6] = [
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"recover\":true,\"offset\":7,\"epoch\":\"e\",\"flag\":3}}\n{\"id\":3,\"ping\":{}}",
        r#"{"id":4,"publish":{"channel":"a","data":{"x":[1,2,{"y":"\u00e9\n"}]}}}"#,
        r#"{"id":5,"history":{"channel":"a","limit":-1,"since":{"offset":18446744073709551615,"epoch":"e"},"reverse":true}}"#,
        r#"{"id":6,"presence":{"channel":"a"}}"#,
        r#"{"id":4294967295,"unsubscribe":{"channel":"a"}}"#,
        "{}",
    ];
    let mut rng = StdRng::seed_from_u64(6455);
    for _ in 0..20_000 {
        let mut frame = FRAMES[rng.random_range(0..FRAMES.len())].as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..frame.len());
            match rng.random_range(0..4) {
                0 => frame[at] = rng.random(),
                1 => frame.insert(at, b"{}[]\":,\\-09en\n"[rng.random_range(0..14)]),
                2 => frame.truncate(at.max(1)),
                _ => frame.extend_from_within(at..),
            }
        }
        let mut client = Client::connected();
        let _ = client.handle_frame(&String::from_utf8_lossy(&frame));
        let _ = client.wait(rng.random_range(0..40));
    }
}

/// Kinds of subscriptions and publications that Centrifugo supports and this server does not. Plain ones in their place would
/// deliver publications that the client does not want, or drop those that it wants.
#[test]
fn unsupported_subscriptions_are_rejected_and_not_granted_as_plain_ones() {
    for (command, fields, code) in [
        ("subscribe", r#""type":1,"phase":2"#, 108),
        ("subscribe", r#""type":4"#, 108),
        ("subscribe", r#""type":-1"#, 108),
        ("subscribe", r#""type":77,"tf":{}"#, 108),
        ("subscribe", r#""tf":{"key":"k","cmp":"eq","val":"v"}"#, 107),
        ("subscribe", r#""tf":{}"#, 107),
        ("subscribe", r#""phase":1"#, 107),
        ("subscribe", r#""cursor":"c""#, 107),
        ("subscribe", r#""limit":10"#, 107),
        ("subscribe", r#""asc":true"#, 107),
        ("subscribe", r#""delta":"xdelta3""#, 107),
        ("publish", r#""data":1,"type":1,"key":"k""#, 108),
        ("publish", r#""data":1,"key":"k""#, 107),
        ("publish", r#""data":1,"removed":true"#, 107),
    ] {
        let mut client = Client::subscribed("c");
        let channel = if command == "subscribe" { "other" } else { "c" };
        let frame = format!(r#"{{"id":3,"{command}":{{"channel":"{channel}",{fields}}}}}"#);
        check_error(&mut client, &frame, code);
        assert_eq!(client.session.take_subscriptions().len(), 1, "{frame}");
    }
}

#[test]
fn default_fields_of_sdks_are_accepted() {
    for fields in [
        r#""type":0,"tf":null,"phase":0,"cursor":"","limit":0,"asc":false,"delta":"""#,
        // Offered by the client, and not confirmed by the reply.
        r#""delta":"fossil","flag":1,"data":{"x":1}"#,
    ] {
        let frame = format!(r#"{{"id":2,"subscribe":{{"channel":"c",{fields}}}}}"#);
        assert_eq!(
            Client::connected().handle_frame(&frame).unwrap(),
            ["Subscribe"],
            "{fields}"
        );
    }
}

#[test]
fn an_invalid_command_does_not_affect_others() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let publish = |data: &str| format!(r#"{{"id":3,"publish":{{"channel":"c","data":{data}}}}}"#);
    let size = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (frame, code) in [
        (publish(&deep(70)), 107),
        (publish(&deep(100_000)), 107),
        (publish(&size((64 << 10) + 1)), 106),
        (r#"{"id":3,"publish":{"channel":5}}"#.to_owned(), 107),
        (r#"{"id":3,"ping":{},"presence":{"channel":"c"}}"#.to_owned(), 107),
    ] {
        let mut client = Client::subscribed("c");
        let said = client
            .handle_frame(&format!("{frame}\n{{\"id\":4,\"ping\":{{}}}}"))
            .unwrap();
        assert!(
            said[0].contains(&format!("\"id\":3,\"error\":{{\"code\":{code},")),
            "{said:?}"
        );
        assert_eq!(said[1], r#"{"id":4,"ping":{}}"#);
    }
    assert_eq!(
        Client::subscribed("c").handle_frame(&publish(&deep(62))).unwrap(),
        ["Publish"]
    );
    assert_eq!(
        Client::subscribed("c").handle_frame(&publish(&size(64 << 10))).unwrap(),
        ["Publish"]
    );
}

#[test]
fn connect_data_that_nests_too_deep_is_an_error() {
    let data = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let connect = format!(r#"{{"id":1,"connect":{{"data":{data}}}}}"#);
    check_error(&mut Client::opening(), &connect, 107);
}
