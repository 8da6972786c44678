//! Tests of the session with frames of the protocol and virtual time.

mod events;

use super::*;
use crate::auth::TokenError;
use crate::config::{Access, NamespaceOptions};
use crate::engine::Epoch;
use crate::protocol::{Encoding, Reply, commands};

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
            let step = self.session.handle_command(line, self.now)?;
            said.extend(described(id, step));
        }
        Ok(said)
    }

    /// Answers the verification of a token with the given result.
    fn handle_token(&mut self, frame: &str, result: Result<Verified, TokenError>) -> Result<String, DisconnectCode> {
        let command = commands(frame).unwrap().next().unwrap();
        let id = command.as_ref().map_or(0, |command| command.id);
        let Step::Verify(unverified) = self.session.handle_command(command, self.now)? else {
            panic!("no token to verify in {frame}");
        };
        let clock = Clock {
            now: self.now,
            unix: UNIX,
        };
        let step = self.session.handle_token(*unverified, result, clock)?;
        Ok(described(id, step).expect("a token always has a result"))
    }

    fn wait(&mut self, seconds: u64) -> Result<Option<PingDue>, DisconnectCode> {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now)
    }
}

/// A reply as JSON, and anything else by its name.
fn described(id: u32, step: Step) -> Option<String> {
    Some(match step {
        Step::Nothing => return None,
        Step::Reply(body) | Step::Refreshed(Some(body), _) => {
            let reply = Encoding::Json.reply(&Reply { id, body });
            reply.as_text().unwrap().to_owned()
        }
        Step::Connect(_, subscriptions) => format!("Connect with {}", subscriptions.len()),
        Step::Call(call) => format!("{call:?}").split(['(', ' ']).next().unwrap().to_owned(),
        Step::Close(close) => format!("Close {} {}", close.code, close.reason),
        step => format!("{step:?}").split(['(', ' ']).next().unwrap().to_owned(),
    })
}

/// The time at which tokens are verified.
const UNIX: u64 = 1_700_000_000;

fn with_options(change: impl FnOnce(&mut NamespaceOptions)) -> Config {
    let mut config = Config::default();
    change(config.channels.as_mut().unwrap());
    config
}

/// The claims of a token, verified by a real verifier with a signature that is not checked.
fn verify(claims: &str) -> (Result<Verified, TokenError>, Result<Verified, TokenError>) {
    verify_with_leeway(claims, 0)
}

fn verify_with_leeway(
    claims: &str,
    leeway_seconds: u64,
) -> (Result<Verified, TokenError>, Result<Verified, TokenError>) {
    use base64::Engine;
    let config = crate::auth::TokenConfig {
        leeway_seconds,
        insecure_skip_signature_check: true,
        ..Default::default()
    };
    let verifier = crate::auth::TokenVerifier::new(&config).unwrap();
    let encode = |text: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.c2ln", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(claims));
    (
        verifier
            .try_verify_connect(&token, UNIX)
            .unwrap()
            .map(Verified::Connection),
        verifier
            .try_verify_subscribe(&token, UNIX)
            .unwrap()
            .map(Verified::Subscription),
    )
}

const CONNECT: &str = r#"{"id":1,"connect":{"token":"t"}}"#;

/// A client that has connected with these claims.
#[track_caller]
fn with_token(claims: &str) -> Client {
    let mut client = Client::opening();
    let reply = client.handle_token(CONNECT, verify(claims).0).unwrap();
    assert!(reply.contains("\"client\"") || reply.starts_with("Connect"), "{reply}");
    client
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
fn an_invalid_connection_token_disconnects_and_an_expired_one_is_an_error() {
    let invalid = TokenError::Invalid(crate::auth::InvalidToken::Signature);
    let mut client = Client::opening();
    assert_eq!(
        client.handle_token(CONNECT, Err(invalid)),
        Err(DisconnectCode::InvalidToken)
    );
    for (error, code) in [
        (TokenError::Expired, 109),
        (TokenError::NotYetValid, 109),
        (TokenError::KeysUnavailable, 100),
    ] {
        let mut client = Client::opening();
        let reply = client.handle_token(CONNECT, Err(error)).unwrap();
        assert!(reply.contains(&format!("\"code\":{code},")), "{reply}");
        check_disconnect(&mut client, r#"{"id":2,"connect":{}}"#, DisconnectCode::BadRequest);
    }
}

#[test]
fn without_a_token_only_anonymous_clients_connect_where_they_are_allowed() {
    let mut config = Config {
        anonymous: false,
        ..Default::default()
    };
    check_disconnect(
        &mut Client::with_config(config.clone()),
        r#"{"id":1,"connect":{}}"#,
        DisconnectCode::BadRequest,
    );
    config.insecure_clients = true;
    let mut client = Client::with_config(config);
    assert_eq!(client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap().len(), 1);
}

#[test]
fn a_connection_expires_25_seconds_after_its_token_unless_it_is_refreshed() {
    let claims = |seconds: u64| format!(r#"{{"sub":"ada","exp":{}}}"#, UNIX + seconds);
    let mut client = Client::pinged(Config::default(), Pings::Frames, Instant::now());
    let reply = client.handle_token(CONNECT, verify(&claims(60)).0).unwrap();
    assert!(reply.contains(r#""expires":true,"ttl":60"#), "{reply}");
    client.wait(60 + 24).unwrap();
    let refresh = r#"{"id":2,"refresh":{"token":"t"}}"#;
    let reply = client.handle_token(refresh, verify(&claims(60)).0).unwrap();
    assert!(reply == r#"{"id":2,"refresh":{"expires":true,"ttl":60}}"#, "{reply}");
    client.wait(60 + 24).unwrap();
    assert_eq!(client.wait(1), Err(DisconnectCode::Expired));
}

#[test]
fn a_token_within_the_leeway_connects_subscribes_and_refreshes() {
    let leeway = 10;
    let connection = format!(r#"{{"sub":"ada","exp":{}}}"#, UNIX - 5);
    let subscription = format!(r#"{{"sub":"ada","channel":"$c","exp":{}}}"#, UNIX - 5);
    let mut client = Client::opening();
    let mut check = |frame: &str, token: Result<Verified, TokenError>, expect: &str| {
        let reply = client.handle_token(frame, token).unwrap();
        assert!(reply.starts_with(expect), "{frame}: {reply}");
    };
    let connect_token = || verify_with_leeway(&connection, leeway).0;
    let subscribe_token = || verify_with_leeway(&subscription, leeway).1;
    check(CONNECT, connect_token(), r#"{"id":1,"connect":{"client":"#);
    let subscribe = r#"{"id":2,"subscribe":{"channel":"$c","token":"t"}}"#;
    check(subscribe, subscribe_token(), "Subscribe");
    let refresh = r#"{"id":3,"refresh":{"token":"t"}}"#;
    check(refresh, connect_token(), r#"{"id":3,"refresh":{"expires":true,"ttl":5"#);
    let refresh = r#"{"id":4,"sub_refresh":{"channel":"$c","token":"t"}}"#;
    check(
        refresh,
        subscribe_token(),
        r#"{"id":4,"sub_refresh":{"expires":true,"ttl":5"#,
    );
    // The claim `expire_at` is exact.
    let claims = format!(r#"{{"sub":"ada","expire_at":{}}}"#, UNIX - 5);
    let reply = Client::opening().handle_token(CONNECT, verify_with_leeway(&claims, leeway).0);
    assert_eq!(reply.unwrap(), r#"{"id":1,"error":{"code":110,"message":"expired"}}"#);
}

#[test]
fn a_refresh_needs_a_token_of_the_same_user() {
    let refresh = r#"{"id":2,"refresh":{"token":"t"}}"#;
    let mut client = with_token(r#"{"sub":"ada"}"#);
    let other = verify(r#"{"sub":"bob"}"#).0;
    assert_eq!(client.handle_token(refresh, other), Err(DisconnectCode::InvalidToken));
    let mut client = with_token(r#"{"sub":"ada"}"#);
    assert_eq!(
        client.handle_token(refresh, Err(TokenError::Expired)),
        Err(DisconnectCode::Expired)
    );
}

#[test]
fn a_private_channel_needs_a_token_for_it() {
    let subscribe = r#"{"id":2,"subscribe":{"channel":"$c","token":"t"}}"#;
    let mut client = with_token(r#"{"sub":"ada"}"#);
    check_error(&mut client, r#"{"id":2,"subscribe":{"channel":"$c"}}"#, 103);
    for (claims, code) in [
        (r#"{"sub":"ada","channel":"$d"}"#, "103"),
        (r#"{"sub":"bob","channel":"$c"}"#, "103"),
        (r#"{"channel":"$c"}"#, "103"),
        (r#"{"sub":"ada","channel":"$c","client":"other"}"#, "103"),
        (r#"{"sub":"ada"}"#, "103"),
        (r#"{"sub":"ada","channel":"$c","exp":1}"#, "109"),
    ] {
        let reply = client.handle_token(subscribe, verify(claims).1).unwrap();
        assert!(reply.contains(&format!("\"code\":{code},")), "{claims}: {reply}");
    }
    let valid = verify(r#"{"sub":"ada","channel":"$c"}"#).1;
    assert_eq!(client.handle_token(subscribe, valid).unwrap(), "Subscribe");
    let publish = r#"{"id":3,"publish":{"channel":"$c","data":1}}"#;
    assert_eq!(client.handle_frame(publish).unwrap(), ["Publish"]);
}

#[test]
fn a_subscription_expires_25_seconds_after_its_token_unless_it_is_refreshed() {
    let mut client = Client::pinged(Config::default(), Pings::Frames, Instant::now());
    client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
    let claims = format!(r#"{{"channel":"$c","exp":{}}}"#, UNIX + 60);
    let subscribe = r#"{"id":2,"subscribe":{"channel":"$c","token":"t"}}"#;
    client.handle_token(subscribe, verify(&claims).1).unwrap();
    client.wait(84).unwrap();
    assert!(client.session.take_expired(client.now).unwrap().is_none());
    let refresh = r#"{"id":3,"sub_refresh":{"channel":"$c","token":"t"}}"#;
    let reply = client.handle_token(refresh, verify(&claims).1).unwrap();
    assert_eq!(reply, r#"{"id":3,"sub_refresh":{"expires":true,"ttl":60}}"#);
    client.wait(84).unwrap();
    assert!(client.session.take_expired(client.now).unwrap().is_none());
    // An expired token changes nothing.
    let reply = client.handle_token(refresh, Err(TokenError::Expired)).unwrap();
    assert_eq!(reply, r#"{"id":3,"sub_refresh":{}}"#);
    assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(1)));
    client.wait(1).unwrap();
    assert!(client.session.take_expired(client.now).unwrap().is_some());
    assert_eq!(client.session.deadline(), None);
}

#[test]
fn a_refreshed_subscription_has_the_info_of_the_new_token() {
    let mut client = Client::connected();
    let claims = |info| format!(r#"{{"channel":"$c","exp":{},"info":{info}}}"#, UNIX + 60);
    let subscribe = r#"{"id":2,"subscribe":{"channel":"$c","token":"t"}}"#;
    client.handle_token(subscribe, verify(&claims("1")).1).unwrap();
    let refresh = r#"{"id":3,"sub_refresh":{"channel":"$c","token":"t"}}"#;
    client.handle_token(refresh, verify(&claims("2")).1).unwrap();
    let memberships = client.session.take_subscriptions();
    let chan_info = memberships[0].info.chan_info.as_ref().unwrap();
    assert_eq!(chan_info.to_json(), "2");
}

#[test]
fn users_are_subscribed_to_their_personal_channels() {
    for (namespace, claims, channel) in [
        ("", r#"{"sub":"ada"}"#, Some("#ada")),
        ("chat", r#"{"sub":"ada"}"#, Some("chat:#ada")),
        ("", "{}", None),
    ] {
        let mut client = Client::with_config(Config {
            personal_channels: Some(namespace.to_owned()),
            ..Default::default()
        });
        client.handle_token(CONNECT, verify(claims).0).unwrap();
        let channels: Vec<_> = client.session.take_subscriptions();
        let channels: Vec<_> = channels
            .iter()
            .map(|known| known.subscription.channel.as_str())
            .collect();
        assert_eq!(channels, Vec::from_iter(channel), "{claims}");
    }
}

#[test]
fn a_channel_may_name_its_users() {
    let subscribe = r#"{"id":2,"subscribe":{"channel":"dialog#ada,bob"}}"#;
    assert_eq!(
        with_token(r#"{"sub":"ada"}"#).handle_frame(subscribe).unwrap(),
        ["Subscribe"]
    );
    for mut client in [with_token(r#"{"sub":"eve"}"#), Client::connected()] {
        for command in ["subscribe", "history", "presence"] {
            let frame = format!(r#"{{"id":2,"{command}":{{"channel":"dialog#ada,bob"}}}}"#);
            check_error(&mut client, &frame, 103);
        }
    }
}

#[test]
fn a_subscription_token_does_not_admit_to_the_channel_of_other_users() {
    let channel = "dialog#ada,bob";
    let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"t"}}}}"#);
    check_error(&mut with_token(r#"{"sub":"eve"}"#), &subscribe, 103);
    check_error(&mut Client::connected(), &subscribe, 103);
    let claims = format!(r#"{{"sub":"ada","channel":"{channel}"}}"#);
    let mut ada = with_token(r#"{"sub":"ada"}"#);
    assert_eq!(ada.handle_token(&subscribe, verify(&claims).1).unwrap(), "Subscribe");
}

#[test]
fn nobody_subscribes_where_the_namespace_allows_nobody() {
    for (access, code) in [(Access::Nobody, true), (Access::Token, false)] {
        let config = with_options(|options| options.allow_subscribe = access);
        let mut client = Client::with_config(config);
        client.handle_token(CONNECT, verify(r#"{"sub":"ada"}"#).0).unwrap();
        for channel in ["c", "$c", "c#ada"] {
            let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"t"}}}}"#);
            match code {
                true => check_error(&mut client, &subscribe, 103),
                false => {
                    let claims = format!(r#"{{"sub":"ada","channel":"{channel}"}}"#);
                    assert_eq!(client.handle_token(&subscribe, verify(&claims).1).unwrap(), "Subscribe");
                }
            }
        }
        let own = r#"{"id":2,"subscribe":{"channel":"d#ada"}}"#;
        match code {
            true => check_error(&mut client, own, 103),
            false => assert_eq!(client.handle_frame(own).unwrap(), ["Subscribe"]),
        }
    }
}

#[test]
fn a_stricter_configuration_revokes_subscriptions() {
    let mut client = Client::with_config(Config::default());
    let connect = verify(r#"{"sub":"ada","channels":["server"]}"#).0;
    client.handle_token(CONNECT, connect).unwrap();
    for channel in ["open", "own#ada", "chat:x"] {
        let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#);
        assert_eq!(client.handle_frame(&subscribe).unwrap(), ["Subscribe"]);
    }
    let subscribe = r#"{"id":3,"subscribe":{"channel":"token","token":"t"}}"#;
    let claims = r#"{"sub":"ada","channel":"token"}"#;
    assert_eq!(client.handle_token(subscribe, verify(claims).1).unwrap(), "Subscribe");

    let revoked = |client: &mut Client, change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        client.session.set_config(Arc::new(config));
        let revoked = client.session.revoked().into_iter();
        revoked
            .map(|(channel, code)| (channel.to_string(), code.code()))
            .collect::<Vec<_>>()
    };
    let expect = |list: &[(&str, u32)]| {
        list.iter()
            .map(|(name, code)| ((*name).to_owned(), *code))
            .collect::<Vec<_>>()
    };
    assert_eq!(revoked(&mut client, &|_| {}), expect(&[]));
    let without_chat = |config: &mut Config| drop(config.namespaces.remove("chat"));
    assert_eq!(revoked(&mut client, &without_chat), expect(&[("chat:x", 2000)]));
    let subscribe = |access| move |config: &mut Config| config.channels.as_mut().unwrap().allow_subscribe = access;
    assert_eq!(revoked(&mut client, &subscribe(Access::Authenticated)), expect(&[]));
    assert_eq!(
        revoked(&mut client, &subscribe(Access::Token)),
        expect(&[("open", 2502)])
    );
    let nobody = expect(&[("open", 2502), ("own#ada", 2502), ("token", 2502)]);
    assert_eq!(revoked(&mut client, &subscribe(Access::Nobody)), nobody);
}

#[test]
fn a_connection_token_subscribes_to_its_channels() {
    let mut client = Client::opening();
    let claims = r#"{"sub":"ada","channels":["$a","b"]}"#;
    assert_eq!(
        client.handle_token(CONNECT, verify(claims).0).unwrap(),
        "Connect with 2"
    );
    check_error(&mut client, r#"{"id":2,"subscribe":{"channel":"b"}}"#, 105);
    assert_eq!(
        client.handle_frame(r#"{"id":3,"history":{"channel":"$a"}}"#).unwrap(),
        ["History"]
    );
}

#[test]
fn too_many_commands_at_once_disconnect() {
    let mut client = Client::connected();
    let ping = r#"{"id":2,"ping":{}}"#;
    for _ in 0..999 {
        client.handle_frame(ping).unwrap();
    }
    check_disconnect(&mut client, ping, DisconnectCode::TooManyRequests);
}

#[test]
fn publications_of_one_client_are_limited_by_the_namespace() {
    let mut client = Client::with_config(with_options(|options| options.publication_rate_max = Some(3)));
    client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
    let publish = r#"{"id":3,"publish":{"channel":"c","data":1}}"#;
    for _ in 0..3 {
        assert_eq!(client.handle_frame(publish).unwrap(), ["Publish"]);
    }
    check_error(&mut client, publish, 111);
    assert_eq!(
        client.handle_frame(&publish.replace("\"c\"", "\"d\"")).unwrap(),
        ["Publish"]
    );
    client.wait(1).unwrap();
    assert_eq!(client.handle_frame(publish).unwrap(), ["Publish"]);
}

#[test]
fn client_info_is_limited_and_marked_as_unverified() {
    let mut client = Client::opening();
    client
        .handle_frame(r#"{"id":1,"connect":{"data":{"name":"Ada"}}}"#)
        .unwrap();
    let info = client.session.info().unwrap().conn_info.clone();
    assert_eq!(info.unwrap().to_json(), r#"{"unverified":{"name":"Ada"}}"#);

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
    let newest = subscription.membership.subscription.clone();
    let mut first = newest.clone();
    first.generation = Generation::default().next();
    assert!(client.session.handle_unsubscribed(&first).is_none());
    check_error(&mut client, r#"{"id":6,"subscribe":{"channel":"c"}}"#, 105);
    assert!(client.session.handle_unsubscribed(&newest).is_some());
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
    for n in 128..900 {
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
fn a_publication_needs_data() {
    check_error(
        &mut Client::subscribed("c"),
        r#"{"id":3,"publish":{"channel":"c"}}"#,
        107,
    );
}

#[test]
fn the_namespace_decides_who_may_publish() {
    for (policy, subscriber, other) in [
        (Access::Nobody, false, false),
        (Access::Anyone, true, true),
        (Access::Subscriber, true, false),
        (Access::Authenticated, false, false),
        (Access::Token, false, false),
    ] {
        let config = with_options(|options| options.allow_publish = policy);
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
fn presence_and_history_are_for_subscribers_if_the_namespace_says_so() {
    for (who, is_allowed) in [(Access::Subscriber, false), (Access::Anyone, true)] {
        let config = with_options(|options| (options.allow_history, options.allow_presence) = (who, who));
        for (command, call) in [
            ("presence", "Presence"),
            ("presence_stats", "PresenceStats"),
            ("history", "History"),
        ] {
            let frame = format!(r#"{{"id":3,"{command}":{{"channel":"c"}}}}"#);
            let mut client = Client::with_config(config.clone());
            client.handle_frame(r#"{"id":1,"connect":{}}"#).unwrap();
            match is_allowed {
                true => assert_eq!(client.handle_frame(&frame).unwrap(), [call]),
                false => check_error(&mut client, &frame, 103),
            }
            client.handle_frame(r#"{"id":2,"subscribe":{"channel":"c"}}"#).unwrap();
            assert_eq!(client.handle_frame(&frame).unwrap(), [call]);
            check_error(&mut client, &frame.replace("\"c\"", "\"$c\""), 103);
        }
    }
}

#[test]
fn channels_of_unknown_namespaces_do_not_exist() {
    for command in ["subscribe", "presence", "presence_stats", "history"] {
        let frame = format!(r#"{{"id":3,"{command}":{{"channel":"unknown:x"}}}}"#);
        check_error(&mut Client::connected(), &frame, 102);
    }
    let publish = r#"{"id":3,"publish":{"channel":"unknown:x","data":1}}"#;
    check_error(&mut Client::connected(), publish, 102);
}

#[test]
fn disabled_features_are_not_available() {
    let config = with_options(|options| (options.presence, options.history_size) = (false, 0));
    let mut client = Client::with_config(config);
    client
        .handle_frame("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}")
        .unwrap();
    for command in ["presence", "presence_stats", "history", "rpc"] {
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
    assert!(subscribe.options.join_leave && subscribe.options.positioned);
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
    assert!(code.allows_reconnect());

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

/// Kinds of subscriptions and publications that Centrifugo supports and this server does not. Plain ones in their place
/// would deliver publications that the client does not want, or drop those that it wants.
#[test]
fn unsupported_subscriptions_are_rejected_and_not_granted_as_plain_ones() {
    for (command, fields, code) in [
        ("subscribe", r#""type":1,"phase":2"#, 108),
        ("subscribe", r#""type":4"#, 108),
        ("subscribe", r#""type":-1"#, 108),
        ("subscribe", r#""type":77,"tf":{}"#, 108),
        ("subscribe", r#""tf":{"key":"k","cmp":"like","val":"v"}"#, 107),
        ("subscribe", r#""tf":{"key":"k","cmp":"ex"},"delta":"fossil""#, 107),
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
