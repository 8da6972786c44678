//! Ids of requests, which connect log lines of this server with those of proxies and backends.

use std::fmt;
use std::net::SocketAddr;

use ::http::HeaderMap;
use ::http::header::{HeaderName, HeaderValue};

/// Request and response header with the id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Length of an id that is accepted from a client.
const ID_BYTES_MAX: usize = 128;

/// The id of a request: of the client or a proxy, or a random one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    Generated(u64),
    Given(Box<str>),
}

/// Where a request comes from, for log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestContext {
    pub(crate) peer: SocketAddr,
    pub(crate) request: RequestId,
}

impl RequestId {
    /// A random id.
    pub(crate) fn random() -> Self {
        Self::Generated(rand::random())
    }

    /// The id in `X-Request-Id`, if it is one: 1 to 128 visible ASCII characters. Otherwise a random one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(REQUEST_ID).iter();
        let value = values.next().filter(|_| values.next().is_none());
        let is_valid = |bytes: &&[u8]| {
            (1..=ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_graphic())
        };
        let bytes = value.map(HeaderValue::as_bytes).filter(is_valid);
        match bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            Some(id) => Self::Given(id.into()),
            None => Self::random(),
        }
    }

    /// The id as the value of a header.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("visible ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated(number) => write!(f, "{number:016x}"),
            Self::Given(id) => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], is_accepted: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let id = RequestId::of(&headers);
        assert_eq!(id.to_string() == values.concat(), is_accepted, "{values:?}: {id}");
        assert_eq!(id.header().to_str().unwrap(), id.to_string());
    }

    #[test]
    fn an_id_of_visible_ascii_up_to_a_length_is_accepted() {
        check(&["7f3a"], true);
        check(&["Root=1-67891233-abcdef012345678912345678"], true);
        check(&[&"x".repeat(128)], true);
        check(&[&"x".repeat(129)], false);
        check(&[], false);
        check(&[""], false);
        check(&["a b"], false);
        check(&["a\tb"], false);
        check(&["ä"], false);
        check(&["a", "b"], false);
    }

    #[test]
    fn generated_ids_differ_and_have_a_fixed_length() {
        let [first, second] = [RequestId::random(), RequestId::random()].map(|id| id.to_string());
        assert_ne!(first, second);
        assert_eq!((first.len(), second.len()), (16, 16));
        // As large as the text of a client, so that a connection can keep it.
        assert_eq!(size_of::<RequestId>(), size_of::<Box<str>>());
    }
}
