//! What the claims of a token with a good signature mean.

use super::*;

/// Outcome of a connection token with these claims.
#[track_caller]
fn connect_with(claims: Value) -> Result<ConnectionClaims, TokenError> {
    connect(&hmac_verifier(), &sign(claims))
}

#[track_caller]
fn subscribe_with(claims: Value) -> Result<SubscriptionClaims, TokenError> {
    subscribe(&hmac_verifier(), &sign(claims))
}

#[track_caller]
fn text(payload: Option<&Payload>) -> &str {
    std::str::from_utf8(payload.unwrap().as_bytes()).unwrap()
}

#[test]
fn a_token_names_its_user() {
    let token = connect_with(json!({"sub": "42", "exp": NOW + 60, "iat": NOW, "jti": "t1"})).unwrap();
    assert_eq!(token.user, "42");
    assert_eq!(token.expire_at, Some(NOW + 60));
    assert!(token.info.is_none() && token.meta.is_none() && token.subscriptions.is_empty());
}

#[test]
fn without_a_subject_the_user_is_anonymous() {
    for claims in [json!({}), json!({"sub": ""}), json!({"sub": null})] {
        let token = connect_with(claims).unwrap();
        assert_eq!((token.user.as_str(), token.expire_at), ("", None));
    }
}

#[test]
fn expiry_is_exact_to_the_second() {
    for (exp, expect) in [
        (json!(NOW + 1), Ok(Some(NOW + 1))),
        (json!(NOW), Err(TokenError::Expired)),
        (json!(NOW - 1), Err(TokenError::Expired)),
        (json!(NOW as f64 + 1.5), Ok(Some(NOW + 1))),
        (json!(NOW as f64 + 0.5), Err(TokenError::Expired)),
        (json!(0), Err(TokenError::Expired)),
        (json!(-1), Err(TokenError::Expired)),
        (json!(-1.5), Err(TokenError::Expired)),
        (json!(u64::MAX), Ok(Some(u64::MAX))),
        (json!(1e300), Ok(Some(u64::MAX))),
        (json!(null), Ok(None)),
        (json!("1800000000"), Err(InvalidToken::Claims.into())),
        (json!(true), Err(InvalidToken::Claims.into())),
        (json!({}), Err(InvalidToken::Claims.into())),
    ] {
        let token = connect_with(json!({"exp": exp}));
        assert_eq!(token.map(|token| token.expire_at), expect, "{exp}");
        let token = subscribe_with(json!({"exp": exp, "channel": "c"}));
        assert_eq!(token.map(|token| token.expire_at), expect, "{exp}");
    }
}

#[test]
fn a_token_is_valid_from_its_nbf_on() {
    for (nbf, expect) in [
        (NOW - 1, Ok(())),
        (NOW, Ok(())),
        (NOW + 1, Err(TokenError::NotYetValid)),
        (u64::MAX, Err(TokenError::NotYetValid)),
    ] {
        assert_eq!(connect_with(json!({"nbf": nbf})).map(drop), expect);
        assert_eq!(subscribe_with(json!({"nbf": nbf, "channel": "c"})).map(drop), expect);
    }
}

#[test]
fn leeway_applies_to_both_ends() {
    let mut config = hmac_config();
    config.leeway_seconds = 10;
    let verifier = verifier(&config);
    let check = |claims: Value| connect(&verifier, &sign(claims)).map(drop);
    assert_eq!(check(json!({"exp": NOW - 9})), Ok(()));
    assert_eq!(check(json!({"exp": NOW - 10})), Err(TokenError::Expired));
    assert_eq!(check(json!({"nbf": NOW + 10})), Ok(()));
    assert_eq!(check(json!({"nbf": NOW + 11})), Err(TokenError::NotYetValid));
    assert_eq!(check(json!({"exp": u64::MAX, "nbf": 0})), Ok(()));
}

#[test]
fn expire_at_separates_the_connection_from_the_token() {
    for (claims, expect) in [
        (json!({"exp": NOW + 60, "expire_at": NOW + 600}), Some(NOW + 600)),
        (json!({"exp": NOW + 60, "expire_at": 0}), None),
        (json!({"exp": NOW + 60, "expire_at": -1}), None),
        (json!({"expire_at": NOW + 600}), Some(NOW + 600)),
        (json!({"exp": NOW + 60, "expire_at": null}), Some(NOW + 60)),
    ] {
        assert_eq!(connect_with(claims.clone()).unwrap().expire_at, expect, "{claims}");
        let mut claims = claims;
        claims["channel"] = json!("c");
        assert_eq!(subscribe_with(claims).unwrap().expire_at, expect);
    }
    let expired = connect_with(json!({"exp": NOW, "expire_at": NOW + 600}));
    assert_eq!(expired.unwrap_err(), TokenError::Expired);
}

#[test]
fn the_audience_is_checked_if_configured() {
    let mut config = hmac_config();
    config.audience = Some("here".into());
    let verifier = verifier(&config);
    for (aud, is_valid) in [
        (json!("here"), true),
        (json!(["elsewhere", "here"]), true),
        (json!("elsewhere"), false),
        (json!(["elsewhere"]), false),
        (json!([]), false),
        (json!("HERE"), false),
        (json!(null), false),
    ] {
        let result = connect(&verifier, &sign(json!({"aud": aud}))).map(drop);
        let expect = if is_valid {
            Ok(())
        } else {
            Err(InvalidToken::Audience.into())
        };
        assert_eq!(result, expect, "{aud}");
        // Without a configured audience it does not matter.
        assert!(connect_with(json!({"aud": aud})).is_ok());
    }
    refuse(&verifier, &sign(json!({})), InvalidToken::Audience);
    refuse(&verifier, &sign(json!({"aud": 1})), InvalidToken::Claims);
    refuse(&hmac_verifier(), &sign(json!({"aud": [1]})), InvalidToken::Claims);
}

#[test]
fn the_issuer_is_checked_if_configured() {
    let mut config = hmac_config();
    config.issuer = Some("https://issuer.example/".into());
    let verifier = verifier(&config);
    assert!(connect(&verifier, &sign(json!({"iss": "https://issuer.example/"}))).is_ok());
    refuse(
        &verifier,
        &sign(json!({"iss": "https://issuer.example"})),
        InvalidToken::Issuer,
    );
    refuse(&verifier, &sign(json!({})), InvalidToken::Issuer);
    refuse(
        &verifier,
        &sign(json!({"iss": ["https://issuer.example/"]})),
        InvalidToken::Claims,
    );
    assert!(connect_with(json!({"iss": "anyone"})).is_ok());
}

#[test]
fn the_two_kinds_of_tokens_are_kept_apart() {
    let subscription = json!({"sub": "42", "channel": "$private"});
    assert_eq!(
        connect_with(subscription.clone()).unwrap_err(),
        InvalidToken::HasChannel.into()
    );
    // Invalid comes before expired: renewing it would not help.
    let expired = json!({"channel": "$private", "exp": NOW - 1});
    assert_eq!(
        connect_with(expired.clone()).unwrap_err(),
        InvalidToken::HasChannel.into()
    );
    assert_eq!(subscribe_with(expired).unwrap_err(), TokenError::Expired);
    assert_eq!(subscribe_with(subscription).unwrap().channel, "$private");
    for claims in [json!({"sub": "42"}), json!({"channel": ""}), json!({"channel": null})] {
        assert!(connect_with(claims.clone()).is_ok());
        assert_eq!(subscribe_with(claims).unwrap_err(), InvalidToken::NoChannel.into());
    }
    assert_eq!(
        connect_with(json!({"channel": 1})).unwrap_err(),
        InvalidToken::Claims.into()
    );
}

#[test]
fn a_subscription_token_is_for_one_channel_and_user() {
    let subscriber = Subscriber {
        channel: "$c",
        user: "42",
        client: "x1",
    };
    let permits = |claims: Value| subscribe_with(claims).unwrap().permits(&subscriber);
    assert!(permits(json!({"sub": "42", "channel": "$c"})));
    assert!(permits(json!({"sub": "42", "channel": "$c", "client": "x1"})));
    assert!(permits(json!({"sub": "42", "channel": "$c", "client": ""})));
    assert!(!permits(json!({"sub": "42", "channel": "$c", "client": "x2"})));
    assert!(!permits(json!({"sub": "42", "channel": "$d"})));
    assert!(!permits(json!({"sub": "43", "channel": "$c"})));
    assert!(!permits(json!({"channel": "$c"})));
    let anonymous = Subscriber { user: "", ..subscriber };
    assert!(subscribe_with(json!({"channel": "$c"})).unwrap().permits(&anonymous));
    assert!(
        !subscribe_with(json!({"sub": "42", "channel": "$c"}))
            .unwrap()
            .permits(&anonymous)
    );
}

#[test]
fn info_is_json_or_base64() {
    // Written as it stands in the token, not reformatted.
    let token = forge(
        r#"{"alg":"HS256"}"#,
        r#"{"info":{"name" : "Ann","n":1.0},"meta":{"plan": "pro"}}"#,
        SECRET.as_bytes(),
    );
    let token = connect(&hmac_verifier(), &token).unwrap();
    assert_eq!(text(token.info.as_ref()), r#"{"name" : "Ann","n":1.0}"#);
    assert_eq!(token.meta.unwrap().get(), r#"{"plan": "pro"}"#);

    let token = connect_with(json!({"info": {"a": 1}, "b64info": "AAH/"})).unwrap();
    assert!(matches!(token.info, Some(Payload::Bytes(bytes)) if bytes == [0, 1, 255]));
    let token = connect_with(json!({"info": {"a": 1}, "b64info": ""})).unwrap();
    assert_eq!(text(token.info.as_ref()), r#"{"a":1}"#);
    for base64 in ["AAH", "AA-_", "***"] {
        assert_eq!(
            connect_with(json!({"b64info": base64})).unwrap_err(),
            InvalidToken::Claims.into()
        );
    }
    assert!(
        connect_with(json!({"info": null, "meta": null}))
            .unwrap()
            .info
            .is_none()
    );
}

#[test]
fn server_side_subscriptions_come_from_subs_or_channels() {
    let names = |token: &ConnectionClaims| token.subscriptions.keys().cloned().collect::<Vec<_>>();
    let token = connect_with(json!({"channels": ["news", "alerts", "news"]})).unwrap();
    assert_eq!(names(&token), ["alerts", "news"]);
    assert!(token.subscriptions["news"].data.is_none());

    let subs = json!({
        "news": {},
        "chat:1": {
            "info": {"role": "admin"},
            "b64data": "eyJ4IjoxfQ==",
            "override": {"presence": {"value": true}, "join_leave": {"value": false}, "force_recovery": {}},
        },
    });
    let token = connect_with(json!({"channels": ["other"], "subs": subs})).unwrap();
    assert_eq!(names(&token), ["chat:1", "news"]);
    let options = &token.subscriptions["chat:1"];
    assert_eq!(text(options.info.as_ref()), r#"{"role":"admin"}"#);
    assert_eq!(text(options.data.as_ref()), r#"{"x":1}"#);
    let overrides = Overrides {
        presence: Some(true),
        join_leave: Some(false),
        force_recovery: Some(false),
        ..Overrides::default()
    };
    assert_eq!(options.overrides, overrides);
    assert_eq!(
        names(&connect_with(json!({"channels": ["other"], "subs": {}})).unwrap()),
        ["other"]
    );
}

#[test]
fn a_subscription_token_has_options() {
    let token = subscribe_with(json!({
        "sub": "42", "channel": "c", "info": {"a": 1}, "data": [1, 2],
        "override": {"force_positioning": {"value": true}, "force_push_join_leave": {"value": true}, "unknown": {}},
    }));
    let options = token.unwrap().options;
    assert_eq!(text(options.info.as_ref()), r#"{"a":1}"#);
    assert_eq!(text(options.data.as_ref()), "[1,2]");
    assert_eq!(options.overrides.force_positioning, Some(true));
    assert_eq!(options.overrides.force_push_join_leave, Some(true));
    assert_eq!(options.overrides.presence, None);
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    for claims in [
        json!({"sub": 42}),
        json!({"jti": 1}),
        json!({"iat": "now"}),
        json!({"nbf": "now"}),
        json!({"expire_at": "never"}),
        json!({"channels": "news"}),
        json!({"channels": [1]}),
        json!({"subs": ["news"]}),
        json!({"subs": {"news": {"override": {"presence": true}}}}),
        json!({"b64info": 1}),
    ] {
        assert_eq!(
            connect_with(claims.clone()).unwrap_err(),
            InvalidToken::Claims.into(),
            "{claims}"
        );
    }
    // Claims that only the other kind of token has do not matter.
    assert!(connect_with(json!({"client": {"id": 1}, "data": 1, "override": 2, "azp": []})).is_ok());
    assert!(subscribe_with(json!({"channel": "c", "subs": 1, "channels": 2})).is_ok());
}
