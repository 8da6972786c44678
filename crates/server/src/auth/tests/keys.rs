//! Which keys verify which tokens.

use super::super::test_keys::*;
use super::*;

/// All public keys of the tests, and the secret.
fn all_keys(ecdsa: &str) -> TokenConfig {
    TokenConfig {
        rsa_public_key: Some(RSA_PUBLIC.into()),
        ecdsa_public_key: Some(ecdsa.into()),
        eddsa_public_key: Some(ED_PUBLIC.into()),
        ..hmac_config()
    }
}

#[test]
fn every_algorithm_is_verified() {
    for algorithm in ALGORITHMS {
        let ecdsa = if algorithm == Algorithm::ES384 {
            P384_PUBLIC
        } else {
            P256_PUBLIC
        };
        let token = sign_with(&Header::new(algorithm), &json!({"sub": "42"}));
        let user = connect(&verifier(&all_keys(ecdsa)), &token).map(|token| token.user);
        assert_eq!(user.as_deref(), Ok("42"), "{algorithm:?}");
    }
}

#[test]
fn a_public_key_may_be_written_as_pkcs1() {
    let config = TokenConfig {
        rsa_public_key: Some(RSA_PUBLIC_PKCS1.into()),
        ..TokenConfig::default()
    };
    let token = sign_with(&Header::new(Algorithm::PS384), &json!({"sub": "42"}));
    assert!(connect(&verifier(&config), &token).is_ok());
}

#[test]
fn without_a_key_every_token_is_invalid() {
    let verifier = verifier(&TokenConfig::default());
    for algorithm in ALGORITHMS {
        refuse(
            &verifier,
            &sign_with(&Header::new(algorithm), &json!({})),
            InvalidToken::NoKeys,
        );
    }
    refuse(&verifier, "", InvalidToken::NoKeys);
}

#[test]
fn a_key_verifies_only_its_own_algorithms() {
    let hmac = hmac_verifier();
    for algorithm in &ALGORITHMS[3..] {
        refuse(
            &hmac,
            &sign_with(&Header::new(*algorithm), &json!({})),
            InvalidToken::NoKeyForAlgorithm,
        );
    }
    let config = TokenConfig {
        ecdsa_public_key: Some(P384_PUBLIC.into()),
        ..TokenConfig::default()
    };
    let p384 = verifier(&config);
    for algorithm in ALGORITHMS
        .into_iter()
        .filter(|algorithm| *algorithm != Algorithm::ES384)
    {
        refuse(
            &p384,
            &sign_with(&Header::new(algorithm), &json!({})),
            InvalidToken::NoKeyForAlgorithm,
        );
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let mut config = hmac_config();
    config.hmac_secret = Some("another secret".into());
    refuse(&verifier(&config), &sign(json!({})), InvalidToken::Signature);
    // The algorithm is part of what is signed.
    let token = sign_with(&Header::new(Algorithm::RS256), &json!({"sub": "42"}));
    let (_, rest) = token.split_once('.').unwrap();
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"PS256"}"#);
    refuse(
        &verifier(&all_keys(P256_PUBLIC)),
        &format!("{header}.{rest}"),
        InvalidToken::Signature,
    );
}

#[test]
fn a_secret_can_be_rotated() {
    let mut config = hmac_config();
    config.hmac_secret = Some("the next secret".into());
    config.hmac_previous_secret = Some(SECRET.into());
    let verifier = verifier(&config);
    assert!(connect(&verifier, &sign(json!({"sub": "42"}))).is_ok());
    let new = forge(r#"{"alg":"HS256"}"#, "{}", b"the next secret");
    assert!(connect(&verifier, &new).is_ok());
    refuse(
        &verifier,
        &forge(r#"{"alg":"HS256"}"#, "{}", b"neither"),
        InvalidToken::Signature,
    );
}

#[test]
fn unusable_keys_are_configuration_errors() {
    fn check(field: &str, value: &str, set: impl FnOnce(&mut TokenConfig)) {
        let mut config = TokenConfig::default();
        set(&mut config);
        let error = TokenVerifier::new(&config).unwrap_err();
        assert_eq!(error.field(), field, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(field));
        // Not a line of the key.
        for line in value
            .lines()
            .filter(|line| line.len() > 10 && !line.contains("PUBLIC KEY"))
        {
            assert!(!shown.contains(line), "{shown}");
        }
    }
    for secret in ["", RSA_PUBLIC, RSA_PRIVATE] {
        check("hmac_secret", secret, |config| config.hmac_secret = Some(secret.into()));
        check("hmac_previous_secret", secret, |config| {
            config.hmac_previous_secret = Some(secret.into())
        });
    }
    let certificate = RSA_PUBLIC.replace("PUBLIC KEY", "CERTIFICATE");
    for pem in [
        "",
        "nonsense",
        P256_PUBLIC,
        ED_PUBLIC,
        RSA_PRIVATE,
        RSA_1024_PUBLIC,
        &certificate,
    ] {
        check("rsa_public_key", pem, |config| config.rsa_public_key = Some(pem.into()));
    }
    for pem in ["", RSA_PUBLIC, ED_PUBLIC, P256_PRIVATE] {
        check("ecdsa_public_key", pem, |config| {
            config.ecdsa_public_key = Some(pem.into())
        });
    }
    for pem in ["", RSA_PUBLIC, P256_PUBLIC, ED_PRIVATE] {
        check("eddsa_public_key", pem, |config| {
            config.eddsa_public_key = Some(pem.into())
        });
    }
    for url in [
        "",
        "keys.json",
        "ftp://host/",
        "https://user:password@host/",
        "http:///x",
        "https://a b/",
    ] {
        check("jwks_url", url, |config| config.jwks_url = Some(url.into()));
    }
}

#[test]
fn the_signature_check_can_be_skipped_for_development() {
    let config = TokenConfig {
        insecure_skip_signature_check: true,
        ..TokenConfig::default()
    };
    let verifier = verifier(&config);
    let forged = forge(
        r#"{"alg":"HS256"}"#,
        &json!({"sub": "42", "exp": NOW + 1}).to_string(),
        b"x",
    );
    assert_eq!(connect(&verifier, &forged).unwrap().user, "42");
    // All else is checked as always.
    let expired = forge(r#"{"alg":"HS256"}"#, &json!({"exp": NOW}).to_string(), b"x");
    assert_eq!(connect(&verifier, &expired).unwrap_err(), TokenError::Expired);
    let subscription = forge(r#"{"alg":"HS256"}"#, r#"{"channel":"c"}"#, b"x");
    assert_eq!(
        connect(&verifier, &subscription).unwrap_err(),
        InvalidToken::HasChannel.into()
    );
    refuse(&verifier, "not a token", InvalidToken::Malformed);
    for claims in ["[]", r#"["admin"]"#, "null", " []", "1"] {
        refuse(
            &verifier,
            &forge(r#"{"alg":"HS256"}"#, claims, b"x"),
            InvalidToken::Claims,
        );
    }
}

#[test]
fn the_provider_refuses_keys_of_another_family() {
    provider::install();
    let provider = jsonwebtoken::crypto::CryptoProvider::try_get_default().unwrap();
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap();
    assert!((provider.verifier_factory)(&Algorithm::HS256, &key).is_err());
    assert!((provider.signer_factory)(&Algorithm::HS256, &private_key(Algorithm::RS256)).is_err());
    let verifier = (provider.verifier_factory)(&Algorithm::RS256, &key).unwrap();
    assert!(verifier.verify(b"message", &vec![0; 256]).is_err());
    assert!(verifier.verify(b"message", &Vec::new()).is_err());
}
