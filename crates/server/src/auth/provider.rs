//! Cryptography of `jsonwebtoken` by ring, which rustls uses here too.
//!
//! `jsonwebtoken` has one provider for the process. The one here is complete, signing included, so that a program that
//! embeds this server can use `jsonwebtoken` itself; one that installed its own before keeps that.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    self as sig, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(SigningKey::new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(CheckingKey::new(*algorithm, key)?)),
    // These serve to make JWKs out of private keys, which nobody does here.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

/// Makes `jsonwebtoken` usable, unless it is already.
pub(super) fn install() {
    if CryptoProvider::try_get_default().is_none() {
        // Another thread that was faster did the same.
        let _ = PROVIDER.install_default();
    }
}

fn unsupported() -> JwtError {
    ErrorKind::UnsupportedAlgorithm.into()
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// A key for the verification of one token.
enum CheckingKey {
    Hmac(Algorithm, hmac::Key),
    Rsa(Algorithm, &'static sig::RsaParameters, DecodingKey),
    Curve(Algorithm, &'static dyn sig::VerificationAlgorithm, DecodingKey),
}

impl CheckingKey {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, JwtError> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        if let Some(hmac) = hmac_algorithm(algorithm) {
            return Ok(Self::Hmac(algorithm, hmac::Key::new(hmac, key.try_get_as_bytes()?)));
        }
        let rsa = |parameters| Ok(Self::Rsa(algorithm, parameters, key.clone()));
        match algorithm {
            Algorithm::RS256 => rsa(&sig::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&sig::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&sig::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&sig::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&sig::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&sig::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Ok(Self::Curve(algorithm, &sig::ECDSA_P256_SHA256_FIXED, key.clone())),
            Algorithm::ES384 => Ok(Self::Curve(algorithm, &sig::ECDSA_P384_SHA384_FIXED, key.clone())),
            Algorithm::EdDSA => Ok(Self::Curve(algorithm, &sig::ED25519, key.clone())),
            _ => Err(unsupported()),
        }
    }
}

impl Verifier<Vec<u8>> for CheckingKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Error> {
        let verified = match self {
            Self::Hmac(_, key) => hmac::verify(key, message, signature),
            Self::Rsa(_, parameters, key) => match key.kind() {
                DecodingKeyKind::SecretOrDer(der) => {
                    UnparsedPublicKey::new(*parameters, der).verify(message, signature)
                }
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    // Big-endian without leading zeros, which some providers write.
                    let n = &n[n.iter().take_while(|&&byte| byte == 0).count()..];
                    RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
                }
            },
            Self::Curve(_, algorithm, key) => {
                let point = key.try_get_as_bytes().map_err(|_| Error::new())?;
                UnparsedPublicKey::new(*algorithm, point).verify(message, signature)
            }
        };
        verified.map_err(|_| Error::new())
    }
}

impl JwtVerifier for CheckingKey {
    fn algorithm(&self) -> Algorithm {
        match *self {
            Self::Hmac(algorithm, _) | Self::Rsa(algorithm, ..) | Self::Curve(algorithm, ..) => algorithm,
        }
    }
}

/// A key that signs one token.
enum SigningKey {
    Hmac(Algorithm, hmac::Key),
    Rsa(Algorithm, &'static dyn sig::RsaEncoding, RsaKeyPair),
    Ecdsa(Algorithm, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, JwtError> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        let bytes = key.as_bytes();
        if let Some(hmac) = hmac_algorithm(algorithm) {
            return Ok(Self::Hmac(algorithm, hmac::Key::new(hmac, bytes)));
        }
        match algorithm.family() {
            AlgorithmFamily::Rsa => {
                let key = RsaKeyPair::from_der(bytes).map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))?;
                Ok(Self::Rsa(algorithm, rsa_encoding(algorithm)?, key))
            }
            AlgorithmFamily::Ec => {
                let curve = match algorithm {
                    Algorithm::ES256 => &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
                    Algorithm::ES384 => &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
                    _ => return Err(unsupported()),
                };
                let key = EcdsaKeyPair::from_pkcs8(curve, bytes, &SystemRandom::new());
                Ok(Self::Ecdsa(algorithm, key.map_err(|_| ErrorKind::InvalidEcdsaKey)?))
            }
            AlgorithmFamily::Ed => {
                // OpenSSL writes these without the public key.
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes);
                Ok(Self::Ed25519(key.map_err(|_| ErrorKind::InvalidEddsaKey)?))
            }
            AlgorithmFamily::Hmac => Err(unsupported()),
        }
    }
}

fn rsa_encoding(algorithm: Algorithm) -> Result<&'static dyn sig::RsaEncoding, JwtError> {
    match algorithm {
        Algorithm::RS256 => Ok(&sig::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Ok(&sig::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Ok(&sig::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Ok(&sig::RSA_PSS_SHA256),
        Algorithm::PS384 => Ok(&sig::RSA_PSS_SHA384),
        Algorithm::PS512 => Ok(&sig::RSA_PSS_SHA512),
        _ => Err(unsupported()),
    }
}

impl Signer<Vec<u8>> for SigningKey {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(_, key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(_, encoding, key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let signed = key.sign(*encoding, &random, message, &mut signature);
                signed.map(|()| signature).map_err(|_| Error::new())
            }
            Self::Ecdsa(_, key) => {
                let signed = key.sign(&random, message);
                signed
                    .map(|signature| signature.as_ref().to_vec())
                    .map_err(|_| Error::new())
            }
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for SigningKey {
    fn algorithm(&self) -> Algorithm {
        match *self {
            Self::Hmac(algorithm, _) | Self::Rsa(algorithm, ..) | Self::Ecdsa(algorithm, _) => algorithm,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }
}
