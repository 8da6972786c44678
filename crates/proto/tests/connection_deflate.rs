//! Compressed messages on a connection (RFC 7692 §6, §7.2): RSV1, fragments, windows.

#![cfg(feature = "deflate")]

mod common;

use common::{Endpoint, Frame, Got, Local, at, close, continuation, ping, text};
use sockeye_proto::deflate::{CodecPool, DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::{CloseCode, Compress, Config, Data, Fragment, ProtocolError, SendError, TransportAction};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// An endpoint with the same parameters in both directions.
fn deflating(local: Local, takeover: Takeover, window_bits: WindowBits) -> Endpoint {
    deflating_with(local, takeover, window_bits, Config::default())
}

fn deflating_with(local: Local, takeover: Takeover, window_bits: WindowBits, config: Config) -> Endpoint {
    let params = NegotiatedParams {
        takeover,
        peer_takeover: takeover,
        window_bits,
        peer_window_bits: window_bits,
    };
    let mut endpoint = Endpoint::with(local, config);
    let connection = &mut endpoint.connection;
    connection.enable_deflate(&DeflateConfig::default(), params, CodecPool::UNPOOLED);
    endpoint
}

fn without_takeover(local: Local) -> Endpoint {
    deflating(local, Takeover::Reset, WindowBits::MAX)
}

/// Sends a message compressed and returns its single frame, unmasked.
#[track_caller]
fn compressed(endpoint: &mut Endpoint, data: Data<'_>) -> Frame {
    let mut out = vec![];
    let sent = endpoint.connection.send_with(data, Compress::Always, &mut out);
    sent.expect("connection is open");
    let mut frames = endpoint.read_sent(&out);
    assert_eq!((frames.len(), frames[0].rsv), (1, 4), "one frame, compressed");
    let mut frame = frames.remove(0);
    frame.mask = None;
    frame
}

/// Incompressible bytes.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn compressed_message_sets_rsv1_and_keeps_its_opcode() {
    // checks [6455-5.8-1, 7692-6-1, 7692-6.1-1, 7692-7.2.1-1, 7692-7.2.1-7]
    let repeated = "again ".repeat(100);
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        let (mut local, mut peer) = (without_takeover(local), without_takeover(peer));
        let frame = compressed(&mut local, Data::Text(&repeated));
        assert_eq!((frame.opcode, frame.fin), (0x1, true));
        assert!(frame.payload.len() < repeated.len() / 10);
        assert_eq!(peer.receives([frame]), [Got::text(&repeated)]);

        let frame = compressed(&mut local, Data::Binary(repeated.as_bytes()));
        assert_eq!((frame.opcode, frame.fin), (0x2, true));
        assert_eq!(peer.receives([frame]), [Got::binary(&repeated)]);
    }
}

#[test]
fn uncompressed_frames_have_no_rsv1() {
    // checks [7692-6.1-4, 7692-6.1-5, 7692-6.1-2, 7692-6.1-3, 7692-8-1]
    for local in BOTH {
        let mut endpoint = without_takeover(local);
        let repeated = "again ".repeat(100);
        let data = Data::Text(&repeated);
        let mut out = vec![];
        let connection = &mut endpoint.connection;
        connection
            .send_with(data, Compress::Never, &mut out)
            .expect("connection is open");
        // Shorter than `size_min`.
        connection
            .send(Data::Text("short"), &mut out)
            .expect("connection is open");
        connection
            .send_fragment(data, Fragment::More, &mut out)
            .expect("connection is open");
        connection
            .send_fragment(data, Fragment::Last, &mut out)
            .expect("connection is open");
        connection.ping(b"ping").expect("connection is open");
        endpoint.receives([ping("answer me")]);
        endpoint
            .connection
            .close(CloseCode::NORMAL, "")
            .expect("valid close code");
        endpoint.connection.poll_transmit(&mut out);
        let sent: Vec<_> = endpoint
            .read_sent(&out)
            .iter()
            .map(|sent| (sent.opcode, sent.rsv))
            .collect();
        let messages = [(0x1, 0), (0x1, 0), (0x1, 0), (0x0, 0)];
        assert_eq!(sent[..4], messages);
        assert!(
            sent[4..].iter().all(|(opcode, rsv)| *opcode >= 0x8 && *rsv == 0),
            "{sent:?}"
        );
        assert!(sent.len() > 5, "expected at least a pong and a close: {sent:?}");
    }
}

#[test]
fn uncompressed_message_is_accepted_with_compression_negotiated() {
    // checks [7692-6-2]
    for local in BOTH {
        let mut endpoint = without_takeover(local);
        let expected = [Got::text("plain"), Got::text("in parts")];
        let frames = [text("plain"), text("in ").fin(false), continuation("parts")];
        assert_eq!(endpoint.receives(frames), expected);
    }
}

#[test]
fn compressed_message_in_fragments_is_inflated() {
    // checks [7692-6.2-1]
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        let whole = compressed(&mut without_takeover(peer), Data::Text("Hello, hello, hello"));
        for cut in 0..=whole.payload.len() {
            let (head, tail) = whole.payload.split_at(cut);
            let frames = [text(head).rsv(4).fin(false), ping("between"), continuation(tail)];
            let expected = [Got::ping("between"), Got::text("Hello, hello, hello")];
            assert_eq!(without_takeover(local).receives(frames), expected, "split at {cut}");
        }
    }
}

#[test]
fn inflated_text_must_be_utf8() {
    // checks [6455-8.1-1, 7692-6-3]
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        let mut frame = compressed(&mut without_takeover(peer), Data::Binary(&[0xff; 40]));
        assert_eq!(
            without_takeover(local).receives([frame.clone()]),
            [Got::binary([0xff; 40])]
        );
        frame.opcode = 0x1;
        let expected = [Got::ProtocolError(ProtocolError::InvalidUtf8)];
        assert_eq!(without_takeover(local).receives([frame]), expected);
    }
}

#[test]
fn without_takeover_each_message_starts_with_an_empty_window() {
    // checks [7692-7.1.1.1-4, 7692-7.1.1.2-3, 7692-7.2.1-3]
    for local in BOTH {
        let mut endpoint = without_takeover(local);
        let message = noise(40).repeat(3);
        let first = compressed(&mut endpoint, Data::Binary(&message));
        let second = compressed(&mut endpoint, Data::Binary(&message));
        assert_eq!(first.payload, second.payload);
    }
}

#[test]
fn with_takeover_messages_refer_back_to_earlier_ones() {
    // checks [7692-7.2.2-2]
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        let with_takeover = |local| deflating(local, Takeover::Keep, WindowBits::MAX);
        let (mut local, mut peer) = (with_takeover(local), with_takeover(peer));
        let message = noise(40).repeat(3);
        let first = compressed(&mut local, Data::Binary(&message));
        let second = compressed(&mut local, Data::Binary(&message));
        assert!(second.payload.len() < first.payload.len() / 4);
        let expected = [Got::binary(&message), Got::binary(&message)];
        assert_eq!(peer.receives([first, second]), expected);
    }
}

#[test]
fn compressor_does_not_refer_beyond_the_negotiated_window() {
    // checks [7692-7.1.2.1-3, 7692-7.1.2.2-4, 7692-7.2.1-4]
    let message = noise(1500).repeat(2);
    for local in BOTH {
        let len_with = |bits| {
            let window_bits = WindowBits::new(bits).expect("8 to 15");
            let mut endpoint = deflating(local, Takeover::Reset, window_bits);
            let mut out = vec![];
            let data = Data::Binary(&message);
            let sent = endpoint.connection.send_with(data, Compress::Always, &mut out);
            sent.expect("connection is open");
            out.len()
        };
        assert!(len_with(15) < 1700, "the second half should refer to the first");
        assert!(len_with(11) < 1700, "2,048 bytes suffice to refer to the first half");
        for bits in [8, 9, 10] {
            assert!(len_with(bits) >= 3000, "{bits} bits do not suffice");
        }
    }
}

#[test]
fn window_is_32_kib_unless_negotiated() {
    // checks [7692-7.2.2-3]
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        let with_takeover = |local| deflating(local, Takeover::Keep, WindowBits::MAX);
        let mut message = noise(32 * 1024);
        message[..3].copy_from_slice(b"far");
        // A compressible prefix, so that the message is sent compressed. It is outside the window afterwards.
        let padded = [vec![0; 4096], message].concat();
        let first = compressed(&mut with_takeover(peer), Data::Binary(&padded));
        // A block with fixed codes: a match of three bytes at distance 32,768, and the end of the block.
        let second = text([0x02, 0xde, 0xff, 0x0f, 0x00]).rsv(4);
        let expected = [Got::binary(&padded), Got::text("far")];
        assert_eq!(with_takeover(local).receives([first, second]), expected);
    }
}

#[test]
fn no_window_is_larger_than_32_kib_and_the_default_is_not_smaller() {
    // checks [7692-7.2.1-9, 7692-7.3-1]
    let sizes: Vec<_> = (0..=u8::MAX)
        .filter_map(WindowBits::new)
        .map(WindowBits::size)
        .collect();
    assert_eq!(
        (sizes.first(), sizes.last(), sizes.len()),
        (Some(&256), Some(&32_768), 8)
    );
    let config = DeflateConfig::default();
    assert_eq!(
        (config.window_bits, config.peer_window_bits),
        (WindowBits::MAX, WindowBits::MAX)
    );
    // Repeated data is referred to within the window, but not beyond it.
    for local in BOTH {
        let len_of = |distance| {
            let message = noise(distance).repeat(2);
            let mut out = vec![];
            let data = Data::Binary(&message);
            let sent = without_takeover(local)
                .connection
                .send_with(data, Compress::Always, &mut out);
            sent.expect("connection is open");
            out.len()
        };
        assert!(len_of(30_000) < 40_000);
        assert!(len_of(33_000) >= 66_000);
    }
}

const GUESSED: &str = "93d1-7c0f-a24e-58b6";

/// Lengths on the wire, as an eavesdropper sees them, of a secret and of a guess at it, sent over a connection with
/// context takeover.
fn lengths_seen(local: Local, secret: &str, compress: Compress, is_secret_first: bool) -> [usize; 2] {
    // Compressible text around it, because incompressible messages are sent uncompressed.
    let in_form = |token: &str| format!("{}{token}", "the token, ".repeat(10));
    let (secret, guess) = (in_form(secret), in_form(GUESSED));
    let mut endpoint = deflating(local, Takeover::Keep, WindowBits::MAX);
    let mut sent_len = |data: &str, compress| {
        let mut out = vec![];
        let sent = endpoint.connection.send_with(Data::Text(data), compress, &mut out);
        sent.expect("connection is open");
        out.len()
    };
    sent_len(&"what both have in common: the token, ".repeat(10), Compress::Always);
    let (secret, guess) = ((secret, compress), (guess, Compress::Always));
    let messages = match is_secret_first {
        true => [secret, guess],
        false => [guess, secret],
    };
    messages.map(|(data, compress)| sent_len(&data, compress))
}

#[test]
fn uncompressed_secret_does_not_affect_lengths() {
    // checks [7692-8-1]
    const OTHERS: [&str; 3] = ["6e82-1b9d-f537-c04a", "93d1-7c0f-a24e-58b7", "93D1-7C0F-A24E-58B6"];
    for local in BOTH {
        for is_secret_first in [true, false] {
            let seen = |secret, compress| lengths_seen(local, secret, compress, is_secret_first);
            for other in OTHERS {
                assert_eq!(other.len(), GUESSED.len(), "the texts must have the same length");
                assert_eq!(seen(GUESSED, Compress::Never), seen(other, Compress::Never), "{other}");
            }
            // With compression, the length reveals the right guess.
            let (guessed, other) = (seen(GUESSED, Compress::Always), seen(OTHERS[0], Compress::Always));
            assert!(guessed[1] + 8 < other[1], "{guessed:?}, {other:?}");
        }
    }
}

/// An endpoint that inflates 64 KiB per step, and a peer that sends to it.
fn inflating_in_steps(local: Local) -> (Endpoint, Endpoint) {
    let mut config = Config::default();
    config.inflate_step_max = 64 * 1024;
    let peer = match local {
        Local::Server => Local::Client,
        Local::Client => Local::Server,
    };
    (
        deflating_with(local, Takeover::Keep, WindowBits::MAX, config),
        deflating(peer, Takeover::Keep, WindowBits::MAX),
    )
}

#[test]
fn large_message_is_inflated_in_steps_before_later_input() {
    let large = vec![7; 1024 * 1024];
    for local in BOTH {
        for fragments in [1, 3] {
            let (mut endpoint, mut peer) = inflating_in_steps(local);
            // Twice, because the second message refers back to the first.
            for _ in 0..2 {
                let whole = compressed(&mut peer, Data::Binary(&large));
                let mut frames: Vec<_> = whole.payload.chunks(whole.payload.len().div_ceil(fragments)).collect();
                let last = frames.pop().expect("at least one frame");
                let mut frames: Vec<_> = frames.into_iter().map(|part| continuation(part).fin(false)).collect();
                frames.push(continuation(last));
                (frames[0].opcode, frames[0].rsv) = (whole.opcode, whole.rsv);
                frames.push(ping("behind"));
                let mut wire: Vec<u8> = frames
                    .into_iter()
                    .flat_map(|frame| endpoint.as_peer_sends(frame).bytes())
                    .collect();

                let mut rest = &mut wire[..];
                let mut steps = 0;
                let message = loop {
                    let received = endpoint.connection.handle_bytes(endpoint.now(), rest);
                    let consumed = received.consumed;
                    let event = received.event.map(Got::from);
                    rest = &mut rest[consumed..];
                    assert_eq!(endpoint.connection.is_inflating(), event.is_none());
                    if let Some(message) = event {
                        break message;
                    }
                    steps += 1;
                    assert!(endpoint.connection.buffered_len() >= steps * 64 * 1024);
                };
                assert_eq!(message, Got::binary(&large));
                assert!((15..=17).contains(&steps), "{steps}");
                assert_eq!(endpoint.connection.buffered_len(), 0);
                let behind = endpoint.connection.handle_bytes(endpoint.now(), rest);
                assert_eq!(behind.event.map(Got::from), Some(Got::ping("behind")));
            }
        }
    }
}

#[test]
fn inflate_error_is_reported_in_its_step() {
    for local in BOTH {
        let (mut endpoint, mut peer) = inflating_in_steps(local);
        let mut frame = compressed(&mut peer, Data::Binary(&vec![7; 1024 * 1024]));
        // Make the length of the last stored block inconsistent with its complement.
        frame.payload.push(0x06);
        assert_eq!(
            endpoint.receives([frame]),
            [Got::ProtocolError(ProtocolError::InvalidDeflate)]
        );
        assert!(!endpoint.connection.is_inflating());

        let (mut endpoint, mut peer) = inflating_in_steps(local);
        let mut text = compressed(&mut peer, Data::Binary(&[&[b'a'; 100_000][..], &[0xff]].concat()));
        text.opcode = 0x1;
        assert_eq!(
            endpoint.receives([text]),
            [Got::ProtocolError(ProtocolError::InvalidUtf8)]
        );
        assert!(!endpoint.connection.is_inflating());
    }
}

#[test]
fn closing_aborts_a_message_being_inflated() {
    for local in BOTH {
        let (mut endpoint, mut peer) = inflating_in_steps(local);
        let frame = compressed(&mut peer, Data::Binary(&vec![7; 1024 * 1024]));
        let mut wire = endpoint.as_peer_sends(frame).bytes();
        let received = endpoint.connection.handle_bytes(endpoint.now(), &mut wire);
        assert_eq!(received.event, None);
        assert!(endpoint.connection.is_inflating());
        assert!(endpoint.connection.direct_read_buffer().is_none());
        endpoint.connection.handle_transport_end();
        assert!(!endpoint.connection.is_inflating());
        assert_eq!(endpoint.connection.buffered_len(), 0);
    }
}

/// Sends a message compressed in parts of this size and returns its frames, unmasked.
#[track_caller]
fn compressed_in_parts(endpoint: &mut Endpoint, message: &[u8], part_len: usize) -> Vec<Frame> {
    let mut out = vec![];
    let connection = &mut endpoint.connection;
    let mut parts = message.chunks(part_len).map(Data::Binary);
    let first = parts.next().expect("not empty");
    assert_eq!(connection.start_compressed(first, &mut out), Ok(true));
    for part in parts {
        assert!(connection.is_compressing());
        let sent = connection.send_fragment(part, Fragment::More, &mut out);
        sent.expect("connection is open");
    }
    let sent = connection.send_fragment(Data::Binary(b""), Fragment::Last, &mut out);
    sent.expect("connection is open");
    assert!(!connection.is_compressing());
    endpoint.read_sent(&out)
}

#[test]
fn message_compressed_in_parts_is_received_as_one() {
    // checks [6455-5.4-1, 7692-6.1-1, 7692-6.1-5, 7692-7.1.1.1-4, 7692-7.1.1.2-3, 7692-7.2.1-7]
    let text = "{\"price\":1024.5,\"symbol\":\"SOCK\"}".repeat(5000);
    let some_noise = [&b"again ".repeat(700)[..], &noise(100_000)].concat();
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        for takeover in [Takeover::Reset, Takeover::Keep] {
            for bits in [9, 15] {
                let window_bits = WindowBits::new(bits).expect("8 to 15");
                let mut local = deflating(local, takeover, window_bits);
                let mut peer = deflating(peer, takeover, window_bits);
                for message in [text.as_bytes(), &some_noise, &some_noise, text.as_bytes()] {
                    for part_len in [500, 20_000] {
                        let frames = compressed_in_parts(&mut local, message, part_len);
                        assert_eq!(frames.len(), message.len().div_ceil(part_len) + 1);
                        for (i, frame) in frames.iter().enumerate() {
                            let (opcode, rsv) = if i == 0 { (0x2, 4) } else { (0x0, 0) };
                            assert_eq!(
                                (frame.opcode, frame.rsv, frame.fin),
                                (opcode, rsv, i + 1 == frames.len())
                            );
                        }
                        assert_eq!(peer.receives(frames), [Got::binary(message)]);
                        // Followed by an unfragmented message, which may refer back to it.
                        let whole = compressed(&mut local, Data::Binary(&message[..200]));
                        assert_eq!(peer.receives([whole]), [Got::binary(&message[..200])]);
                    }
                }
            }
        }
    }
}

#[test]
fn with_takeover_a_message_in_parts_shares_the_window() {
    // checks [7692-7.2.2-2]
    let message = noise(20_000);
    let sizes_with = |local, takeover| {
        let mut endpoint = deflating(local, takeover, WindowBits::MAX);
        let mut size = || -> usize {
            let padded = [&[0; 2000][..], &message].concat();
            let frames = compressed_in_parts(&mut endpoint, &padded, 5000);
            frames.iter().map(|frame| frame.payload.len()).sum()
        };
        [size(), size()]
    };
    for local in BOTH {
        let [first, second] = sizes_with(local, Takeover::Keep);
        assert!(second < first / 10, "{first}, {second}");
        let [first, second] = sizes_with(local, Takeover::Reset);
        assert_eq!(first, second);
    }
}

#[test]
fn message_with_incompressible_prefix_is_sent_uncompressed() {
    let noise = noise(200_000);
    for local in BOTH {
        let smallest = WindowBits::MIN;
        for mut endpoint in [
            without_takeover(local),
            deflating(local, Takeover::Keep, smallest),
            Endpoint::new(local),
        ] {
            let mut out = vec![];
            let begun = endpoint
                .connection
                .start_compressed(Data::Binary(&noise[..5000]), &mut out);
            assert_eq!((begun, out.len()), (Ok(false), 0));
            assert!(!endpoint.connection.is_compressing());
            // No message was started.
            endpoint
                .connection
                .send(Data::Text("short"), &mut out)
                .expect("connection is open");
            assert_eq!(endpoint.read_sent(&out), [text("short")]);
        }
        // For an unfragmented message, the same prefix decides.
        let mut out = vec![];
        let message = [&noise[..64 * 1024], &[0; 1024 * 1024]].concat();
        let connection = &mut without_takeover(local).connection;
        let sent = connection.send_with(Data::Binary(&message), Compress::Always, &mut out);
        assert!(sent.is_ok() && out.len() > message.len());
    }
}

#[test]
fn control_frames_precede_and_close_follows_a_message_in_parts() {
    // checks [6455-5.4-2, 6455-5.5.1-4]
    for (local, peer) in [(Local::Server, Local::Client), (Local::Client, Local::Server)] {
        for closes in [Local::Server, Local::Client] {
            let (mut endpoint, mut peer) = (without_takeover(local), without_takeover(peer));
            let mut sent = vec![];
            let mut out = vec![];
            let part = "again ".repeat(100);
            let begun = endpoint.connection.start_compressed(Data::Text(&part), &mut out);
            assert_eq!(begun, Ok(true));
            let interleaved = endpoint.connection.send(Data::Text("other"), &mut out);
            assert_eq!(interleaved, Err(SendError::MessageInProgress));
            let other_kind = endpoint
                .connection
                .send_fragment(Data::Binary(b""), Fragment::Last, &mut out);
            assert_eq!(other_kind, Err(SendError::MessageInProgress));
            sent.extend(endpoint.read_sent(&std::mem::take(&mut out)));

            endpoint.receives([ping("between")]);
            let pongs = endpoint.transmits();
            assert_eq!(pongs.len(), 1);
            sent.extend(pongs);
            if closes == local {
                let closing = endpoint.connection.close(CloseCode::NORMAL, "");
                closing.expect("valid close code");
            } else {
                endpoint.receives([close(1000, "")]);
            }
            assert_eq!(endpoint.transmits(), []);
            assert_eq!(
                endpoint.connection.poll_timeout(),
                None,
                "the close frame is not written"
            );
            assert_eq!(endpoint.connection.transport_action(), TransportAction::Open);

            let late = endpoint.connection.ping(b"");
            assert_eq!(late, Err(SendError::Closed));
            endpoint.now_ms = 4000;
            let last = endpoint
                .connection
                .send_fragment(Data::Text(&part), Fragment::Last, &mut out);
            assert_eq!(last, Ok(()));
            let late = endpoint
                .connection
                .send_fragment(Data::Text(&part), Fragment::More, &mut out);
            assert_eq!(late, Err(SendError::Closed));
            sent.extend(endpoint.read_sent(&out));
            sent.extend(endpoint.transmits());
            let received = [Got::pong("between"), Got::text(&part.repeat(2)), Got::close(1000, "")];
            assert_eq!(peer.receives(sent), received);
            // The peer's time to answer starts with the close frame.
            let wait_ms = match (closes == local, local) {
                (false, Local::Server) => 1000,
                _ => 5000,
            };
            assert_eq!(endpoint.connection.poll_timeout(), Some(at(4000 + wait_ms)));
        }
    }
}

#[test]
fn close_answered_while_waiting_for_a_compressed_message_completes() {
    for local in BOTH {
        let mut endpoint = without_takeover(local);
        let part = vec![0; 1000];
        let mut out = vec![];
        let begun = endpoint.connection.start_compressed(Data::Binary(&part), &mut out);
        assert_eq!(begun, Ok(true));
        let closing = endpoint.connection.close(CloseCode::NORMAL, "");
        closing.expect("valid close code");
        assert_eq!(endpoint.receives([close(1000, "")]), [Got::close(1000, "")]);
        assert_eq!(endpoint.transmits(), []);
        assert_eq!(endpoint.connection.poll_timeout(), None);
        endpoint.now_ms = 1000;
        let last = endpoint
            .connection
            .send_fragment(Data::Binary(&part), Fragment::Last, &mut out);
        assert_eq!(last, Ok(()));
        assert_eq!(endpoint.transmits(), [close(1000, "")]);
        let deadline = if local == Local::Server { 2000 } else { 6000 };
        assert_eq!(endpoint.connection.poll_timeout(), Some(at(deadline)));
    }
}

std::thread_local! {
    static LENT: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

/// A pool that counts borrowed codecs.
const COUNTED: CodecPool = CodecPool {
    take_deflater: |config| {
        LENT.set(LENT.get() + 1);
        (CodecPool::UNPOOLED.take_deflater)(config)
    },
    return_deflater: |_| LENT.set(LENT.get() - 1),
    ..CodecPool::UNPOOLED
};

#[test]
fn unfinished_compressed_message_returns_its_codec() {
    let ends: [fn(&mut Endpoint); 4] = [
        |endpoint| drop(endpoint.receives([text("x").rsv(1)])),
        |endpoint| {
            let closing = endpoint.connection.close(CloseCode::NORMAL, "");
            closing.expect("valid close code");
            endpoint.receives([text("x").rsv(1)]);
        },
        |endpoint| endpoint.connection.handle_transport_end(),
        |endpoint| {
            endpoint.receives([close(1000, "")]);
            endpoint.connection.handle_transport_end();
        },
    ];
    for local in BOTH {
        for end in ends {
            let mut endpoint = Endpoint::new(local);
            let params = NegotiatedParams {
                takeover: Takeover::Keep,
                peer_takeover: Takeover::Keep,
                window_bits: WindowBits::MAX,
                peer_window_bits: WindowBits::MAX,
            };
            let connection = &mut endpoint.connection;
            connection.enable_deflate(&DeflateConfig::default(), params, COUNTED);
            let mut out = vec![];
            let begun = connection.start_compressed(Data::Text(&"again ".repeat(100)), &mut out);
            assert_eq!((begun, LENT.get()), (Ok(true), 1));
            end(&mut endpoint);
            assert_eq!(LENT.get(), 0);
            assert!(!endpoint.connection.is_compressing());
            let late = endpoint
                .connection
                .send_fragment(Data::Text(""), Fragment::Last, &mut out);
            assert_eq!(late, Err(SendError::Closed));
        }
        // A protocol error is sent to the peer immediately.
        let mut endpoint = without_takeover(local);
        let mut out = vec![];
        let begun = endpoint
            .connection
            .start_compressed(Data::Text(&"again ".repeat(100)), &mut out);
        assert_eq!(begun, Ok(true));
        endpoint.receives([text("x").rsv(1)]);
        assert!(matches!(&endpoint.transmits()[..], [frame] if frame.opcode == 0x8));
    }
}
