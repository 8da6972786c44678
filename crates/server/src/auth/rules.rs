//! Verification of a token as a pure function of the token, the time and the keys.

use std::fmt;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::value::RawValue;

use super::claims::{self, ConnectionClaims, RegisteredClaims, SubscriptionClaims};
use super::key_set::{KeySet, VerifyingKey};
use super::{Secret, TokenConfig, TokenConfigError, provider};

/// Reason for which a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The token is forged, malformed or meant for something else. A connection is closed with 3500, a subscription is
    /// refused with error 103.
    Invalid(InvalidToken),
    /// The token is valid and has expired: error 109, upon which clients ask their backend for a new one.
    Expired,
    /// The token is valid and its `nbf` lies ahead: also answered with error 109.
    NotYetValid,
    /// The JWK set that would have the key cannot be fetched at the moment. A temporary error (100), so that clients
    /// try again.
    KeysUnavailable,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "token is invalid: {reason}"),
            Self::Expired => f.write_str("token has expired"),
            Self::NotYetValid => f.write_str("token is not valid yet"),
            Self::KeysUnavailable => f.write_str("token cannot be verified: the JWK set is not available"),
        }
    }
}

impl std::error::Error for TokenError {}

/// Fault of an invalid token. It is meant for the log, not for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum InvalidToken {
    /// No key is configured.
    NoKeys,
    /// Longer than [`TokenConfig::size_max`].
    TooLong,
    /// Not a JWT, or one with a header that cannot be used: an unknown algorithm such as `none`, or an extension that
    /// must be understood (`crit`) and is not.
    Malformed,
    /// No configured key is for the token's algorithm.
    NoKeyForAlgorithm,
    /// The JWK set has no key with this id for this algorithm.
    UnknownKeyId,
    /// The signature does not belong to the token and any of the keys.
    Signature,
    /// A claim is missing, has the wrong type, or occurs twice.
    Claims,
    /// `aud` does not contain the configured audience.
    Audience,
    /// `iss` is not the configured issuer.
    Issuer,
    /// A subscription token where a connection token is expected.
    HasChannel,
    /// A connection token where a subscription token is expected.
    NoChannel,
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeys => "no key for tokens is configured",
            Self::TooLong => "it is too long",
            Self::Malformed => "it is malformed, or needs an algorithm or extension that is not supported",
            Self::NoKeyForAlgorithm => "no key for its algorithm is configured",
            Self::UnknownKeyId => "its key id is not in the JWK set",
            Self::Signature => "its signature is wrong",
            Self::Claims => "a claim is missing, repeated or of the wrong type",
            Self::Audience => "its audience is another one",
            Self::Issuer => "its issuer is another one",
            Self::HasChannel => "it is a subscription token, used to connect",
            Self::NoChannel => "it is a connection token, used to subscribe",
        })
    }
}

impl From<InvalidToken> for TokenError {
    fn from(reason: InvalidToken) -> Self {
        Self::Invalid(reason)
    }
}

/// Outcome of a verification with the keys at hand.
pub(super) enum Verdict<T> {
    Known(Result<T, TokenError>),
    /// A JWK set may have the key, and the one given does not.
    KeyMissing,
}

/// Static keys and rules of a [`TokenConfig`].
pub(super) struct Rules {
    hmac: Vec<VerifyingKey>,
    public: Vec<VerifyingKey>,
    has_key_set: bool,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: u64,
    size_max: usize,
    skip_signature: bool,
}

impl Rules {
    pub(super) fn new(config: &TokenConfig) -> Result<Self, TokenConfigError> {
        provider::install();
        let hmac = [
            ("hmac_secret", &config.hmac_secret),
            ("hmac_previous_secret", &config.hmac_previous_secret),
        ];
        let hmac = hmac
            .into_iter()
            .filter_map(|(field, secret)| Some(hmac_key(field, secret.as_ref()?)));
        let public = [
            ("rsa_public_key", &config.rsa_public_key, AlgorithmFamily::Rsa),
            ("ecdsa_public_key", &config.ecdsa_public_key, AlgorithmFamily::Ec),
            ("eddsa_public_key", &config.eddsa_public_key, AlgorithmFamily::Ed),
        ];
        let public = public
            .into_iter()
            .filter_map(|(field, pem, family)| Some(public_key(field, pem.as_ref()?, family)));
        Ok(Self {
            hmac: hmac.collect::<Result<_, _>>()?,
            public: public.collect::<Result<_, _>>()?,
            has_key_set: config.jwks_url.is_some(),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            leeway: config.leeway_seconds,
            size_max: config.size_max,
            skip_signature: config.insecure_skip_signature_check,
        })
    }

    pub(super) fn connect(&self, token: &str, now: u64, keys: Option<&KeySet>) -> Verdict<ConnectionClaims> {
        self.claims(token, keys, |claims| {
            let registered: RegisteredClaims = claims::parse(claims)?;
            self.check_origin(&registered)?;
            if registered.is_for_channel() {
                return Err(InvalidToken::HasChannel.into());
            }
            self.check_time(&registered, now)?;
            Ok(claims::connect_token(registered, claims, self.leeway)?)
        })
    }

    pub(super) fn subscribe(&self, token: &str, now: u64, keys: Option<&KeySet>) -> Verdict<SubscriptionClaims> {
        self.claims(token, keys, |claims| {
            let registered: RegisteredClaims = claims::parse(claims)?;
            self.check_origin(&registered)?;
            if !registered.is_for_channel() {
                return Err(InvalidToken::NoChannel.into());
            }
            self.check_time(&registered, now)?;
            Ok(claims::subscribe_token(registered, claims, self.leeway)?)
        })
    }

    /// Reads the claims of a token with a valid signature.
    fn claims<T>(
        &self,
        token: &str,
        keys: Option<&KeySet>,
        read: impl FnOnce(&RawValue) -> Result<T, TokenError>,
    ) -> Verdict<T> {
        match self.check_signature(token, keys) {
            Ok(Some(claims)) => Verdict::Known(read(&claims)),
            Ok(None) => Verdict::KeyMissing,
            Err(reason) => Verdict::Known(Err(reason.into())),
        }
    }

    /// The claims of a token with a valid signature; `None` if a key has to be fetched first.
    fn check_signature(&self, token: &str, keys: Option<&KeySet>) -> Result<Option<Box<RawValue>>, InvalidToken> {
        if token.len() > self.size_max {
            return Err(InvalidToken::TooLong);
        }
        if self.skip_signature {
            return insecure_decode_claims(token)
                .map(Some)
                .map_err(|_| InvalidToken::Malformed);
        }
        if self.hmac.is_empty() && self.public.is_empty() && !self.has_key_set {
            return Err(InvalidToken::NoKeys);
        }
        let header = decode_header(token).map_err(|_| InvalidToken::Malformed)?;
        let is_hmac = header.alg.family() == AlgorithmFamily::Hmac;

        let fixed = if is_hmac { &self.hmac } else { &self.public };
        let mut reason = InvalidToken::NoKeyForAlgorithm;
        for key in fixed.iter().filter(|key| key.is_for(header.alg)) {
            match decode_with(token, header.alg, &key.key) {
                Ok(claims) => return Ok(Some(claims)),
                Err(InvalidToken::Signature) => reason = InvalidToken::Signature,
                Err(other) => return Err(other),
            }
        }
        // A key set is public: an HMAC key in it would let everybody sign.
        if is_hmac || !self.has_key_set {
            return Err(reason);
        }
        match keys.and_then(|keys| keys.find(header.kid.as_deref(), header.alg)) {
            Some(key) => decode_with(token, header.alg, &key.key).map(Some),
            None => Ok(None),
        }
    }

    fn check_origin(&self, claims: &RegisteredClaims) -> Result<(), TokenError> {
        if let Some(audience) = &self.audience
            && !claims.aud.as_ref().is_some_and(|aud| aud.contains(audience))
        {
            return Err(InvalidToken::Audience.into());
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_ref() != Some(issuer)
        {
            return Err(InvalidToken::Issuer.into());
        }
        Ok(())
    }

    fn check_time(&self, claims: &RegisteredClaims, now: u64) -> Result<(), TokenError> {
        // RFC 7519 §4.1.4: on or after `exp` a token is not accepted; §4.1.5: before `nbf` neither.
        if claims.exp.is_some_and(|exp| exp.0.saturating_add(self.leeway) <= now) {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf.0 > now.saturating_add(self.leeway)) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }
}

/// Checks the signature only: the claims have rules of their own, with a clock that is an argument.
fn decode_with(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Box<RawValue>, InvalidToken> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    match decode(token, key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => Err(InvalidToken::Signature),
        Err(_) => Err(InvalidToken::Malformed),
    }
}

fn hmac_key(field: &'static str, secret: &Secret) -> Result<VerifyingKey, TokenConfigError> {
    let secret = secret.expose();
    // Whoever knows a public key could sign with it.
    if secret.trim_ascii_start().starts_with("-----BEGIN") {
        let problem = "is a PEM file; HMAC needs a secret, and public keys go into rsa_public_key or its like";
        return Err(TokenConfigError::new(field, problem));
    }
    let key = DecodingKey::from_secret(secret.as_bytes());
    let key = key.map_err(|_| TokenConfigError::new(field, "is empty; leave it out to refuse HMAC tokens"))?;
    Ok(VerifyingKey::new(key, None))
}

fn public_key(field: &'static str, pem: &str, family: AlgorithmFamily) -> Result<VerifyingKey, TokenConfigError> {
    if pem.contains("PRIVATE KEY") {
        let problem = "is a private key; only the signer needs it, set the public key here";
        return Err(TokenConfigError::new(field, problem));
    }
    let key = match family {
        // Certificates are refused: the library would take the first bit string in them for the key.
        _ if !pem.contains("PUBLIC KEY-----") => None,
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()).ok(),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()).ok(),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()).ok(),
        AlgorithmFamily::Hmac => None,
    };
    let key = key.and_then(VerifyingKey::public);
    key.ok_or_else(|| {
        let kind = match family {
            AlgorithmFamily::Rsa => "an RSA public key of 2048 to 8192 bits",
            AlgorithmFamily::Ec => "a public key on P-256 or P-384",
            AlgorithmFamily::Ed | AlgorithmFamily::Hmac => "an Ed25519 public key",
        };
        TokenConfigError::new(field, format!("is not {kind} in PEM (-----BEGIN PUBLIC KEY-----)"))
    })
}
