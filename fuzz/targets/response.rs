//! A server's response, read by a client: the same however it is cut, bounded, and sound by a naive reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::http::Head;
use sockeye_fuzz::memory::Meter;
use sockeye_proto::handshake::{
    AwaitingResponse, ClientRequest, ClientProgress, Connected, HandshakeError, HandshakeLimits, Key, Response, Uri,
};

/// The key of the request, and what a server has to make of it (RFC 6455 §1.3 says how).
const KEY: [u8; 16] = *b"\xc7\x72\x49\x1c\xc6\xc3\x2f\x51\x33\x2e\x48\x7d\x18\x18\x57\x0f";
const ACCEPT: &[u8] = b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=";

/// What an input is put between when it is to be the fields of a response that is otherwise right.
const BEFORE_FIELDS: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n";
const AFTER_FIELDS: &[u8] = b"\r\n\r\n\x81\x00";
/// What an input is put behind when it is to be a body in chunks.
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
    /// Still waiting.
    Incomplete,
    Connected(Box<Connected>),
    Refused(Box<Response>),
    Failed(HandshakeError),
}

fn check(wire: &[u8], limits: HandshakeLimits, seed: u8) {
    let (whole, whole_used) = run(wire, limits, None);
    let (cut, cut_used) = run(wire, limits, Some(Cuts::new(seed)));
    match (whole, cut) {
        (Ok(Outcome::Connected(whole)), Ok(Outcome::Connected(cut))) => {
            assert_eq!((&whole.response, &whole.subprotocol), (&cut.response, &cut.subprotocol));
            // What came behind the head is the same bytes, wherever the pieces were cut.
            let all = |connected: &Connected, used: usize| [&connected.read_buf, &wire[used..]].concat();
            assert_eq!(all(&whole, whole_used), all(&cut, cut_used));
            check_sound(wire, &whole);
            check_written_again(&whole);
        }
        (Ok(Outcome::Refused(whole)), Ok(Outcome::Refused(cut))) => {
            assert_eq!(whole, cut);
            check_refused(&whole, limits);
        }
        (Ok(Outcome::Failed(whole)), Ok(Outcome::Failed(cut))) => assert_eq!(whole, cut),
        (Err(whole), Err(cut)) => {
            assert_eq!(whole, cut);
            if let [Ok(at_end), Ok(at_timeout)] = &whole {
                assert_eq!(at_end.body(), at_timeout.body());
                assert!(at_timeout.is_body_truncated());
                check_refused(at_end, limits);
            }
        }
        (whole, cut) => panic!("whole: {whole:?}\ncut: {cut:?}"),
    }
}

/// What the end of the connection and the end of the time make of a response that is not whole.
type Ends = [Result<Response, HandshakeError>; 2];

/// Feeds a client until it knows, and says how many bytes that took.
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

/// Feeds a client, and says what it then is, what still waits, and how many bytes that took.
fn feed(wire: &[u8], limits: HandshakeLimits, mut cuts: Option<Cuts>) -> (Outcome, Option<AwaitingResponse>, usize) {
    let mut step = ClientProgress::Incomplete(awaiting(limits));
    let meter = Meter::start();
    let (mut used, mut pieces) = (0, 0);
    let (outcome, awaiting) = loop {
        let awaiting = match step {
            ClientProgress::Incomplete(awaiting) if used < wire.len() => awaiting,
            ClientProgress::Incomplete(awaiting) => break (Outcome::Incomplete, Some(awaiting)),
            ClientProgress::Connected(connected) => break (Outcome::Connected(Box::new(connected)), None),
            ClientProgress::Rejected(response) => break (Outcome::Refused(Box::new(response)), None),
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
    // A line of four bytes becomes two entries of about thirty.
    assert!(peak <= 32 * used + 4096, "{peak} bytes held of {used} that arrived");
    assert!(
        asked <= 64 * used + 16 * pieces + 4096,
        "{asked} bytes asked for, {used} arrived"
    );
    (outcome, awaiting, used)
}

fn awaiting(limits: HandshakeLimits) -> AwaitingResponse {
    let uri: Uri = "ws://h/".parse().expect("an URI");
    let request = ClientRequest::new(&uri, Key::from_bytes(KEY)).limits(limits);
    let request = ["chat", "superchat"]
        .into_iter()
        .try_fold(request, ClientRequest::subprotocol);
    let request = request.and_then(|request| request.extension("permessage-deflate; client_max_window_bits"));
    request.expect("valid").start().1
}

/// RFC 6455 §4.1, what a client must verify, as far as splitting lines can tell.
fn check_sound(wire: &[u8], connected: &Connected) {
    // Informational responses come before, and are not ours.
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
    // An empty header chooses nothing.
    let chosen = head
        .values("Sec-WebSocket-Protocol")
        .find(|value| value.iter().any(|byte| !matches!(byte, b' ' | b'\t' | b',')));
    assert_eq!(chosen, subprotocol.map(str::as_bytes));
    // A 101 has no body, whatever it announces: frames begin right behind its head.
    assert!(head.rest.starts_with(&connected.read_buf));
    for extension in connected.response.headers().extensions() {
        assert_eq!(extension.name(), "permessage-deflate");
    }
}

/// What was accepted and is written as it was understood is accepted again.
fn check_written_again(connected: &Connected) {
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

/// A refusal holds no more than was asked for, and never the status that opens.
fn check_refused(response: &Response, limits: HandshakeLimits) {
    let status = response.status().as_u16();
    assert!((200..1000).contains(&status), "{status}");
    assert!(response.body().len() <= limits.body_size_max);
}
