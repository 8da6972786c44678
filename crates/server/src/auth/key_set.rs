//! Public keys, and sets of them as an identity provider publishes them (RFC 7517).

use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Most keys taken from a set; providers publish two or three.
const KEYS_MAX: usize = 64;

/// A key, and the algorithms that it may verify.
pub(super) struct VerifyingKey {
    pub(super) key: DecodingKey,
    /// `None` for every algorithm of the key's family.
    algorithm: Option<Algorithm>,
}

impl VerifyingKey {
    pub(super) fn new(key: DecodingKey, algorithm: Option<Algorithm>) -> Self {
        Self { key, algorithm }
    }

    /// A public key, if it has a size that can be used.
    pub(super) fn public(key: DecodingKey) -> Option<Self> {
        // A point has a byte for its form and two coordinates of 32 or 48 bytes; the curve decides the algorithm.
        let algorithm = match (key.family(), key.kind()) {
            (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.len() {
                65 => Some(Algorithm::ES256),
                97 => Some(Algorithm::ES384),
                _ => return None,
            },
            (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) if point.len() == 32 => None,
            // DER: 256 to 1024 bytes of modulus, at least 1 of exponent, and their headers.
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) if (264..1100).contains(&der.len()) => None,
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, .. })
                if (256..=1025).contains(&n.len()) =>
            {
                None
            }
            _ => return None,
        };
        Some(Self { key, algorithm })
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// Keys of a JWK set that can verify tokens.
pub(super) struct KeySet {
    keys: Vec<(Option<String>, VerifyingKey)>,
}

impl KeySet {
    /// Reads a JWK set. Keys that cannot be used (encryption, symmetric, unknown types) are left out.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let set: Set<'_> = serde_json::from_slice(json)?;
        let keys = set.keys.into_iter().take(KEYS_MAX);
        let keys = keys
            .filter_map(|key| usable(serde_json::from_str(key.get()).ok()?))
            .collect();
        Ok(Self { keys })
    }

    /// The key for a token. One without a key id may only be verified if there is no choice.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&VerifyingKey> {
        let mut keys = self.keys.iter().filter(|(_, key)| key.is_for(algorithm));
        match id {
            Some(id) => keys
                .find(|(key_id, _)| key_id.as_deref() == Some(id))
                .map(|(_, key)| key),
            None => keys.next().filter(|_| keys.next().is_none()).map(|(_, key)| key),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

fn usable(jwk: Jwk) -> Option<(Option<String>, VerifyingKey)> {
    let common = &jwk.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    if let Some(operations) = &common.key_operations
        && !operations.contains(&KeyOperations::Verify)
    {
        return None;
    }
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {}
        AlgorithmParameters::EllipticCurve(key) if matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384) => {}
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {}
        _ => return None,
    }
    let mut key = VerifyingKey::public(DecodingKey::from_jwk(&jwk).ok()?)?;
    if let Some(named) = common.key_algorithm {
        let named = Algorithm::from_str(&named.to_string()).ok()?;
        if !key.is_for(named) {
            return None;
        }
        key.algorithm = Some(named);
    }
    Some((common.key_id.clone(), key))
}
