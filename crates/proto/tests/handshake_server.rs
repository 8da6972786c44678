//! What a server does with requests: rows of input and outcome, each in every split.

use proptest::prelude::*;
use sockeye_proto::handshake::{
    Acceptance, Authority, ConnectParts, HandshakeFault, HandshakeLimits, HandshakeMisuse, Headers, HostPolicy,
    HttpBinding, OriginPolicy, Pending, Rejection, ServerHandshake, ServerStep, StatusCode, Subprotocol, UpgradeParts,
};

const LINES: [&str; 6] = [
    "GET /chat?room=1 HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
    "Sec-WebSocket-Version: 13",
];

/// The valid request, with the line that begins like this replaced by these lines.
fn with(start: &str, lines: &[&str]) -> Vec<u8> {
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

/// The valid request with these lines added.
fn plus(lines: &[&str]) -> Vec<u8> {
    let version = LINES[5];
    let lines: Vec<_> = [version].iter().chain(lines).copied().collect();
    with(version, &lines)
}

fn push_line(request: &mut Vec<u8>, line: &str) {
    request.extend_from_slice(line.as_bytes());
    request.extend_from_slice(b"\r\n");
}

/// What can be compared of a step.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Incomplete,
    Requested { resource: String, leftover: Vec<u8> },
    Refused(HandshakeFault, Vec<u8>),
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        match handshake.handle_bytes(piece) {
            ServerStep::Incomplete(next) => handshake = next,
            ServerStep::Requested(pending) => {
                let resource = pending.request().resource().to_owned();
                let accepted = pending.accept(Acceptance::new()).expect("plain");
                let mut leftover = accepted.leftover;
                pieces.for_each(|piece| leftover.extend_from_slice(piece));
                return Outcome::Requested { resource, leftover };
            }
            ServerStep::Refused(refusal) => {
                assert_eq!(refusal.response.status(), refusal.fault.status());
                return Outcome::Refused(refusal.fault, refusal.response.to_bytes());
            }
        }
    }
    Outcome::Incomplete
}

/// Runs the input whole, byte by byte, in all pairs of pieces, and with a frame glued behind.
#[track_caller]
fn run_all(request: &[u8]) -> Outcome {
    let whole = run([request]);
    assert_eq!(run(request.chunks(1)), whole, "byte by byte");
    for at in 0..=request.len() {
        let (head, tail) = request.split_at(at);
        assert_eq!(run([head, tail]), whole, "split at {at}");
    }
    if let Outcome::Requested { resource, leftover } = &whole {
        assert!(leftover.is_empty());
        let frame = b"\x81\x80\x01\x02\x03\x04";
        let glued = [request, frame].concat();
        let expect = Outcome::Requested {
            resource: resource.clone(),
            leftover: frame.to_vec(),
        };
        for at in request.len().saturating_sub(2)..=glued.len() {
            let (head, tail) = glued.split_at(at);
            assert_eq!(run([head, tail]), expect, "glued, split at {at}");
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
fn check(request: &[u8], expect: &HandshakeFault) {
    match run_all(request) {
        Outcome::Refused(fault, _) => assert_eq!(&fault, expect, "{}", request.escape_ascii()),
        outcome => panic!("{}: {outcome:?}", request.escape_ascii()),
    }
}

#[track_caller]
fn pending(request: &[u8]) -> Pending {
    match ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request) {
        ServerStep::Requested(pending) => pending,
        other => panic!("{}: {other:?}", request.escape_ascii()),
    }
}

#[track_caller]
fn refusal_text(request: &[u8]) -> String {
    match run_all(request) {
        Outcome::Refused(_, bytes) => String::from_utf8(bytes).expect("ASCII"),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn server_receives_the_example_and_answers_its_accept_and_chat() {
    let request = plus(&["Sec-WebSocket-Protocol: chat, superchat", "Origin: http://example.com"]);
    let pending = pending(&request);
    let offered: Vec<_> = pending.request().subprotocols().collect();
    assert_eq!(offered, ["chat", "superchat"]);
    let chosen = pending.request().choose_subprotocol(["chat", "superchat"]);
    let accepted = pending.accept(Acceptance::new().subprotocol(chosen));
    let accepted = accepted.expect("offered");
    assert_eq!(accepted.subprotocol.expect("chosen"), "chat");
    assert_eq!(
        accepted.response.to_bytes(),
        b"HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
        Sec-WebSocket-Protocol: chat\r\n\r\n"
    );
}

#[test]
fn server_receives_less_than_a_head_and_waits() {
    let request = plus(&[]);
    for len in 0..request.len() {
        assert_eq!(run([&request[..len]]), Outcome::Incomplete, "{len}");
    }
}

#[test]
fn server_receives_versions_of_http() {
    accepts(&with("GET", &["GET / HTTP/1.1"]));
    accepts(&with("GET", &["GET / HTTP/1.2"]));
    for old in ["HTTP/1.0", "HTTP/0.9"] {
        let request = with("GET", &[&format!("GET / {old}")]);
        check(&request, &HandshakeFault::HttpVersionTooOld);
    }
    for new in ["HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
        let request = with("GET", &[&format!("GET / {new}")]);
        check(&request, &HandshakeFault::HttpVersionUnknown);
    }
    // The preface of HTTP/2.
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &HandshakeFault::HttpVersionUnknown);
}

#[test]
fn server_receives_broken_request_lines_and_answers_400() {
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
        "GET\t/\tHTTP/1.1",
        "G(T / HTTP/1.1",
        " / HTTP/1.1",
    ] {
        check(&with("GET", &[line]), &HandshakeFault::InvalidRequestLine);
    }
    assert_eq!(HandshakeFault::InvalidRequestLine.status().as_u16(), 400);
}

#[test]
fn server_ignores_one_empty_line_before_the_request() {
    let request = plus(&[]);
    accepts(&[b"\r\n", request.as_slice()].concat());
    let two = [b"\r\n\r\n", request.as_slice()].concat();
    check(&two, &HandshakeFault::InvalidRequestLine);
}

#[test]
fn server_receives_another_method_and_answers_405_with_allow() {
    for method in ["POST", "HEAD", "CONNECT", "get", "Get", "GETX", "OPTIONS"] {
        let request = with("GET", &[&format!("{method} / HTTP/1.1")]);
        check(&request, &HandshakeFault::MethodNotGet);
    }
    let text = refusal_text(&with("GET", &["POST / HTTP/1.1"]));
    assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(text.contains("\r\nAllow: GET\r\n"));
    assert!(text.contains("\r\nConnection: close\r\n"));
}

#[test]
fn server_answers_head_without_a_body() {
    let text = refusal_text(&with("GET", &["HEAD / HTTP/1.1"]));
    assert!(text.starts_with("HTTP/1.1 405 "));
    assert!(text.ends_with("\r\n\r\n"));
}

#[test]
fn server_receives_targets() {
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
        let pending = pending(&request);
        assert_eq!(pending.request().target(), target);
        assert_eq!(pending.request().resource(), resource);
        assert_eq!(pending.request().authority().to_string(), authority);
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
        check(&request, &HandshakeFault::InvalidTarget);
    }
}

#[test]
fn server_gives_path_and_query_apart() {
    let pending = pending(&with("GET", &["GET /a%20b?c=d?e HTTP/1.1"]));
    assert_eq!(pending.request().path(), "/a%20b");
    assert_eq!(pending.request().query(), Some("c=d?e"));
}

#[test]
fn server_receives_hosts() {
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
    check(&with("Host", &[]), &HandshakeFault::HostMissing);
    check(&with("Host", &["Host: a", "Host: a"]), &HandshakeFault::HostRepeated);
    // An absolute target does not make up for a missing Host.
    let absolute = b"GET ws://other/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    check(absolute, &HandshakeFault::HostMissing);
    for host in [
        "", "a b", "a,b", "u@h", "h:x", "h:0", "h:99999", "::1", "[::1", "/", "a/b", "h\u{e9}",
    ] {
        let request = with("Host", &[&format!("Host: {host}")]);
        check(&request, &HandshakeFault::HostInvalid);
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
        check(&plus(lines), &HandshakeFault::RequestHasBody);
    }
    assert_eq!(HandshakeFault::RequestHasBody.status().as_u16(), 400);
}

#[test]
fn server_receives_connection_and_upgrade_as_lists_over_lines() {
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
        check(&with("Connection", lines), &HandshakeFault::ConnectionMissing);
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
        check(&with("Upgrade", lines), &HandshakeFault::UpgradeMissing);
    }
}

#[test]
fn server_receives_a_plain_request_and_answers_426() {
    let text = refusal_text(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
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
        check(&request, &HandshakeFault::VersionUnsupported);
        let text = refusal_text(&request);
        assert!(text.starts_with("HTTP/1.1 426 "), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
    }
}

#[test]
fn server_receives_keys() {
    // Other bytes, the four last digits there can be, and spaces around.
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
        "AAAAAAAAAAAAAAAAAAAAAA=",   // half of it
        "AAAAAAAAAAAAAAAAAAAAAA===", // too much
        "AAAAAAAAAAAAAAAAAAAA",      // 15 bytes
        "AAAAAAAAAAAAAAAAAAAAAAA=",  // 17 bytes
        "AAAAAAAAAAAAAAAAAAAAAAAA",  // 18 bytes
        "AAAAAAAAAAAAAAAAAAAAAB==",  // bits that no byte has
        "AAAAAAAAAAAAAAAAAAAAAR==",
        "AAAAAAAAAAAAAAAAAAAAAx==",
        "_____________________w==", // the alphabet of URLs
        "-----------------A----w==",
        "AAAAAAAAAA AAAAAAAAAAA==",
        "AAAAAAAAAAA,AAAAAAAAAA==",
        "\"AAAAAAAAAAAAAAAAAAAAAA==\"",
        "AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==",
        "x3JJHMbDL1EzLkh9GBhXDw==;",
        "4 @1  46546xW%0l 1 5", // a key of the drafts
    ] {
        let request = with("Sec-WebSocket-Key", &[&format!("Sec-WebSocket-Key: {key}")]);
        check(&request, &HandshakeFault::KeyInvalid);
    }
    check(&with("Sec-WebSocket-Key", &[]), &HandshakeFault::KeyMissing);
    let key = LINES[4];
    let twice = with("Sec-WebSocket-Key", &[key, key]);
    check(&twice, &HandshakeFault::KeyRepeated);
}

#[test]
fn server_receives_offers_of_subprotocols() {
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
        let pending = pending(&plus(lines));
        assert_eq!(pending.request().subprotocols().count(), count);
    }
    for lines in [
        &["Sec-WebSocket-Protocol:"][..],
        &["Sec-WebSocket-Protocol: , ,"],
        &["Sec-WebSocket-Protocol: chat, chat"],
        &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"],
        &["Sec-WebSocket-Protocol: a b"],
        &["Sec-WebSocket-Protocol: a/b"],
        &["Sec-WebSocket-Protocol: \"a\""],
        &["Sec-WebSocket-Protocol: a;q=1"],
        &["Sec-WebSocket-Protocol: caf\u{e9}"],
    ] {
        check(&plus(lines), &HandshakeFault::SubprotocolsInvalid);
    }
}

#[test]
fn server_chooses_by_its_own_order_and_only_what_was_offered() {
    let pending = pending(&plus(&["Sec-WebSocket-Protocol: chat, superchat"]));
    let request = pending.request();
    let choose = |supported: &[&str]| request.choose_subprotocol(supported);
    assert_eq!(choose(&["x", "superchat", "chat"]).unwrap(), "superchat");
    assert_eq!(choose(&["CHAT"]), None);
    assert_eq!(choose(&[]), None);

    let other = Subprotocol::new("other").expect("a token");
    let error = pending.accept(Acceptance::new().subprotocol(other));
    let error = error.expect_err("not offered");
    assert_eq!(error.misuse, HandshakeMisuse::SubprotocolNotOffered);
    let text = String::from_utf8(error.response.to_bytes()).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    assert!(text.ends_with("\r\n\r\ninternal server error\n"));
}

#[test]
fn server_receives_offers_of_extensions() {
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
    pending(&plus(&[&flood]));
    for value in [
        "",
        ",",
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
        check(&request, &HandshakeFault::ExtensionsInvalid);
    }
    let quotes = format!("a;b=\"{}", "\\c".repeat(7000));
    let request = plus(&[&format!("Sec-WebSocket-Extensions: {quotes}")]);
    assert!(matches!(
        run([request.as_slice()]),
        Outcome::Refused(HandshakeFault::ExtensionsInvalid, _)
    ));
}

#[test]
fn server_sees_offers_of_extensions_and_accepts_only_those() {
    let request = plus(&[
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; x=\"1\\5\"",
        "Sec-WebSocket-Extensions: other",
    ]);
    let pending = pending(&request);
    let offers: Vec<_> = pending.request().extensions().collect();
    assert_eq!(offers.len(), 2);
    assert_eq!(offers[0].name(), "permessage-deflate");
    let params: Vec<_> = offers[0].params().collect();
    assert_eq!(
        params,
        [
            ("client_max_window_bits", None),
            ("x", Some(std::borrow::Cow::Borrowed("15")))
        ]
    );
    let acceptance = Acceptance::new().extension("permessage-deflate; x=8");
    let accepted = pending.accept(acceptance.expect("well formed"));
    let response = accepted.expect("offered").response;
    let header = response.headers().get("sec-websocket-extensions");
    assert_eq!(header.unwrap().as_bytes(), b"permessage-deflate; x=8");

    let acceptance = Acceptance::new().extension("unasked").expect("a token");
    let error = self::pending(&request).accept(acceptance);
    let misuse = error.expect_err("not offered").misuse;
    assert_eq!(misuse, HandshakeMisuse::ExtensionNotOffered);
    let malformed = Acceptance::new().extension("a, b");
    assert_eq!(malformed.unwrap_err(), HandshakeMisuse::InvalidExtension);
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
        check(&plus(lines), &HandshakeFault::InvalidHeaderLine);
    }
    let first = with("Host", &[" Host: h"]);
    check(&first, &HandshakeFault::InvalidHeaderLine);
}

#[test]
fn server_refuses_wrong_bytes_at_the_byte() {
    let rows: [(&[u8], HandshakeFault); 8] = [
        (b"\x16", HandshakeFault::ControlByte(0x16)), // a TLS hello
        (b"GET /\x00", HandshakeFault::ControlByte(0)),
        (b"GET / HTTP/1.1\n", HandshakeFault::BareLineFeed),
        (b"GET / HTTP/1.1\rH", HandshakeFault::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\r", HandshakeFault::BareCarriageReturn),
        (b"GET / HTTP/1.1\r\nHost: h\n", HandshakeFault::BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: \x7f", HandshakeFault::ControlByte(0x7f)),
        (b"\n", HandshakeFault::BareLineFeed),
    ];
    for (input, fault) in rows {
        check(input, &fault);
        assert_eq!(run([&input[..input.len() - 1]]), Outcome::Incomplete);
    }
}

#[test]
fn server_receives_each_byte_in_name_value_and_target() {
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
    // n - 1, n, n + 1 bytes of head.
    for (len, fits) in [(size_max - 1, true), (size_max, true), (size_max + 1, false)] {
        let padding = len - plus(&["X: "]).len();
        let request = plus(&[&format!("X: {}", "a".repeat(padding))]);
        assert_eq!(request.len(), len);
        match run([request.as_slice()]) {
            Outcome::Requested { .. } => assert!(fits, "{len}"),
            Outcome::Refused(fault, _) => {
                assert_eq!((fault, fits), (HandshakeFault::HeadTooLarge { size_max }, false));
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
            Outcome::Refused(fault, _) => {
                let expect = HandshakeFault::TooManyHeaders { count_max };
                assert_eq!((fault, fits), (expect, false));
            }
            Outcome::Incomplete => panic!("{count}"),
        }
    }
    assert_eq!(HandshakeFault::HeadTooLarge { size_max }.status().as_u16(), 431);
    assert_eq!(HandshakeFault::TooManyHeaders { count_max }.status().as_u16(), 431);
    // An endless first line.
    let line = vec![b'a'; size_max + 1];
    match run([line.as_slice()]) {
        Outcome::Refused(fault, _) => {
            assert_eq!(fault, HandshakeFault::StartLineTooLong { size_max });
            assert_eq!(fault.status().as_u16(), 414);
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn server_holds_no_more_than_arrived() {
    let request = plus(&[]);
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    let ServerStep::Incomplete(handshake) = handshake.handle_bytes(&request[..10]) else {
        panic!("ten bytes are no head");
    };
    assert_eq!(handshake.buffered_len(), 10);
}

#[test]
fn server_runs_out_of_time() {
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    assert!(handshake.handle_timeout().is_none());
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    let ServerStep::Incomplete(handshake) = handshake.handle_bytes(b"GET") else {
        panic!("three bytes are no head");
    };
    let refusal = handshake.handle_timeout().expect("something came");
    assert_eq!(refusal.fault, HandshakeFault::TimedOut);
    assert_eq!(refusal.response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[test]
fn server_receives_a_second_request_glued_to_a_bad_one_and_ignores_it() {
    let bad = with("Connection", &[]);
    let glued = [bad.as_slice(), b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let alone = refusal_text(&bad);
    assert_eq!(refusal_text(&glued), alone);
    assert_eq!(alone.matches("HTTP/1.1").count(), 1);
}

#[test]
fn server_rejects_with_status_headers_and_body() {
    let rejection = Rejection::new(StatusCode::UNAUTHORIZED)
        .and_then(|rejection| rejection.header("WWW-Authenticate", "Bearer"))
        .expect("allowed")
        .body("log in first");
    let response = pending(&plus(&[])).reject(rejection);
    assert_eq!(
        String::from_utf8(response.to_bytes()).expect("ASCII"),
        "HTTP/1.1 401 Unauthorized\r\n\
        WWW-Authenticate: Bearer\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Connection: close\r\n\
        Content-Length: 12\r\n\r\n\
        log in first"
    );
    for (code, is_ok) in [
        (100, false),
        (101, false),
        (200, false),
        (204, false),
        (300, true),
        (304, false),
        (404, true),
        (599, true),
        (600, false),
    ] {
        let status = StatusCode::new(code).expect("three digits");
        assert_eq!(Rejection::new(status).is_ok(), is_ok, "{code}");
    }
    assert_eq!((StatusCode::new(99), StatusCode::new(1000)), (None, None));
}

#[test]
fn server_application_cannot_send_headers_of_the_handshake() {
    for name in [
        "Upgrade",
        "connection",
        "Content-Length",
        "Transfer-Encoding",
        "Trailer",
        "Sec-WebSocket-Accept",
        "SEC-WEBSOCKET-PROTOCOL",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
    ] {
        let misuse = HandshakeMisuse::ReservedHeader;
        let accepted = Acceptance::new().header(name, "x");
        assert_eq!(accepted.unwrap_err(), misuse, "{name}");
        let rejected = Rejection::new(StatusCode::NOT_FOUND).unwrap().header(name, "x");
        assert_eq!(rejected.unwrap_err(), misuse, "{name}");
    }
}

#[test]
fn server_application_cannot_send_a_byte_that_ends_a_line() {
    for byte in 0..=255_u8 {
        let is_value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let accepted = Acceptance::new().header("X-Y", [b'a', byte, b'c']);
        assert_eq!(accepted.is_ok(), is_value, "{byte:#x}");
        let name = format!("X{}Y", char::from(byte));
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(Acceptance::new().header(&name, "v").is_ok(), is_token, "{byte:#x}");
        assert_eq!(Subprotocol::new(&name).is_ok(), is_token, "{byte:#x}");
    }
    assert!(Acceptance::new().header("", "v").is_err());
    assert!(Subprotocol::new("").is_err());
}

#[test]
fn server_judges_origins() {
    let list = OriginPolicy::List(vec![
        "https://example.com".parse().unwrap(),
        "http://localhost:3000".parse().unwrap(),
        "chrome-extension://abcdef".parse().unwrap(),
    ]);
    let same = OriginPolicy::SameHost;
    // Host, origin, passes the list, passes the same host.
    let rows = [
        ("example.com", "https://example.com", true, true),
        ("example.com", "http://example.com", false, true),
        ("example.com", "https://example.com:443", true, true),
        ("example.com", "http://example.com:80", false, true),
        ("example.com", "HTTPS://EXAMPLE.COM", true, true),
        ("EXAMPLE.com", "https://example.com", true, true),
        ("example.com:443", "https://example.com", true, true),
        ("example.com:80", "http://example.com", false, true),
        ("example.com:443", "http://example.com", false, false),
        ("example.com:80", "https://example.com", true, false),
        ("example.com", "https://example.com:8443", false, false),
        ("example.com:8443", "https://example.com:8443", false, true),
        ("example.com:8443", "https://example.com", true, false),
        ("example.com", "https://example.com.", false, false),
        ("example.com.", "https://example.com", true, false),
        ("example.com", "https://example.com.attacker.net", false, false),
        ("example.com", "https://attackerexample.com", false, false),
        ("example.com", "https://example.comx", false, false),
        ("example.com", "https://www.example.com", false, false),
        ("example.com", "https://example.com@attacker.net", false, false),
        ("example.com", "https://attacker.net/example.com", false, false),
        ("example.com", "https://attacker.net#example.com", false, false),
        ("example.com", "https://attacker.net?example.com", false, false),
        ("example.com", "https://example.com/", false, false),
        ("example.com", "https://example.com/path", false, false),
        ("example.com", "https://user@example.com", false, false),
        ("example.com", "https://example.com:", true, true),
        ("example.com", "https://example.com:0443", true, true),
        ("example.com", "https://example.com:0", false, false),
        ("example.com", "https://example.com:+443", false, false),
        ("example.com", "https://example.com:65979", false, false),
        ("example.com", "https://example.com https://example.com", false, false),
        ("example.com", "https://example.com, https://example.com", false, false),
        ("example.com", "https://", false, false),
        ("example.com", "https:example.com", false, false),
        ("example.com", "https:/example.com", false, false),
        ("example.com", "//example.com", false, false),
        ("example.com", "example.com", false, false),
        ("example.com", "://example.com", false, false),
        ("example.com", "*", false, false),
        ("example.com", "null", false, false),
        ("example.com", "NULL", false, false),
        ("null", "null", false, false),
        ("example.com", "", false, false),
        ("example.com", "file://", false, false),
        ("example.com", "ftp://example.com", false, false),
        ("example.com", "ws://example.com", false, false),
        ("example.com", "1https://example.com", false, false),
        ("example.com", "https://ex\u{e4}mple.com", false, false),
        ("example.com", "https://example%2Ecom", false, false),
        ("example.com", "https://example.com\\", false, false),
        ("localhost:3000", "http://localhost:3000", true, true),
        ("localhost:3000", "http://localhost:3001", false, false),
        ("localhost:3000", "http://localhost", false, false),
        ("localhost:3000", "http://127.0.0.1:3000", false, false),
        ("127.0.0.1:8080", "http://127.attacker.example:8080", false, false),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", false, true),
        ("127.0.0.1", "http://127.1", false, false),
        ("127.0.0.1", "http://2130706433", false, false),
        ("[::1]:8080", "http://[::1]:8080", false, true),
        ("[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", false, true),
        ("[::1]:8080", "http://[::2]:8080", false, false),
        ("abcdef", "chrome-extension://abcdef", true, false),
        ("abcdef", "chrome-extension://abcdeg", false, false),
        ("abcdef", "moz-extension://abcdef", false, false),
    ];
    for (host, origin, in_list, in_same) in rows {
        let host = format!("Host: {host}");
        let origin_line = format!("Origin: {origin}");
        let pending = pending(&with("Host", &[&host, &origin_line]));
        let request = pending.request();
        let denied = HandshakeFault::OriginDenied;
        let expect = |passes| if passes { Ok(()) } else { Err(denied.clone()) };
        assert_eq!(list.check(request), expect(in_list), "list {host} {origin}");
        assert_eq!(same.check(request), expect(in_same), "same {host} {origin}");
        assert_eq!(OriginPolicy::Any.check(request), Ok(()), "any {origin}");
    }
}

#[test]
fn server_without_an_origin_header_lets_pass() {
    let pending = pending(&plus(&[]));
    for policy in [OriginPolicy::SameHost, OriginPolicy::List(vec![]), OriginPolicy::Any] {
        assert_eq!(policy.check(pending.request()), Ok(()));
    }
    assert_eq!(OriginPolicy::default(), OriginPolicy::SameHost);
}

#[test]
fn server_refuses_an_origin_with_403() {
    let pending = pending(&plus(&["Origin: https://attacker.net"]));
    let fault = OriginPolicy::SameHost.check(pending.request()).unwrap_err();
    let text = String::from_utf8(pending.refuse(fault).response.to_bytes()).expect("ASCII");
    assert_eq!(
        text,
        "HTTP/1.1 403 Forbidden\r\n\
        Connection: close\r\n\
        Content-Length: 22\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\n\
        origin is not allowed\n"
    );
    let twice = plus(&["Origin: http://a", "Origin: http://server.example.com"]);
    check(&twice, &HandshakeFault::OriginRepeated);
}

#[test]
fn server_judges_hosts() {
    let list = |host: &str| HostPolicy::List(vec![Authority::parse(host).unwrap()]);
    let rows = [
        (HostPolicy::Any, "evil.example", true),
        (HostPolicy::Loopback, "localhost:8080", true),
        (HostPolicy::Loopback, "LOCALHOST", true),
        (HostPolicy::Loopback, "chat.localhost:1", true),
        (HostPolicy::Loopback, "127.0.0.1:8080", true),
        (HostPolicy::Loopback, "127.8.8.8", true),
        (HostPolicy::Loopback, "[::1]:8080", true),
        (HostPolicy::Loopback, "evil.example", false),
        (HostPolicy::Loopback, "localhost.evil.example", false),
        (HostPolicy::Loopback, "127.0.0.1.evil.example", false),
        (HostPolicy::Loopback, "evillocalhost", false),
        (HostPolicy::Loopback, "128.0.0.1", false),
        (HostPolicy::Loopback, "[::2]", false),
        (list("chat.example.com"), "chat.example.com:8080", true),
        (list("chat.example.com"), "example.com", false),
        (list("chat.example.com:80"), "chat.example.com:80", true),
        (list("chat.example.com:80"), "chat.example.com:81", false),
    ];
    for (policy, host, passes) in rows {
        let pending = pending(&with("Host", &[&format!("Host: {host}")]));
        let found = policy.check(pending.request());
        assert_eq!(found.is_ok(), passes, "{policy:?} {host}");
        if let Err(fault) = found {
            assert_eq!(fault.status(), StatusCode::MISDIRECTED_REQUEST);
        }
    }
}

#[test]
fn server_takes_a_request_that_hyper_parsed() {
    let mut headers = Headers::new();
    for line in &LINES[1..] {
        let (name, value) = line.split_once(": ").expect("a header line");
        headers.try_append(name, value).expect("clean");
    }
    let parts = |method| UpgradeParts {
        method,
        target: "/chat",
        headers: headers.clone(),
    };
    let pending = Pending::from_upgrade(parts("GET")).expect("valid");
    let accepted = pending.accept(Acceptance::new()).expect("plain");
    let fields: Vec<_> = accepted.response.headers().iter().collect();
    assert_eq!(accepted.response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(fields.len(), 3);
    assert_eq!(fields[2].1.as_bytes(), b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
    let refusal = Pending::from_upgrade(parts("POST")).expect_err("not GET");
    assert_eq!(refusal.fault, HandshakeFault::MethodNotGet);
}

#[test]
fn server_takes_an_extended_connect() {
    let mut valid = Headers::new();
    valid.try_append("sec-websocket-version", "13").unwrap();
    valid.try_append("sec-websocket-protocol", "chat").unwrap();
    let parts = |protocol, scheme, path, headers: &Headers| ConnectParts {
        protocol,
        scheme,
        authority: "example.com",
        path,
        headers: headers.clone(),
    };
    let pending = Pending::from_extended_connect(parts("websocket", "https", "/x?y", &valid));
    let pending = pending.expect("valid");
    assert_eq!(pending.request().binding(), HttpBinding::ExtendedConnect);
    assert_eq!(pending.request().query(), Some("y"));
    let chosen = pending.request().choose_subprotocol(["chat"]);
    let accepted = pending.accept(Acceptance::new().subprotocol(chosen));
    let response = accepted.expect("offered").response;
    assert_eq!(response.status(), StatusCode::OK);
    let names: Vec<_> = response.headers().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Sec-WebSocket-Protocol"]);

    let mut with_key = valid.clone();
    let key = "x3JJHMbDL1EzLkh9GBhXDw==";
    with_key.try_append("Sec-WebSocket-Key", key).unwrap();
    let none = Headers::new();
    let rows = [
        (
            parts("webtransport", "https", "/", &valid),
            HandshakeFault::ProtocolUnknown,
        ),
        (parts("websocket", "wss", "/", &valid), HandshakeFault::InvalidTarget),
        (parts("websocket", "https", "x", &valid), HandshakeFault::InvalidTarget),
        (
            parts("websocket", "https", "http://h/", &valid),
            HandshakeFault::InvalidTarget,
        ),
        (
            parts("websocket", "https", "/", &with_key),
            HandshakeFault::HopByHopHeader,
        ),
        (
            parts("websocket", "https", "/", &none),
            HandshakeFault::VersionUnsupported,
        ),
    ];
    for (parts, fault) in rows {
        let refusal = Pending::from_extended_connect(parts).expect_err("invalid");
        assert_eq!(refusal.fault, fault);
        let headers = refusal.response.headers();
        assert!(!headers.contains("Connection") && !headers.contains("Upgrade"));
    }
}

#[test]
fn server_shows_no_credentials_in_debug() {
    let request = plus(&["Cookie: sid=secret", "Authorization: Bearer secret"]);
    let debug = format!("{:?}", pending(&request).request().headers());
    assert!(!debug.contains("secret"), "{debug}");
    assert!(debug.contains("server.example.com"), "{debug}");
}

/// A valid request with one byte changed, removed or doubled, or none.
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
    fn server_outcome_does_not_depend_on_the_split(
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
    fn server_survives_any_bytes(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        run([input.as_slice()]);
        let after_line = [b"GET / HTTP/1.1\r\n", input.as_slice(), b"\r\n\r\n"].concat();
        run([after_line.as_slice()]);
    }

    #[test]
    fn server_survives_any_text_in_lists(value in "[ -~]{0,60}") {
        for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Origin", "Host"] {
            let request = plus(&[&format!("{name}: {value}")]);
            run([request.as_slice()]);
        }
    }
}
