//! JSON Web Tokens signed with the key of both servers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value, json};

/// The key of both servers.
pub(super) const SECRET: &str = "secret";

/// Signs claims with HS256. The claim `_key` is not part of the token but the key to sign with, and `_alg` the
/// algorithm that the header names.
pub(super) fn sign(claims: Map<String, Value>) -> String {
    let mut claims = claims;
    let key = claims.remove("_key");
    let algorithm = claims.remove("_alg").unwrap_or_else(|| json!("HS256"));
    let header = json!({"alg": algorithm, "typ": "JWT"});
    let [header, claims] = [header, claims.into()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let content = format!("{header}.{claims}");
    let key = key.as_ref().and_then(Value::as_str).unwrap_or(SECRET);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, content.as_bytes());
    format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature))
}
