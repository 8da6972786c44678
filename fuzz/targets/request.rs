//! Requests received by a server: the result is independent of splits, bounded, and agrees with the reference parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::http::{Head, decode_key};
use sockeye_fuzz::memory::Meter;
use sockeye_proto::deflate::DeflateConfig;
use sockeye_proto::handshake::{
    Acceptance, Accepted, ClientProgress, ClientRequest, HandshakeError, HandshakeLimits, HostPolicy, Incoming,
    InvalidRequest, Key, OriginPolicy, Request, ServerHandshake, ServerProgress, Uri,
};

/// Prefix and suffix that turn an input into the fields of an otherwise valid request.
const BEFORE: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
const AFTER: &[u8] = b"\r\n\r\n\x81\x80";

fuzz_target!(|input: &[u8]| {
    let [choices, seed, bytes @ ..] = input else { return };
    let mut limits = HandshakeLimits::default();
    if choices & 1 != 0 {
        (limits.head_size_max, limits.header_count_max) = (240, 7);
    }
    let wire = match choices & 2 {
        0 => bytes.to_vec(),
        _ => [BEFORE, bytes, AFTER].concat(),
    };
    check(&wire, limits, *seed);
});

#[derive(Debug)]
enum Outcome {
    Incomplete(usize),
    Requested(Box<Incoming>),
    Invalid(Box<InvalidRequest>),
}

fn check(wire: &[u8], limits: HandshakeLimits, seed: u8) {
    let (whole, whole_used) = run(wire, limits, None);
    let (cut, cut_used) = run(wire, limits, Some(Cuts::new(seed)));
    match (whole, cut) {
        (Outcome::Incomplete(whole), Outcome::Incomplete(cut)) => assert_eq!(whole, cut),
        (Outcome::Invalid(whole), Outcome::Invalid(cut)) => {
            assert_eq!((&whole.error, &whole.response), (&cut.error, &cut.response));
            check_rejection(wire, &whole);
        }
        (Outcome::Requested(whole), Outcome::Requested(cut)) => {
            assert_eq!(describe(whole.request()), describe(cut.request()));
            check_valid(wire, whole.request());
            check_reencoded(whole.request());
            let (whole, cut) = (accept(*whole), accept(*cut));
            assert_eq!(whole.response, cut.response);
            // The bytes after the head are the same for every split.
            let all = |accepted: &Accepted, used: usize| [&accepted.read_buf, &wire[used..]].concat();
            assert_eq!(all(&whole, whole_used), all(&cut, cut_used));
            check_client_agrees(wire, &whole);
        }
        (whole, cut) => panic!("in one piece: {whole:?}\nsplit: {cut:?}"),
    }
}

/// Drives a handshake to its end. Returns the outcome and the number of bytes used.
fn run(wire: &[u8], limits: HandshakeLimits, mut cuts: Option<Cuts>) -> (Outcome, usize) {
    let meter = Meter::start();
    let mut handshake = ServerHandshake::new(limits);
    let (mut used, mut pieces) = (0, 0);
    let outcome = loop {
        let left = wire.len() - used;
        if left == 0 {
            break Outcome::Incomplete(handshake.buffered_len());
        }
        let len = cuts.as_mut().map_or(left, |cuts| cuts.next_len(left));
        let piece = &wire[used..used + len];
        used += len;
        pieces += 1;
        match handshake.handle_bytes(piece) {
            ServerProgress::Incomplete(next) => handshake = next,
            ServerProgress::Incoming(incoming) => break Outcome::Requested(Box::new(incoming)),
            ServerProgress::Invalid(invalid) => break Outcome::Invalid(Box::new(invalid)),
        }
    };
    let (peak, asked) = (meter.peak(), meter.asked());
    let limit = limits.head_size_max;
    assert!(
        peak <= limit + used + 64 * 1024,
        "{peak} bytes held with a limit of {limit}"
    );
    // A line of four bytes becomes two entries of about thirty bytes; an offered subprotocol of two bytes becomes one.
    assert!(peak <= 40 * used + 4096, "{peak} bytes held after {used} were received");
    assert!(
        asked <= 80 * used + 16 * pieces + 4096,
        "{asked} bytes allocated, {used} received"
    );
    (outcome, used)
}

/// Formats everything that an application can see.
fn describe(request: &Request) -> String {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let subprotocols: Vec<_> = request.subprotocols().collect();
    let extensions: Vec<_> = request.extensions().map(written).collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {headers:?} {subprotocols:?} {extensions:?} {:?}",
        request.target(),
        request.resource(),
        request.path(),
        request.query(),
        request.authority(),
        request.origin()
    )
}

/// Checks the rules of RFC 6455 §4.2.1 with the reference parser.
fn check_valid(wire: &[u8], request: &Request) {
    let head = Head::split(wire).expect("accepted without an empty line");
    assert!(head.is_well_formed());
    let words: Vec<_> = head.first_line.split(|byte| *byte == b' ').collect();
    let [b"GET", target, version] = words[..] else {
        panic!("accepted with the line {}", head.first_line.escape_ascii());
    };
    assert!(version.starts_with(b"HTTP/1.") && version != b"HTTP/1.0" && version.len() == 8);
    assert_eq!(target, request.target().as_bytes());
    assert!(head.only("Host").is_some_and(|host| !host.is_empty()));
    assert!(head.lists("Upgrade", "websocket") && head.lists("Connection", "upgrade"));
    assert_eq!(head.only("Sec-WebSocket-Version"), Some(&b"13"[..]));
    assert!(head.only("Sec-WebSocket-Key").and_then(decode_key).is_some());
    assert_eq!(head.values("Transfer-Encoding").count(), 0);
    assert!(head.values("Content-Length").count() == 0 || head.only("Content-Length") == Some(b"0"));
    assert!(head.values("Origin").count() <= 1);
    check_denials(request);
}

/// Checks that the texts of denials are safe to log and to send.
fn check_denials(request: &Request) {
    for error in [
        OriginPolicy::SameHost.check(request),
        HostPolicy::List(vec![]).check(request),
    ] {
        let Err(error) = error else { continue };
        let denial = error.denial().expect("the error comes from a policy");
        for text in [denial.origin().unwrap_or_default(), denial.host(), &error.to_string()] {
            let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            assert!(is_plain && text.len() <= 2048, "{text:?}");
        }
        let sent = denial.origin().unwrap_or_default().to_owned() + denial.host();
        assert!(!sent.contains(['<', '>', '"', '\'', '&', '`']), "{sent}");
    }
}

/// Checks that an accepted request, encoded again from its parsed form, is parsed in the same way.
fn check_reencoded(request: &Request) {
    let mut bytes = format!("GET {} HTTP/1.1\r\n", request.target()).into_bytes();
    for (name, value) in request.headers().iter() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let mut limits = HandshakeLimits::default();
    limits.head_size_max *= 2;
    match run(&bytes, limits, None).0 {
        Outcome::Requested(incoming) => assert_eq!(describe(incoming.request()), describe(request)),
        outcome => panic!("{outcome:?}: {}", bytes.escape_ascii()),
    }
}

/// Accepts the first offered subprotocol and extension.
fn accept(incoming: Incoming) -> Accepted {
    let request = incoming.request();
    let offered: Vec<String> = request.subprotocols().map(String::from).collect();
    let acceptance = Acceptance::new().subprotocol(request.choose_subprotocol(&offered));
    let (acceptance, _) = acceptance.deflate(&DeflateConfig::default(), request);
    incoming.accept(acceptance).expect("chosen from the offers")
}

/// Checks that a client with the same offers accepts the response.
fn check_client_agrees(wire: &[u8], accepted: &Accepted) {
    let key = Head::split(wire).and_then(|head| decode_key(head.only("Sec-WebSocket-Key")?));
    let uri: Uri = "ws://h/".parse().expect("valid URI");
    let mut client = ClientRequest::new(&uri, Key::from_bytes(key.expect("accepted")));
    for subprotocol in accepted.request.subprotocols() {
        client = client
            .subprotocol(subprotocol)
            .expect("valid and unique, because it was accepted");
    }
    for extension in accepted.request.extensions() {
        client = client
            .extension(&written(extension))
            .expect("valid, because it was accepted");
    }
    let (_, awaiting) = client.start();
    match awaiting.handle_bytes(&accepted.response.to_bytes()) {
        ClientProgress::Connected(connected) => {
            assert_eq!(connected.subprotocol, accepted.subprotocol);
            assert_eq!(connected.response, accepted.response);
        }
        step => panic!("{step:?}"),
    }
}

fn written(extension: sockeye_proto::handshake::Extension<'_>) -> String {
    let params = extension.params().map(|(name, value)| match value {
        Some(value) => format!("; {name}={value}"),
        None => format!("; {name}"),
    });
    extension.name().to_owned() + &params.collect::<String>()
}

/// Checks that a rejection is a complete response that closes the connection.
fn check_rejection(wire: &[u8], invalid: &InvalidRequest) {
    let bytes = invalid.response.to_bytes();
    let head = Head::split(&bytes).expect("a head");
    assert!(head.is_well_formed());
    let status = invalid.error.status().as_u16();
    assert!(matches!(status, 400..=431 | 501 | 505), "{status}");
    assert!(head.first_line.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
    assert!(head.lists("Connection", "close"));
    assert_eq!(head.values("Upgrade").count(), usize::from(status == 426));
    let is_head = wire.starts_with(b"HEAD ") || wire.starts_with(b"\r\nHEAD ");
    let length = head.only("Content-Length").map(|value| value.to_vec());
    if is_head {
        assert_eq!(head.rest, b"");
    } else {
        assert_eq!(length, Some(head.rest.len().to_string().into_bytes()));
    }
    // A request that the reference parser considers valid must not be rejected.
    if let Some(head) = Head::split(wire)
        && is_clearly_valid(&head)
    {
        let is_too_much = matches!(
            invalid.error,
            HandshakeError::HeadTooLarge { .. }
                | HandshakeError::StartLineTooLong { .. }
                | HandshakeError::TooManyHeaders { .. }
        );
        assert!(is_too_much, "rejected: {:?}", invalid.error);
    }
}

fn is_clearly_valid(head: &Head<'_>) -> bool {
    let is_needed = |name: &[u8]| {
        let needed = [
            "Host",
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key",
        ];
        needed.iter().any(|needed| name.eq_ignore_ascii_case(needed.as_bytes()))
    };
    head.first_line == b"GET /a?b HTTP/1.1"
        && head.is_well_formed()
        && head.names().all(|name| is_needed(name) || name.starts_with(b"X"))
        && head
            .only("Host")
            .is_some_and(|host| !host.is_empty() && host.iter().all(u8::is_ascii_lowercase))
        && head.lists("Upgrade", "websocket")
        && head.lists("Connection", "upgrade")
        && head.only("Sec-WebSocket-Version") == Some(b"13")
        && head.only("Sec-WebSocket-Key") == Some(b"x3JJHMbDL1EzLkh9GBhXDw==")
}
