//! Conversions between the types of the crate `http`, which the public API uses, and those of `sockeye-proto`.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use sockeye_proto::handshake::{self, HandshakeBuildError, HandshakeError, Headers, HttpVersion, PlainRequest};

/// Headers whose values `{:?}` hides. The subprotocol header is one of them: browsers cannot set `Authorization` on a
/// WebSocket, so applications send tokens as subprotocols.
const CREDENTIALS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SET_COOKIE,
];

/// The title-case form of a header name: `X-Api-Key` for `x-api-key`. HTTP ignores case, but some old servers do not.
pub(crate) fn wire_name(name: &HeaderName) -> String {
    let mut is_start = true;
    let title_case = |letter: char| {
        let letter = if is_start { letter.to_ascii_uppercase() } else { letter };
        is_start = letter == '-';
        letter
    };
    name.as_str().chars().map(title_case).collect()
}

/// Converts all header fields. `None` if there are more than a `HeaderMap` can hold (32,768).
pub(crate) fn header_map(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        // Every name and value that `sockeye-proto` accepts is valid for `http` too.
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        value.set_sensitive(CREDENTIALS.contains(&name));
        map.try_append(name, value).ok()?;
    }
    Some(map)
}

/// Converts a header map.
#[cfg(feature = "hyper")]
pub(crate) fn headers(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        // Every name and value that `http` accepts is valid for `sockeye-proto` too.
        let _ = headers.try_append(name.as_str(), value.as_bytes());
    }
    headers
}

/// Converts a response that a client received or that a server sends.
pub(crate) fn response(response: &handshake::Response) -> Response<Bytes> {
    let mut converted = Response::new(Bytes::copy_from_slice(response.body()));
    // Status codes have three digits in both crates.
    *converted.status_mut() = StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    *converted.headers_mut() = header_map(response.headers()).unwrap_or_default();
    converted
}

/// Converts a client's opening request.
///
/// # Errors
///
/// The target is too long for a URI (65,534 bytes), or there are more headers than a map can hold. Both require raised
/// limits.
pub(crate) fn request(request: &handshake::Request) -> Result<Request<()>, HandshakeError> {
    let mut converted = Request::new(());
    *converted.uri_mut() = uri(request.target()).ok_or(HandshakeError::InvalidTarget)?;
    let count_max = request.headers().len();
    *converted.headers_mut() = header_map(request.headers()).ok_or(HandshakeError::TooManyHeaders { count_max })?;
    Ok(converted)
}

/// Converts a plain HTTP request. `None` if it is too large: see [`request`].
pub(crate) fn plain_request(plain: &PlainRequest) -> Option<Request<()>> {
    let mut converted = Request::new(());
    *converted.method_mut() = Method::from_bytes(plain.method.as_bytes()).ok()?;
    *converted.uri_mut() = uri(&plain.target)?;
    *converted.headers_mut() = header_map(&plain.headers)?;
    if plain.version == HttpVersion::HTTP_10 {
        *converted.version_mut() = Version::HTTP_10;
    }
    Some(converted)
}

/// Converts a request target. Percent-encodes characters that are invalid in a URI but that browsers send.
pub(crate) fn uri(target: &str) -> Option<Uri> {
    if let Ok(uri) = target.parse() {
        return Some(uri);
    }
    let mut encoded = String::with_capacity(target.len() + 16);
    for letter in target.chars() {
        match letter {
            '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => {
                encoded.push_str(&format!("%{:02X}", letter as u32))
            }
            _ => encoded.push(letter),
        }
    }
    encoded.parse().ok()
}

/// A part of a request or response that must not be sent.
#[derive(Clone, Debug)]
pub(crate) struct InvalidPart {
    part: &'static str,
    name: Option<String>,
    reason: String,
}

impl InvalidPart {
    pub(crate) fn new(part: &'static str, name: Option<String>, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self { part, name, reason }
    }

    /// The error for an invalid header name. Shows its first 64 bytes.
    pub(crate) fn header_name(name: &[u8]) -> Self {
        const SHOWN_MAX: usize = 64;
        let shown = String::from_utf8_lossy(&name[..name.len().min(SHOWN_MAX)]).into_owned();
        Self::new("header", Some(shown), HandshakeBuildError::InvalidHeaderName)
    }
}

impl fmt::Display for InvalidPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {name:?}: {}", self.part, self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for InvalidPart {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_written_in_title_case() {
        for (name, expected) in [("x-api-key", "X-Api-Key"), ("COOKIE", "Cookie"), ("x--y_z", "X--Y_z")] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(wire_name(&name), expected);
        }
    }

    #[test]
    fn every_valid_request_target_converts_to_a_uri() {
        for byte in (b'!'..=b'~').filter(|byte| *byte != b'#') {
            for target in [format!("/a{}b", char::from(byte)), format!("/?a{}b", char::from(byte))] {
                let uri = uri(&target).unwrap_or_else(|| panic!("{target}"));
                let text = uri.to_string();
                assert!(text == target || text.contains('%'), "{target}: {text}");
            }
        }
        assert_eq!(uri("ws://h.example:1/a?b").unwrap().path(), "/a");
        assert_eq!(uri(&format!("/{}", "a".repeat(70_000))), None);
    }
}
