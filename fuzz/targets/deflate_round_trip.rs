//! Two connections with compression and any settings: sent messages are received, and frames respect the negotiated
//! parameters.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::codecs::POOLED;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::inflate;
use sockeye_fuzz::reading::{CLIENT, SERVER};
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams, Takeover, WindowBits};
use sockeye_proto::frame::FrameHeader;
use sockeye_proto::handshake::Headers;
use sockeye_proto::{Compress, Config, Connection, Data, Event, Fragment, Instant, Role};

const NOW: Instant = Instant::ORIGIN;

/// Maximum message size, larger than the largest window.
const MESSAGE_LEN_MAX: usize = 70_000;

fuzz_target!(|input: &[u8]| {
    let [a, b, c, d, e, f, seed, script @ ..] = input else {
        return;
    };
    let client_config = config(*a, *b, *c);
    let server_config = config(*d, *e, *f);
    let (answer, server_agreement) = {
        let offer = headers(&client_config.offers().collect::<Vec<_>>().join(", "));
        server_config
            .answer(offer.extensions())
            .expect("our own offer is acceptable")
    };
    let client_agreement = {
        let answer = headers(&answer);
        client_config
            .accept(answer.extensions())
            .expect("our own response is valid")
            .expect("accepted")
    };
    let mut client = Side::new(CLIENT, &client_config, client_agreement);
    let mut server = Side::new(SERVER, &server_config, server_agreement);
    let mut cuts = Cuts::new(*seed);
    let mut script = Script {
        bytes: script,
        earlier: vec![],
    };
    while let Some((choices, message)) = script.message() {
        let compress = match choices >> 1 & 3 {
            0 => Compress::Never,
            1 => Compress::Auto,
            _ => Compress::Always,
        };
        let (from, to) = match choices & 1 {
            0 => (&mut client, &mut server),
            _ => (&mut server, &mut client),
        };
        let part_len_max = match choices >> 1 & 3 {
            3 => 32 * cuts.next_len(1024),
            _ => usize::MAX,
        };
        exchange(from, to, compress, &message, part_len_max, &mut cuts);
        script.earlier = message;
    }
});

struct Side {
    connection: Connection,
    params: NegotiatedParams,
    size_min: usize,
    /// Messages sent compressed, to which the next one may refer back.
    sent: Vec<u8>,
}

impl Side {
    fn new(role: Role, config: &DeflateConfig, params: NegotiatedParams) -> Self {
        let mut connection = Connection::new(role, Arc::new(Config::default()), NOW);
        connection.enable_deflate(config, params, POOLED);
        Self {
            connection,
            params,
            size_min: config.size_min,
            sent: vec![],
        }
    }
}

/// The script of an input, one message after another.
struct Script<'a> {
    bytes: &'a [u8],
    earlier: Vec<u8>,
}

impl Script<'_> {
    /// Returns the next message and its options.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let [choices, size, rest @ ..] = self.bytes else {
            return None;
        };
        let (given, rest) = rest.split_at(usize::from(size & 0x1f).min(rest.len()));
        self.bytes = rest;
        // Large messages are rare because they are slow.
        let times = match (size >> 5, choices >> 5) {
            (0..5, _) => 1,
            (5 | 6, _) => 16,
            (_, 0..7) => 128,
            _ => 4096,
        };
        let mut message = match choices >> 3 & 3 {
            0 => given.to_vec(),
            1 => given.repeat(times),
            2 => noise(given, times),
            _ => [&self.earlier[..], given].concat(),
        };
        message.truncate(MESSAGE_LEN_MAX);
        Some((*choices, message))
    }
}

/// Incompressible bytes.
fn noise(seed: &[u8], times: usize) -> Vec<u8> {
    let mut state = seed.iter().fold(1_u32, |state, byte| {
        (state.wrapping_mul(31) + u32::from(*byte)) & 0xff_ffff
    });
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(seed.len() * times).collect()
}

/// Sends a message. If compressed, in parts of at most `part_len_max` bytes.
fn send(connection: &mut Connection, data: Data<'_>, compress: Compress, part_len_max: usize) -> Vec<u8> {
    let mut wire = vec![];
    let mut parts = data.bytes().chunks(part_len_max).map(Data::Binary);
    if matches!(data, Data::Binary(_))
        && part_len_max < usize::MAX
        && let Some(first) = parts.next()
        && connection.start_compressed(first, &mut wire).expect("open")
    {
        for part in parts {
            connection.send_fragment(part, Fragment::More, &mut wire).expect("open");
        }
        let end = connection.send_fragment(Data::Binary(b""), Fragment::Last, &mut wire);
        end.expect("open");
    } else {
        connection.send_with(data, compress, &mut wire).expect("open");
    }
    wire
}

fn exchange(from: &mut Side, to: &mut Side, compress: Compress, message: &[u8], part_len_max: usize, cuts: &mut Cuts) {
    let data = match std::str::from_utf8(message) {
        Ok(text) if message.len().is_multiple_of(2) => Data::Text(text),
        _ => Data::Binary(message),
    };
    let mut wire = send(&mut from.connection, data, compress, part_len_max);
    check_wire(from, compress, message, &wire);

    let mut told = None;
    let mut left = &mut wire[..];
    while !left.is_empty() {
        // Large frames arrive in large pieces, so that direct reads are tested.
        let len = cuts.next_len(left.len()) * if left.len() > 4096 { 97 } else { 1 };
        let mut piece = left.split_off_mut(..len.min(left.len())).unwrap_or_default();
        loop {
            let received = to.connection.handle_bytes(NOW, piece);
            let consumed = received.consumed;
            match received.event {
                None => break,
                Some(Event::Message { kind, payload }) => told = Some((kind, payload.into_owned())),
                Some(event) => panic!("unexpected event: {event:?}"),
            }
            piece = &mut piece[consumed..];
        }
    }
    let (kind, payload) = told.expect("a complete message gave no event");
    assert_eq!(kind, data.kind());
    assert!(
        payload == message,
        "sent {} bytes, received {} different ones",
        message.len(),
        payload.len()
    );
}

/// Checks the negotiated parameters on the wire with the reference inflater.
fn check_wire(from: &mut Side, compress: Compress, message: &[u8], wire: &[u8]) {
    let (mut payload, mut rsv, mut rest) = (vec![], None, wire);
    let mut is_in_parts = false;
    while !rest.is_empty() {
        let Ok(Some((header, header_len))) = FrameHeader::decode(rest) else {
            panic!("no header")
        };
        let end = header_len + header.payload_len as usize;
        assert_eq!(header.fin, end == rest.len());
        is_in_parts |= !header.fin;
        assert!(rsv.is_none() || header.rsv == 0, "only the first frame has RSV1");
        rsv.get_or_insert(header.rsv);
        let key = header.mask.map_or([0; 4], |key| key.0);
        let masked = rest[header_len..end].iter().zip(key.iter().cycle());
        payload.extend(masked.map(|(byte, key)| byte ^ key));
        rest = &rest[end..];
    }
    if rsv == Some(0) {
        assert!(payload == message);
        return;
    }
    assert!(compress != Compress::Never && from.params.window_bits > WindowBits::MIN);
    assert!(compress == Compress::Always || message.len() >= from.size_min);
    assert!(
        payload.len() < message.len() || message.is_empty() || is_in_parts,
        "compression made the message larger"
    );
    let window = from.params.window_bits.size();
    let inflated = inflate::message(&from.sent, &payload, MESSAGE_LEN_MAX);
    assert!(inflated.message.is_ok_and(|inflated| inflated == message));
    assert!(
        inflated.distance_max <= window,
        "distance {} exceeds the window of {window}",
        inflated.distance_max
    );
    if from.params.takeover == Takeover::Keep {
        from.sent.extend_from_slice(message);
        from.sent.drain(..from.sent.len().saturating_sub(window));
    }
}

fn config(choices: u8, windows: u8, levels: u8) -> DeflateConfig {
    let takeover = |bit: u8| {
        if choices >> bit & 1 == 0 {
            Takeover::Reset
        } else {
            Takeover::Keep
        }
    };
    let bits = |nibble: u8| WindowBits::new(8 + (nibble & 7)).expect("8 to 15");
    let mut config = DeflateConfig::default();
    config.takeover = takeover(0);
    config.peer_takeover = takeover(1);
    config.size_min = usize::from(choices >> 2);
    config.window_bits = bits(windows);
    config.peer_window_bits = bits(windows >> 4);
    config.level = levels & 15;
    config.memory_level = levels >> 4;
    config
}

fn headers(extension: &str) -> Headers {
    let mut headers = Headers::new();
    headers
        .try_append("Sec-WebSocket-Extensions", extension)
        .expect("valid");
    headers
}
