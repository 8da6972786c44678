//! Responses received by a client: the result is independent of splits, bounded, and agrees with the reference parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::http::Head;
use sockeye_fuzz::memory::Meter;
use sockeye_proto::handshake::{
    AwaitingResponse, ClientProgress, ClientRequest, Connected, HandshakeError, HandshakeLimits, Key, Response, Uri,
};

/// The key of the request and the corresponding accept value (RFC 6455 §1.3).
const KEY: [u8; 16] = *b"\xc7\x72\x49\x1c\xc6\xc3\x2f\x51\x33\x2e\x48\x7d\x18\x18\x57\x0f";
const ACCEPT: &[u8] = b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=";

/// Prefix and suffix that turn an input into the fields of an otherwise valid response.
const BEFORE_FIELDS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n";
const AFTER_FIELDS: &[u8] = b"\r\n\r\n\x81\x00";
/// Prefix that turns an input into a chunked body.
const BEFORE_CHUNKS: &[u8] = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let [choices, seed, bytes @ ..] = input else { return };
    let mut limits = HandshakeLimits::default();
    if choices & 1 != 0 {
        limits = HandshakeLimits {
            head_size_max: 200,
            header_count_max: 6,
            body_size_max: 16,
            informational_count_max: 2,
        };
    }
    let wire = match choices >> 1 & 3 {
        0 | 1 => bytes.to_vec(),
        2 => [BEFORE_FIELDS, bytes, AFTER_FIELDS].concat(),
        _ => [BEFORE_CHUNKS, bytes].concat(),
    };
    check(&wire, limits, *seed);
});

#[derive(Debug)]
enum Outcome {
    /// The response is incomplete.
    Incomplete,
    Connected(Box<Connected>),
    Rejected(Box<Response>),
    Failed(HandshakeError),
}

fn check(wire: &[u8], limits: HandshakeLimits, seed: u8) {
    let (whole, whole_used) = run(wire, limits, None);
    let (cut, cut_used) = run(wire, limits, Some(Cuts::new(seed)));
    match (whole, cut) {
        (Ok(Outcome::Connected(whole)), Ok(Outcome::Connected(cut))) => {
            assert_eq!((&whole.response, &whole.subprotocol), (&cut.response, &cut.subprotocol));
            // The bytes after the head are the same for every split.
            let all = |connected: &Connected, used: usize| [&connected.read_buf, &wire[used..]].concat();
            assert_eq!(all(&whole, whole_used), all(&cut, cut_used));
            check_valid(wire, &whole);
            check_reencoded(&whole);
        }
        (Ok(Outcome::Rejected(whole)), Ok(Outcome::Rejected(cut))) => {
            assert_eq!(whole, cut);
            check_rejection(&whole, limits);
        }
        (Ok(Outcome::Failed(whole)), Ok(Outcome::Failed(cut))) => assert_eq!(whole, cut),
        (Err(whole), Err(cut)) => {
            assert_eq!(whole, cut);
            if let [Ok(at_end), Ok(at_timeout)] = &whole {
                assert_eq!(at_end.body(), at_timeout.body());
                assert!(at_timeout.is_body_truncated());
                check_rejection(at_end, limits);
            }
        }
        (whole, cut) => panic!("in one piece: {whole:?}\nsplit: {cut:?}"),
    }
}

/// Results of `handle_timeout` and `handle_eof` for an incomplete response.
type Ends = [Result<Response, HandshakeError>; 2];

/// Drives a client to its result, including timeout and end. Returns the number of bytes used.
fn run(wire: &[u8], limits: HandshakeLimits, cuts: Option<Cuts>) -> (Result<Outcome, Ends>, usize) {
    let mut ends = vec![];
    for is_timeout in [false, true] {
        let (outcome, awaiting, used) = feed(wire, limits, cuts.clone());
        match awaiting {
            None => return (Ok(outcome), used),
            Some(awaiting) if is_timeout => ends.push(awaiting.handle_timeout()),
            Some(awaiting) => ends.push(awaiting.handle_eof()),
        }
    }
    let [at_timeout, at_end] = [ends.pop(), ends.pop()].map(|end| end.expect("both were pushed"));
    (Err([at_end, at_timeout]), wire.len())
}

/// Passes bytes to a client. Returns the outcome, the state if incomplete, and the number of bytes used.
fn feed(wire: &[u8], limits: HandshakeLimits, mut cuts: Option<Cuts>) -> (Outcome, Option<AwaitingResponse>, usize) {
    let mut step = ClientProgress::Incomplete(awaiting(limits));
    let meter = Meter::start();
    let (mut used, mut pieces) = (0, 0);
    let (outcome, awaiting) = loop {
        let awaiting = match step {
            ClientProgress::Incomplete(awaiting) if used < wire.len() => awaiting,
            ClientProgress::Incomplete(awaiting) => break (Outcome::Incomplete, Some(awaiting)),
            ClientProgress::Connected(connected) => break (Outcome::Connected(Box::new(connected)), None),
            ClientProgress::Rejected(response) => break (Outcome::Rejected(Box::new(response)), None),
            ClientProgress::Failed(error) => break (Outcome::Failed(error), None),
        };
        let left = wire.len() - used;
        let len = cuts.as_mut().map_or(left, |cuts| cuts.next_len(left));
        step = awaiting.handle_bytes(&wire[used..used + len]);
        used += len;
        pieces += 1;
    };
    let (peak, asked) = (meter.peak(), meter.asked());
    let limit = limits.head_size_max + limits.body_size_max;
    assert!(
        peak <= limit + used + 64 * 1024,
        "{peak} bytes held with a limit of {limit}"
    );
    // A line of four bytes becomes two entries of about thirty bytes.
    assert!(peak <= 32 * used + 4096, "{peak} bytes held after {used} were received");
    assert!(
        asked <= 64 * used + 16 * pieces + 4096,
        "{asked} bytes allocated, {used} received"
    );
    (outcome, awaiting, used)
}

fn awaiting(limits: HandshakeLimits) -> AwaitingResponse {
    let uri: Uri = "ws://h/".parse().expect("valid URI");
    let request = ClientRequest::new(&uri, Key::from_bytes(KEY)).limits(limits);
    let request = ["chat", "superchat"]
        .into_iter()
        .try_fold(request, ClientRequest::subprotocol);
    let request = request.and_then(|request| request.extension("permessage-deflate; client_max_window_bits"));
    request.expect("valid").start().1
}

/// Performs the checks of RFC 6455 §4.1 with the reference parser.
fn check_valid(wire: &[u8], connected: &Connected) {
    // Skip informational responses.
    let mut head = Head::split(wire).expect("connected without an empty line");
    loop {
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', b'1', b, c, ..] = head.first_line else {
            panic!("connected with the line {}", head.first_line.escape_ascii());
        };
        if [*b, *c] == *b"01" {
            assert!((b'1'..=b'9').contains(minor), "connected over HTTP/1.0");
            break;
        }
        head = Head::split(head.rest).expect("connected without a 101");
    }
    assert!(head.is_well_formed());
    assert!(head.lists("Upgrade", "websocket") && head.lists("Connection", "upgrade"));
    assert_eq!(head.only("Sec-WebSocket-Accept"), Some(ACCEPT));
    let subprotocol = connected.subprotocol.as_ref().map(|subprotocol| subprotocol.as_str());
    assert!(matches!(subprotocol, None | Some("chat" | "superchat")));
    // An empty header is treated as absent.
    let chosen = head
        .values("Sec-WebSocket-Protocol")
        .find(|value| value.iter().any(|byte| !matches!(byte, b' ' | b'\t' | b',')));
    assert_eq!(chosen, subprotocol.map(str::as_bytes));
    // A 101 response has no body, even if it declares one: frames start after the head.
    assert!(head.rest.starts_with(&connected.read_buf));
    for extension in connected.response.headers().extensions() {
        assert_eq!(extension.name(), "permessage-deflate");
    }
}

/// Checks that an accepted response, encoded again from its parsed form, is accepted.
fn check_reencoded(connected: &Connected) {
    let mut limits = HandshakeLimits::default();
    limits.head_size_max *= 2;
    match feed(&connected.response.to_bytes(), limits, None).0 {
        Outcome::Connected(again) => {
            assert_eq!(again.response, connected.response);
            assert_eq!(again.subprotocol, connected.subprotocol);
            assert_eq!(again.read_buf, b"");
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// Checks that a rejection respects the limits and does not have the status 101.
fn check_rejection(response: &Response, limits: HandshakeLimits) {
    let status = response.status().as_u16();
    assert!((200..1000).contains(&status), "{status}");
    assert!(response.body().len() <= limits.body_size_max);
}
