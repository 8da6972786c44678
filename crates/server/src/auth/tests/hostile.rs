//! Tokens that are made to be accepted, or to do harm.

use proptest::prelude::*;

use super::super::test_keys::{P256_PRIVATE, P256_PUBLIC, RSA_JWK, RSA_PUBLIC};
use super::*;

fn rsa_verifier() -> TokenVerifier {
    let config = TokenConfig {
        rsa_public_key: Some(RSA_PUBLIC.into()),
        ..TokenConfig::default()
    };
    verifier(&config)
}

#[test]
fn unsigned_tokens_are_refused() {
    for algorithm in [
        "none", "None", "NONE", "nOnE", "", "HS257", "ES512", "hs256", "ES256K", "dir",
    ] {
        let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
        let token = forge(&header, r#"{"sub":"42"}"#, SECRET.as_bytes());
        refuse(&hmac_verifier(), &token, InvalidToken::Malformed);
        let (message, _) = token.rsplit_once('.').unwrap();
        refuse(&hmac_verifier(), &format!("{message}."), InvalidToken::Malformed);
        refuse(&hmac_verifier(), message, InvalidToken::Malformed);
    }
    for header in [
        r#"{}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        "[]",
        "1",
        "",
    ] {
        refuse(
            &hmac_verifier(),
            &forge(header, "{}", SECRET.as_bytes()),
            InvalidToken::Malformed,
        );
    }
    let token = sign(json!({"sub": "42"}));
    let (message, _) = token.rsplit_once('.').unwrap();
    refuse(&hmac_verifier(), &format!("{message}."), InvalidToken::Signature);
}

#[test]
fn a_public_key_is_no_secret() {
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let der = RSA_PUBLIC
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect::<String>();
    let der = base64::prelude::BASE64_STANDARD.decode(der).unwrap();
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes(), &der, b""] {
        let token = forge(header, r#"{"sub":"admin"}"#, secret);
        refuse(&rsa_verifier(), &token, InvalidToken::NoKeyForAlgorithm);
        let mut both = hmac_config();
        both.rsa_public_key = Some(RSA_PUBLIC.into());
        refuse(&verifier(&both), &token, InvalidToken::Signature);
    }
}

#[test]
fn keys_within_the_token_are_ignored() {
    // The attacker signs with a key of its own and sends the public part along.
    provider::install();
    let key = EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(serde_json::from_str(RSA_JWK).unwrap());
    header.jku = Some("http://127.0.0.1:1/keys".into());
    header.x5u = header.jku.clone();
    let token = jsonwebtoken::encode(&header, &json!({"sub": "admin"}), &key).unwrap();
    refuse(&rsa_verifier(), &token, InvalidToken::NoKeyForAlgorithm);
    let config = TokenConfig {
        ecdsa_public_key: Some(P256_PUBLIC.into()),
        ..TokenConfig::default()
    };
    assert!(connect(&verifier(&config), &token).is_ok());
}

#[test]
fn unknown_critical_extensions_are_refused() {
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":["http://example.com/UNDEFINED"],"http://example.com/UNDEFINED":true}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":"b64"}"#,
        r#"{"alg":"HS256","crit":[1]}"#,
        r#"{"alg":"HS256","crit":["b64"]}"#,
        r#"{"alg":"HS256","crit":["b64","b64"],"b64":true}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","b64":false}"#,
    ] {
        refuse(
            &hmac_verifier(),
            &forge(header, "{}", SECRET.as_bytes()),
            InvalidToken::Malformed,
        );
    }
}

#[test]
fn a_token_has_a_longest_length() {
    let token = sign(json!({"sub": "42"}));
    let mut config = hmac_config();
    config.size_max = token.len();
    assert!(connect(&verifier(&config), &token).is_ok());
    config.size_max -= 1;
    refuse(&verifier(&config), &token, InvalidToken::TooLong);
    let large = sign(json!({"info": "x".repeat(1 << 20)}));
    refuse(&hmac_verifier(), &large, InvalidToken::TooLong);
}

#[test]
fn malformed_tokens_are_refused() {
    let token = sign(json!({"sub": "42"}));
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("three parts")
    };
    for token in [
        "",
        ".",
        "..",
        "...",
        header,
        &format!("{header}.{claims}"),
        &format!("{token}.{signature}"),
        &format!(" {token}"),
        &format!("{header}=.{claims}.{signature}"),
        &format!("Bearer {token}"),
        "\u{e4}\u{f6}.\u{fc}.\0",
    ] {
        refuse(&hmac_verifier(), token, InvalidToken::Malformed);
    }
    for token in [format!("{token}\n"), format!("{token}=")] {
        assert!(matches!(connect(&hmac_verifier(), &token), Err(TokenError::Invalid(_))));
    }
    for claims in ["", "null", "1", "[]", r#""text""#, "{", r#"{"sub":"42"}x"#] {
        let token = forge(r#"{"alg":"HS256"}"#, claims, SECRET.as_bytes());
        assert!(
            matches!(connect(&hmac_verifier(), &token), Err(TokenError::Invalid(_))),
            "{claims}"
        );
        assert!(
            matches!(subscribe(&hmac_verifier(), &token), Err(TokenError::Invalid(_))),
            "{claims}"
        );
    }
}

#[test]
fn a_claim_occurs_once() {
    for claims in [
        r#"{"sub":"42","sub":"admin"}"#,
        r#"{"exp":1,"exp":9999999999}"#,
        r#"{"channel":"","channel":"c"}"#,
        r#"{"aud":"a","aud":"b"}"#,
    ] {
        let token = forge(r#"{"alg":"HS256"}"#, claims, SECRET.as_bytes());
        let error = connect(&hmac_verifier(), &token).unwrap_err();
        assert!(matches!(error, TokenError::Invalid(_)), "{claims}");
    }
}

#[test]
fn nesting_costs_no_stack() {
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for header in [
        format!(r#"{{"alg":"HS256","x":{nested}}}"#),
        format!(r#"{{"alg":"HS256","jwk":{nested}}}"#),
        format!(r#"{{"alg":"HS256","crit":{nested}}}"#),
        nested.clone(),
    ] {
        refuse(
            &hmac_verifier(),
            &forge(&header, "{}", SECRET.as_bytes()),
            InvalidToken::Malformed,
        );
    }
    // Data in claims is not looked into.
    let claims = format!(r#"{{"info":{nested}}}"#);
    let token = connect(
        &hmac_verifier(),
        &forge(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes()),
    )
    .unwrap();
    assert_eq!(token.info.unwrap().as_bytes(), nested.as_bytes());
    for claim in ["sub", "exp", "aud", "subs", "channels", "unknown"] {
        let claims = format!(r#"{{"{claim}":{nested}}}"#);
        let token = forge(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes());
        assert_eq!(connect(&hmac_verifier(), &token).is_ok(), claim == "unknown", "{claim}");
    }
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    let verifier = hmac_verifier();
    let token = sign(json!({"sub": "42", "exp": NOW + 60}));
    for at in 0..token.len() {
        for replacement in ["A", "B", "_", "-", ".", "=", "", "AA"] {
            let changed = format!("{}{replacement}{}", &token[..at], &token[at + 1..]);
            if changed != token {
                let error = connect(&verifier, &changed).unwrap_err();
                assert!(matches!(error, TokenError::Invalid(_)), "{changed}");
            }
        }
    }
}

#[test]
fn an_expired_forgery_is_invalid() {
    let claims = json!({"exp": NOW - 1}).to_string();
    refuse(
        &hmac_verifier(),
        &forge(r#"{"alg":"HS256"}"#, &claims, b"x"),
        InvalidToken::Signature,
    );
}

#[test]
fn nothing_shows_a_token_or_a_secret() {
    let config = hmac_config();
    let verifier = verifier(&config);
    let valid = sign(json!({"sub": "42"}));
    let expired = sign(json!({"sub": "42", "exp": 1}));
    let forged = forge(r#"{"alg":"HS256"}"#, "{}", b"x");
    let mut shown = format!("{config:?} {verifier:?} {:?}", connect(&verifier, &valid).unwrap());
    for token in [&expired, &forged, "short", &"x".repeat(20_000)] {
        let error = connect(&verifier, token).unwrap_err();
        shown.push_str(&format!(" {error} {error:?}"));
    }
    for part in [&valid, &expired, &forged].iter().flat_map(|token| token.split('.')) {
        assert!(!shown.contains(part), "{shown}");
    }
    assert!(!shown.contains(SECRET) && !shown.contains("xxx"), "{shown}");
}

proptest! {
    #[test]
    fn garbage_is_invalid(token in "\\PC{0,60}|[A-Za-z0-9_.-]{0,120}|(eyJ[A-Za-z0-9_-]{0,40}\\.){2}[A-Za-z0-9_-]{0,50}") {
        for verifier in [hmac_verifier(), rsa_verifier()] {
            prop_assert!(matches!(connect(&verifier, &token), Err(TokenError::Invalid(_))));
            prop_assert!(matches!(subscribe(&verifier, &token), Err(TokenError::Invalid(_))));
        }
    }

    #[test]
    fn any_header_and_claims_give_an_answer(
        header in r#"\{"alg":"(HS256|RS256|none)"(,"(kid|crit|b64|typ|jwk)":("x"|1|null|\[\]|\{\}|false)){0,2}\}"#,
        claims in r#"\{("(sub|exp|nbf|aud|iss|info|b64info|channels|subs|meta|expire_at|channel|override)":("x"|-1|1e400|null|\[\]|\{\}|["x"]|99999999999|"")){0,1}(,"(sub|exp|channel|subs)":("y"|2|\{"a":\{\}\}))?\}"#,
    ) {
        let token = forge(&header, &claims, SECRET.as_bytes());
        for verifier in [hmac_verifier(), rsa_verifier()] {
            let connected = connect(&verifier, &token);
            let subscribed = subscribe(&verifier, &token);
            // No token is both.
            prop_assert!(connected.is_err() || subscribed.is_err());
        }
    }
}
