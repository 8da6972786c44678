//! Keys of the HTTP API.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq};

use super::Secret;

/// Keys that authorize requests to the HTTP API. Without a key, no request is authorized.
///
/// A request has its key in `X-API-Key: <key>` or in `Authorization: apikey <key>`. Keys are kept and compared as
/// SHA-256 digests in constant time, so that the time of an answer reveals neither their bytes nor their length.
/// Several keys allow a rotation without a pause.
#[derive(Clone, Default)]
pub(crate) struct ApiKeys {
    digests: Vec<[u8; SHA256_OUTPUT_LEN]>,
}

impl ApiKeys {
    /// Takes keys from the configuration. Empty ones are left out: they authorize nobody.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = &'a Secret>) -> Self {
        let keys = keys.into_iter().filter(|key| !key.expose().is_empty());
        Self {
            digests: keys.map(|key| sha256(key.expose().as_bytes())).collect(),
        }
    }

    /// Whether there is no key, so that no request is authorized.
    pub(crate) fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether this is one of the keys.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        let key = sha256(key);
        // All keys are compared, whichever matches.
        let found = (self.digests.iter()).fold(Choice::from(0), |found, digest| found | digest[..].ct_eq(&key[..]));
        found.into()
    }

    /// Whether a request with these header fields has one of the keys.
    ///
    /// `X-API-Key` decides if it is present. A field that occurs more than once authorizes nothing.
    pub(crate) fn authorize(&self, headers: &HeaderMap) -> bool {
        let single = |name: &str| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none())
        };
        if headers.contains_key("x-api-key") {
            return single("x-api-key").is_some_and(|key| self.matches(key.as_bytes()));
        }
        let credentials = single(AUTHORIZATION.as_str()).and_then(|value| api_key_credentials(value.as_bytes()));
        credentials.is_some_and(|key| self.matches(key))
    }
}

/// Shows how many keys there are, and none of them.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("len", &self.digests.len()).finish()
    }
}

/// The key in `apikey <key>`. RFC 9110 §11.1: the scheme's case does not matter.
fn api_key_credentials(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(b"apikey ".len())?;
    scheme.eq_ignore_ascii_case(b"apikey ").then(|| key.trim_ascii())
}

fn sha256(bytes: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> ApiKeys {
        ApiKeys::new([&Secret::new("first"), &Secret::new("second")])
    }

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expect: bool) {
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(keys().authorize(&headers), expect, "{fields:?}");
    }

    #[test]
    fn a_key_is_taken_from_either_field() {
        check(&[("x-api-key", "first")], true);
        check(&[("x-api-key", "second")], true);
        check(&[("authorization", "apikey second")], true);
        check(&[("authorization", "ApiKey second")], true);
        check(&[("authorization", "apikey  second")], true);
    }

    #[test]
    fn everything_else_is_refused() {
        check(&[], false);
        check(&[("x-api-key", "")], false);
        check(&[("x-api-key", "firs")], false);
        check(&[("x-api-key", "first1")], false);
        check(&[("x-api-key", "FIRST")], false);
        check(&[("authorization", "first")], false);
        check(&[("authorization", "apikey")], false);
        check(&[("authorization", "apikey ")], false);
        check(&[("authorization", "apikeyfirst")], false);
        check(&[("authorization", "Bearer first")], false);
        check(&[("x-api-key", "first"), ("x-api-key", "first")], false);
        check(
            &[("authorization", "apikey first"), ("authorization", "apikey first")],
            false,
        );
        check(&[("x-api-key", "wrong"), ("authorization", "apikey first")], false);
    }

    #[test]
    fn without_keys_nothing_is_authorized() {
        for keys in [ApiKeys::default(), ApiKeys::new([&Secret::new("")])] {
            assert!(keys.is_empty());
            assert!(!keys.matches(b""));
            assert!(!keys.authorize(&HeaderMap::new()));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?} {:?}", keys(), Secret::new("first"));
        assert!(!shown.contains("first"), "{shown}");
        assert!(shown.contains('2'));
    }
}
