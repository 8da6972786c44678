//! A reference decoder for frames, written from RFC 6455 §5 to §8 independently of the code under test. It sees all
//! bytes at once and favors simplicity over speed.

use sockeye_proto::MessageKind;

use crate::trace::Trace;

/// The configuration of the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether frames must be masked (sent by a client) or must not be.
    pub masked: bool,
    /// Maximum message size, in bytes.
    pub message_size_max: u64,
    /// Maximum number of consecutive empty fragments.
    pub empty_fragments_max: u32,
    /// Whether an unfinished message at the end of the input is reported.
    pub reports_unfinished: bool,
}

struct Message {
    kind: MessageKind,
    payload: Vec<u8>,
    declared: u64,
    empty_fragments: u32,
    /// Whether any part of it was received, even if empty.
    started: bool,
}

/// Decodes frames up to the first close frame or error, or the end.
#[must_use]
pub fn read(wire: &[u8], rules: Rules) -> Trace {
    let mut trace = Trace::with_room_for(wire.len());
    let mut message = None;
    if let Err(code) = read_all(wire, rules, &mut message, &mut trace)
        && code != CLOSED
    {
        trace.error(code);
        return trace;
    }
    if let Some(message) = message
        && rules.reports_unfinished
        && message.started
        && !trace.has_ended()
    {
        trace.chunk(message.kind, &message.payload, false);
    }
    trace
}

/// The input ended without an error.
const CLOSED: u16 = 0;

fn read_all(mut wire: &[u8], rules: Rules, message: &mut Option<Message>, trace: &mut Trace) -> Result<(), u16> {
    loop {
        let [first, second, ..] = *wire else { return Ok(()) };
        let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let masked = second & 0x80 != 0;
        let is_control = opcode >= 8;
        // §5.2, §5.5: errors in the first two bytes.
        if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) || is_control && (!fin || second & 0x7f > 125) {
            return Err(1002);
        }
        let (length_at, length_len) = match second & 0x7f {
            126 => (2, 2),
            127 => (2, 8),
            _ => (1, 1),
        };
        let Some(length) = wire.get(length_at..length_at + length_len) else {
            return Ok(());
        };
        let mut len = 0_u64;
        for byte in length {
            len = len << 8 | u64::from(*byte);
        }
        if length_len == 1 {
            len &= 0x7f;
        }
        // §5.2: the top bit is zero, and the length uses the shortest encoding.
        if len >> 63 == 1 || length_len == 2 && len < 126 || length_len == 8 && len < 0x1_0000 {
            return Err(1002);
        }
        let key_at = length_at + length_len;
        let payload_at = key_at + if masked { 4 } else { 0 };
        if wire.len() < payload_at {
            return Ok(());
        }
        let key = &wire[key_at..payload_at];
        // §5.1, §5.2, §5.4: rules that depend on the role and on earlier frames.
        if rsv != 0 || masked != rules.masked {
            return Err(1002);
        }
        if !is_control && (opcode == 0) != message.is_some() {
            return Err(1002);
        }
        let there = usize::try_from(len).map_or(usize::MAX, |len| len);
        let arrived = wire[payload_at..].iter().take(there).enumerate();
        let payload: Vec<u8> = arrived
            .map(|(i, byte)| byte ^ key.get(i % 4).copied().unwrap_or(0))
            .collect();
        let is_whole = payload.len() as u64 == len;
        wire = &wire[payload_at + payload.len()..];
        match opcode {
            8..=10 if !is_whole => return Ok(()),
            8 => return Err(read_close(&payload, trace)),
            9 => trace.ping(&payload),
            10 => trace.pong(&payload),
            _ => {
                let message_now = message.get_or_insert(Message {
                    kind: if opcode == 1 {
                        MessageKind::Text
                    } else {
                        MessageKind::Binary
                    },
                    payload: vec![],
                    declared: 0,
                    empty_fragments: 0,
                    started: false,
                });
                message_now.take(len, fin, &payload, rules)?;
                message_now.started |= is_whole || !payload.is_empty();
                message_now.check_text(fin && is_whole)?;
                if fin && is_whole {
                    trace.message(message_now.kind, &message_now.payload);
                    *message = None;
                }
            }
        }
        if !is_whole {
            return Ok(());
        }
    }
}

impl Message {
    fn take(&mut self, len: u64, fin: bool, payload: &[u8], rules: Rules) -> Result<(), u16> {
        self.declared = self.declared.saturating_add(len);
        if self.declared > rules.message_size_max {
            return Err(1009);
        }
        self.empty_fragments = if len == 0 && !fin { self.empty_fragments + 1 } else { 0 };
        if self.empty_fragments > rules.empty_fragments_max {
            return Err(1008);
        }
        self.payload.extend_from_slice(payload);
        Ok(())
    }

    /// §8.1: text must be UTF-8. It is invalid as soon as no continuation could make it valid.
    fn check_text(&self, is_whole: bool) -> Result<(), u16> {
        match (self.kind, std::str::from_utf8(&self.payload)) {
            (MessageKind::Text, Err(error)) if is_whole || error.error_len().is_some() => Err(1007),
            _ => Ok(()),
        }
    }
}

/// §5.5.1, §7.4: contents of close frames.
fn read_close(payload: &[u8], trace: &mut Trace) -> u16 {
    let (code, reason) = match payload {
        [] => (1005, payload),
        [_] => return 1002,
        [high, low, reason @ ..] => (u16::from(*high) * 256 + u16::from(*low), reason),
    };
    let is_reserved = matches!(code, 0..1000 | 1004..=1006 | 1015..3000 | 5000..);
    if is_reserved && !payload.is_empty() {
        return 1002;
    }
    if std::str::from_utf8(reason).is_err() {
        return 1007;
    }
    trace.close(code, reason);
    CLOSED
}
