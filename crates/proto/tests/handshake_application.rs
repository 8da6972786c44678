//! Actions of an application on a request: checking, accepting and rejecting it.

use sockeye_proto::handshake::{
    Acceptance, Authority, ConnectParts, HandshakeBuildError, HandshakeError, Headers, HostPolicy, HttpBinding,
    HttpVersion, Incoming, Origin, OriginError, OriginPolicy, Rejection, StatusCode, Subprotocol, UpgradeParts,
};

mod handshake_support;

use handshake_support::{LINES, incoming, plus, with};

#[test]
fn server_accepts_the_rfc_example() {
    // checks [6455-4.2.2-12, 6455-4.2.2-13, 6455-4.2.2-14, 6455-4.2.2-15, 6455-11.3.3-1, 6455-11.3.4-1]
    let request = plus(&["Sec-WebSocket-Protocol: chat, superchat", "Origin: http://example.com"]);
    let incoming = incoming(&request);
    let offered: Vec<_> = incoming.request().subprotocols().collect();
    assert_eq!(offered, ["chat", "superchat"]);
    let chosen = incoming.request().choose_subprotocol(["chat", "superchat"]);
    let accepted = incoming.accept(Acceptance::new().subprotocol(chosen));
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
fn server_chooses_an_offered_subprotocol_by_its_own_preference() {
    // checks [6455-4.2.1-10, 6455-4.2.2-7, 6455-4.2.2-11]
    let incoming = incoming(&plus(&["Sec-WebSocket-Protocol: chat, superchat"]));
    let request = incoming.request();
    let choose = |supported: &[&str]| request.choose_subprotocol(supported);
    assert_eq!(choose(&["x", "superchat", "chat"]).unwrap(), "superchat");
    assert_eq!(choose(&["CHAT"]), None);
    assert_eq!(choose(&[]), None);

    let other = Subprotocol::new("other").expect("a token");
    let error = incoming.accept(Acceptance::new().subprotocol(other));
    let error = error.expect_err("not offered");
    assert_eq!(error.error, HandshakeBuildError::SubprotocolNotOffered);
    let text = String::from_utf8(error.response.to_bytes()).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    assert!(text.ends_with("\r\n\r\ninternal server error\n"));
}

#[test]
fn server_accepts_only_offered_extensions() {
    // checks [6455-4.2.2-9, 6455-4.2.2-10, 6455-9-1, 6455-9.1-2, 6455-11.3.2-2]
    let request = plus(&[
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; x=\"1\\5\"",
        "Sec-WebSocket-Extensions: other",
    ]);
    let incoming = incoming(&request);
    let offers: Vec<_> = incoming.request().extensions().collect();
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
    let accepted = incoming.accept(acceptance.expect("well formed"));
    let response = accepted.expect("offered").response;
    let header = response.headers().get("sec-websocket-extensions");
    assert_eq!(header.unwrap().as_bytes(), b"permessage-deflate; x=8");

    let acceptance = Acceptance::new().extension("unasked").expect("a token");
    let error = handshake_support::incoming(&request).accept(acceptance);
    let error = error.expect_err("not offered").error;
    assert_eq!(error, HandshakeBuildError::ExtensionNotOffered);
    let malformed = Acceptance::new().extension("a, b");
    assert_eq!(malformed.unwrap_err(), HandshakeBuildError::InvalidExtension);
}

#[test]
fn server_sends_all_extensions_in_one_header() {
    // checks [6455-4.2.2-8, 6455-4.2.2-9, 6455-4.2.2-11, 6455-11.3.2-1]
    let request = plus(&["Sec-WebSocket-Extensions: first, second; p=1"]);
    let acceptance = Acceptance::new()
        .extension("first")
        .and_then(|acceptance| acceptance.extension("second; p=1"));
    let accepted = incoming(&request).accept(acceptance.expect("well formed"));
    let response = accepted.expect("offered").response;
    let lines: Vec<_> = response.headers().get_all("Sec-WebSocket-Extensions").collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].as_bytes(), b"first, second; p=1");

    let empty = Acceptance::new().extension("");
    assert_eq!(empty.unwrap_err(), HandshakeBuildError::InvalidExtension);
    assert_eq!(Subprotocol::new(""), Err(HandshakeBuildError::InvalidSubprotocol));
    let accepted = incoming(&request).accept(Acceptance::new()).expect("plain");
    assert!(!accepted.response.headers().contains("Sec-WebSocket-Extensions"));
    assert!(!accepted.response.headers().contains("Sec-WebSocket-Protocol"));
}

#[test]
fn server_rejects_with_status_headers_and_body() {
    // checks [6455-4.2.2-3, 6455-4.2.2-6]
    let rejection = Rejection::new(StatusCode::UNAUTHORIZED)
        .and_then(|rejection| rejection.header("WWW-Authenticate", "Bearer"))
        .expect("allowed")
        .body("log in first");
    let response = incoming(&plus(&[])).reject(rejection);
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
fn server_application_cannot_set_handshake_headers() {
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
        let error = HandshakeBuildError::ReservedHeader;
        let accepted = Acceptance::new().header(name, "x");
        assert_eq!(accepted.unwrap_err(), error, "{name}");
        let rejected = Rejection::new(StatusCode::NOT_FOUND).unwrap().header(name, "x");
        assert_eq!(rejected.unwrap_err(), error, "{name}");
    }
}

#[test]
fn server_application_cannot_inject_line_ends() {
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
    // Surrounding whitespace is trimmed here, because HTTP does not preserve it.
    let padded = Acceptance::new().header("X-Y", " \ta b\t ").unwrap();
    let response = incoming(&plus(&[])).accept(padded).unwrap().response;
    assert!(response.to_bytes().ends_with(b"\r\nX-Y: a b\r\n\r\n"));
    assert!(Subprotocol::new("").is_err());
}

#[test]
fn server_checks_origins() {
    // checks [6455-10.2-1]
    let list = OriginPolicy::List(vec![
        "https://example.com".parse().unwrap(),
        "http://localhost:3000".parse().unwrap(),
        "chrome-extension://abcdef".parse().unwrap(),
    ]);
    let same = OriginPolicy::SameHost;
    // Host, origin, allowed by the list, allowed by same-host.
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
        let incoming = incoming(&with("Host", &[&host, &origin_line]));
        let request = incoming.request();
        for (policy, passes) in [(&list, in_list), (&same, in_same)] {
            match policy.check(request) {
                Ok(()) => assert!(passes, "{policy:?} {host} {origin}"),
                Err(HandshakeError::OriginDenied(denial)) => {
                    assert!(!passes, "{policy:?} {host} {origin}");
                    assert!(denial.origin().is_some() && !denial.allowed().is_empty());
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(OriginPolicy::Any.check(request), Ok(()), "any {origin}");
    }
}

#[test]
fn server_normalizes_origins() {
    for (text, written) in [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.com:443", "https://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[0::1]:80", "http://[::1]"),
        ("Chrome-Extension://abcdef", "chrome-extension://abcdef"),
        ("moz-extension://B7D1-0", "moz-extension://b7d1-0"),
        ("file://", "file://"),
        ("null", "null"),
    ] {
        assert_eq!(Origin::parse(text).unwrap().to_string(), written, "{text}");
    }
    for text in [
        "NULL",
        "null ",
        "",
        "h",
        "1x://h",
        "-://h",
        "://h",
        "x y://h",
        "http://h/",
        "http://",
        "wss://",
        "file:///",
        "file:",
    ] {
        assert_eq!(Origin::parse(text), Err(OriginError), "{text}");
    }
    let port = |text| Origin::parse(text).unwrap().port();
    assert_eq!(
        (port("https://h"), port("app://h"), port("app://h:1")),
        (Some(443), None, Some(1))
    );
}

#[test]
fn server_accepts_listed_origins_without_a_host() {
    for origin in ["null", "file://", "chrome-extension://abcdef"] {
        let policy = OriginPolicy::List(vec![Origin::parse(origin).unwrap()]);
        for sent in ["null", "file://", "chrome-extension://abcdef"] {
            let incoming = incoming(&plus(&[&format!("Origin: {sent}")]));
            assert_eq!(
                policy.check(incoming.request()).is_ok(),
                sent == origin,
                "{sent} by {origin}"
            );
            assert!(OriginPolicy::SameHost.check(incoming.request()).is_err(), "{sent}");
        }
    }
    assert!(Origin::NULL.is_null() && !Origin::parse("file://").unwrap().is_null());
    assert_eq!((Origin::NULL.host(), Origin::NULL.port()), ("", None));
}

#[test]
fn server_accepts_requests_without_origin() {
    // checks [6455-4.2.1-9]
    let incoming = incoming(&plus(&[]));
    for policy in [OriginPolicy::SameHost, OriginPolicy::List(vec![]), OriginPolicy::Any] {
        assert_eq!(policy.check(incoming.request()), Ok(()));
    }
    assert_eq!(OriginPolicy::default(), OriginPolicy::SameHost);
}

#[test]
fn server_rejects_an_origin_with_403() {
    // checks [6455-4.2.2-4, 6455-10.2-2]
    let incoming = incoming(&plus(&["Origin: https://attacker.net"]));
    let error = OriginPolicy::SameHost.check(incoming.request()).unwrap_err();
    let text = String::from_utf8(incoming.reject_with_error(error).response.to_bytes()).expect("ASCII");
    assert_eq!(
        text,
        "HTTP/1.1 403 Forbidden\r\n\
        Connection: close\r\n\
        Content-Length: 45\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\n\
        origin \"https://attacker.net\" is not allowed\n"
    );
}

#[test]
fn server_checks_hosts() {
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
        let incoming = incoming(&with("Host", &[&format!("Host: {host}")]));
        let found = policy.check(incoming.request());
        assert_eq!(found.is_ok(), passes, "{policy:?} {host}");
        if let Err(error) = found {
            assert_eq!(error.status(), StatusCode::MISDIRECTED_REQUEST);
        }
    }
}

#[test]
fn server_accepts_a_request_parsed_elsewhere() {
    let mut headers = Headers::new();
    for line in &LINES[1..] {
        let (name, value) = line.split_once(": ").expect("a header line");
        headers.try_append(name, value).expect("clean");
    }
    let parts = |method, version| UpgradeParts {
        method,
        target: "/chat",
        version,
        headers: headers.clone(),
    };
    let incoming = Incoming::from_upgrade(parts("GET", HttpVersion::HTTP_11)).expect("valid");
    let accepted = incoming.accept(Acceptance::new()).expect("plain");
    let fields: Vec<_> = accepted.response.headers().iter().collect();
    assert_eq!(accepted.response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(fields.len(), 3);
    assert_eq!(fields[2].1.as_bytes(), b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
    for (method, version, error) in [
        ("POST", HttpVersion::HTTP_11, HandshakeError::MethodNotGet),
        ("GET", HttpVersion::HTTP_10, HandshakeError::HttpVersionTooOld),
        ("GET", HttpVersion::new(2, 0), HandshakeError::HttpVersionUnknown),
    ] {
        let invalid = Incoming::from_upgrade(parts(method, version));
        assert_eq!(invalid.expect_err("invalid").error, error);
    }
}

#[test]
fn server_accepts_an_extended_connect() {
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
    let incoming = Incoming::from_extended_connect(parts("websocket", "https", "/x?y", &valid));
    let incoming = incoming.expect("valid");
    assert_eq!(incoming.request().binding(), HttpBinding::ExtendedConnect);
    assert_eq!(incoming.request().query(), Some("y"));
    let chosen = incoming.request().choose_subprotocol(["chat"]);
    let accepted = incoming.accept(Acceptance::new().subprotocol(chosen));
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
            HandshakeError::ProtocolUnknown,
        ),
        (parts("websocket", "wss", "/", &valid), HandshakeError::InvalidTarget),
        (parts("websocket", "https", "x", &valid), HandshakeError::InvalidTarget),
        (
            parts("websocket", "https", "http://h/", &valid),
            HandshakeError::InvalidTarget,
        ),
        (
            parts("websocket", "https", "/", &with_key),
            HandshakeError::HopByHopHeader,
        ),
        (
            parts("websocket", "https", "/", &none),
            HandshakeError::VersionUnsupported,
        ),
    ];
    for (parts, error) in rows {
        let invalid = Incoming::from_extended_connect(parts).expect_err("invalid");
        assert_eq!(invalid.error, error);
        let headers = invalid.response.headers();
        assert!(!headers.contains("Connection") && !headers.contains("Upgrade"));
    }
}

#[test]
fn server_debug_output_hides_credentials() {
    let request = plus(&["Cookie: sid=secret", "Authorization: Bearer secret"]);
    let debug = format!("{:?}", incoming(&request).request().headers());
    assert!(!debug.contains("secret"), "{debug}");
    assert!(debug.contains("server.example.com"), "{debug}");
}
