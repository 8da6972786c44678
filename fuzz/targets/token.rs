//! Tokens of clients: accepted only with a signature of the secret, and as a reference reads their claims.
#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use serde_json::Value;
use sockeye_fuzz::memory::Meter;
use sockeye_server::fuzzing::{TokenFault, Tokens};

const SECRET: &str = "a secret that nobody guesses";

/// The time of all verifications.
const NOW: u64 = 1_700_000_000;

static VERIFIER: LazyLock<Tokens> = LazyLock::new(|| Tokens::new(SECRET));

fuzz_target!(|input: &[u8]| {
    let [choice, bytes @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match choice % 4 {
        // Any text, such as a token with another algorithm.
        0 => check(text),
        // Any header before claims that are valid.
        1 => check(&signed(text, r#"{"sub":"u"}"#)),
        // Any claims, correctly signed.
        2 => {
            check(&signed(r#"{"alg":"HS256"}"#, text));
            check_claims(text);
        }
        // Header and claims.
        _ => {
            let (header, claims) = text.split_once('\n').unwrap_or((text, "{}"));
            check(&signed(header, claims));
        }
    }
});

/// A token with a valid HS256 signature, whatever its header says.
fn signed(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let text = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// Checks that an accepted token has a signature that only the secret makes.
fn check(token: &str) {
    let meter = Meter::start();
    let connect = VERIFIER.connection(token, NOW);
    let peak = meter.peak();
    assert!(
        peak <= 100 * token.len() + 16 * 1024,
        "{peak} bytes held for {}",
        token.len()
    );
    let subscribe = VERIFIER.subscription(token, NOW);
    assert!(connect.is_err() || subscribe.is_err(), "a token for both purposes");
    let is_refused = |fault: &TokenFault| matches!(fault, TokenFault::Claims | TokenFault::Invalid);
    if connect.as_ref().is_err_and(is_refused) && subscribe.as_ref().is_err_and(is_refused) {
        return;
    }
    // Accepted, or only too old or too new: the signature must be right.
    let (text, signature) = token.rsplit_once('.').expect("three parts");
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let algorithm = match signature.len() {
        32 => hmac::HMAC_SHA256,
        48 => hmac::HMAC_SHA384,
        64 => hmac::HMAC_SHA512,
        len => panic!("a signature of {len} bytes was accepted"),
    };
    let key = hmac::Key::new(algorithm, SECRET.as_bytes());
    hmac::verify(&key, text.as_bytes(), &signature).expect("a wrong signature was accepted");
    let header = text.split('.').next().expect("three parts");
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert!(
        header.get("crit").is_none_or(Value::is_null),
        "an extension that must be understood"
    );
}

/// Checks the claims of a token with a valid signature.
fn check_claims(text: &str) {
    let token = signed(r#"{"alg":"HS256"}"#, text);
    let result = VERIFIER.connection(&token, NOW);
    let claims = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(claims)) => claims,
        Ok(_) => {
            result.expect_err("claims that are no object");
            return;
        }
        // Invalid, or nested too deep for the reference.
        Err(_) => return,
    };
    let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
    let time = |name: &str| claim(name).and_then(Value::as_f64);
    match result {
        Ok(user) => {
            assert_eq!(claim("sub").map_or("", |sub| sub.as_str().expect("text")), user);
            assert!(
                claim("channel").is_none_or(|channel| channel == ""),
                "a subscription token"
            );
            assert!(
                time("exp").is_none_or(|exp| exp == 0.0 || exp > NOW as f64),
                "it has expired"
            );
            assert!(time("nbf").is_none_or(|nbf| nbf <= NOW as f64), "it is not valid yet");
        }
        Err(TokenFault::Expired) => assert!(time("exp").is_some_and(|exp| exp <= NOW as f64)),
        Err(TokenFault::NotYetValid) => assert!(time("nbf").is_some_and(|nbf| nbf > NOW as f64)),
        Err(TokenFault::Claims) => {}
        Err(other) => panic!("{other:?} although the signature is right and no key is fetched"),
    }
}
