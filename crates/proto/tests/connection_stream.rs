//! Messages that are received while they arrive, compressed or not, and that may be given up while they are sent.

#![cfg(feature = "deflate")]

mod common;

use common::{Endpoint, Got, Local, binary, close, continuation, ping, text};
use sockeye_proto::deflate::{CodecPool, DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::{
    CloseCode, Compress, Config, Data, Fragment, MessageKind, ProtocolError, ReceiveMode, SendError, State,
};

const PAIRS: [(Local, Local); 2] = [(Local::Server, Local::Client), (Local::Client, Local::Server)];

fn endpoint(local: Local, takeover: Takeover, bits: u8) -> Endpoint {
    let mut config = Config::default();
    // A limit for whole messages, which must not apply.
    config.limits.message_size_max = 1000;
    let mut endpoint = Endpoint::with(local, config);
    let bits = WindowBits::new(bits).expect("8 to 15");
    let params = NegotiatedParams {
        takeover,
        peer_takeover: takeover,
        window_bits: bits,
        peer_window_bits: bits,
    };
    let deflate = DeflateConfig::default();
    endpoint
        .connection
        .enable_deflate(&deflate, params, CodecPool::UNPOOLED);
    endpoint
}

fn streaming(local: Local, takeover: Takeover, bits: u8) -> Endpoint {
    let mut endpoint = endpoint(local, takeover, bits);
    assert!(endpoint.connection.set_receive_mode(ReceiveMode::Stream));
    endpoint
}

/// Joins the chunks of each message, and checks their flags.
#[track_caller]
fn joined(got: Vec<Got>) -> Vec<Got> {
    let mut current: Option<(MessageKind, Vec<u8>)> = None;
    let mut joined = vec![];
    for got in got {
        let Got::Chunk {
            kind,
            data,
            first,
            last,
        } = got
        else {
            joined.push(got);
            continue;
        };
        assert_eq!(first, current.is_none());
        assert!(!data.is_empty() || first || last, "an empty chunk in the middle");
        assert!(data.len() <= 16 * 1024 || !last || first);
        let (_, message) = current.get_or_insert((kind, vec![]));
        message.extend(data);
        if last && let Some((kind, message)) = current.take() {
            joined.push(match kind {
                MessageKind::Text => Got::text(std::str::from_utf8(&message).expect("valid text")),
                MessageKind::Binary => Got::binary(message),
            });
        }
    }
    assert_eq!(current, None, "an unfinished message");
    joined
}

/// Compressible bytes that do not repeat.
fn numbers(from: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut number = from;
    while bytes.len() < len {
        bytes.extend_from_slice(number.to_string().as_bytes());
        number += 1;
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn compressed_messages_are_inflated_as_they_arrive() {
    // checks [7692-6.2-1, 7692-7.2.2-1, 7692-7.2.2-2]
    for (local, peer) in PAIRS {
        for takeover in [Takeover::Reset, Takeover::Keep] {
            for (bits, piece_len) in [(9, 1), (9, 1000), (15, 7), (15, 100_000)] {
                let (mut sender, mut receiver) = (endpoint(peer, takeover, bits), streaming(local, takeover, bits));
                let mut wire = vec![];
                let mut expected = vec![];
                for (i, len) in [10_usize, 0, 16 * 1024, 16 * 1024 + 1, 100_000, 3]
                    .into_iter()
                    .enumerate()
                {
                    let message = numbers(i, len);
                    let sent = &mut sender.connection;
                    if i % 2 == 0 {
                        sent.send_with(Data::Binary(&message), Compress::Always, &mut wire)
                            .unwrap();
                    } else if len < 10 {
                        sent.send_fragment(Data::Binary(&message), Fragment::Last, &mut wire)
                            .unwrap();
                    } else {
                        let (head, tail) = message.split_at(len / 2);
                        assert!(sent.start_compressed(Data::Binary(head), &mut wire).unwrap());
                        sent.ping(b"between").unwrap();
                        sent.poll_transmit(&mut wire);
                        expected.push(Got::ping("between"));
                        sent.send_fragment(Data::Binary(tail), Fragment::Last, &mut wire)
                            .unwrap();
                    }
                    expected.push(Got::binary(message));
                }
                let pieces = wire.chunks(piece_len);
                let got = joined(pieces.flat_map(|piece| receiver.receives_bytes(piece)).collect());
                let lens = |got: &[Got]| got.iter().map(|got| format!("{got:.40?}")).collect::<Vec<_>>();
                assert!(got == expected, "{:?} instead of {:?}", lens(&got), lens(&expected));
                let totals = receiver.connection.compression_stats().received;
                let sent = sender.connection.compression_stats().sent;
                assert_eq!(totals, sent);
                // Also with context takeover, whole messages can follow.
                assert!(receiver.connection.set_receive_mode(ReceiveMode::Whole));
                let mut wire = vec![];
                let last = numbers(2, 900);
                let sent = &mut sender.connection;
                sent.send_with(Data::Binary(&last), Compress::Always, &mut wire)
                    .unwrap();
                assert_eq!(receiver.receives_bytes(&wire), [Got::binary(last)]);
                assert_eq!(receiver.connection.buffered_len(), 0);
            }
        }
    }
}

#[test]
fn size_of_streamed_messages_is_not_limited() {
    for (local, _) in PAIRS {
        let mut receiver = streaming(local, Takeover::Reset, 15);
        let got = receiver.receives([binary([7; 2000]).fin(false), continuation([8; 2000])]);
        assert_eq!(joined(got), [Got::binary([[7; 2000], [8; 2000]].concat())]);
        // The largest length that a header can declare (RFC 6455 §5.2).
        let mut receiver = streaming(local, Takeover::Reset, 15);
        let first = receiver.as_peer_sends(binary("").declaring((1 << 63) - 1));
        assert_eq!(receiver.receives_bytes(&first.bytes()), [], "no byte of it has arrived");
        assert_eq!(receiver.connection.state(), State::Open);
    }
}

#[test]
fn streamed_text_is_validated_after_inflating() {
    for (local, peer) in PAIRS {
        for (message, is_valid) in [
            ("\u{20ac}".repeat(10_000).into_bytes(), true),
            (["a".repeat(20_000).as_bytes(), b"\xff"].concat(), false),
            (["a".repeat(20_000).as_bytes(), b"\xe2\x82"].concat(), false),
        ] {
            let mut sender = endpoint(peer, Takeover::Reset, 15);
            let mut wire = vec![];
            let data = Data::Binary(&message);
            sender.connection.send_with(data, Compress::Always, &mut wire).unwrap();
            wire[0] = 0xc1; // text
            let mut receiver = streaming(local, Takeover::Reset, 15);
            let got = receiver.receives_bytes(&wire);
            match is_valid {
                true => assert_eq!(joined(got), [Got::text(std::str::from_utf8(&message).unwrap())]),
                false => {
                    assert_eq!(got.last(), Some(&Got::ProtocolError(ProtocolError::InvalidUtf8)));
                    assert!(got.len() > 1, "the valid part is delivered");
                }
            }
        }
    }
}

#[test]
fn invalid_streams_fail_the_connection() {
    for (local, _) in PAIRS {
        for (payload, error) in [
            (vec![0xff], ProtocolError::InvalidDeflate),
            (vec![0xf2, 0x48, 0xcd], ProtocolError::InvalidDeflate),
            (vec![], ProtocolError::InvalidDeflate),
            (
                [[0x03, 0x00].repeat(10_000), vec![0x00]].concat(),
                ProtocolError::TooManyFinalBlocks,
            ),
        ] {
            for cut in [0, payload.len() / 2, payload.len()] {
                let mut receiver = streaming(local, Takeover::Keep, 15);
                let (head, tail) = payload.split_at(cut);
                let got = receiver.receives([binary(head).rsv(4).fin(false), continuation(tail)]);
                assert_eq!(got.last(), Some(&Got::ProtocolError(error)), "cut at {cut}");
            }
        }
        // Two final blocks are valid, also if the second refers back to the first.
        let mut receiver = streaming(local, Takeover::Reset, 15);
        let twice = [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..]; 2].concat();
        let got = receiver.receives([binary([&twice[..], &[0x00]].concat()).rsv(4)]);
        assert_eq!(joined(got), [Got::binary("HelloHello")]);
    }
}

#[test]
fn rejected_message_closes_with_1009() {
    for (local, _) in PAIRS {
        let mut receiver = streaming(local, Takeover::Reset, 15);
        receiver.receives([binary("abc").fin(false)]);
        receiver.connection.reject_message(receiver.now());
        assert_eq!(receiver.connection.state(), State::Draining);
        let frames = receiver.transmits();
        assert_eq!(frames[0].payload[..2], 1009_u16.to_be_bytes());
        // Has no effect afterwards.
        receiver.connection.reject_message(receiver.now());
    }
}

#[test]
fn close_frame_follows_abandoned_message() {
    for (_, peer) in PAIRS {
        for is_compressed in [false, true] {
            let mut sender = endpoint(peer, Takeover::Keep, 15);
            let mut out = vec![];
            let part = numbers(0, 10_000);
            let connection = &mut sender.connection;
            match is_compressed {
                true => assert!(connection.start_compressed(Data::Binary(&part), &mut out).unwrap()),
                false => connection
                    .send_fragment(Data::Binary(&part), Fragment::More, &mut out)
                    .unwrap(),
            }
            assert!(connection.is_sending_fragments());
            connection.abandon_message();
            let again = connection.send(Data::Text("another"), &mut out);
            assert_eq!(again, Err(SendError::MessageInProgress));
            connection.close(CloseCode(1011), "").unwrap();
            let mut frames = sender.transmits();
            frames[0].mask = None;
            assert_eq!(frames, [close(1011, "")]);
        }
    }
}

#[test]
fn control_frames_arrive_between_chunks() {
    for (local, _) in PAIRS {
        let mut receiver = streaming(local, Takeover::Reset, 15);
        let got = receiver.receives([text("a").fin(false), ping("p"), continuation("b")]);
        let expected = [
            Got::chunk(MessageKind::Text, "a", true, false),
            Got::ping("p"),
            Got::chunk(MessageKind::Text, "b", false, true),
        ];
        assert_eq!(got, expected);
    }
}
