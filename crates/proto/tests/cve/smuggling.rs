//! C12, C13: bytes around an upgrade, and requests that look like one.

use sockeye_proto::handshake::{
    Acceptance, ClientProgress, ClientRequest, ConnectParts, HandshakeError, HandshakeLimits, Headers, Incoming, Key,
    Rejection, ServerHandshake, ServerProgress, StatusCode, Uri,
};
use sockeye_proto::{Config, ProtocolError};

use crate::common::Local;
use crate::cost::{connection, flood, rejects};
use crate::handshake_support::{incoming, plus, with};

#[test]
fn cve_2026_2833_bytes_after_an_invalid_request_are_ignored() {
    let bad = with("Connection", &[]);
    let combined = [bad.as_slice(), b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let (error, response) = rejected(&combined);
    assert_eq!(error, HandshakeError::ConnectionMissing);
    assert_eq!(rejected(&bad).1, response);
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
}

#[test]
fn cve_2026_2833_bytes_after_a_rejected_request_are_ignored() {
    let combined = [plus(&[]).as_slice(), b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let rejection = Rejection::new(StatusCode::UNAUTHORIZED).expect("valid status");
    // Rejecting consumes the request together with the bytes after it.
    let response = String::from_utf8(incoming(&combined).reject(rejection).to_bytes()).expect("ASCII");
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    assert_eq!(response.matches("HTTP/1.1").count(), 1);
}

#[test]
fn cve_2026_69243_upgrade_with_a_body_is_rejected() {
    for line in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Content-Length: +5",
        "Content-Length: 5, 5",
    ] {
        let (error, response) = rejected(&[plus(&[line]).as_slice(), b"hello"].concat());
        assert_eq!(error, HandshakeError::RequestHasBody, "{line}");
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    }
}

#[test]
fn cve_2026_130647_bytes_after_an_accepted_request_are_frames() {
    let second = b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n";
    let combined = [plus(&[]).as_slice(), second].concat();
    let accepted = incoming(&combined).accept(Acceptance::new()).expect("plain");
    assert_eq!(accepted.read_buf, second);
    // G is a fragment with reserved bits and the opcode 7.
    rejects(Local::Server, accepted.read_buf, ProtocolError::ReservedOpcode(7), 1002);
}

#[test]
fn cve_2026_100658_pipelined_requests_are_not_queued() {
    let requests = with("Connection", &[]).repeat(10_000);
    let info = allocation_counter::measure(|| drop(rejected(&requests)));
    assert!(info.bytes_max <= 8 * 1024, "{info:?}");
    assert_eq!(info.bytes_current, 0);
}

#[test]
fn cve_2024_23326_200_with_upgrade_headers_is_a_rejection() {
    for status in [200, 201, 204, 301, 304, 401, 503] {
        let response = format!(
            "HTTP/1.1 {status} x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\nContent-Length: 0\r\n\r\n\x01\x02hi"
        );
        let progress = awaiting().handle_bytes(response.as_bytes());
        assert!(
            matches!(&progress, ClientProgress::Rejected(response) if response.status().as_u16() == status),
            "{progress:?}"
        );
    }
}

/// A declared body is ignored, so it cannot hide anything: every byte after the head belongs to a frame.
#[test]
fn cve_2026_71324_declared_body_of_a_101_is_ignored() {
    // A chunk with a second response; a complete text frame.
    let chunk = b"1f\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\n\r\n0\r\n\r\n";
    for line in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        for behind in [&chunk[..], b"\x81\x05hello"] {
            let head = format!(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n{line}\r\n\r\n"
            );
            match awaiting().handle_bytes(&[head.as_bytes(), behind].concat()) {
                ClientProgress::Connected(connected) => assert_eq!(connected.read_buf, behind),
                progress => panic!("{progress:?}"),
            }
        }
    }
    // `1` is the reserved bits 0 and 1 and the opcode 1.
    rejects(Local::Client, chunk, ProtocolError::ReservedBits, 1002);
}

#[test]
fn cve_2026_55458_http2_response_has_no_upgrade_headers() {
    let mut headers = Headers::new();
    headers.try_append("sec-websocket-version", "13").expect("valid header");
    let parts = ConnectParts {
        protocol: "websocket",
        scheme: "https",
        authority: "example.com",
        path: "/",
        headers,
    };
    let incoming = Incoming::from_extended_connect(parts).expect("valid");
    let response = incoming.accept(Acceptance::new()).expect("plain").response;
    assert_eq!(response.status(), StatusCode::OK);
    for name in ["Connection", "Upgrade", "Sec-WebSocket-Accept", "Transfer-Encoding"] {
        assert!(!response.headers().contains(name), "{name}");
    }
}

#[test]
fn cve_2026_59898_older_version_does_not_bypass_token_checks() {
    for version in ["0", "7", "8", "12"] {
        let line = format!("Sec-WebSocket-Version: {version}");
        let old = with("Sec-WebSocket-Version", &[&line]);
        assert_eq!(rejected(&old).0, HandshakeError::VersionUnsupported);
        for (missing, error) in [
            ("Upgrade: websocket\r\n", HandshakeError::UpgradeMissing),
            ("Connection: Upgrade\r\n", HandshakeError::ConnectionMissing),
        ] {
            let text = String::from_utf8(old.clone()).expect("ASCII").replace(missing, "");
            assert_eq!(rejected(text.as_bytes()).0, error);
        }
    }
}

#[test]
fn cve_2026_54463_draft_with_two_keys_is_rejected_with_426() {
    let draft = b"GET /demo HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\
        Origin: http://example.com\r\n\r\n^n:ds[4U";
    let (error, response) = rejected(draft);
    assert_eq!(error, HandshakeError::VersionUnsupported);
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
}

#[test]
fn cve_2026_54466_draft_frames_are_rejected() {
    // Text between 00 and FF, and 80 with a length in any number of 7-bit groups (framing of early drafts).
    rejects(Local::Server, b"\x00hello\xff", ProtocolError::UnmaskedFrame, 1002);
    let mut connection = connection(Local::Server, Config::default());
    let cost = flood(&mut connection, b"\x80", b"\xff", 1_000_000);
    assert!(cost.error.is_some_and(|error| error.close_code().0 == 1002), "{cost:?}");
}

#[track_caller]
fn rejected(request: &[u8]) -> (HandshakeError, String) {
    match ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request) {
        ServerProgress::Invalid(invalid) => {
            let response = String::from_utf8(invalid.response.to_bytes()).expect("ASCII");
            (invalid.error, response)
        }
        other => panic!("{other:?}"),
    }
}

fn awaiting() -> sockeye_proto::handshake::AwaitingResponse {
    let uri = Uri::parse("ws://h/").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    ClientRequest::new(&uri, key).start().1
}
