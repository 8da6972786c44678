//! Verification with keys that may have to be fetched.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;

use super::jwks::Jwks;
use super::key_set::KeySet;
use super::rules::{Rules, Verdict};
use super::{ConnectionClaims, InvalidToken, SubscriptionClaims, TokenConfig, TokenConfigError, TokenError};
use crate::http_client::HttpClient;

/// Verifies the tokens of clients.
///
/// `verify_…` may fetch the JWK set, which takes up to five seconds; `try_verify_…` only uses keys that are at hand.
/// Without [`TokenConfig::jwks_url`] neither ever waits. Use one verifier for connections and another one for
/// subscriptions if they have keys of their own.
pub(crate) struct TokenVerifier {
    rules: Rules,
    jwks: Option<Jwks>,
}

impl TokenVerifier {
    /// Reads the keys of a configuration.
    ///
    /// # Errors
    /// The first field with a key or address that cannot be used.
    pub(crate) fn new(config: &TokenConfig) -> Result<Self, TokenConfigError> {
        Self::with_tls(config, None)
    }

    /// Like [`TokenVerifier::new`], with another TLS configuration for [`TokenConfig::jwks_url`] than the platform's
    /// roots of trust.
    pub(crate) fn with_tls(config: &TokenConfig, tls: Option<Arc<ClientConfig>>) -> Result<Self, TokenConfigError> {
        let rules = Rules::new(config)?;
        let source = config
            .jwks_url
            .as_deref()
            .map(|url| HttpClient::new(url, tls))
            .transpose();
        let source = source.map_err(|problem| TokenConfigError::new("jwks_url", problem))?;
        Ok(Self {
            rules,
            jwks: source.map(Jwks::new),
        })
    }

    /// Verifies a connection token at a time in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TokenError`] if the token is not accepted.
    ///
    /// # Cancel safety
    /// Safe: a fetch that was begun goes on for others.
    pub(crate) async fn verify_connect(&self, token: &str, now: u64) -> Result<ConnectionClaims, TokenError> {
        self.verify(|rules, keys| rules.connect(token, now, keys)).await
    }

    /// Verifies a subscription token at a time in seconds since the Unix epoch. For whom and for which channel it is
    /// remains to be checked with [`SubscriptionClaims::permits`].
    ///
    /// # Errors
    /// [`TokenError`] if the token is not accepted.
    ///
    /// # Cancel safety
    /// Safe: a fetch that was begun goes on for others.
    pub(crate) async fn verify_subscribe(&self, token: &str, now: u64) -> Result<SubscriptionClaims, TokenError> {
        self.verify(|rules, keys| rules.subscribe(token, now, keys)).await
    }

    /// Verifies a connection token with the keys at hand; `None` if [`TokenVerifier::verify_connect`] has to fetch
    /// some.
    pub(crate) fn try_verify_connect(&self, token: &str, now: u64) -> Option<Result<ConnectionClaims, TokenError>> {
        self.try_verify(|rules, keys| rules.connect(token, now, keys))
    }

    /// Verifies a subscription token with the keys at hand; `None` if [`TokenVerifier::verify_subscribe`] has to fetch
    /// some.
    pub(crate) fn try_verify_subscribe(&self, token: &str, now: u64) -> Option<Result<SubscriptionClaims, TokenError>> {
        self.try_verify(|rules, keys| rules.subscribe(token, now, keys))
    }

    fn try_verify<T>(&self, check: impl Fn(&Rules, Option<&KeySet>) -> Verdict<T>) -> Option<Result<T, TokenError>> {
        let set = self.jwks.as_ref().and_then(Jwks::cached);
        match check(&self.rules, set.as_deref()) {
            Verdict::Known(result) => Some(result),
            Verdict::KeyMissing if self.jwks.is_none() => Some(Err(InvalidToken::UnknownKeyId.into())),
            Verdict::KeyMissing => None,
        }
    }

    async fn verify<T>(&self, check: impl Fn(&Rules, Option<&KeySet>) -> Verdict<T>) -> Result<T, TokenError> {
        if let Some(result) = self.try_verify(&check) {
            return result;
        }
        let Some(jwks) = &self.jwks else {
            return Err(InvalidToken::UnknownKeyId.into());
        };
        let refreshed = jwks.refresh().await;
        match check(&self.rules, refreshed.set.as_deref()) {
            Verdict::Known(result) => result,
            Verdict::KeyMissing if refreshed.has_failed => Err(TokenError::KeysUnavailable),
            Verdict::KeyMissing => Err(InvalidToken::UnknownKeyId.into()),
        }
    }
}

/// Shows no key.
impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}
