//! Compressed messages on a connection (RFC 7692 §6 to §8).

use sockeye_proto::deflate::{CodecPool, DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::{Compress, Data, ProtocolError};

use crate::common::{Endpoint, Frame, Got, Local, binary, continuation, frame, ping, text};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// An endpoint with these parameters.
fn deflating(local: Local, takeover: Takeover, window_bits: WindowBits) -> Endpoint {
    let mut endpoint = Endpoint::new(local);
    let params = NegotiatedParams {
        takeover,
        peer_takeover: takeover,
        window_bits,
        peer_window_bits: WindowBits::MAX,
    };
    let mut config = DeflateConfig::default();
    config.size_min = 0;
    endpoint.connection.enable_deflate(&config, params, CodecPool::UNPOOLED);
    endpoint
}

fn with_takeover(local: Local) -> Endpoint {
    deflating(local, Takeover::Keep, WindowBits::MAX)
}

fn without_takeover(local: Local) -> Endpoint {
    deflating(local, Takeover::Reset, WindowBits::MAX)
}

/// The encodings of "Hello" in RFC 7692 §7.2.3, ordered so that each can refer back.
fn examples() -> Vec<(&'static str, Vec<Frame>)> {
    let compressed = |payload: &[u8]| vec![text(payload).rsv(4)];
    vec![
        ("§7.2.3.1 one block", compressed(b"\xf2\x48\xcd\xc9\xc9\x07\x00")),
        (
            "§7.2.3.1 in two fragments",
            vec![
                text(b"\xf2\x48\xcd").rsv(4).fin(false),
                continuation(b"\xc9\xc9\x07\x00"),
            ],
        ),
        (
            "§7.2.3.2 refers back to the message before",
            compressed(b"\xf2\x00\x11\x00\x00"),
        ),
        ("§7.2.3.3 stored", compressed(b"\x00\x05\x00\xfa\xffHello\x00")),
        (
            "§7.2.3.4 a final block",
            compressed(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
        ),
        (
            "§7.2.3.5 two blocks",
            compressed(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
        ),
    ]
}

#[test]
fn both_roles_inflate_the_rfc_examples_for_every_split() {
    for local in BOTH {
        let frames: Vec<_> = examples().into_iter().flat_map(|(_, frames)| frames).collect();
        let wire: Vec<u8> = frames
            .into_iter()
            .flat_map(|frame| with_takeover(local).as_peer_sends(frame).bytes())
            .collect();
        let hellos = vec![Got::text("Hello"); examples().len()];
        for cut in 0..=wire.len() {
            let mut endpoint = with_takeover(local);
            let mut got = endpoint.receives_bytes(&wire[..cut]);
            got.extend(endpoint.receives_bytes(&wire[cut..]));
            assert_eq!(got, hellos, "{local:?} split at {cut}");
        }
        let mut endpoint = with_takeover(local);
        let got: Vec<_> = wire.chunks(1).flat_map(|byte| endpoint.receives_bytes(byte)).collect();
        assert_eq!(got, hellos);
        // §7.2.3.6: an empty message is encoded as one byte.
        assert_eq!(endpoint.receives([text(b"\x00").rsv(4)]), [Got::text("")]);
    }
}

#[test]
fn without_takeover_a_message_that_refers_back_fails_1007() {
    assert_eq!(ProtocolError::InvalidDeflate.close_code().0, 1007);
    for local in BOTH {
        let mut endpoint = without_takeover(local);
        for (name, frames) in examples() {
            let refers_back = name.contains("refers back");
            let got = endpoint.receives(frames);
            if refers_back {
                assert_eq!(got, [Got::ProtocolError(ProtocolError::InvalidDeflate)], "{name}");
                endpoint = without_takeover(local);
            } else {
                assert_eq!(got, [Got::text("Hello")], "{name}");
            }
        }
    }
}

#[test]
fn uncompressed_messages_and_pings_mix_with_compressed_messages() {
    for local in BOTH {
        let mut endpoint = with_takeover(local);
        let got = endpoint.receives([
            text(b"\xf2\x48\xcd\xc9\xc9\x07\x00").rsv(4),
            text("plain"),
            binary("plain").fin(false),
            continuation(" too"),
            text(b"\xf2\x00").rsv(4).fin(false),
            ping("p"),
            continuation(b"\x11\x00\x00"),
        ]);
        let expected = [
            Got::text("Hello"),
            Got::text("plain"),
            Got::binary("plain too"),
            Got::ping("p"),
            // Uncompressed messages are not part of the window, so references skip them.
            Got::text("Hello"),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn rsv1_is_valid_only_on_the_first_frame_of_a_message() {
    for local in BOTH {
        for rsv in 1..8 {
            for opcode in 0..16 {
                for begun in [false, true] {
                    let mut endpoint = without_takeover(local);
                    if begun {
                        endpoint.receives([text(b"\xf2").rsv(4).fin(false)]);
                    }
                    let got = endpoint.receives([frame(opcode, b"\x00").rsv(rsv)]);
                    let is_compressed = rsv == 4 && matches!(opcode, 1 | 2) && !begun;
                    let expected = match (is_compressed, opcode) {
                        (true, 1) => Got::text(""),
                        (true, _) => Got::binary(""),
                        (false, _) => {
                            // The RFC does not specify which of several violations is reported.
                            let [Got::ProtocolError(error)] = got[..] else {
                                panic!("{local:?} {rsv} {opcode}: {got:?}");
                            };
                            assert_eq!(error.close_code().0, 1002, "{local:?} {rsv} {opcode}");
                            continue;
                        }
                    };
                    assert_eq!(got, [expected]);
                }
            }
        }
    }
}

#[test]
fn compressed_text_that_is_not_utf8_fails_1007() {
    for local in BOTH {
        // A stored block with a truncated character.
        let stored = b"\x00\x01\x00\xfe\xff\xc3\x00";
        let got = without_takeover(local).receives([text(stored).rsv(4)]);
        assert_eq!(got, [Got::ProtocolError(ProtocolError::InvalidUtf8)]);
        assert_eq!(
            without_takeover(local).receives([binary(stored).rsv(4)]),
            [Got::binary([0xc3])]
        );
    }
}

#[test]
fn window_of_8_bits_disables_compression() {
    for local in BOTH {
        for (bits, rsv) in [(8, 0), (9, 4), (15, 4)] {
            let window_bits = WindowBits::new(bits).expect("8 to 15");
            let mut endpoint = deflating(local, Takeover::Keep, window_bits);
            let mut out = Vec::new();
            let message = "Hello ".repeat(1000);
            let sent = endpoint
                .connection
                .send_with(Data::Text(&message), Compress::Always, &mut out);
            assert_eq!(sent, Ok(()));
            assert_eq!(Frame::parse_all(&out)[0].rsv, rsv, "{bits}");
        }
    }
}

#[test]
fn uncompressed_secret_is_sent_with_its_own_length() {
    for local in BOTH {
        let [wrong, right, none] = lengths_after_guesses(local, Compress::Never);
        assert_eq!((wrong, none), (right, right));
        // With compression, the right guess makes the message shorter.
        let [wrong, right, none] = lengths_after_guesses(local, Compress::Always);
        assert!(right < wrong && right < none);
    }
}

/// Lengths on the wire of a secret that follows an attacker's text: a wrong guess, the right one, and none.
fn lengths_after_guesses(local: Local, compress: Compress) -> [usize; 3] {
    ["token=0000000000", "token=1234567890", "nothing at all.."].map(|guess| {
        let mut endpoint = with_takeover(local);
        let mut out = Vec::new();
        let guessed = endpoint
            .connection
            .send_with(Data::Text(&guess.repeat(10)), Compress::Always, &mut out);
        out.clear();
        let secret = Data::Text("token=1234567890");
        let sent = endpoint.connection.send_with(secret, compress, &mut out);
        assert_eq!((guessed, sent), (Ok(()), Ok(())));
        out.len()
    })
}
