//! Handling of requests by a server, for every split of the input.

use proptest::prelude::*;
use sockeye_proto::handshake::{
    Acceptance, HandshakeError, HandshakeLimits, ServerHandshake, ServerProgress, StatusCode,
};

mod handshake_support;

use handshake_support::{LINES, incoming, plus, push_line, with};

/// The comparable parts of a result.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Incomplete,
    Requested { resource: String, read_buf: Vec<u8> },
    Invalid(HandshakeError, Vec<u8>),
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        match handshake.handle_bytes(piece) {
            ServerProgress::Incomplete(next) => handshake = next,
            ServerProgress::Incoming(incoming) => {
                let resource = incoming.request().resource().to_owned();
                let accepted = incoming.accept(Acceptance::new()).expect("plain");
                let mut read_buf = accepted.read_buf;
                pieces.for_each(|piece| read_buf.extend_from_slice(piece));
                return Outcome::Requested { resource, read_buf };
            }
            ServerProgress::Invalid(invalid) => {
                assert_eq!(invalid.response.status(), invalid.error.status());
                return Outcome::Invalid(invalid.error, invalid.response.to_bytes());
            }
        }
    }
    Outcome::Incomplete
}

/// Runs the input in one piece, byte by byte, for every split in two, and followed by a frame.
#[track_caller]
fn run_all(request: &[u8]) -> Outcome {
    let whole = run([request]);
    assert_eq!(run(request.chunks(1)), whole, "byte by byte");
    for at in 0..=request.len() {
        let (head, tail) = request.split_at(at);
        assert_eq!(run([head, tail]), whole, "split at {at}");
    }
    if let Outcome::Requested { resource, read_buf } = &whole {
        assert!(read_buf.is_empty());
        let frame = b"\x81\x80\x01\x02\x03\x04";
        let combined = [request, frame].concat();
        let expect = Outcome::Requested {
            resource: resource.clone(),
            read_buf: frame.to_vec(),
        };
        for at in request.len().saturating_sub(2)..=combined.len() {
            let (head, tail) = combined.split_at(at);
            assert_eq!(run([head, tail]), expect, "followed by a frame, split at {at}");
        }
    }
    whole
}

#[track_caller]
fn accepts(request: &[u8]) {
    let outcome = run_all(request);
    let is_requested = matches!(outcome, Outcome::Requested { .. });
    assert!(is_requested, "{}: {outcome:?}", request.escape_ascii());
}

#[track_caller]
fn check(request: &[u8], expect: &HandshakeError) {
    match run_all(request) {
        Outcome::Invalid(error, _) => assert_eq!(&error, expect, "{}", request.escape_ascii()),
        outcome => panic!("{}: {outcome:?}", request.escape_ascii()),
    }
}

#[track_caller]
fn response_text(request: &[u8]) -> String {
    match run_all(request) {
        Outcome::Invalid(_, bytes) => String::from_utf8(bytes).expect("ASCII"),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn server_waits_for_a_complete_head() {
    let request = plus(&[]);
    for len in 0..request.len() {
        assert_eq!(run([&request[..len]]), Outcome::Incomplete, "{len}");
    }
}

#[test]
fn server_receives_versions_of_http() {
    // checks [6455-4.2.1-2]
    accepts(&with("GET", &["GET / HTTP/1.1"]));
    accepts(&with("GET", &["GET / HTTP/1.2"]));
    for old in ["HTTP/1.0", "HTTP/0.9"] {
        let request = with("GET", &[&format!("GET / {old}")]);
        check(&request, &HandshakeError::HttpVersionTooOld);
    }
    for new in ["HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
        let request = with("GET", &[&format!("GET / {new}")]);
        check(&request, &HandshakeError::HttpVersionUnknown);
    }
    // The HTTP/2 connection preface.
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &HandshakeError::HttpVersionUnknown);
}

#[test]
fn server_receives_invalid_request_lines_and_answers_400() {
    // checks [6455-4.2.1-1, 6455-10.7-3]
    for line in [
        "GET /",
        "GET",
        "GET / http/1.1",
        "GET / HTTP/11",
        "GET / HTTP/1.10",
        "GET / HTTP/1.",
        "GET / HTTP/1,1",
        "GET / HTTPS/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET  HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "G(T / HTTP/1.1",
        " / HTTP/1.1",
    ] {
        check(&with("GET", &[line]), &HandshakeError::InvalidRequestLine);
    }
    assert_eq!(HandshakeError::InvalidRequestLine.status().as_u16(), 400);
}

#[test]
fn server_ignores_one_empty_line_before_the_request() {
    let request = plus(&[]);
    accepts(&[b"\r\n", request.as_slice()].concat());
    let two = [b"\r\n\r\n", request.as_slice()].concat();
    check(&two, &HandshakeError::InvalidRequestLine);
}

#[test]
fn server_receives_another_method_and_answers_405_with_allow() {
    // checks [6455-4.2.1-2]
    for method in ["POST", "HEAD", "CONNECT", "get", "Get", "GETX", "OPTIONS"] {
        let request = with("GET", &[&format!("{method} / HTTP/1.1")]);
        check(&request, &HandshakeError::MethodNotGet);
    }
    let text = response_text(&with("GET", &["POST / HTTP/1.1"]));
    assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(text.contains("\r\nAllow: GET\r\n"));
    assert!(text.contains("\r\nConnection: close\r\n"));
}

#[test]
fn server_answers_head_without_a_body() {
    let text = response_text(&with("GET", &["HEAD / HTTP/1.1"]));
    assert!(text.starts_with("HTTP/1.1 405 "));
    assert!(text.ends_with("\r\n\r\n"));
}

#[test]
fn server_receives_targets() {
    // checks [6455-4.2.1-3]
    let rows = [
        ("/", "/", "server.example.com"),
        ("/a/b?c=d&e", "/a/b?c=d&e", "server.example.com"),
        ("//two", "//two", "server.example.com"),
        ("/?x", "/?x", "server.example.com"),
        ("/[{|}]\"<>^`\\", "/[{|}]\"<>^`\\", "server.example.com"),
        ("ws://Other:81/p?q", "/p?q", "other:81"),
        ("wss://other", "/", "other"),
        ("http://other?q", "/?q", "other"),
        ("HTTPS://[::1]:8443/", "/", "[::1]:8443"),
    ];
    for (target, resource, authority) in rows {
        let request = with("GET", &[&format!("GET {target} HTTP/1.1")]);
        accepts(&request);
        let incoming = incoming(&request);
        assert_eq!(incoming.request().target(), target);
        assert_eq!(incoming.request().resource(), resource);
        assert_eq!(incoming.request().authority().to_string(), authority);
    }
    for target in [
        "*",
        "server.example.com:80",
        "chat",
        "?q",
        "/a#b",
        "ws://h/p#f",
        "ftp://h/",
        "ws:///p",
        "ws://u:p@h/",
        "ws://a\\@b/",
        "ws://h:0/",
        "ws://h:65536/",
        "://h/",
    ] {
        let request = with("GET", &[&format!("GET {target} HTTP/1.1")]);
        check(&request, &HandshakeError::InvalidTarget);
    }
}

#[test]
fn server_separates_path_and_query() {
    let incoming = incoming(&with("GET", &["GET /a%20b?c=d?e HTTP/1.1"]));
    assert_eq!(incoming.request().path(), "/a%20b");
    assert_eq!(incoming.request().query(), Some("c=d?e"));
}

#[test]
fn server_receives_hosts() {
    // checks [6455-4.2.1-4, 6455-8.1-1]
    for host in [
        "h",
        "H:80",
        "127.0.0.1:9001",
        "[::1]",
        "[2001:db8::1]:443",
        "a_b.c-d.",
        "h:",
    ] {
        accepts(&with("Host", &[&format!("Host: {host}")]));
    }
    check(&with("Host", &[]), &HandshakeError::HostMissing);
    check(&with("Host", &["Host: a", "Host: a"]), &HandshakeError::HostRepeated);
    // An absolute target does not replace a missing Host header.
    let absolute = b"GET ws://other/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    check(absolute, &HandshakeError::HostMissing);
    for host in [
        "", "a b", "a,b", "u@h", "h:x", "h:0", "h:99999", "::1", "[::1", "/", "a/b", "h\u{e9}",
    ] {
        let request = with("Host", &[&format!("Host: {host}")]);
        check(&request, &HandshakeError::HostInvalid);
    }
}

#[test]
fn server_receives_a_body_and_answers_400() {
    accepts(&plus(&["Content-Length: 0"]));
    for lines in [
        &["Content-Length: 5"][..],
        &["Content-Length: +0"],
        &["Content-Length: 00"],
        &["Content-Length: 0,0"],
        &["Content-Length: 5, 5"],
        &["Content-Length: "],
        &["Content-Length: -1"],
        &["Content-Length: 0x0"],
        &["Content-Length: 0", "Content-Length: 0"],
        &["content-length: 0", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked"],
        &["Transfer-Encoding: identity"],
        &["transfer-encoding:"],
    ] {
        check(&plus(lines), &HandshakeError::RequestHasBody);
    }
    assert_eq!(HandshakeError::RequestHasBody.status().as_u16(), 400);
}

#[test]
fn server_receives_connection_and_upgrade_as_lists_over_lines() {
    // checks [6455-4.1-37, 6455-4.2.1-5, 6455-4.2.1-6]
    for lines in [
        &["Connection: keep-alive, Upgrade"][..],
        &["Connection: keep-alive", "Connection: upgrade"],
        &["Connection: UPGRADE"],
        &["connection:\tupgrade\t"],
        &["Connection: ,, Upgrade ,"],
        &["CONNECTION:Upgrade"],
        &["Connection:", "Connection: Upgrade"],
    ] {
        accepts(&with("Connection", lines));
    }
    for lines in [
        &[][..],
        &["Connection: close"],
        &["Connection: Upgrade2"],
        &["Connection: \"Upgrade\""],
        &["Connection: Up grade"],
        &["Connection: Upgrade;q=1"],
        &["Connection:"],
    ] {
        check(&with("Connection", lines), &HandshakeError::ConnectionMissing);
    }
    for lines in [
        &["Upgrade: WebSocket"][..],
        &["Upgrade: websocket, h2c"],
        &["Upgrade: h2c,websocket"],
        &["Upgrade: h2c", "upgrade: WEBSOCKET"],
    ] {
        accepts(&with("Upgrade", lines));
    }
    for lines in [
        &[][..],
        &["Upgrade: h2c"],
        &["Upgrade: websocket/13"],
        &["Upgrade: websockets"],
        &["Upgrade: \"websocket\""],
        &["Upgrade:"],
    ] {
        check(&with("Upgrade", lines), &HandshakeError::UpgradeMissing);
    }
}

#[test]
fn server_receives_a_plain_request_and_answers_426() {
    let text = response_text(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 426 Upgrade Required");
    let content_length = format!("Content-Length: {}", body.len());
    for line in [
        "Upgrade: websocket",
        "Connection: close, Upgrade",
        "Sec-WebSocket-Version: 13",
        "Content-Type: text/plain; charset=utf-8",
        &content_length,
    ] {
        assert!(lines.contains(&line), "{line}: {text}");
    }
    assert_eq!(lines.len(), 5);
}

#[test]
fn server_receives_other_versions_and_answers_426() {
    // checks [6455-4.2.1-8, 6455-4.2.2-5, 6455-4.3-2, 6455-4.4-1, 6455-11.3.5-1]
    for lines in [
        &[][..],
        &["Sec-WebSocket-Version: 12"],
        &["Sec-WebSocket-Version: 7"],
        &["Sec-WebSocket-Version: 0"],
        &["Sec-WebSocket-Version: 013"],
        &["Sec-WebSocket-Version: 13, 8"],
        &["Sec-WebSocket-Version: +13"],
        &["Sec-WebSocket-Version: 256"],
        &["Sec-WebSocket-Version: 269"],
        &["Sec-WebSocket-Version:"],
        &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"],
        &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"],
    ] {
        let request = with("Sec-WebSocket-Version", lines);
        check(&request, &HandshakeError::VersionUnsupported);
        let text = response_text(&request);
        assert!(text.starts_with("HTTP/1.1 426 "), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
    }
}

#[test]
fn server_receives_keys() {
    // checks [6455-4.2.1-7, 6455-11.3.1-1]
    // Other bytes, the four possible last digits, and surrounding spaces.
    for key in [
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAAQ==",
        "AAAAAAAAAAAAAAAAAAAAAg==",
        "/////////////////////w==",
        " \tdGhlIHNhbXBsZSBub25jZQ== \t",
    ] {
        accepts(&with("Sec-WebSocket-Key", &[&format!("Sec-WebSocket-Key:{key}")]));
    }
    for key in [
        "",
        "=",
        "==",
        "AAAAAAAAAAAAAAAAAAAAAA",    // no padding
        "AAAAAAAAAAAAAAAAAAAAAA=",   // incomplete padding
        "AAAAAAAAAAAAAAAAAAAAAA===", // too much padding
        "AAAAAAAAAAAAAAAAAAAA",      // 15 bytes
        "AAAAAAAAAAAAAAAAAAAAAAA=",  // 17 bytes
        "AAAAAAAAAAAAAAAAAAAAAAAA",  // 18 bytes
        "AAAAAAAAAAAAAAAAAAAAAB==",  // non-zero unused bits
        "AAAAAAAAAAAAAAAAAAAAAR==",
        "AAAAAAAAAAAAAAAAAAAAAx==",
        "_____________________w==", // URL-safe alphabet
        "-----------------A----w==",
        "AAAAAAAAAA AAAAAAAAAAA==",
        "AAAAAAAAAAA,AAAAAAAAAA==",
        "\"AAAAAAAAAAAAAAAAAAAAAA==\"",
        "AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==",
        "x3JJHMbDL1EzLkh9GBhXDw==;",
        "4 @1  46546xW%0l 1 5", // a key of early drafts
    ] {
        let request = with("Sec-WebSocket-Key", &[&format!("Sec-WebSocket-Key: {key}")]);
        check(&request, &HandshakeError::KeyInvalid);
    }
    check(&with("Sec-WebSocket-Key", &[]), &HandshakeError::KeyMissing);
    let key = LINES[4];
    let twice = with("Sec-WebSocket-Key", &[key, key]);
    check(&twice, &HandshakeError::KeyRepeated);
}

#[test]
fn server_receives_offers_of_subprotocols() {
    // checks [6455-4.2.1-10, 6455-11.3.4-2]
    let many = (0..1000).map(|n| format!("p{n}")).collect::<Vec<_>>();
    let many = format!("Sec-WebSocket-Protocol: {}", many.join(","));
    for (lines, count) in [
        (&[][..], 0),
        (&["Sec-WebSocket-Protocol: chat"], 1),
        (&["Sec-WebSocket-Protocol: chat,,superchat,"], 2),
        (&["Sec-WebSocket-Protocol: a, b", "sec-websocket-protocol: c"], 3),
        (&["Sec-WebSocket-Protocol: chat, Chat"], 2),
        (&[many.as_str()], 1000),
    ] {
        let incoming = incoming(&plus(lines));
        assert_eq!(incoming.request().subprotocols().count(), count);
    }
    for lines in [
        &["Sec-WebSocket-Protocol: chat, chat"][..],
        &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"],
        &["Sec-WebSocket-Protocol: a b"],
        &["Sec-WebSocket-Protocol: a/b"],
        &["Sec-WebSocket-Protocol: \"a\""],
        &["Sec-WebSocket-Protocol: a;q=1"],
        &["Sec-WebSocket-Protocol: caf\u{e9}"],
    ] {
        check(&plus(lines), &HandshakeError::SubprotocolsInvalid);
    }
}

#[test]
fn server_receives_offers_of_extensions() {
    // checks [6455-4.2.1-11, 6455-4.3-1, 6455-9.1-1]
    let flood = format!("Sec-WebSocket-Extensions: a{}", ";b".repeat(7000));
    for line in [
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Extensions: a;b=c;d=\"e\" , f ; g , , h",
        "Sec-WebSocket-Extensions: a; b = c",
        "Sec-WebSocket-Extensions: a;b=\"\\c\\d\"",
        "Sec-WebSocket-Extensions: a;b;b;b",
        "Sec-WebSocket-Extensions: x-webkit-deflate-frame, ,unknown",
    ] {
        accepts(&plus(&[line]));
    }
    incoming(&plus(&[&flood]));
    for value in [
        ";",
        "a;",
        "a;;b",
        ";a",
        "a;=",
        "a;=b",
        "a;b=",
        "a;b=\"",
        "a;b=\"\"",
        "a;b=\"c",
        "a;b=\"c d\"",
        "a;b=\"c,d\"",
        "a;b=\"\\\"\"",
        "a;b=\"c\\",
        "a;b=c d",
        "a b",
        "a=b",
        "a;b\"c\"",
        "\"a\"",
        "a/b",
        "a, b=",
        "a;b==c",
        "caf\u{e9}",
        "a;b=\"c\"d",
    ] {
        let request = plus(&[&format!("Sec-WebSocket-Extensions: {value}")]);
        check(&request, &HandshakeError::ExtensionsInvalid);
    }
    let quotes = format!("a;b=\"{}", "\\c".repeat(7000));
    let request = plus(&[&format!("Sec-WebSocket-Extensions: {quotes}")]);
    assert!(matches!(
        run([request.as_slice()]),
        Outcome::Invalid(HandshakeError::ExtensionsInvalid, _)
    ));
}

/// centrifuge-python up to 0.6 and React Native send an empty header if they offer nothing.
#[test]
fn server_treats_empty_negotiation_headers_as_absent() {
    for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
        for value in ["", " ", ",", " , ,"] {
            let line = format!("{name}:{value}");
            for lines in [&[line.as_str()][..], &[line.as_str(), line.as_str()]] {
                let incoming = incoming(&plus(lines));
                assert_eq!(incoming.request().subprotocols().count(), 0, "{line}");
                assert_eq!(incoming.request().extensions().count(), 0, "{line}");
                let accepted = incoming.accept(Acceptance::new()).expect("nothing is chosen");
                assert!(!accepted.response.headers().contains(name), "{line}");
            }
        }
    }
    let both = plus(&["Sec-WebSocket-Protocol:", "Sec-WebSocket-Protocol: chat"]);
    assert!(incoming(&both).request().subprotocols().eq(["chat"]));
}

#[test]
fn server_receives_two_origins_and_answers_400() {
    let twice = plus(&["Origin: http://a", "Origin: http://server.example.com"]);
    check(&twice, &HandshakeError::OriginRepeated);
    assert_eq!(HandshakeError::OriginRepeated.status().as_u16(), 400);
}

#[test]
fn server_receives_line_folding_and_space_before_the_colon_and_answers_400() {
    for lines in [
        &["X: a", " b"][..],
        &["X: a", "\tb"],
        &["X : a"],
        &["X\t: a"],
        &[": a"],
        &["X"],
        &["X y: a"],
        &["caf\u{e9}: a"],
    ] {
        check(&plus(lines), &HandshakeError::InvalidHeaderLine);
    }
    let first = with("Host", &[" Host: h"]);
    check(&first, &HandshakeError::InvalidHeaderLine);
}

#[test]
fn server_rejects_invalid_bytes_immediately() {
    let rows: [(&[u8], HandshakeError); 9] = [
        (b"\x16", HandshakeError::ControlByte(0x16)), // a TLS hello
        (b"GET /\x00", HandshakeError::ControlByte(0)),
        (b"GET / HTTP/1.1\n", HandshakeError::BareLineFeed),
        (b"GET / HTTP/1.1\rH", HandshakeError::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\r", HandshakeError::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nHost: h\n", HandshakeError::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: \x7f", HandshakeError::ControlByte(0x7f)),
        (b"\n", HandshakeError::BareLineFeed),
        (b"\r\n\r\n", HandshakeError::InvalidRequestLine),
    ];
    for (input, error) in rows {
        check(input, &error);
        assert_eq!(run([&input[..input.len() - 1]]), Outcome::Incomplete);
    }
}

#[test]
fn server_receives_each_byte_in_name_value_and_target() {
    // checks [6455-4.2.1-12, 6455-10.7-1]
    for byte in 0..=255_u8 {
        let put = |before: &[u8], after: &[u8]| {
            let mut request = Vec::new();
            for line in LINES {
                push_line(&mut request, line);
            }
            request.splice(0..LINES[0].len() + 2, [before, &[byte], after].concat());
            request.extend_from_slice(b"\r\n");
            matches!(run_all(&request), Outcome::Requested { .. })
        };
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let in_name = put(b"GET / HTTP/1.1\r\nX", b"Y: v\r\n");
        assert_eq!(in_name, is_token || byte == b':', "name {byte:#x}");
        let in_value = put(b"GET / HTTP/1.1\r\nX: a", b"c\r\n");
        let is_value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        assert_eq!(in_value, is_value, "value {byte:#x}");
        let in_target = put(b"GET /a", b"c HTTP/1.1\r\n");
        let is_target = byte.is_ascii_graphic() && byte != b'#';
        assert_eq!(in_target, is_target, "target {byte:#x}");
    }
}

#[test]
fn server_receives_more_than_the_limits() {
    let limits = HandshakeLimits::default();
    let size_max = limits.head_size_max;
    // Heads of n - 1, n and n + 1 bytes.
    for (len, fits) in [(size_max - 1, true), (size_max, true), (size_max + 1, false)] {
        let padding = len - plus(&["X: "]).len();
        let request = plus(&[&format!("X: {}", "a".repeat(padding))]);
        assert_eq!(request.len(), len);
        match run([request.as_slice()]) {
            Outcome::Requested { .. } => assert!(fits, "{len}"),
            Outcome::Invalid(error, _) => {
                assert_eq!((error, fits), (HandshakeError::HeadTooLarge { size_max }, false));
            }
            Outcome::Incomplete => panic!("{len}"),
        }
        assert_eq!(run(request.chunks(1)), run([request.as_slice()]));
    }
    let count_max = limits.header_count_max;
    for (count, fits) in [(count_max - 1, true), (count_max, true), (count_max + 1, false)] {
        let lines = vec!["X: y"; count - (LINES.len() - 1)];
        match run_all(&plus(&lines)) {
            Outcome::Requested { .. } => assert!(fits, "{count}"),
            Outcome::Invalid(error, _) => {
                let expect = HandshakeError::TooManyHeaders { count_max };
                assert_eq!((error, fits), (expect, false));
            }
            Outcome::Incomplete => panic!("{count}"),
        }
    }
    assert_eq!(HandshakeError::HeadTooLarge { size_max }.status().as_u16(), 431);
    assert_eq!(HandshakeError::TooManyHeaders { count_max }.status().as_u16(), 431);
    // An endless first line.
    let line = vec![b'a'; size_max + 1];
    match run([line.as_slice()]) {
        Outcome::Invalid(error, _) => {
            assert_eq!(error, HandshakeError::StartLineTooLong { size_max });
            assert_eq!(error.status().as_u16(), 414);
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn server_buffers_only_received_bytes() {
    let request = plus(&[]);
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    let ServerProgress::Incomplete(handshake) = handshake.handle_bytes(&request[..10]) else {
        panic!("the head is incomplete");
    };
    assert_eq!(handshake.buffered_len(), 10);
}

#[test]
fn server_handles_timeout() {
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    assert!(handshake.handle_timeout().is_none());
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    let ServerProgress::Incomplete(handshake) = handshake.handle_bytes(b"GET") else {
        panic!("the head is incomplete");
    };
    let invalid = handshake.handle_timeout().expect("bytes were received");
    assert_eq!(invalid.error, HandshakeError::TimedOut);
    assert_eq!(invalid.response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[test]
fn server_ignores_a_second_request_after_an_invalid_one() {
    let bad = with("Connection", &[]);
    let combined = [bad.as_slice(), b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let alone = response_text(&bad);
    assert_eq!(response_text(&combined), alone);
    assert_eq!(alone.matches("HTTP/1.1").count(), 1);
}

/// Valid requests, some with one byte changed, removed or duplicated.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let lines = [
        "Sec-WebSocket-Protocol: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; x=\"y\"",
        "Origin: http://server.example.com",
    ];
    let request = plus(&lines);
    let edit = (0..request.len(), any::<u8>(), 0..4);
    edit.prop_map(move |(at, byte, kind)| {
        let mut request = request.clone();
        match kind {
            0 => request[at] = byte,
            1 => drop(request.remove(at)),
            2 => request.insert(at, byte),
            _ => request.extend_from_slice(&[byte, byte]),
        }
        request
    })
}

proptest! {
    #[test]
    fn server_result_is_independent_of_the_split(
        request in mutated(),
        piece_lens in proptest::collection::vec(1..40_usize, 1..60),
    ) {
        let mut pieces = Vec::new();
        let mut rest = request.as_slice();
        for len in piece_lens {
            let (piece, after) = rest.split_at(len.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(run(pieces), run([request.as_slice()]));
    }

    #[test]
    fn server_does_not_panic_on_arbitrary_bytes(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        // checks [6455-10.1-1, 6455-10.7-1]
        run([input.as_slice()]);
        let after_line = [b"GET / HTTP/1.1\r\n", input.as_slice(), b"\r\n\r\n"].concat();
        run([after_line.as_slice()]);
    }

    #[test]
    fn server_does_not_panic_on_arbitrary_lists(value in "[ -~]{0,60}") {
        for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Origin", "Host"] {
            let request = plus(&[&format!("{name}: {value}")]);
            run([request.as_slice()]);
        }
    }
}
