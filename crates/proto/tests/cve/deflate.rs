//! C5, C6, C7 with permessage-deflate (RFC 7692): decompression bombs, invalid parameters, invalid data.

use std::cell::Cell;

use sockeye_proto::deflate::{CodecPool, DeflateConfig, Inflater, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::handshake::{Acceptance, HandshakeError, Headers};
use sockeye_proto::{Compress, Connection, Data, Event, ProtocolError};

use crate::common::{Frame, Local, at, binary, continuation, frame, text};
use crate::cost::{Cost, FAILURE, connection, flood, limited, sent_to};
use crate::handshake_support::{incoming, plus};

const LIMIT: u64 = 1 << 20;

/// Memory for a message of the maximum size and its copy while growing, the codec, and a tolerance of 64 KiB.
const BOUND: u64 = 2 * LIMIT + 64 * 1024 + 64 * 1024;

/// A connection with the largest windows, with limits and without a codec pool.
fn deflating(local: Local, peer_takeover: Takeover) -> Connection {
    deflating_with(local, peer_takeover, CodecPool::UNPOOLED)
}

fn deflating_with(local: Local, peer_takeover: Takeover, codecs: CodecPool) -> Connection {
    let mut connection = connection(local, limited(LIMIT));
    let params = NegotiatedParams {
        takeover: peer_takeover,
        peer_takeover,
        window_bits: WindowBits::MAX,
        peer_window_bits: WindowBits::MAX,
    };
    // The highest level, for peers that create bombs.
    let mut config = DeflateConfig::default();
    config.level = 9;
    connection.enable_deflate(&config, params, codecs);
    connection
}

/// Returns the frame of a message compressed by `peer`.
fn compressed_by(peer: &mut Connection, message: &[u8]) -> Frame {
    let mut out = Vec::new();
    peer.send_with(Data::Binary(message), Compress::Always, &mut out)
        .expect("connection is open");
    let mut frames = Frame::parse_all(&out);
    assert_eq!((frames.len(), frames[0].rsv), (1, 4), "one frame, compressed");
    let mut frame = frames.remove(0);
    frame.mask = None;
    frame
}

/// A frame with compressed zeros, a thousandth of their size.
fn bomb(len: usize) -> Frame {
    compressed_by(&mut deflating(Local::Server, Takeover::Reset), &vec![0; len])
}

fn receives(local: Local, frames: impl IntoIterator<Item = Frame>) -> Cost {
    flood(&mut deflating(local, Takeover::Reset), &sent_to(local, frames), &[], 0)
}

#[track_caller]
fn check_limited(cost: Cost) {
    assert_eq!(cost.error, Some(ProtocolError::MessageTooBig));
    assert_eq!(ProtocolError::MessageTooBig.close_code().0, 1009);
    assert!(cost.bytes_max <= BOUND, "{cost:?}");
    assert!(cost.bytes_left <= FAILURE as i64, "{cost:?}");
}

#[test]
fn cve_2018_1000518_bomb_in_one_frame_is_limited() {
    let bomb = bomb(8 << 20);
    assert!(bomb.payload.len() < 9000, "expected a ratio of 1000 to 1");
    check_limited(receives(Local::Server, [bomb]));
}

#[test]
fn cve_2026_1526_bomb_is_limited_on_a_client() {
    check_limited(receives(Local::Client, [bomb(8 << 20)]));
}

#[test]
fn cve_2016_10544_message_size_limit_is_inclusive() {
    let limit = LIMIT as usize;
    for local in [Local::Server, Local::Client] {
        let cost = receives(local, [bomb(limit - 1), bomb(limit)]);
        assert_eq!((cost.error, cost.event_count), (None, 2));
        check_limited(receives(local, [bomb(limit + 1)]));
    }
}

#[test]
fn cve_2026_39804_bomb_in_fragments_is_limited() {
    let bomb = bomb(8 << 20);
    let last = bomb.payload.len().div_ceil(100) - 1;
    let fragments = bomb.payload.chunks(100).enumerate().map(|(idx, payload)| match idx {
        0 => binary(payload).rsv(4).fin(false),
        _ => continuation(payload).fin(idx == last),
    });
    check_limited(receives(Local::Server, fragments));
}

#[test]
fn cve_2026_5680_bomb_primed_by_earlier_messages_is_limited() {
    let (mut peer, mut server) = (
        deflating(Local::Client, Takeover::Keep),
        deflating(Local::Server, Takeover::Keep),
    );
    for len in [40_000, 100, LIMIT as usize] {
        let wire = sent_to(Local::Server, [compressed_by(&mut peer, &vec![7; len])]);
        assert_eq!(flood(&mut server, &wire, &[], 0).event_count, 1);
    }
    let wire = sent_to(Local::Server, [compressed_by(&mut peer, &vec![7; 16 << 20])]);
    check_limited(flood(&mut server, &wire, &[], 0));
}

#[test]
fn cve_2026_27571_nothing_is_inflated_without_negotiation() {
    // checks [6455-5.8-1, 7692-5-10]
    let wire = sent_to(Local::Server, [bomb(8 << 20)]);
    let cost = flood(&mut connection(Local::Server, limited(LIMIT)), &wire, &[], 0);
    assert_eq!(cost.error, Some(ProtocolError::ReservedBits));
    assert!(cost.bytes_max <= FAILURE, "{cost:?}");
}

#[test]
fn cve_2026_54464_compressed_size_is_limited() {
    // Incompressible data grows slightly, so a frame may declare slightly more than the limit.
    let cost = receives(Local::Server, [binary("").rsv(4).declaring(2 * LIMIT)]);
    assert_eq!(cost.error, Some(ProtocolError::MessageTooBig));
    assert!(cost.bytes_max <= FAILURE, "at the header: {cost:?}");
}

#[test]
fn cve_ghsa_mq44_7p77_q5h7_rsv1_is_valid_only_on_the_first_frame() {
    // checks [7692-6.1-4, 7692-6.1-5, 7692-6.1-6]
    for local in [Local::Server, Local::Client] {
        let fragments = [binary("a").rsv(4).fin(false), continuation("b").rsv(4)];
        assert_eq!(receives(local, fragments).error, Some(ProtocolError::ReservedBits));
        for opcode in [0x8, 0x9, 0xa] {
            let cost = receives(local, [frame(opcode, "").rsv(4)]);
            assert_eq!(cost.error, Some(ProtocolError::ReservedBits));
        }
    }
}

#[test]
fn cve_2022_39386_rsv2_and_rsv3_are_rejected_with_compression() {
    for local in [Local::Server, Local::Client] {
        for rsv in [1, 2, 3, 5, 6, 7] {
            assert_eq!(
                receives(local, [text("a").rsv(rsv)]).error,
                Some(ProtocolError::ReservedBits)
            );
        }
    }
}

/// Invalid parameters of permessage-deflate (RFC 7692 §7.1).
const BAD_PARAMS: [&str; 24] = [
    "server_max_window_bits=0",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=99",
    "server_max_window_bits=256",
    "server_max_window_bits=08",
    "server_max_window_bits=+8",
    "server_max_window_bits=-8",
    "server_max_window_bits=8.0",
    "server_max_window_bits=0x8",
    "server_max_window_bits=x",
    "server_max_window_bits=18446744073709551624",
    "server_max_window_bits",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=010",
    "server_no_context_takeover=1",
    "client_no_context_takeover=\"true\"",
    "server_max_window_bits=9; server_max_window_bits=9",
    "client_max_window_bits; client_max_window_bits",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "unknown",
    "SERVER_MAX_WINDOW_BITS=9",
];

#[test]
fn cve_2026_2229_invalid_parameters_decline_the_offer_on_a_server() {
    // checks [7692-5-9, 7692-7-2, 7692-7-3, 7692-7-4]
    for params in BAD_PARAMS {
        let incoming = incoming(&plus(&[&format!(
            "Sec-WebSocket-Extensions: permessage-deflate; {params}"
        )]));
        let (acceptance, negotiated) = Acceptance::new().deflate(&DeflateConfig::default(), incoming.request());
        assert_eq!(negotiated, None, "{params}");
        let response = incoming.accept(acceptance).expect("plain").response;
        assert_eq!(response.status().as_u16(), 101);
        assert!(!response.headers().contains("Sec-WebSocket-Extensions"), "{params}");
    }
}

#[test]
fn cve_2026_2229_invalid_parameters_fail_the_handshake_on_a_client() {
    // checks [7692-5-11, 7692-7-6, 7692-7-7, 7692-7-8]
    let client = DeflateConfig::default();
    for params in BAD_PARAMS {
        let mut headers = Headers::new();
        let answer = format!("permessage-deflate; server_no_context_takeover; {params}");
        headers
            .try_append("Sec-WebSocket-Extensions", answer)
            .expect("valid header");
        let accepted = client.accept(headers.extensions());
        assert_eq!(accepted, Err(HandshakeError::ExtensionMismatch), "{params}");
    }
}

/// Passes `payload` to a server as a compressed message and checks the result.
#[track_caller]
fn inflates(payload: &[u8], expected: Result<&[u8], ProtocolError>) {
    let mut connection = deflating(Local::Server, Takeover::Reset);
    let mut wire = sent_to(Local::Server, [binary(payload).rsv(4)]);
    let found = match connection.handle_bytes(at(0), &mut wire).event {
        Some(Event::Message { payload, .. }) => Ok(payload.into_owned()),
        Some(Event::ProtocolError(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        found.as_deref(),
        expected.as_ref().map(|bytes| &**bytes),
        "{payload:02x?}"
    );
}

#[test]
fn cve_2026_87022_invalid_compressed_message_is_1007() {
    let broken: [&[u8]; 5] = [
        b"\x07",                                 // reserved block type
        b"\xff\xff\xff\xff",                     //
        b"\x00\x05\x00\x00\x00hello",            // a stored block with inconsistent length and complement
        b"\xf2\x48\xcd",                         // truncated within a block
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x07\x00", // a valid message followed by an invalid block
    ];
    for payload in broken {
        inflates(payload, Err(ProtocolError::InvalidDeflate));
    }
    assert_eq!(ProtocolError::InvalidDeflate.close_code().0, 1007);
}

#[test]
fn cve_2026_87022_final_block_does_not_end_the_message() {
    // checks [7692-7.2.1-6]
    // RFC 7692 §7.2.3.4: a block with BFINAL, and the start of the empty block in the tail.
    inflates(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", Ok(b"Hello"));
    // Two final blocks, so that data follows the first one.
    inflates(
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00",
        Ok(b"HelloHello"),
    );
    // Without the last octet, the tail is not a valid block (ws#2294, bun#33592).
    inflates(b"\xf3\x48\xcd\xc9\xc9\x07\x00", Err(ProtocolError::InvalidDeflate));
}

#[test]
fn cve_2026_87022_final_blocks_are_limited() {
    // Empty final blocks with fixed codes, two bytes each, followed by the start of the tail: valid data.
    let blocks = |count| [b"\x03\x00".repeat(count), b"\x00".to_vec()].concat();
    inflates(&blocks(1), Ok(b""));
    inflates(&blocks(8), Ok(b""));
    inflates(&blocks(9), Err(ProtocolError::TooManyFinalBlocks));
    inflates(&blocks(100_000), Err(ProtocolError::TooManyFinalBlocks));
    assert_eq!(ProtocolError::TooManyFinalBlocks.close_code().0, 1008);
}

#[test]
fn cve_rustsec_2024_0401_many_blocks_do_not_overflow_the_stack() {
    let empty_stored = b"\x00\x00\x00\xff\xff";
    inflates(&[empty_stored.repeat(100_000), b"\x00".to_vec()].concat(), Ok(b""));
}

thread_local! {
    static BORROWED: Cell<i32> = const { Cell::new(0) };
}

#[test]
fn cve_2026_1605_codec_is_returned_after_every_outcome() {
    let codecs = CodecPool {
        take_inflater: || {
            BORROWED.set(BORROWED.get() + 1);
            Box::new(Inflater::new())
        },
        return_inflater: |_| BORROWED.set(BORROWED.get() - 1),
        ..CodecPool::UNPOOLED
    };
    for frame in [
        bomb(100),
        bomb(2 << 20),
        binary(b"\x07").rsv(4),
        text(b"\x00\x01\x00\xfe\xff\xff\x00").rsv(4),
    ] {
        let mut connection = deflating_with(Local::Server, Takeover::Reset, codecs);
        let cost = flood(&mut connection, &sent_to(Local::Server, [frame]), &[], 0);
        assert!(cost.error.is_some() || cost.event_count == 1, "{cost:?}");
        assert_eq!(BORROWED.get(), 0);
    }
}
