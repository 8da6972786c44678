//! Messages encoded once and sent on many connections.

#![cfg(feature = "deflate")]

mod common;

use common::{Endpoint, Frame, Got, Local, text};
use sockeye_proto::deflate::{CodecPool, DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::{CloseCode, Compress, Data, Fragment, FrameInfo, SendError};

fn config(bits: u8) -> DeflateConfig {
    let mut config = DeflateConfig::default();
    config.window_bits = WindowBits::new(bits).expect("8 to 15");
    config
}

fn deflating(local: Local, takeover: Takeover, bits: u8) -> Endpoint {
    let window_bits = WindowBits::new(bits).expect("8 to 15");
    let params = NegotiatedParams {
        takeover,
        peer_takeover: takeover,
        window_bits,
        peer_window_bits: window_bits,
    };
    let mut endpoint = Endpoint::new(local);
    let connection = &mut endpoint.connection;
    connection.enable_deflate(&DeflateConfig::default(), params, CodecPool::UNPOOLED);
    endpoint
}

fn plain(message: Data<'_>) -> (FrameInfo, Vec<u8>) {
    let mut frame = vec![];
    (FrameInfo::plain(message, &mut frame), frame)
}

fn compressed(message: Data<'_>, bits: u8) -> (FrameInfo, Vec<u8>) {
    let mut frame = vec![];
    let framing = FrameInfo::compressed(message, &config(bits), CodecPool::UNPOOLED, &mut frame);
    (framing.expect("compression makes it smaller"), frame)
}

#[test]
fn plain_framing_matches_sending() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let long = "x".repeat(len);
        for message in [Data::Text(&long), Data::Binary(long.as_bytes())] {
            let mut sent = vec![];
            let mut server = Endpoint::server();
            server.connection.send(message, &mut sent).expect("connection is open");
            let (framing, frame) = plain(message);
            assert_eq!(frame, sent);
            assert_eq!(server.connection.start_framed(message, framing), Ok(()));
        }
    }
}

#[test]
fn compressed_framing_matches_sending_without_takeover() {
    let repeated = "again ".repeat(100);
    let message = Data::Text(&repeated);
    let mut server = deflating(Local::Server, Takeover::Reset, 15);
    let mut sent = vec![];
    let connection = &mut server.connection;
    connection
        .send_with(message, Compress::Always, &mut sent)
        .expect("connection is open");
    let (framing, frame) = compressed(message, 15);
    assert_eq!(frame, sent);
    assert_eq!(connection.start_framed(message, framing), Ok(()));
}

#[test]
fn incompressible_message_is_sent_uncompressed() {
    let mut frame = vec![];
    for bits in [8, 15] {
        let message = Data::Binary(b"\x00\x01\x02\x03");
        let framing = FrameInfo::compressed(message, &config(bits), CodecPool::UNPOOLED, &mut frame);
        assert!(framing.is_none() && frame.is_empty());
    }
}

#[test]
fn with_takeover_later_messages_refer_back_to_a_framed_message() {
    let (mut server, mut client) = (
        deflating(Local::Server, Takeover::Keep, 15),
        deflating(Local::Client, Takeover::Keep, 15),
    );
    let noise: String = (0..1000_u32)
        .map(|i| char::from(b' ' + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
        .collect();
    let message = noise.clone() + &noise;
    let (framing, frame) = compressed(Data::Text(&message), 15);
    server
        .connection
        .start_framed(Data::Text(&message), framing)
        .expect("connection is open");
    assert_eq!(client.receives_bytes(&frame), [Got::text(&message)]);

    let mut again = vec![];
    server
        .connection
        .send(Data::Text(&message), &mut again)
        .expect("connection is open");
    assert!(again.len() < 100, "refers back: {} bytes", again.len());
    assert_eq!(client.receives_bytes(&again), [Got::text(&message)]);
}

#[test]
fn framed_message_is_rejected_on_an_incompatible_connection() {
    let repeated = "again ".repeat(100);
    let message = Data::Text(&repeated);
    let (uncompressed, _) = plain(message);
    let (narrow, _) = compressed(message, 10);
    let (wide, _) = compressed(message, 15);
    let check = |mut endpoint: Endpoint, expected: [Result<(), SendError>; 3]| {
        let framings = [uncompressed, narrow, wide];
        let begun = framings.map(|framing| endpoint.connection.start_framed(message, framing));
        assert_eq!(begun, expected);
    };
    let mismatch = Err(SendError::FrameMismatch);
    check(Endpoint::server(), [Ok(()), mismatch, mismatch]);
    check(
        deflating(Local::Server, Takeover::Reset, 9),
        [Ok(()), mismatch, mismatch],
    );
    check(
        deflating(Local::Server, Takeover::Reset, 10),
        [Ok(()), Ok(()), mismatch],
    );
    check(deflating(Local::Server, Takeover::Reset, 15), [Ok(()); 3]);
    check(Endpoint::client(), [mismatch; 3]);
    check(deflating(Local::Client, Takeover::Reset, 15), [mismatch; 3]);
}

#[test]
fn framed_message_is_rejected_when_no_message_may_start() {
    let message = Data::Text("late");
    let (framing, _) = plain(message);
    let mut server = Endpoint::server();
    let mut out = vec![];
    let connection = &mut server.connection;
    connection
        .send_fragment(Data::Text("a"), Fragment::More, &mut out)
        .expect("connection is open");
    assert_eq!(
        connection.start_framed(message, framing),
        Err(SendError::MessageInProgress)
    );
    connection
        .send_fragment(Data::Text("b"), Fragment::Last, &mut out)
        .expect("connection is open");
    assert_eq!(connection.start_framed(message, framing), Ok(()));
    assert_eq!(
        Frame::parse_all(&out),
        [text("a").fin(false), common::continuation("b")]
    );
    server
        .connection
        .close(CloseCode::NORMAL, "")
        .expect("valid close code");
    assert_eq!(server.connection.start_framed(message, framing), Err(SendError::Closed));
}
