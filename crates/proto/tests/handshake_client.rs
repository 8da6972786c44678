//! Client requests and the handling of responses, for every split of the input.

use proptest::prelude::*;
use sockeye_proto::handshake::{
    Acceptance, AwaitingResponse, ClientProgress, ClientRequest, HandshakeBuildError, HandshakeError, HandshakeLimits,
    Headers, Key, ServerHandshake, ServerProgress, Uri, UriError,
};

const LINES: [&str; 4] = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=",
];

fn key() -> Key {
    Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical")
}

/// A request that offers `chat`, `superchat` and one extension.
fn request() -> ClientRequest {
    let uri = Uri::parse("ws://server.example.com/chat").expect("valid");
    let request = ClientRequest::new(&uri, key()).subprotocol("chat");
    let request = request.and_then(|request| request.subprotocol("superchat"));
    let request = request.and_then(|request| request.extension("x-known; p"));
    request.expect("well formed")
}

/// The valid response with the line that starts with `start` replaced by `lines`.
fn with(start: &str, lines: &[&str]) -> Vec<u8> {
    let mut response = Vec::new();
    for line in LINES {
        match line.starts_with(start) {
            true => lines.iter().for_each(|line| push_line(&mut response, line)),
            false => push_line(&mut response, line),
        }
    }
    push_line(&mut response, "");
    response
}

/// The valid response with `lines` added.
fn plus(lines: &[&str]) -> Vec<u8> {
    let accept = LINES[3];
    let lines: Vec<_> = [accept].iter().chain(lines).copied().collect();
    with(accept, &lines)
}

fn push_line(response: &mut Vec<u8>, line: &str) {
    response.extend_from_slice(line.as_bytes());
    response.extend_from_slice(b"\r\n");
}

/// The comparable parts of a result.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Incomplete,
    Connected {
        subprotocol: Option<String>,
        read_buf: Vec<u8>,
    },
    Rejected {
        status: u16,
        body: Vec<u8>,
        is_body_truncated: bool,
    },
    Failed(HandshakeError),
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Silence,
    Eof,
    Timeout,
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, then: Then) -> Outcome {
    let mut awaiting: AwaitingResponse = request().start().1;
    let mut pieces = pieces.into_iter();
    while let Some(piece) = pieces.next() {
        match awaiting.handle_bytes(piece) {
            ClientProgress::Incomplete(next) => awaiting = next,
            ClientProgress::Connected(connected) => {
                let mut read_buf = connected.read_buf;
                pieces.for_each(|piece| read_buf.extend_from_slice(piece));
                let subprotocol = connected.subprotocol.map(|it| it.to_string());
                return Outcome::Connected { subprotocol, read_buf };
            }
            ClientProgress::Rejected(response) => return rejected(&response),
            ClientProgress::Failed(error) => return Outcome::Failed(error),
        }
    }
    let ended = match then {
        Then::Silence => return Outcome::Incomplete,
        Then::Eof => awaiting.handle_eof(),
        Then::Timeout => awaiting.handle_timeout(),
    };
    match ended {
        Ok(response) => rejected(&response),
        Err(error) => Outcome::Failed(error),
    }
}

fn rejected(response: &sockeye_proto::handshake::Response) -> Outcome {
    Outcome::Rejected {
        status: response.status().as_u16(),
        body: response.body().to_vec(),
        is_body_truncated: response.is_body_truncated(),
    }
}

/// Runs the input in one piece, byte by byte and for every split in two.
#[track_caller]
fn run_all(response: &[u8], then: Then) -> Outcome {
    let whole = run([response], then);
    assert_eq!(run(response.chunks(1), then), whole, "byte by byte");
    for at in 0..=response.len() {
        let (head, tail) = response.split_at(at);
        assert_eq!(run([head, tail], then), whole, "split at {at}");
    }
    whole
}

#[track_caller]
fn connects(response: &[u8], subprotocol: Option<&str>) {
    let frame = b"\x81\x02hi";
    for read_buf in [&b""[..], frame] {
        let expect = Outcome::Connected {
            subprotocol: subprotocol.map(str::to_owned),
            read_buf: read_buf.to_vec(),
        };
        let combined = [response, read_buf].concat();
        let text = response.escape_ascii();
        assert_eq!(run_all(&combined, Then::Silence), expect, "{text}");
    }
}

#[track_caller]
fn fails(response: &[u8], error: &HandshakeError) {
    let expect = Outcome::Failed(error.clone());
    let text = response.escape_ascii();
    assert_eq!(run_all(response, Then::Silence), expect, "{text}");
}

#[track_caller]
fn rejects(response: &[u8], then: Then, status: u16, body: &[u8], is_body_truncated: bool) {
    let expect = Outcome::Rejected {
        status,
        body: body.to_vec(),
        is_body_truncated,
    };
    let text = response.escape_ascii();
    assert_eq!(run_all(response, then), expect, "{text}");
}

fn sent(request: ClientRequest) -> String {
    String::from_utf8(request.start().0).expect("UTF-8")
}

#[test]
fn client_sends_the_example() {
    // checks [6455-4.1-15, 6455-4.1-16, 6455-4.1-17, 6455-4.1-18, 6455-4.1-19, 6455-4.1-20, 6455-4.1-21, 6455-4.1-24]
    // checks [6455-4.1-25, 6455-11.3.1-1, 6455-11.3.5-1]
    let uri = Uri::parse("ws://server.example.com/chat").unwrap();
    let request = ClientRequest::new(&uri, key())
        .origin("http://example.com".parse().unwrap())
        .subprotocol("chat")
        .and_then(|request| request.subprotocol("superchat"))
        .and_then(|request| request.header("X-Trace", "1"))
        .unwrap();
    assert_eq!(
        sent(request),
        "GET /chat HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\
        Origin: http://example.com\r\n\
        Sec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        X-Trace: 1\r\n\r\n"
    );
}

#[test]
fn client_and_server_agree() {
    // checks [6455-4.1-1, 6455-4.2.2-12]
    let (to_server, awaiting) = request().start();
    let handshake = ServerHandshake::new(HandshakeLimits::default());
    let ServerProgress::Incoming(incoming) = handshake.handle_bytes(&to_server) else {
        panic!("{}", to_server.escape_ascii());
    };
    let chosen = incoming.request().choose_subprotocol(["superchat"]);
    let acceptance = Acceptance::new().subprotocol(chosen).extension("x-known");
    let accepted = incoming.accept(acceptance.unwrap()).expect("offered");
    match awaiting.handle_bytes(&accepted.response.to_bytes()) {
        ClientProgress::Connected(connected) => {
            assert_eq!(connected.subprotocol.unwrap(), "superchat");
            assert_eq!(connected.response, accepted.response);
        }
        progress => panic!("{progress:?}"),
    }
}

#[test]
fn client_sends_host_and_target_of_the_uri() {
    // checks [6455-3-2, 6455-3-3, 6455-4.1-17, 6455-4.1-18]
    for (uri, target, host) in [
        ("ws://h", "/", "h"),
        ("ws://h/", "/", "h"),
        ("ws://H:80/p", "/p", "h"),
        ("ws://h:443/p?q", "/p?q", "h:443"),
        ("ws://h?q=1", "/?q=1", "h"),
        ("wss://h:443", "/", "h"),
        ("WSS://h:80", "/", "h:80"),
        ("ws://[2001:DB8:0::1]:9001/", "/", "[2001:db8::1]:9001"),
        ("ws://[::1]", "/", "[::1]"),
        ("ws://127.0.0.1:", "/", "127.0.0.1"),
        ("wss://xn--bcher-kva.example/%C3%BC", "/%C3%BC", "xn--bcher-kva.example"),
        ("ws://h/a[1]?b[]=2&c='d'", "/a[1]?b[]=2&c='d'", "h"),
        ("ws://h//a://b?c?d", "//a://b?c?d", "h"),
    ] {
        let parsed = Uri::parse(uri).unwrap();
        let head = sent(ClientRequest::new(&parsed, key()));
        let expect = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
        assert!(head.starts_with(&expect), "{uri}: {head}");
    }
}

#[test]
fn client_uses_host_and_port_of_the_uri() {
    // checks [6455-3-1, 6455-3-2]
    for (uri, is_secure, host, port) in [
        ("ws://h", false, "h", 80),
        ("wss://h", true, "h", 443),
        ("wss://h:80", true, "h", 80),
        ("ws://[::1]:65535/", false, "::1", 65535),
        ("ws://[::FFFF:1.2.3.4]", false, "::ffff:1.2.3.4", 80),
    ] {
        let uri: Uri = uri.parse().unwrap();
        assert_eq!((uri.is_secure(), uri.host(), uri.port()), (is_secure, host, port));
    }
}

#[test]
fn client_does_not_send_the_zone_of_an_address() {
    for (text, zone, host, written) in [
        ("ws://[FE80::1%25eth0]/", "eth0", "[fe80::1]", "ws://[fe80::1%25eth0]/"),
        (
            "wss://[fe80::1%253]:8443/p?q",
            "3",
            "[fe80::1]:8443",
            "wss://[fe80::1%253]:8443/p?q",
        ),
        (
            "ws://[fe80::1%25br-0.1_a~]:80",
            "br-0.1_a~",
            "[fe80::1]",
            "ws://[fe80::1%25br-0.1_a~]/",
        ),
    ] {
        let uri = Uri::parse(text).unwrap();
        assert_eq!((uri.zone(), uri.host()), (Some(zone), "fe80::1"), "{text}");
        assert_eq!(uri.to_string(), written);
        assert_eq!(Uri::parse(written).as_ref(), Ok(&uri));
        let head = sent(ClientRequest::new(&uri, key()));
        assert!(head.contains(&format!("\r\nHost: {host}\r\n")), "{head}");
        assert!(!head.contains("%25"), "{head}");
    }
    let long = |len| Uri::parse(&format!("ws://[fe80::1%25{}]/", "z".repeat(len))).map(drop);
    assert_eq!((long(64), long(65)), (Ok(()), Err(UriError::InvalidZone)));
    assert_eq!(Uri::parse("ws://[fe80::1]/").unwrap().zone(), None);
}

#[test]
fn client_rejects_ambiguous_uris() {
    // checks [6455-3-4, 6455-3-5, 6455-4.1-2, 6455-11.1.1-1, 6455-11.1.1-2, 6455-11.1.2-1, 6455-11.1.2-2]
    let rows = [
        ("", UriError::MissingScheme),
        ("h/p", UriError::MissingScheme),
        ("ws:h", UriError::MissingScheme),
        ("ws:/h", UriError::MissingScheme),
        ("//h/p", UriError::MissingScheme),
        ("http://h/", UriError::UnsupportedScheme),
        ("https://h/", UriError::UnsupportedScheme),
        ("wsx://h/", UriError::UnsupportedScheme),
        ("://h/", UriError::UnsupportedScheme),
        (" ws://h/", UriError::UnsupportedScheme),
        ("ws://h/p#f", UriError::Fragment),
        ("ws://h#", UriError::Fragment),
        ("ws://u:p@h/", UriError::Userinfo),
        ("ws://@h/", UriError::Userinfo),
        ("ws://u@h@i/", UriError::Userinfo),
        ("ws:///p", UriError::MissingHost),
        ("ws://", UriError::MissingHost),
        ("ws://:80/", UriError::MissingHost),
        ("ws://?q", UriError::MissingHost),
        ("ws://a\\@b/", UriError::InvalidCharacter('\\')),
        ("ws://a\\b/", UriError::InvalidCharacter('\\')),
        ("ws://a b/", UriError::InvalidCharacter(' ')),
        ("ws://a\tb/", UriError::InvalidCharacter('\t')),
        ("ws://h\r\nX: y/", UriError::InvalidCharacter('\r')),
        ("ws://h/\r\nX: y", UriError::InvalidCharacter('\r')),
        ("ws://h/ HTTP/1.1", UriError::InvalidCharacter(' ')),
        ("ws://h/\\", UriError::InvalidCharacter('\\')),
        ("ws://h/{x}", UriError::InvalidCharacter('{')),
        ("ws://h/\u{fc}", UriError::InvalidCharacter('\u{fc}')),
        ("ws://h/?\0", UriError::InvalidCharacter('\0')),
        ("ws://h/%", UriError::InvalidPercentEncoding),
        ("ws://h/%4", UriError::InvalidPercentEncoding),
        ("ws://h/%zz", UriError::InvalidPercentEncoding),
        ("ws://h/%%41", UriError::InvalidPercentEncoding),
        ("ws://b\u{fc}cher.example/", UriError::NonAsciiHost),
        ("ws://\u{ff10}x7f/", UriError::NonAsciiHost),
        ("ws://h%41/", UriError::InvalidHost),
        ("ws://a..b/", UriError::InvalidHost),
        ("ws://a,b/", UriError::InvalidHost),
        ("ws://[::1/", UriError::InvalidHost),
        ("ws://::1/", UriError::InvalidHost),
        ("ws://[::1]x/", UriError::InvalidHost),
        ("ws://[fe80::1%eth0]/", UriError::InvalidHost),
        ("ws://[fe80::1%25]/", UriError::InvalidZone),
        ("ws://[fe80::1%25a%20b]/", UriError::InvalidZone),
        ("ws://[fe80::1%25a/b]/", UriError::InvalidHost),
        ("ws://[h%25eth0]/", UriError::InvalidHost),
        ("ws://h%25eth0/", UriError::InvalidHost),
        ("ws://127.1/", UriError::InvalidHost),
        ("ws://0x7f000001/", UriError::InvalidHost),
        ("ws://2130706433/", UriError::InvalidHost),
        ("ws://h:0/", UriError::InvalidPort),
        ("ws://h:65536/", UriError::InvalidPort),
        ("ws://h:99999999999999999999/", UriError::InvalidPort),
        ("ws://h:-1/", UriError::InvalidPort),
        ("ws://h:+1/", UriError::InvalidPort),
        ("ws://h:a/", UriError::InvalidPort),
    ];
    for (text, error) in rows {
        assert_eq!(Uri::parse(text), Err(error), "{text:?}");
    }
    let hint = UriError::InvalidCharacter('\u{fc}').to_string();
    assert_eq!(hint, "character '\u{fc}' is not allowed: write it as %C3%BC");
}

#[test]
fn client_receives_the_rfc_example_and_connects() {
    connects(&plus(&["Sec-WebSocket-Protocol: chat"]), Some("chat"));
    connects(&plus(&[]), None);
}

#[test]
fn client_waits_for_a_complete_head() {
    let response = plus(&[]);
    for len in 0..response.len() {
        let piece = &response[..len];
        assert_eq!(run([piece], Then::Silence), Outcome::Incomplete);
        assert_eq!(run([piece], Then::Eof), Outcome::Failed(HandshakeError::ClosedEarly));
        assert_eq!(run([piece], Then::Timeout), Outcome::Failed(HandshakeError::TimedOut));
    }
}

#[test]
fn client_receives_upgrade_and_connection() {
    // checks [6455-4.1-30, 6455-4.1-31, 6455-4.1-37]
    for line in ["Upgrade: WebSocket", "upgrade:websocket", "Upgrade: , websocket ,"] {
        connects(&with("Upgrade", &[line]), None);
    }
    for lines in [
        &[][..],
        &["Upgrade: h2c"],
        &["Upgrade: websocket, h2c"],
        &["Upgrade: websocket", "Upgrade: websocket"],
        &["Upgrade: websocket/13"],
        &["Upgrade:"],
    ] {
        fails(&with("Upgrade", lines), &HandshakeError::UpgradeInvalid);
    }
    for lines in [
        &["Connection: upgrade"][..],
        &["Connection: keep-alive, Upgrade"],
        &["Connection: keep-alive", "Connection: UPGRADE"],
    ] {
        connects(&with("Connection", lines), None);
    }
    for lines in [&[][..], &["Connection: close"], &["Connection: Upgrade2"]] {
        fails(&with("Connection", lines), &HandshakeError::ConnectionMissing);
    }
}

#[test]
fn client_receives_accept_keys() {
    // checks [6455-4.1-32, 6455-4.1-33, 6455-4.1-37, 6455-11.3.3-1]
    connects(
        &with(LINES[3], &["sec-websocket-accept: \tHSmrc0sMlYUkAGmm5OPpG2HaGWk= \t"]),
        None,
    );
    let name = "Sec-WebSocket-Accept";
    fails(&with(name, &[]), &HandshakeError::AcceptMissing);
    let twice = with(name, &[LINES[3], LINES[3]]);
    fails(&twice, &HandshakeError::AcceptRepeated);
    for value in [
        "",
        "hsmrc0sMlYUkAGmm5OPpG2HaGWk=",
        "HSmrc0sMlYUkAGmm5OPpG2HaGWk",
        "HSmrc0sMlYUkAGmm5OPpG2HaGWl=",
        "HSmrc0sM lYUkAGmm5OPpG2HaGWk=",
        "\"HSmrc0sMlYUkAGmm5OPpG2HaGWk=\"",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "x3JJHMbDL1EzLkh9GBhXDw==",
        "HSmrc0sMlYUkAGmm5OPpG2HaGWk=, HSmrc0sMlYUkAGmm5OPpG2HaGWk=",
    ] {
        let response = with(name, &[&format!("{name}: {value}")]);
        fails(&response, &HandshakeError::AcceptMismatch);
    }
}

#[test]
fn client_receives_subprotocols() {
    // checks [6455-4.1-35, 6455-11.3.4-1]
    connects(&plus(&["Sec-WebSocket-Protocol: superchat"]), Some("superchat"));
    for value in ["other", "Chat", "\"chat\"", "chat superchat"] {
        let response = plus(&[&format!("Sec-WebSocket-Protocol: {value}")]);
        fails(&response, &HandshakeError::SubprotocolNotOffered);
    }
    for lines in [
        &["Sec-WebSocket-Protocol: chat, superchat"][..],
        &["Sec-WebSocket-Protocol: chat,"],
        &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"],
    ] {
        fails(&plus(lines), &HandshakeError::SubprotocolRepeated);
    }
}

#[test]
fn client_receives_extensions() {
    // checks [6455-4.1-34, 6455-9.1-1, 6455-9.1-5]
    connects(&plus(&["Sec-WebSocket-Extensions: x-known; p=1"]), None);
    for value in ["permessage-deflate", "x-known, other", "X-Known"] {
        let response = plus(&[&format!("Sec-WebSocket-Extensions: {value}")]);
        fails(&response, &HandshakeError::ExtensionNotOffered);
    }
    for value in ["x-known;", "x-known; p=\"", "x known"] {
        let response = plus(&[&format!("Sec-WebSocket-Extensions: {value}")]);
        fails(&response, &HandshakeError::ExtensionsInvalid);
    }
}

#[test]
fn client_treats_empty_negotiation_headers_as_absent() {
    for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
        for value in ["", " ", ",", " , ,"] {
            let line = format!("{name}:{value}");
            connects(&plus(&[&line]), None);
            connects(&plus(&[&line, &line]), None);
        }
    }
    connects(
        &plus(&["Sec-WebSocket-Protocol:", "Sec-WebSocket-Protocol: chat"]),
        Some("chat"),
    );
}

/// RFC 9110 §6.4.1: a 1xx response has no body. AndroidAsync#317 and cohttp#1141 report servers that declare one.
#[test]
fn client_receives_101_with_declared_body_and_reads_frames() {
    // checks [6455-4.1-36]
    for lines in [
        &["Content-Length: 0"][..],
        &["Content-Length: 5"],
        &["Content-Length: 0", "Content-Length: 7"],
        &["Content-Length:"],
        &["Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "Content-Length: 0"],
    ] {
        connects(&plus(lines), None);
    }
}

#[test]
fn client_reports_rejection_before_the_body_ends() {
    let step = |bytes: &str| {
        let (_, awaiting) = ClientRequest::new(&Uri::parse("ws://h/").unwrap(), key()).start();
        awaiting.handle_bytes(bytes.as_bytes())
    };
    for (bytes, is_rejected) in [
        ("HTTP/1.1 401 x\r\nX: y\r\n", false),
        ("HTTP/1.1 103 x\r\n\r\n", false),
        ("HTTP/1.1 401 x\r\n\r\n", true),
        ("HTTP/1.1 401 x\r\nContent-Length: 9\r\n\r\nno", true),
    ] {
        match step(bytes) {
            ClientProgress::Incomplete(awaiting) => assert_eq!(awaiting.is_rejected(), is_rejected, "{bytes}"),
            progress => panic!("{progress:?}"),
        }
    }
}

#[test]
fn client_receives_status_lines() {
    for line in [
        "HTTP/1.1 101 ",
        "HTTP/1.1 101",
        "HTTP/1.2 101 x",
        "HTTP/1.1 101 caf\u{e9}",
    ] {
        connects(&with("HTTP", &[line]), None);
    }
    for line in [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 10",
        "HTTP/1.1 1O1 x",
        "HTTP/1.1 099 x",
        "HTTP/1.1 1011",
        "HTTP/1.1 101x",
        "HTTP/1.1  101 x",
        "HTTP/11 101 x",
        "http/1.1 101 x",
        "ICY 200 OK",
        " HTTP/1.1 101 x",
        "GET / HTTP/1.1",
    ] {
        fails(&with("HTTP", &[line]), &HandshakeError::InvalidStatusLine);
    }
    fails(&with("HTTP", &["HTTP/1.0 101 x"]), &HandshakeError::HttpVersionTooOld);
    fails(&with("HTTP", &["HTTP/2.0 101 x"]), &HandshakeError::HttpVersionUnknown);
    for version in ["HTTP/0.9", "HTTP/2.0"] {
        let response = with("HTTP", &[&format!("{version} 403 x")]);
        fails(&response, &HandshakeError::HttpVersionUnknown);
    }
    fails(b"\r\n", &HandshakeError::InvalidStatusLine);
}

#[test]
fn client_receives_invalid_syntax_fails() {
    // checks [6455-4.1-36]
    for lines in [&["X : a"][..], &["X: a", " b"], &["X"], &["X y: a"]] {
        fails(&plus(lines), &HandshakeError::InvalidHeaderLine);
    }
    fails(b"HTTP/1.1 101\n", &HandshakeError::BareLineFeed);
    // Not HTTP: detected before the first line ends.
    for banner in [&b"S"[..], b"SSH-2.0-x\n", b"HTTX"] {
        fails(banner, &HandshakeError::InvalidStatusLine);
    }
    fails(b"HTTP/1.1 101\rx", &HandshakeError::BareCarriageReturn);
    fails(b"\x15\x03", &HandshakeError::ControlByte(0x15));
}

#[test]
fn client_receives_each_byte_in_name_value_and_reason() {
    for byte in 0..=255_u8 {
        let put = |start: &str, before: &[u8], after: &[u8]| {
            let line = with(start, &["@"]);
            let at = line.iter().position(|byte| *byte == b'@').unwrap();
            let mut response = line;
            response.splice(at..=at, [before, &[byte], after].concat());
            matches!(run_all(&response, Then::Silence), Outcome::Connected { .. })
        };
        let accept = LINES[3].as_bytes();
        let is_value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let in_name = put("Sec", &[accept, b"\r\nX"].concat(), b"Y: v");
        assert_eq!(in_name, is_token || byte == b':', "name {byte:#x}");
        let in_value = put("Sec", &[accept, b"\r\nX: a"].concat(), b"c");
        assert_eq!(in_value, is_value, "value {byte:#x}");
        let in_reason = put("HTTP", b"HTTP/1.1 101 a", b"c");
        assert_eq!(in_reason, is_value, "reason {byte:#x}");
    }
}

#[test]
fn client_skips_informational_responses_up_to_the_limit() {
    let informational = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let response = plus(&[]);
    let count_max = HandshakeLimits::default().informational_count_max;
    for count in [1, count_max] {
        connects(&[informational.repeat(count), response.clone()].concat(), None);
    }
    let error = HandshakeError::TooManyInformational { count_max };
    fails(&informational.repeat(count_max + 1), &error);
    let forbidden = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    rejects(forbidden, Then::Silence, 403, b"", false);
    // 101 is final, so the following bytes are frames even if they look like a response.
    let combined = [response.clone(), response.clone()].concat();
    let expect = Outcome::Connected {
        subprotocol: None,
        read_buf: response,
    };
    assert_eq!(run_all(&combined, Then::Silence), expect);
}

#[test]
fn client_rejects_every_status_but_101() {
    // checks [6455-4.1-29]
    for status in [200, 201, 204, 301, 302, 304, 401, 403, 404, 426, 500, 503, 999] {
        let line = format!("HTTP/1.1 {status} x");
        let response = with("HTTP", &[&line, "Content-Length: 0"]);
        rejects(&response, Then::Silence, status, b"", false);
    }
    rejects(b"HTTP/1.0 400 Bad\r\n\r\nno", Then::Eof, 400, b"no", false);
}

#[test]
fn client_returns_the_headers_of_a_rejection() {
    let response = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
    match request().start().1.handle_bytes(response) {
        ClientProgress::Rejected(response) => {
            let location = response.headers().get("location").unwrap();
            assert_eq!(location.as_str(), Some("/b"));
        }
        progress => panic!("{progress:?}"),
    }
}

#[test]
fn client_receives_a_body_by_length() {
    let no = |rest: &str| format!("HTTP/1.1 403 No\r\n{rest}").into_bytes();
    let whole = no("Content-Length: 4\r\n\r\nnope");
    rejects(&whole, Then::Silence, 403, b"nope", false);
    let longer = no("Content-Length: 4\r\n\r\nnope and more");
    rejects(&longer, Then::Silence, 403, b"nope", false);
    let shorter = no("Content-Length: 5\r\n\r\nnope");
    assert_eq!(run_all(&shorter, Then::Silence), Outcome::Incomplete);
    rejects(&shorter, Then::Eof, 403, b"nope", true);
    rejects(&shorter, Then::Timeout, 403, b"nope", true);
    for length in [
        "+4",
        "-4",
        "4, 4",
        "x",
        "",
        "18446744073709551616",
        "4\r\nContent-Length: 4",
    ] {
        let response = no(&format!("Content-Length: {length}\r\n\r\nnope"));
        rejects(&response, Then::Silence, 403, b"", true);
    }
    for status in [204, 304] {
        let response = format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\n");
        rejects(response.as_bytes(), Then::Silence, status, b"", false);
    }
    let huge = no("Content-Length: 18446744073709551615\r\n\r\nnope");
    rejects(&huge, Then::Eof, 403, b"nope", true);
}

#[test]
fn client_receives_a_body_in_chunks() {
    let no = |rest: &str| {
        let head = "HTTP/1.1 403 No\r\nContent-Length: 1\r\nTransfer-Encoding:";
        format!("{head}{rest}").into_bytes()
    };
    let whole = no(" chunked\r\n\r\n2\r\nno\r\n002;x=y\r\npe\r\n0\r\nTrailer: x\r\n\r\n");
    rejects(&whole, Then::Silence, 403, b"nope", false);
    let gzipped = no(" gzip, Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n");
    rejects(&gzipped, Then::Silence, 403, b"0123456789", false);
    let cut = no(" chunked\r\n\r\n5\r\nnope");
    rejects(&cut, Then::Eof, 403, b"nope", true);
    let by_close = no(" gzip\r\n\r\nnope");
    rejects(&by_close, Then::Eof, 403, b"nope", false);
    // HTTP/1.0 has no chunked encoding, so the body is taken literally.
    let old = b"HTTP/1.0 403 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    rejects(old, Then::Eof, 403, b"0\r\n\r\n", false);
    for chunks in [
        "\r\n",
        "x\r\n",
        "-1\r\nn",
        ";a\r\n",
        "ffffffffffffffffff\r\nn",
        "0x2\r\nno\r\n",
    ] {
        rejects(&no(&format!(" chunked\r\n\r\n{chunks}")), Then::Silence, 403, b"", true);
    }
    for chunks in ["2\r\nnope\r\n", "2\r\nno\n", "2\r\nno\r\n\n", "2\r\nno\r\nz\r\n"] {
        rejects(
            &no(&format!(" chunked\r\n\r\n{chunks}")),
            Then::Silence,
            403,
            b"no",
            true,
        );
    }
    let line = format!(" chunked\r\n\r\n2;{}", "a".repeat(300));
    rejects(&no(&line), Then::Silence, 403, b"", true);
}

#[test]
fn client_truncates_body_at_the_limit() {
    let size_max = HandshakeLimits::default().body_size_max;
    for (len, is_truncated) in [(size_max - 1, false), (size_max, false), (size_max + 1, true)] {
        let body = vec![b'x'; len];
        let kept = &body[..len.min(size_max)];
        let expect = Outcome::Rejected {
            status: 403,
            body: kept.to_vec(),
            is_body_truncated: is_truncated,
        };
        let heads = [
            (format!("Content-Length: {len}\r\n\r\n"), ""),
            (
                format!("Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n"),
                "\r\n0\r\n\r\n",
            ),
            ("\r\n".to_owned(), ""),
        ];
        for (head, tail) in heads {
            let head = format!("HTTP/1.1 403 No\r\n{head}").into_bytes();
            let response = [&head, body.as_slice(), tail.as_bytes()].concat();
            assert_eq!(run([response.as_slice()], Then::Eof), expect, "{len}");
            assert_eq!(run(response.chunks(1), Then::Eof), expect, "{len}");
            assert_eq!(run(response.chunks(1000), Then::Eof), expect, "{len}");
        }
    }
}

#[test]
fn client_receives_more_than_the_limits() {
    let limits = HandshakeLimits::default();
    let (size_max, count_max) = (limits.head_size_max, limits.header_count_max);
    for (len, fits) in [(size_max, true), (size_max + 1, false)] {
        let padding = len - plus(&["X: "]).len();
        let response = plus(&[&format!("X: {}", "a".repeat(padding))]);
        let outcome = run([response.as_slice()], Then::Silence);
        assert_eq!(run(response.chunks(1), Then::Silence), outcome);
        let error = Outcome::Failed(HandshakeError::HeadTooLarge { size_max });
        assert_eq!(outcome != error, fits, "{len}: {outcome:?}");
    }
    connects(&plus(&vec!["X: y"; count_max - 3]), None);
    let error = HandshakeError::TooManyHeaders { count_max };
    fails(&plus(&vec!["X: y"; count_max - 2]), &error);
    // The size limit applies to all informational heads and the final one together.
    let half = format!("HTTP/1.1 103 x\r\nX: {}\r\n\r\n", "a".repeat(size_max / 2));
    let response = [half.repeat(2).as_bytes(), &plus(&[])].concat();
    let outcome = run([response.as_slice()], Then::Silence);
    assert_eq!(outcome, Outcome::Failed(HandshakeError::HeadTooLarge { size_max }));
}

#[test]
fn client_application_cannot_set_handshake_headers() {
    // checks [6455-4.1-27]
    for name in [
        "Host",
        "upgrade",
        "Connection",
        "Origin",
        "Content-Length",
        "transfer-encoding",
        "Trailer",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "SEC-WEBSOCKET-EXTENSIONS",
        "Sec-WebSocket-Accept",
    ] {
        let error = request().header(name, "x").unwrap_err();
        assert_eq!(error, HandshakeBuildError::ReservedHeader, "{name}");
    }
    let error = request().subprotocol("chat").unwrap_err();
    assert_eq!(error, HandshakeBuildError::RepeatedSubprotocol);
}

#[test]
fn client_application_cannot_inject_line_ends() {
    let plain_len = sent(request()).lines().count();
    for byte in 0..=255_u8 {
        let character = char::from(byte);
        let is_value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let text = format!("a{character}c");
        let with_value = request().header("X-Y", [b'a', byte, b'c']);
        assert_eq!(with_value.is_ok(), is_value, "{byte:#x}");
        if let Ok(request) = with_value {
            let head = request.start().0;
            let line_count = head.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(line_count, plain_len + 1);
        }
        assert_eq!(request().header(&text, "v").is_ok(), is_token, "{byte:#x}");
        assert_eq!(request().subprotocol(&text).is_ok(), is_token, "{byte:#x}");
        let is_extension = is_token || byte == b';';
        assert_eq!(request().extension(&text).is_ok(), is_extension, "{byte:#x}");
        if let Ok(uri) = Uri::parse(&format!("ws://{text}/{text}?{text}")) {
            assert!(byte.is_ascii_graphic(), "{byte:#x}");
            let head = sent(ClientRequest::new(&uri, key()));
            assert_eq!(head.lines().next().unwrap().split(' ').count(), 3);
        }
        for text in [format!("ws://h/{text}"), format!("ws://h/?{text}")] {
            let is_allowed = byte.is_ascii_graphic() && !b"\"#%<>\\^`{|}".contains(&byte);
            assert_eq!(Uri::parse(&text).is_ok(), is_allowed, "{text:?}");
        }
    }
}

#[test]
fn client_builds_an_extended_connect() {
    let (headers, awaiting) = request().start_extended_connect();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let expect = [
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
    ];
    assert_eq!(names, expect);
    let mut response = Headers::new();
    response.try_append("sec-websocket-protocol", "chat").unwrap();
    let subprotocol = awaiting.handle_headers(&response).expect("offered");
    assert_eq!(subprotocol.unwrap(), "chat");
    for (name, value, error) in [
        ("upgrade", "websocket", HandshakeError::HopByHopHeader),
        ("sec-websocket-accept", "x", HandshakeError::HopByHopHeader),
        ("sec-websocket-protocol", "x", HandshakeError::SubprotocolNotOffered),
        ("sec-websocket-extensions", "x", HandshakeError::ExtensionNotOffered),
    ] {
        let mut response = Headers::new();
        response.try_append(name, value).unwrap();
        let (_, awaiting) = request().start_extended_connect();
        assert_eq!(awaiting.handle_headers(&response), Err(error), "{name}");
    }
}

/// Responses of every kind, some with one byte changed, removed or duplicated.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let responses = [
        plus(&["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: x-known; p"]),
        [b"HTTP/1.1 100 Continue\r\n\r\n", plus(&[]).as_slice(), b"\x81\x02hi"].concat(),
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\nA;x\r\n0123456789\r\n0\r\n\r\n".to_vec(),
        b"HTTP/1.1 403 No\r\nContent-Length: 12\r\n\r\n0123456789ab".to_vec(),
        b"HTTP/1.1 403 No\r\n\r\n0123456789ab".to_vec(),
    ];
    let edit = (0..responses.len(), any::<prop::sample::Index>(), any::<u8>(), 0..4);
    edit.prop_map(move |(kind, at, byte, change)| {
        let mut response = responses[kind].clone();
        let at = at.index(response.len());
        match change {
            0 => response[at] = byte,
            1 => drop(response.remove(at)),
            2 => response.insert(at, byte),
            _ => {}
        }
        response
    })
}

proptest! {
    #[test]
    fn client_result_is_independent_of_the_split(
        response in mutated(),
        piece_lens in proptest::collection::vec(1..40_usize, 1..40),
    ) {
        let mut pieces = Vec::new();
        let mut rest = response.as_slice();
        for len in piece_lens {
            let (piece, after) = rest.split_at(len.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        for then in [Then::Silence, Then::Eof, Then::Timeout] {
            let whole = run([response.as_slice()], then);
            prop_assert_eq!(run(pieces.clone(), then), whole);
        }
    }

    #[test]
    fn client_does_not_panic_on_arbitrary_bytes(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        run([input.as_slice()], Then::Eof);
        let starts: [&[u8]; 3] = [
            b"HTTP/1.1 101 x\r\n",
            b"HTTP/1.1 400 x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 400 x\r\nContent-Length: 9\r\n\r\n",
        ];
        for start in starts {
            run([start, input.as_slice()], Then::Eof);
        }
    }

    #[test]
    fn client_uri_does_not_panic_and_display_parses_back(
        text in "(wss?://)?([a-z0-9.:@%\\[\\]-]{0,20}|\\PC{0,8})[/?#]?\\PC{0,20}",
    ) {
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert_eq!(Uri::parse(&uri.to_string()), Ok(uri));
        }
    }

    #[test]
    fn client_and_server_agree_on_any_key(bytes in any::<[u8; 16]>()) {
        let key = Key::from_bytes(bytes);
        prop_assert_eq!(Key::parse(key.to_string().as_bytes()), Some(key));
        let uri = Uri::parse("ws://h").unwrap();
        let (to_server, awaiting) = ClientRequest::new(&uri, key).start();
        let handshake = ServerHandshake::new(HandshakeLimits::default());
        let ServerProgress::Incoming(incoming) = handshake.handle_bytes(&to_server) else {
            return Err(TestCaseError::fail("rejected"));
        };
        let response = incoming.accept(Acceptance::new()).unwrap().response;
        let step = awaiting.handle_bytes(&response.to_bytes());
        prop_assert!(matches!(step, ClientProgress::Connected(_)));
    }
}
