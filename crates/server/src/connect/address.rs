//! What people write when they mean a WebSocket URI.

use sockeye::handshake::Uri;

use super::escape::escape;
use crate::cli::Failure;

/// Reads `ws://` and `wss://` URIs; also `http://` and `https://`, addresses without a scheme, and `:9001` for this
/// machine.
pub(super) fn parse(text: &str) -> Result<Uri, Failure> {
    Uri::parse(&complete(text)).map_err(|error| Failure::BadUrl {
        url: escape(text),
        reason: error.to_string(),
    })
}

fn complete(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("ws://{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("wss://{rest}"),
        Some(_) => text.to_owned(),
        None if text.starts_with(':') => format!("ws://localhost{text}"),
        None => format!("ws://{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, uri: &str) {
        assert_eq!(parse(text).unwrap().to_string(), uri);
    }

    #[test]
    fn a_uri_is_taken_as_it_is() {
        check("ws://example.com/x?y=1", "ws://example.com/x?y=1");
        check("WSS://example.com", "wss://example.com/");
    }

    #[test]
    fn what_people_write_becomes_a_uri() {
        check("localhost:9001/x", "ws://localhost:9001/x");
        check("example.com", "ws://example.com/");
        check(":9001", "ws://localhost:9001/");
        check(":9001/chat", "ws://localhost:9001/chat");
        check("[::1]:9001", "ws://[::1]:9001/");
        check("http://example.com:8080/x", "ws://example.com:8080/x");
        check("HTTPS://example.com/x", "wss://example.com/x");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ftp://example.com",
            "ws://",
            "ws://user:pass@example.com/",
            "ws://a/#b",
            "ws://a b/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
