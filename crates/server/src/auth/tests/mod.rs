//! Tokens, valid and hostile.

mod claims;
mod hostile;
mod jwks;
mod keys;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Value, json};

use super::test_keys::{ED_PRIVATE, P256_PRIVATE, P384_PRIVATE, RSA_PRIVATE};
use super::*;

const NOW: u64 = 1_700_000_000;
const SECRET: &str = "a secret for tests";

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A configuration that accepts tokens signed with [`SECRET`].
fn hmac_config() -> TokenConfig {
    TokenConfig {
        hmac_secret: Some(SECRET.into()),
        ..TokenConfig::default()
    }
}

fn verifier(config: &TokenConfig) -> TokenVerifier {
    TokenVerifier::new(config).unwrap()
}

fn hmac_verifier() -> TokenVerifier {
    verifier(&hmac_config())
}

/// The private key of the tests for an algorithm.
fn private_key(algorithm: Algorithm) -> EncodingKey {
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => EncodingKey::from_secret(SECRET.as_bytes()),
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()),
        AlgorithmFamily::Ec if algorithm == Algorithm::ES256 => EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(P384_PRIVATE.as_bytes()),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()),
    };
    key.unwrap()
}

fn sign_with(header: &Header, claims: &Value) -> String {
    provider::install();
    jsonwebtoken::encode(header, claims, &private_key(header.alg)).unwrap()
}

/// A token signed with the key of [`key_set`].
pub(crate) fn ed_token(claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("ed".into());
    sign_with(&header, claims)
}

/// The JWK set that an identity provider answers with.
pub(crate) fn key_set() -> String {
    let mut key: Value = serde_json::from_str(super::test_keys::ED_JWK).unwrap();
    key["kid"] = json!("ed");
    json!({"keys": [key]}).to_string()
}

/// A token signed with [`SECRET`].
fn sign(claims: Value) -> String {
    sign_with(&Header::new(Algorithm::HS256), &claims)
}

/// A token of any text, with an HMAC of any key: what `jsonwebtoken` would not write.
fn forge(header: &str, claims: &str, secret: &[u8]) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

#[track_caller]
fn connect(verifier: &TokenVerifier, token: &str) -> Result<ConnectionClaims, TokenError> {
    verifier
        .try_verify_connect(token, NOW)
        .expect("no key has to be fetched")
}

#[track_caller]
fn subscribe(verifier: &TokenVerifier, token: &str) -> Result<SubscriptionClaims, TokenError> {
    verifier
        .try_verify_subscribe(token, NOW)
        .expect("no key has to be fetched")
}

/// Checks that a token is valid neither for a connection nor for a subscription.
#[track_caller]
fn refuse(verifier: &TokenVerifier, token: &str, reason: InvalidToken) {
    assert_eq!(
        connect(verifier, token).unwrap_err(),
        TokenError::Invalid(reason),
        "{token}"
    );
    assert_eq!(
        subscribe(verifier, token).unwrap_err(),
        TokenError::Invalid(reason),
        "{token}"
    );
}
