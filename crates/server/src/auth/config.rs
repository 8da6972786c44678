//! Configuration of tokens as plain values.

use std::fmt;

use super::Secret;
use crate::config::options::options;

options! {
    /// Which tokens are accepted. The default accepts none.
    ///
    /// Keys of several kinds may be set together: the algorithm of a token decides which of them are tried. A key set
    /// at `jwks_url` is asked only for tokens that no key set here verifies, and never for HMAC.
    ///
    /// ```
    /// let mut config = sockeye_server::Config::default();
    /// config.tokens.hmac_secret = Some("at least 32 bytes of random text".into());
    /// config.tokens.issuer = Some("https://accounts.example".to_owned());
    /// config.check()?;
    /// # Ok::<(), sockeye_server::ConfigError>(())
    /// ```
    #[derive(PartialEq, Eq)]
    pub struct TokenConfig {
        /// Secret of tokens signed with HS256, HS384 or HS512.
        pub hmac_secret: Option<Secret> = None,
        /// Secret that was in use before `hmac_secret`. Set it during a rotation, until the last token signed with it
        /// has expired.
        pub hmac_previous_secret: Option<Secret> = None,
        /// Public key (PEM) of tokens signed with RS256, RS384, RS512, PS256, PS384 or PS512; at least 2048 bits.
        pub rsa_public_key: Option<String> = None,
        /// Public key (PEM) of tokens signed with ES256 (a key on P-256) or ES384 (P-384).
        pub ecdsa_public_key: Option<String> = None,
        /// Public key (PEM) of tokens signed with EdDSA (Ed25519).
        pub eddsa_public_key: Option<String> = None,
        /// URL of a JWK set. Fetched on first use, cached for one hour, and refetched for an unknown key ID at most
        /// once every 10 seconds. If fetching fails, the cached set stays in use for up to 24 hours, so a revoked key
        /// may be accepted for that long. With `http://`, anyone on the network path can replace the keys.
        pub jwks_url: Option<String> = None,
        /// Audience that the `aud` claim must contain. By default `aud` is not checked.
        pub audience: Option<String> = None,
        /// Issuer that the `iss` claim must equal. By default `iss` is not checked.
        pub issuer: Option<String> = None,
        /// Allowed clock skew for `exp` and `nbf`, in seconds. 0 by default. Connections and subscriptions also expire this
        /// much later than `exp`.
        pub leeway_seconds: u64 = 0,
        /// Longest token in bytes; 16 KiB by default. A longer one is invalid, and is not decoded.
        pub size_max: usize as ByteSize = 16 * 1024,
        /// Accepts tokens whatever their signature. For development only: every client can impersonate every user.
        /// Expiry and all other claims are checked as always.
        pub insecure_skip_signature_check: bool = false,
    }
}

/// A field of [`TokenConfig`] that cannot be used. The value is not shown, since it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfigError {
    field: &'static str,
    problem: String,
}

impl TokenConfigError {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { field, problem }
    }

    /// The name of the field.
    pub fn field(&self) -> &'static str {
        self.field
    }

    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for TokenConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

impl std::error::Error for TokenConfigError {}
