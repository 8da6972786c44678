//! HTTP CONNECT: the request to a proxy and its responses.

use sockeye_proto::handshake::{
    HandshakeBuildError, HandshakeError, HandshakeLimits, TunnelProgress, TunnelRequest, Uri,
};

fn request(uri: &str) -> TunnelRequest {
    TunnelRequest::new(&Uri::parse(uri).unwrap())
}

/// Handles a response in pieces of `step` bytes.
fn respond(request: TunnelRequest, response: &[u8], step: usize) -> TunnelProgress {
    let (_, mut awaiting) = request.start();
    let mut pieces = response.chunks(step);
    loop {
        match awaiting.handle_bytes(pieces.next().unwrap_or_default()) {
            TunnelProgress::Incomplete(next) if pieces.len() > 0 => awaiting = next,
            progress => return progress,
        }
    }
}

#[test]
fn request_target_always_has_a_port() {
    for (uri, target) in [
        ("ws://h.example/x?y", "h.example:80"),
        ("wss://H.example/", "h.example:443"),
        ("ws://h.example:8080/", "h.example:8080"),
        ("wss://[2001:db8::1]/", "[2001:db8::1]:443"),
    ] {
        let request = request(uri).header("Proxy-Authorization", "Basic dTpw").unwrap();
        let expected =
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic dTpw\r\n\r\n");
        assert_eq!(String::from_utf8(request.start().0).unwrap(), expected);
    }
}

#[test]
fn headers_are_validated() {
    let request = request("ws://h/");
    for (name, value, error) in [
        ("Host", "x", HandshakeBuildError::ReservedHeader),
        ("Content-Length", "1", HandshakeBuildError::ReservedHeader),
        ("X", "a\r\nY: b", HandshakeBuildError::InvalidHeaderValue),
        ("X Y", "a", HandshakeBuildError::InvalidHeaderName),
    ] {
        assert_eq!(request.clone().header(name, value).unwrap_err(), error, "{name}");
    }
}

#[test]
fn success_opens_the_tunnel_however_the_response_is_split() {
    let response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nearly";
    for step in 1..=response.len() {
        match respond(request("ws://h/"), response, step) {
            TunnelProgress::Open { read_buf } => assert!(b"early".starts_with(&read_buf)),
            other => panic!("{step}: {other:?}"),
        }
    }
}

#[test]
fn refusal_returns_status_and_headers() {
    let response = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\r\nbody";
    match respond(request("ws://h/"), response, 1000) {
        TunnelProgress::Refused(response) => {
            assert_eq!(response.status().as_u16(), 407);
            assert!(response.headers().contains("proxy-authenticate"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn response_head_is_limited() {
    let mut limits = HandshakeLimits::default();
    (limits.head_size_max, limits.header_count_max) = (64, 2);
    for (response, error) in [
        (
            format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(64)),
            HandshakeError::HeadTooLarge { size_max: 64 },
        ),
        (
            "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n".into(),
            HandshakeError::TooManyHeaders { count_max: 2 },
        ),
        ("SSH-2.0-OpenSSH\r\n".into(), HandshakeError::InvalidStatusLine),
        (
            "HTTP/1.1 100\r\n\r\n".repeat(1000),
            HandshakeError::StartLineTooLong { size_max: 64 },
        ),
    ] {
        match respond(request("ws://h/").limits(limits), response.as_bytes(), 7) {
            TunnelProgress::Failed(found) => assert_eq!(found, error),
            other => panic!("{response}: {other:?}"),
        }
    }
}
