//! Bytes of a segment: the header, the frames, and the search for frames behind damage.
//!
//! All integers are little-endian. A segment begins with two identical copies of its header, so that no single damaged
//! byte makes the records behind it unreadable:
//!
//! | bytes | header field |
//! |---|---|
//! | 8 | `SKJRNL` and the format version |
//! | 4 | magic: random, not 0, repeated at the start of each frame of this segment |
//! | 4 | era: see [`Replay::era`](super::Replay::era) |
//! | 16 | boot id of the machine when the segment was created, or zeros if unknown |
//! | 4 | flags: bit 0 is set if records were acknowledged only after fdatasync |
//! | 4 | crc32c of the above |
//!
//! Frames follow:
//!
//! | bytes | frame field |
//! |---|---|
//! | 4 | magic of the segment |
//! | 4 | length of the body, at least 1: a block of zeros is no frame |
//! | 4 | synced: how many bytes of this segment were on disk when the frame was written |
//! | 4 | crc32c of the fields above and the body |
//! | … | body: one byte for its kind, and for a record the fields below |
//!
//! | bytes | record field |
//! |---|---|
//! | 1 | kind |
//! | 1 | length of the epoch |
//! | 2 | length of the channel |
//! | 8 | offset |
//! | 8 | time, in milliseconds since 1970 |
//! | … | channel, epoch, payload |
//!
//! The magic makes the search for frames behind damage linear. A client cannot place a valid frame inside its own
//! payload, because it does not know the magic.

/// One entry of the log. The payload is opaque to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordKind,
    /// At most 65,535 bytes.
    pub(crate) channel: &'a str,
    /// The stream's epoch, at most 255 bytes.
    pub(crate) epoch: &'a str,
    pub(crate) offset: u64,
    pub(crate) time_ms: u64,
    /// Empty for [`RecordKind::Position`].
    pub(crate) payload: &'a [u8],
}

/// What a record says about its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// A publication at `offset`.
    Publication,
    /// The stream is at `offset` of `epoch` and keeps no publication up to there: its history was removed, or the
    /// epoch begins here. Compaction also leaves one in place of publications that it dropped.
    Position,
}

impl Record<'_> {
    pub(super) fn encode(&self, body: &mut Vec<u8>) -> Result<(), TooLarge> {
        let epoch_len = u8::try_from(self.epoch.len()).map_err(|_| TooLarge)?;
        let channel_len = u16::try_from(self.channel.len()).map_err(|_| TooLarge)?;
        let len = RECORD_FIELDS_BYTES + self.channel.len() + self.epoch.len() + self.payload.len();
        if len > BODY_BYTES_MAX {
            return Err(TooLarge);
        }
        body.reserve_exact(len);
        body.push(match self.kind {
            RecordKind::Publication => KIND_PUBLICATION,
            RecordKind::Position => KIND_POSITION,
        });
        body.push(epoch_len);
        body.extend(channel_len.to_le_bytes());
        body.extend(self.offset.to_le_bytes());
        body.extend(self.time_ms.to_le_bytes());
        body.extend(self.channel.as_bytes());
        body.extend(self.epoch.as_bytes());
        body.extend(self.payload);
        Ok(())
    }
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            channel,
            epoch,
            offset,
            ..
        } = self;
        write!(f, "{kind:?} {channel} {epoch}@{offset} +{}", self.payload.len())
    }
}

/// A record exceeds a limit of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The decoded body of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Record(Record<'a>),
    /// The log was shut down in order, and everything before this frame was on disk when it was written.
    CleanEnd,
    /// The segment is complete and on disk. The last frame of every segment but the newest, unless that is a
    /// [`Body::CleanEnd`].
    Sealed,
    /// Carries a newer `synced` when there is nothing else to write.
    Synced,
}

impl<'a> Body<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let kind = match kind {
            KIND_PUBLICATION => RecordKind::Publication,
            KIND_POSITION => RecordKind::Position,
            KIND_CLEAN_END if rest.is_empty() => return Some(Self::CleanEnd),
            KIND_SEALED if rest.is_empty() => return Some(Self::Sealed),
            KIND_SYNCED if rest.is_empty() => return Some(Self::Synced),
            _ => return None,
        };
        let (&[epoch_len], rest) = rest.split_first_chunk()?;
        let (&channel_len, rest) = rest.split_first_chunk()?;
        let (&offset, rest) = rest.split_first_chunk()?;
        let (&time_ms, rest) = rest.split_first_chunk()?;
        let (channel, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(channel_len)))?;
        let (epoch, payload) = rest.split_at_checked(usize::from(epoch_len))?;
        Some(Self::Record(Record {
            kind,
            channel: std::str::from_utf8(channel).ok()?,
            epoch: std::str::from_utf8(epoch).ok()?,
            offset: u64::from_le_bytes(offset),
            time_ms: u64::from_le_bytes(time_ms),
            payload,
        }))
    }
}

/// A frame found in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) body: Body<'a>,
    pub(super) synced: u32,
    /// Position of the byte behind it.
    pub(super) end: usize,
}

/// Properties of a whole segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) magic: [u8; 4],
    pub(super) era: u32,
    pub(super) boot_id: [u8; 16],
    /// Records were acknowledged only after fdatasync.
    pub(super) is_always_synced: bool,
}

impl Header {
    /// Both copies.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(FORMAT);
        put(&self.magic);
        put(&self.era.to_le_bytes());
        put(&self.boot_id);
        put(&u32::from(self.is_always_synced).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        bytes.copy_within(..HEADER_BYTES / 2, HEADER_BYTES / 2);
        bytes
    }

    /// The first copy that is valid.
    pub(super) fn decode(segment: &[u8]) -> Option<Self> {
        let (copies, _) = segment.split_at_checked(HEADER_BYTES)?;
        let (first, second) = copies.split_at(HEADER_BYTES / 2);
        Self::decode_copy(first).or_else(|| Self::decode_copy(second))
    }

    fn decode_copy(bytes: &[u8]) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk()?;
        if crc32c::crc32c(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (magic, rest) = fields.strip_prefix(FORMAT)?.split_first_chunk()?;
        let (era, rest) = rest.split_first_chunk()?;
        let (boot_id, flags) = rest.split_first_chunk()?;
        Some(Self {
            magic: *magic,
            era: u32::from_le_bytes(*era),
            boot_id: *boot_id,
            is_always_synced: u32::from_le_bytes(flags.try_into().ok()?) & 1 == 1,
        })
    }
}

/// Appends a frame to `out`.
pub(super) fn encode_frame(out: &mut Vec<u8>, magic: [u8; 4], synced: u32, body: &[u8]) {
    debug_assert!(!body.is_empty() && body.len() <= BODY_BYTES_MAX);
    let start = out.len();
    out.extend(magic);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(synced.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), body);
    out.extend(crc.to_le_bytes());
    out.extend(body);
}

/// The valid frame at `at`.
pub(super) fn decode_frame(segment: &[u8], at: usize, magic: [u8; 4]) -> Option<Frame<'_>> {
    let rest = segment.get(at..)?;
    let (fields, rest) = rest.split_at_checked(FRAME_FIELDS_BYTES)?;
    let field = |at: usize| [fields[at], fields[at + 1], fields[at + 2], fields[at + 3]];
    let len = body_len(fields);
    if field(0) != magic || len == 0 || len > BODY_BYTES_MAX {
        return None;
    }
    let bytes = rest.get(..len)?;
    if crc32c::crc32c_append(crc32c::crc32c(&fields[..12]), bytes) != u32::from_le_bytes(field(12)) {
        return None;
    }
    Some(Frame {
        bytes,
        body: Body::decode(bytes)?,
        synced: u32::from_le_bytes(field(8)),
        end: at + FRAME_FIELDS_BYTES + len,
    })
}

/// The length of the body that follows the fields of a frame, valid or not.
pub(super) fn body_len(fields: &[u8]) -> usize {
    u32::from_le_bytes([fields[4], fields[5], fields[6], fields[7]]) as usize
}

/// The first valid frame that begins at `from` or later, with its position.
pub(super) fn find_frame(segment: &[u8], from: usize, magic: [u8; 4]) -> Option<(usize, Frame<'_>)> {
    let mut at = from;
    loop {
        at += segment.get(at..)?.windows(4).position(|window| window == magic)?;
        if let Some(frame) = decode_frame(segment, at, magic) {
            return Some((at, frame));
        }
        at += 1;
    }
}

pub(super) const BODY_CLEAN_END: &[u8] = &[KIND_CLEAN_END];
pub(super) const BODY_SEALED: &[u8] = &[KIND_SEALED];
pub(super) const BODY_SYNCED: &[u8] = &[KIND_SYNCED];
/// Both copies of the header.
pub(super) const HEADER_BYTES: usize = 2 * (8 + 4 + 4 + 16 + 4 + 4);
pub(super) const FRAME_FIELDS_BYTES: usize = 16;
pub(super) const RECORD_FIELDS_BYTES: usize = 20;
/// Larger than any publication that the server accepts.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;

const FORMAT: &[u8; 8] = b"SKJRNL\x00\x01";
const KIND_PUBLICATION: u8 = 1;
const KIND_POSITION: u8 = 2;
const KIND_CLEAN_END: u8 = 3;
const KIND_SEALED: u8 = 4;
const KIND_SYNCED: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        magic: *b"\x01abc",
        era: 7,
        boot_id: [9; 16],
        is_always_synced: true,
    };

    #[test]
    fn header_survives_damage_to_any_byte() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes), Some(HEADER));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(Header::decode(&damaged), Some(HEADER), "byte {at}");
        }
        assert_eq!(Header::decode(&bytes[..HEADER_BYTES - 1]), None);
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), None);
    }

    #[test]
    fn zeros_are_no_frame() {
        assert!(decode_frame(&[0; 64], 0, HEADER.magic).is_none());
        assert!(find_frame(&[0; 64], 0, HEADER.magic).is_none());
    }

    proptest! {
        #[test]
        fn record_round_trips(
            is_position: bool, channel in "\\PC{0,40}", epoch in "[a-z0-9]{0,20}", offset: u64, time_ms: u64,
            payload in prop::collection::vec(any::<u8>(), 0..300),
            before in prop::collection::vec(any::<u8>(), 0..50), synced: u32,
        ) {
            let kind = if is_position { RecordKind::Position } else { RecordKind::Publication };
            let record = Record { kind, channel: &channel, epoch: &epoch, offset, time_ms, payload: &payload };
            let mut body = Vec::new();
            record.encode(&mut body).unwrap();
            let mut segment = before.clone();
            encode_frame(&mut segment, HEADER.magic, synced, &body);
            let frame = decode_frame(&segment, before.len(), HEADER.magic).unwrap();
            prop_assert_eq!(frame.body, Body::Record(record));
            prop_assert_eq!((frame.synced, frame.end), (synced, segment.len()));
            prop_assert_eq!(find_frame(&segment, 0, HEADER.magic).unwrap().0, before.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400) {
            let _ = Body::decode(&bytes);
            let _ = Header::decode(&bytes);
            if let Some(start) = bytes.get_mut(at..at.saturating_add(4)) {
                start.copy_from_slice(&HEADER.magic);
            }
            let _ = decode_frame(&bytes, at, HEADER.magic);
            let _ = find_frame(&bytes, 0, HEADER.magic);
        }
    }
}
