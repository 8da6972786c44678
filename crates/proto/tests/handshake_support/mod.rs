//! A valid request as the basis of server handshake tests.

use sockeye_proto::handshake::{HandshakeLimits, Incoming, ServerHandshake, ServerProgress};

/// The valid request from which the tests derive others.
pub(crate) const LINES: [&str; 6] = [
    "GET /chat?room=1 HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
    "Sec-WebSocket-Version: 13",
];

/// The valid request with the line that starts with `start` replaced by `lines`.
pub(crate) fn with(start: &str, lines: &[&str]) -> Vec<u8> {
    let mut request = Vec::new();
    for line in LINES {
        match line.starts_with(start) {
            true => lines.iter().for_each(|line| push_line(&mut request, line)),
            false => push_line(&mut request, line),
        }
    }
    push_line(&mut request, "");
    request
}

/// The valid request with `lines` added.
pub(crate) fn plus(lines: &[&str]) -> Vec<u8> {
    let version = LINES[5];
    let lines: Vec<_> = [version].iter().chain(lines).copied().collect();
    with(version, &lines)
}

/// Appends a line and its line end.
pub(crate) fn push_line(request: &mut Vec<u8>, line: &str) {
    request.extend_from_slice(line.as_bytes());
    request.extend_from_slice(b"\r\n");
}

/// Parses a request that must be valid.
#[track_caller]
pub(crate) fn incoming(request: &[u8]) -> Incoming {
    match ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request) {
        ServerProgress::Incoming(incoming) => incoming,
        other => panic!("{}: {other:?}", request.escape_ascii()),
    }
}
