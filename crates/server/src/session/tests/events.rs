//! Events that the backend decides about.

use super::*;
use crate::hooks::{HookError, HookReply};
use serde::de::DeserializeOwned;

/// All hooks, and namespaces that use them.
fn config() -> Config {
    let mut config = with_options(|options| {
        options.subscribe_hook = true;
        options.sub_refresh_hook = true;
        options.publish_hook = true;
        // The backend decides instead.
        options.allow_subscribe = Access::Nobody;
        options.allow_publish = Access::Nobody;
    });
    let url = || Some("http://127.0.0.1:1/".to_owned());
    config.hooks.connect_url = url();
    config.hooks.refresh_url = url();
    config.hooks.subscribe_url = url();
    config.hooks.sub_refresh_url = url();
    config.hooks.publish_url = url();
    config.hooks.rpc_url = url();
    config.check().unwrap();
    config
}

fn client(config: Config) -> Client {
    Client::pinged(config, Pings::Frames, Instant::now())
}

fn reply<T: DeserializeOwned>(answer: &str) -> HookReply<T> {
    HookReply::parse(answer.as_bytes()).unwrap()
}

/// An answer of the backend for the kind of event.
fn decision(event: &Event, answer: &str) -> Decision {
    match event {
        Event::Connect(_) => Decision::Connect(reply(answer)),
        Event::Refresh => Decision::Refresh(reply(answer)),
        Event::Subscribe(_) => Decision::Subscribe(reply(answer)),
        Event::SubRefresh(_) => Decision::SubRefresh(reply(answer)),
        Event::Publish(..) => Decision::Publish(reply(answer)),
        Event::Rpc(..) | Event::Message(_) => Decision::Rpc(reply(answer)),
        Event::Verify(_) => unreachable!("the backend does not verify tokens"),
    }
}

impl Client {
    #[track_caller]
    fn ask(&mut self, frame: &str) -> Event {
        let command = commands(frame).unwrap().next().unwrap();
        match self.session.handle_command(command, self.now).unwrap() {
            Step::Ask(event) => event,
            step => panic!("{frame}: {step:?}"),
        }
    }

    fn decide(&mut self, event: Event, answer: &str) -> Result<Step, DisconnectCode> {
        let decision = decision(&event, answer);
        self.conclude(event, Ok(decision))
    }

    fn conclude(&mut self, event: Event, decision: Result<Decision, HookError>) -> Result<Step, DisconnectCode> {
        let clock = Clock {
            now: self.now,
            unix: UNIX,
        };
        self.session.handle_decision(event, decision, clock)
    }

    /// Sends a command and the answer of the backend about it.
    fn decided(&mut self, frame: &str, answer: &str) -> Result<String, DisconnectCode> {
        let event = self.ask(frame);
        let step = self.decide(event, answer)?;
        Ok(described(1, step).unwrap_or_default())
    }

    fn expired(&mut self) -> Event {
        match self.session.take_expired(self.now).unwrap() {
            Some(Expired::Ask(event)) => event,
            expired => panic!("{expired:?}"),
        }
    }
}

const CONNECT: &str = r#"{"id":1,"connect":{"data":{"cookie":"secret"},"name":"js","version":"5"}}"#;
const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"c","data":{"x":1},"recoverable":true}}"#;
const PUBLISH: &str = r#"{"id":3,"publish":{"channel":"c","data":{"x":1}}}"#;

fn connected() -> Client {
    let mut client = client(config());
    client.decided(CONNECT, r#"{"result":{"user":"ada"}}"#).unwrap();
    client
}

fn subscribed(answer: &str) -> Client {
    let mut client = connected();
    assert_eq!(client.decided(SUBSCRIBE, answer).unwrap(), "Subscribe");
    client
}

#[track_caller]
fn published(client: &mut Client, answer: &str) -> Publish {
    let event = client.ask(PUBLISH);
    match client.decide(event, answer).unwrap() {
        Step::Call(Call::Publish(_, publish)) => publish,
        step => panic!("{step:?}"),
    }
}

#[test]
fn the_backend_connects_a_client_with_its_data_and_never_shows_that_of_the_client() {
    let mut client = client(config());
    let event = client.ask(CONNECT);
    let Event::Connect(asked) = &event else {
        panic!("{event:?}")
    };
    assert_eq!((&*asked.name, &*asked.version), ("js", "5"));
    assert_eq!(asked.data.as_ref().unwrap().to_json(), r#"{"cookie":"secret"}"#);
    // No command is executed before the decision: the caller lets them wait.
    let answer = r#"{"result":{"user":"ada","data":{"hello":1},"meta":{"shard":7},"channels":["a"],"subs":{"b":{}}}}"#;
    assert_eq!(
        described(1, client.decide(event, answer).unwrap()).unwrap(),
        "Connect with 2"
    );
    let info = client.session.info().unwrap();
    assert_eq!((&*info.user, &info.conn_info), ("ada", &None));
    assert_eq!(client.session.meta().unwrap().get(), r#"{"shard":7}"#);
}

#[test]
fn connect_data_of_the_backend_and_base64_are_sent_to_the_client() {
    let mut client = client(config());
    // {"n":1} and "hi"
    let answer = r#"{"result":{"b64info":"eyJuIjoxfQ==","b64data":"ImhpIg==","info":{"n":2}}}"#;
    let said = client.decided(CONNECT, answer).unwrap();
    assert!(said.contains(r#""data":"hi""#), "{said}");
    let info = client.session.info().unwrap();
    assert_eq!(info.conn_info.as_ref().unwrap().to_json(), r#"{"n":1}"#);
}

#[test]
fn without_a_result_only_anonymous_clients_connect_where_they_are_allowed() {
    let mut client_of = client(config());
    let said = client_of.decided(CONNECT, "{}").unwrap();
    assert!(said.contains("\"client\""), "{said}");
    assert_eq!(client_of.session.info().unwrap().conn_info, None);
    let closed = Config {
        anonymous: false,
        ..config()
    };
    assert_eq!(client(closed).decided(CONNECT, "{}"), Err(DisconnectCode::BadRequest));
}

#[test]
fn a_connection_is_refused_with_the_error_of_the_backend_or_a_temporary_one() {
    for (answer, expect) in [
        (
            Some(r#"{"error":{"code":1001,"message":"no"}}"#),
            r#"{"id":1,"error":{"code":1001,"message":"no"}}"#,
        ),
        (Some(r#"{"disconnect":{"code":4501,"reason":"bye"}}"#), "Close 4501 bye"),
        (
            Some(r#"{"result":{"b64info":"*"}}"#),
            r#""code":100,"message":"internal server error","temporary":true"#,
        ),
        (Some(r#"{"result":{"expire_at":1}}"#), r#""code":110,"#),
        (None, r#""code":100,"message":"internal server error","temporary":true"#),
    ] {
        let mut client = client(config());
        let event = client.ask(CONNECT);
        let step = match answer {
            Some(answer) => client.decide(event, answer),
            None => client.conclude(event, Err(HookError::Timeout)),
        };
        let said = described(1, step.unwrap()).unwrap();
        assert!(said.contains(expect), "{answer:?}: {said}");
        assert!(client.session.info().is_none());
        assert!(client.handle_frame(r#"{"id":2,"connect":{}}"#).is_err());
    }
}

#[test]
fn a_token_needs_no_decision_about_the_connection() {
    let mut client = client(config());
    let said = client
        .handle_token(super::CONNECT, verify(r#"{"sub":"ada"}"#).0)
        .unwrap();
    assert!(said.contains("\"client\""), "{said}");
}

#[test]
fn the_backend_is_asked_when_a_connection_expires_and_the_client_is_not_told() {
    let mut client = client(config());
    let answer = format!(
        r#"{{"result":{{"user":"ada","expire_at":{},"channels":["c"]}}}}"#,
        UNIX + 60
    );
    let event = client.ask(CONNECT);
    let Step::Connect(result, _) = client.decide(event, &answer).unwrap() else {
        panic!("not connected")
    };
    assert!(!result.expiry.expires);
    client.wait(59).unwrap();
    assert!(client.session.take_expired(client.now).unwrap().is_none());
    // No grace: the backend answers at once.
    client.wait(1).unwrap();
    let event = client.expired();
    // Asked once.
    assert!(client.session.take_expired(client.now).unwrap().is_none());
    assert_eq!(client.session.deadline(), None);
    let answer = format!(
        r#"{{"result":{{"expire_at":{},"info":{{"age":5}},"meta":1}}}}"#,
        UNIX + 30
    );
    let Step::Refreshed(None, changed) = client.decide(event, &answer).unwrap() else {
        panic!("not refreshed")
    };
    let info = &changed[0].info;
    assert_eq!(info.conn_info.as_ref().unwrap().to_json(), r#"{"age":5}"#);
    assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(30)));
    // The client must not refresh.
    assert_eq!(
        client.handle_frame(r#"{"id":2,"refresh":{"token":"t"}}"#),
        Err(DisconnectCode::BadRequest)
    );
}

#[test]
fn a_connection_that_the_backend_does_not_extend_ends_and_a_failure_gives_another_minute() {
    for (answer, expect) in [
        (Some(r#"{"result":{"expired":true}}"#), Err(DisconnectCode::Expired)),
        (Some(r#"{"result":{"expire_at":0}}"#), Err(DisconnectCode::Expired)),
        (Some("{}"), Err(DisconnectCode::Expired)),
        (Some(r#"{"error":{"code":1000}}"#), Err(DisconnectCode::Expired)),
        (Some(r#"{"disconnect":{"code":4000,"reason":"r"}}"#), Ok("Close 4000 r")),
        (None, Ok("Refreshed")),
    ] {
        let mut client = client(config());
        let connect = format!(r#"{{"result":{{"expire_at":{}}}}}"#, UNIX + 60);
        client.decided(CONNECT, &connect).unwrap();
        client.wait(60).unwrap();
        let event = client.expired();
        let step = match answer {
            Some(answer) => client.decide(event, answer),
            None => client.conclude(event, Err(HookError::Paused)),
        };
        let said = step.map(|step| described(0, step).unwrap());
        assert_eq!(said, expect.map(str::to_owned), "{answer:?}");
        if answer.is_none() {
            assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(60)));
        }
    }
}

#[test]
fn the_backend_decides_about_subscriptions_and_their_options() {
    let mut client = connected();
    let event = client.ask(SUBSCRIBE);
    let Event::Subscribe(asked) = &event else {
        panic!("{event:?}")
    };
    assert_eq!(asked.data.as_ref().unwrap().to_json(), r#"{"x":1}"#);
    assert_eq!(event.channel().unwrap().as_str(), "c");
    assert!(client.session.subscriptions.is_empty());
    let answer = r#"{"result":{"info":{"seat":3},"data":{"hello":1},"override":{"presence":{"value":false}}}}"#;
    let Step::Subscribe(subscribe) = client.decide(event, answer).unwrap() else {
        panic!("not subscribed")
    };
    assert!(!subscribe.membership.presence && subscribe.is_recoverable);
    let info = &subscribe.membership.info;
    assert_eq!(info.chan_info.as_ref().unwrap().to_json(), r#"{"seat":3}"#);
    assert_eq!(subscribe.data.unwrap().to_json(), r#"{"hello":1}"#);
}

#[test]
fn the_backend_may_exclude_publications_by_their_tags() {
    let tags = |pairs: &[(&str, &str)]| -> crate::engine::Tags {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let wanted = r#"{"id":2,"subscribe":{"channel":"c","tf":{"key":"kind","cmp":"eq","val":"new"}}}"#;
    let answer = r#"{"result":{"server_tags_filter":{"key":"team","cmp":"eq","val":"red"}}}"#;
    let mut client = connected();
    let event = client.ask(wanted);
    let Step::Subscribe(subscribe) = client.decide(event, answer).unwrap() else {
        panic!("not subscribed")
    };
    let filter = subscribe.options.filter.unwrap();
    assert!(filter.matches(&tags(&[("kind", "new"), ("team", "red")])));
    for excluded in [
        &[("kind", "new"), ("team", "blue")][..],
        &[("kind", "old"), ("team", "red")],
        &[],
    ] {
        assert!(!filter.matches(&tags(excluded)));
    }
    // Deltas are made from publications that such a subscriber may not have.
    let mut client = connected();
    let deltas = SUBSCRIBE.replace("\"recoverable\":true", "\"recoverable\":true,\"delta\":\"fossil\"");
    let event = client.ask(&deltas);
    let Step::Subscribe(subscribe) = client.decide(event, answer).unwrap() else {
        panic!("not subscribed")
    };
    assert!(subscribe.options.filter.is_some() && !subscribe.options.delta);
    // An invalid filter is not ignored.
    let invalid = r#"{"result":{"server_tags_filter":{"key":"team","cmp":"like"}}}"#;
    assert!(
        connected()
            .decided(SUBSCRIBE, invalid)
            .unwrap()
            .contains("\"code\":100")
    );
    let connect = r#"{"result":{"subs":{"c":{"server_tags_filter":{"key":"team","cmp":"eq","val":"red"}}}}}"#;
    let mut client_of = self::client(config());
    let event = client_of.ask(CONNECT);
    let Step::Connect(_, granted) = client_of.decide(event, connect).unwrap() else {
        panic!("not connected")
    };
    assert!(granted[0].options.filter.is_some());
}

#[test]
fn a_subscription_that_the_backend_refuses_leaves_nothing() {
    for (answer, expect) in [
        (
            r#"{"error":{"code":103,"message":"no","temporary":true}}"#,
            r#"{"code":103,"message":"no","temporary":true}"#,
        ),
        (r#"{"disconnect":{"code":3507,"reason":"out"}}"#, "Close 3507 out"),
        (r#"{"result":{"expire_at":1}}"#, r#""code":110"#),
        (r#"{"result":{"b64data":"?"}}"#, r#""code":100"#),
    ] {
        let mut client = connected();
        let said = client.decided(SUBSCRIBE, answer).unwrap();
        assert!(said.contains(expect), "{said}");
        assert!(client.session.subscriptions.is_empty());
    }
    let mut client = connected();
    let event = client.ask(SUBSCRIBE);
    let step = client.conclude(event, Err(HookError::Timeout)).unwrap();
    let said = described(2, step).unwrap();
    assert!(
        said.contains(r#"{"code":100,"message":"internal server error","temporary":true}"#),
        "{said}"
    );
    assert!(client.session.subscriptions.is_empty());
}

#[test]
fn what_changed_while_the_backend_decided_is_checked_again() {
    // The server API was faster.
    let mut client = connected();
    let event = client.ask(SUBSCRIBE);
    let command = crate::queue::ServerSubscribe {
        channel: ChannelName::new("c").unwrap(),
        info: None,
        data: None,
        expire_at: None,
        recover_since: None,
        overrides: Default::default(),
    };
    let clock = Clock {
        now: client.now,
        unix: UNIX,
    };
    assert!(client.session.subscribe_by_server(command, clock).unwrap().is_some());
    let said = described(2, client.decide(event, "{}").unwrap()).unwrap();
    assert!(said.contains("\"code\":105"), "{said}");
    assert_eq!(client.session.take_subscriptions().len(), 1);
    // The client was disconnected.
    let mut client = connected();
    let event = client.ask(SUBSCRIBE);
    client.handle_frame("nonsense").unwrap_err();
    assert!(client.decide(event, "{}").is_err());
    assert!(client.session.subscriptions.is_empty());
}

#[test]
fn private_and_user_limited_channels_keep_their_rules() {
    check_error(&mut connected(), r#"{"id":2,"subscribe":{"channel":"$c"}}"#, 103);
    check_error(&mut connected(), r#"{"id":2,"subscribe":{"channel":"d#bob"}}"#, 103);
    let mine = r#"{"id":2,"subscribe":{"channel":"d#ada,bob"}}"#;
    assert_eq!(connected().handle_frame(mine).unwrap(), ["Subscribe"]);
    // A token replaces the decision.
    let subscribe = r#"{"id":2,"subscribe":{"channel":"c","token":"t"}}"#;
    let token = verify(r#"{"sub":"ada","channel":"c"}"#).1;
    assert_eq!(connected().handle_token(subscribe, token).unwrap(), "Subscribe");
}

#[test]
fn the_backend_is_asked_when_a_subscription_expires() {
    let expiring = format!(r#"{{"result":{{"expire_at":{}}}}}"#, UNIX + 60);
    for (answer, expect, left) in [
        (
            Some(format!(r#"{{"result":{{"expire_at":{},"info":1}}}}"#, UNIX + 90)),
            "Refreshed",
            1,
        ),
        (Some(r#"{"result":{"expired":true}}"#.to_owned()), "Expire", 0),
        (Some("{}".to_owned()), "Expire", 0),
        (None, "Refreshed", 1),
    ] {
        let mut client = subscribed(&expiring);
        client.wait(60).unwrap();
        let event = client.expired();
        assert!(client.session.take_expired(client.now).unwrap().is_none());
        let step = match &answer {
            Some(answer) => client.decide(event, answer),
            None => client.conclude(event, Err(HookError::Timeout)),
        };
        assert_eq!(described(0, step.unwrap()).unwrap(), expect, "{answer:?}");
        assert_eq!(client.session.subscriptions.len(), left);
        assert_eq!(client.session.deadline().is_some(), left > 0);
    }
    // A decision about an earlier subscription does not concern a later one.
    let mut client = subscribed(&expiring);
    client.wait(60).unwrap();
    let event = client.expired();
    client
        .handle_frame(r#"{"id":4,"unsubscribe":{"channel":"c"}}"#)
        .unwrap();
    client.decided(SUBSCRIBE, "{}").unwrap();
    let step = client.decide(event, r#"{"result":{"expired":true}}"#).unwrap();
    assert!(matches!(step, Step::Nothing), "{step:?}");
    assert_eq!(client.session.subscriptions.len(), 1);
}

#[test]
fn the_backend_decides_about_publications_and_may_change_them() {
    let mut client = subscribed(r#"{"result":{"info":{"seat":3}}}"#);
    let same = published(&mut client, "{}");
    assert_eq!(same.content.data.to_json(), r#"{"x":1}"#);
    assert!(!same.skips_history && same.content.tags.is_none() && same.idempotency_key.is_none());
    let seat = same.content.info.unwrap().chan_info.clone().unwrap();
    assert_eq!(seat.to_json(), r#"{"seat":3}"#);

    let answer = r#"{"result":{"data":{"y":2},"b64data":"MQ==","skip_history":true,"tags":{"k":"v"},
        "idempotency_key":"i","version":7,"version_epoch":"e"}}"#;
    let changed = published(&mut client, answer);
    assert_eq!(changed.content.data.to_json(), r#"{"y":2}"#);
    assert!(changed.skips_history && changed.idempotency_key.as_deref() == Some("i"));
    assert_eq!(changed.content.tags.unwrap()["k"], "v");
    assert_eq!(changed.version.unwrap().number, 7);
    let base64 = published(&mut client, r#"{"result":{"b64data":"MQ=="}}"#);
    assert_eq!(base64.content.data.to_json(), "1");

    let large = format!(r#"{{"result":{{"data":"{}"}}}}"#, "x".repeat(64 << 10));
    assert!(client.decided(PUBLISH, &large).unwrap().contains("\"code\":106"));
    let refused = client
        .decided(PUBLISH, r#"{"error":{"code":1007,"message":"rude"}}"#)
        .unwrap();
    assert!(refused.contains(r#"{"code":1007,"message":"rude"}"#), "{refused}");
    let event = client.ask(PUBLISH);
    let failed = client.conclude(event, Err(HookError::Failed("x".to_owned()))).unwrap();
    assert!(described(3, failed).unwrap().contains("\"code\":100"));
    // What the client may not reach, or sends too fast, is not passed to the backend.
    check_error(&mut client, &PUBLISH.replace("\"c\"", "\"$c\""), 103);
}

#[test]
fn calls_go_to_the_backend_and_have_data_or_none() {
    let mut client = connected();
    let rpc = r#"{"id":4,"rpc":{"method":"sum","data":[1,2]}}"#;
    let event = client.ask(rpc);
    let Event::Rpc(method, Some(data)) = &event else {
        panic!("{event:?}")
    };
    assert_eq!((&**method, &*data.to_json()), ("sum", "[1,2]"));
    for (answer, expect) in [
        (
            r#"{"result":{"data":{"sum":3}}}"#,
            r#"{"id":1,"rpc":{"data":{"sum":3}}}"#,
        ),
        (r#"{"result":{"b64data":"aGk="}}"#, r#"{"id":1,"rpc":{"data":"hi"}}"#),
        ("{}", r#"{"id":1,"rpc":{}}"#),
        (
            r#"{"error":{"code":1404,"message":"none"}}"#,
            r#"{"id":1,"error":{"code":1404,"message":"none"}}"#,
        ),
    ] {
        assert_eq!(client.decided(rpc, answer).unwrap(), expect);
    }
    assert_eq!(
        client
            .decided(rpc, r#"{"disconnect":{"code":4999,"reason":"x"}}"#)
            .unwrap(),
        "Close 4999 x"
    );
    // Once disconnected, stays disconnected.
    assert!(client.handle_frame(rpc).is_err());
}

#[test]
fn a_refresh_token_replaces_the_information_about_the_client_everywhere() {
    let mut client = with_token(r#"{"sub":"ada","info":{"age":4}}"#);
    client.handle_frame(r#"{"id":2,"subscribe":{"channel":"c"}}"#).unwrap();
    let command = commands(r#"{"id":3,"refresh":{"token":"t"}}"#).unwrap().next().unwrap();
    let Step::Verify(unverified) = client.session.handle_command(command, client.now).unwrap() else {
        panic!("no token")
    };
    let clock = Clock {
        now: client.now,
        unix: UNIX,
    };
    let token = verify(r#"{"sub":"ada","info":{"age":5},"meta":[1]}"#).0;
    let step = client.session.handle_token(*unverified, token, clock).unwrap();
    let Step::Refreshed(Some(_), changed) = step else {
        panic!("{step:?}")
    };
    assert_eq!(changed.len(), 1);
    for info in [client.session.info().unwrap(), &changed[0].info] {
        assert_eq!(info.conn_info.as_ref().unwrap().to_json(), r#"{"age":5}"#);
    }
    assert_eq!(client.session.meta().unwrap().get(), "[1]");
}

#[test]
fn a_subscription_token_replaces_the_information_in_its_channel() {
    let subscribe = r#"{"id":2,"subscribe":{"channel":"c","token":"t"}}"#;
    let refresh = r#"{"id":3,"sub_refresh":{"channel":"c","token":"t"}}"#;
    let mut client = with_token(r#"{"sub":"ada"}"#);
    let token = |claims: &str| verify(&format!(r#"{{"sub":"ada","channel":"c"{claims}}}"#)).1;
    client.handle_token(subscribe, token(r#","info":{"seat":1}"#)).unwrap();
    for (claims, expect) in [(r#","info":{"seat":2}"#, Some(r#"{"seat":2}"#)), ("", None)] {
        client.handle_token(refresh, token(claims)).unwrap();
        let info = client.session.info_in(&ChannelName::new("c").unwrap()).unwrap();
        assert_eq!(
            info.chan_info
                .as_ref()
                .map(|info| info.to_json().into_owned())
                .as_deref(),
            expect
        );
    }
}
