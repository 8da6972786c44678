//! The cases: inner loops to count or time.

use std::hint::black_box;
use std::sync::Arc;

use sockeye_proto::deflate::{CodecPool, DeflateConfig, Deflater, Inflater, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::frame::{FrameHeader, Opcode};
use sockeye_proto::{Compress, Config, Connection, Data, Event, Instant, MaskingKey, Role};

use crate::echo::echo;

/// One case.
pub struct Case {
    /// Name and size.
    pub name: &'static str,
    /// Runs it this many times.
    pub run: fn(u64),
}

/// All cases. An echo is a whole message through the public API of `sockeye`, over an in-memory transport.
pub const CASES: [Case; 16] = [
    case("find-20B", |count| find(count, 20, false)),
    case("find-1KiB-text", |count| find(count, 1024, true)),
    case("decode-20B", |count| decode(count, 20, false)),
    case("decode-1KiB", |count| decode(count, 1024, false)),
    case("decode-1KiB-text", |count| decode(count, 1024, true)),
    case("encode-20B", |count| encode(count, 20)),
    case("encode-1KiB", |count| encode(count, 1024)),
    case("mask-1KiB", |count| mask(count, 1024)),
    case("mask-64KiB", |count| mask(count, 64 * 1024)),
    case("deflate-1KiB", deflate),
    case("inflate-1KiB", inflate),
    case("echo-20B-x1", |count| echo(count, 1, 20, false)),
    case("echo-20B-x16", |count| echo(count, 16, 20, false)),
    case("echo-20B-x256", |count| echo(count, 256, 20, false)),
    case("echo-1KiB-text-x16", |count| echo(count, 16, 1024, true)),
    case("echo-16KiB-x1", |count| echo(count, 1, 16 * 1024, false)),
];

const fn case(name: &'static str, run: fn(u64)) -> Case {
    Case { name, run }
}

/// Payload pattern: UTF-8 text with characters of one, two and three bytes.
const PATTERN: &str = "grün 赤 azul ";

/// Number of frames in a burst.
const BURST: u64 = 64;

/// A masked client frame.
pub(crate) fn frame(payload_len: usize, is_text: bool) -> Vec<u8> {
    let key = MaskingKey([0x37, 0xfa, 0x21, 0x3d]);
    let mut frame = Vec::new();
    let header = FrameHeader {
        fin: true,
        rsv: 0,
        opcode: if is_text { Opcode::Text } else { Opcode::Binary },
        mask: Some(key),
        payload_len: payload_len as u64,
    };
    header.encode(&mut frame);
    let start = frame.len();
    frame.extend(PATTERN.bytes().cycle().take(payload_len));
    // The pattern is cut at the end, perhaps inside a character.
    let cut = payload_len % PATTERN.len();
    frame[start + payload_len - cut..].fill(b' ');
    key.apply(&mut frame[start..]);
    frame
}

fn server() -> Connection {
    Connection::new(Role::Server, Arc::new(Config::default()), Instant::default())
}

/// Includes a copy of the burst, because unmasking changes it.
fn decode(count: u64, payload_len: usize, is_text: bool) {
    let mut connection = server();
    let template = frame(payload_len, is_text).repeat(BURST as usize);
    let mut input = template.clone();
    let mut decoded = 0;
    while decoded < count {
        input.copy_from_slice(&template);
        let mut rest = input.as_mut_slice();
        loop {
            let received = connection.handle_bytes(Instant::default(), rest);
            let consumed = received.consumed;
            match black_box(received.event) {
                Some(Event::Message { .. }) => decoded += 1,
                Some(event) => panic!("{event:?}"),
                None => break,
            }
            rest = &mut rest[consumed..];
        }
    }
}

/// Like the driver of `sockeye`: messages are unmasked while they are copied out.
fn find(count: u64, payload_len: usize, is_text: bool) {
    let mut connection = server();
    let input = frame(payload_len, is_text).repeat(BURST as usize);
    let mut found = 0;
    while found < count {
        let mut rest = input.as_slice();
        while let Some(message) = connection.recognize_message(Instant::default(), black_box(rest)) {
            match message.len() {
                ..=24 => drop(black_box(message.to_array::<24>().expect("the payload is right"))),
                _ => drop(black_box(message.to_vec().expect("the payload is right"))),
            }
            rest = &rest[message.frame_len()..];
            found += 1;
        }
        assert!(rest.is_empty(), "all of it are messages");
    }
}

fn encode(count: u64, payload_len: usize) {
    let mut connection = server();
    let payload = vec![b'x'; payload_len];
    let mut out = Vec::new();
    for number in 0..count {
        if number % BURST == 0 {
            out.clear();
        }
        let sent = connection.send(Data::Binary(black_box(&payload)), &mut out);
        sent.expect("the connection is open");
        black_box(&out);
    }
}

fn mask(count: u64, len: usize) {
    let mut data = vec![b'x'; len];
    for _ in 0..count {
        MaskingKey([0x37, 0xfa, 0x21, 0x3d]).apply(black_box(&mut data));
    }
}

/// One codec of each kind for all cases, like one per thread in the driver.
fn deflating() -> Connection {
    use std::cell::Cell;
    thread_local! {
        static DEFLATER: Cell<Option<Box<Deflater>>> = const { Cell::new(None) };
        static INFLATER: Cell<Option<Box<Inflater>>> = const { Cell::new(None) };
    }
    let codecs = CodecPool {
        take_deflater: |config| DEFLATER.take().unwrap_or_else(|| Box::new(Deflater::new(config))),
        return_deflater: |codec| DEFLATER.set(Some(codec)),
        take_inflater: || INFLATER.take().unwrap_or_default(),
        return_inflater: |codec| INFLATER.set(Some(codec)),
    };
    let agreement = NegotiatedParams {
        takeover: Takeover::Reset,
        peer_takeover: Takeover::Reset,
        window_bits: WindowBits::MAX,
        peer_window_bits: WindowBits::MAX,
    };
    let mut connection = server();
    connection.enable_deflate(&DeflateConfig::default(), agreement, codecs);
    connection
}

/// About 1 KiB of JSON from a market feed.
fn json() -> String {
    let mut json = String::from("[");
    for number in 0..10_u64 {
        let price = 10_000 + number * 7919 % 977;
        let entry = format!(
            r#"{{"symbol":"SOCK{number}","side":"{}","price":{}.{:02},"quantity":{},"sequence":{}}},"#,
            if number % 3 == 0 { "sell" } else { "buy" },
            price / 100,
            price % 100,
            number * 104_729 % 1000,
            1_700_000_000 + number * 31,
        );
        json += &entry;
    }
    json.truncate(1023);
    json + "]"
}

fn deflate(count: u64) {
    let mut connection = deflating();
    let json = json();
    let mut out = Vec::new();
    for _ in 0..count {
        out.clear();
        let sent = connection.send_with(Data::Text(black_box(&json)), Compress::Always, &mut out);
        sent.expect("the connection is open");
        black_box(&out);
    }
}

fn inflate(count: u64) {
    let mut connection = deflating();
    let mut template = Vec::new();
    let sent = connection.send_with(Data::Text(&json()), Compress::Always, &mut template);
    sent.expect("the connection is open");
    // A client frame masked with zeros.
    template[1] |= 0x80;
    template.splice(4..4, [0; 4]);
    let mut input = template.clone();
    for _ in 0..count {
        input.copy_from_slice(&template);
        let received = connection.handle_bytes(Instant::default(), &mut input);
        assert!(matches!(black_box(received.event), Some(Event::Message { .. })));
    }
}
