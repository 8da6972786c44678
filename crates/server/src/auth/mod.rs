//! Authentication: connection tokens, subscription tokens, and keys of the HTTP API.
//!
//! Tokens are JSON Web Tokens (RFC 7519) with the claims of Centrifugo. They are verified with the keys of a
//! [`TokenConfig`]: HMAC, RSA, ECDSA and EdDSA, and keys that an identity provider publishes as a JWK set (RFC 7517).
//!
//! - Without a configured key, every token is invalid.
//! - The algorithm in a token's header only selects among the keys of that algorithm. An RSA public key never serves as
//!   an HMAC secret, `none` is no algorithm, and keys that the header itself carries or points to are ignored.
//! - A token with a `channel` claim is a subscription token, one without it a connection token; neither passes as the
//!   other.
//! - Time is an argument, in seconds since the Unix epoch.
//! - No error and no `Debug` output contains a token, a secret or a part of one.

mod api_keys;
mod claims;
mod config;
mod jwks;
mod key_set;
mod provider;
mod rules;
mod secret;
#[cfg(test)]
mod test_keys;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

pub(crate) use api_keys::ApiKeys;
pub(crate) use claims::{ConnectionClaims, Overrides, Payload, Subscriber, SubscriptionClaims, SubscriptionGrant};
pub use config::{TokenConfig, TokenConfigError};
pub(crate) use rules::{InvalidToken, TokenError};
pub use secret::Secret;
pub(crate) use verifier::TokenVerifier;
