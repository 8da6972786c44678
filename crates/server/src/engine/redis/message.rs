//! What is sent by publish/subscribe.
//!
//! | first byte | rest |
//! |---|---|
//! | `p` | publication of a stream: length of the epoch (1 byte), epoch, offset (8 bytes), time and payload |
//! | `u` | publication without a position: time and payload |
//! | `j`, `l` | client that came or left |
//!
//! Time: Unix time in milliseconds (8 bytes). Numbers are big endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::Epoch;
use super::super::cluster::{Event, Membership, MembershipKind, StoredPublication};
use crate::channel::ChannelName;

/// Time and payload of a publication.
pub(super) fn body(time_ms: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + payload.len());
    body.put_u64(time_ms);
    body.put_slice(payload);
    body
}

/// The message of a publication without a position.
pub(super) fn unnumbered(time_ms: u64, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(9 + payload.len());
    message.put_u8(b'u');
    message.put_u64(time_ms);
    message.put_slice(payload);
    message
}

/// The message of a client that came or left.
pub(super) fn membership(membership: &Membership) -> Vec<u8> {
    let kind = match membership.kind {
        MembershipKind::Join => b'j',
        MembershipKind::Leave => b'l',
    };
    [&[kind], &membership.info[..]].concat()
}

/// Decodes a message of a channel. `None` if it is from another program.
pub(super) fn decode(channel: ChannelName, mut message: Bytes) -> Option<Event> {
    let kind = message.try_get_u8().ok()?;
    let membership = |kind, info| Membership { kind, info };
    Some(match kind {
        b'p' => {
            let epoch_len = usize::from(message.try_get_u8().ok()?);
            if message.len() < epoch_len {
                return None;
            }
            let epoch = Epoch::new(std::str::from_utf8(&message.split_to(epoch_len)).ok()?);
            let offset = message.try_get_u64().ok()?;
            Event::Publication {
                channel,
                epoch: Some(epoch),
                publication: publication(offset, message)?,
            }
        }
        b'u' => Event::Publication {
            channel,
            epoch: None,
            publication: publication(0, message)?,
        },
        b'j' => Event::Membership {
            channel,
            membership: membership(MembershipKind::Join, message),
        },
        b'l' => Event::Membership {
            channel,
            membership: membership(MembershipKind::Leave, message),
        },
        _ => return None,
    })
}

/// Decodes an item of a stream: the time when it was stored (8 bytes), then its time and payload.
pub(super) fn decode_item(offset: u64, item: Vec<u8>) -> Option<StoredPublication> {
    let mut item = Bytes::from(item);
    item.try_get_u64().ok()?;
    publication(offset, item)
}

fn publication(offset: u64, mut body: Bytes) -> Option<StoredPublication> {
    let time_ms = body.try_get_u64().ok()?;
    Some(StoredPublication {
        offset,
        previous: offset.saturating_sub(1),
        time_ms,
        payload: body,
    })
}

/// An entry of presence, as the scripts read it.
pub(super) fn presence_entry(generation: u64, announces_leave: bool, lease: &str, user: &str, info: &[u8]) -> Vec<u8> {
    let mut entry = BytesMut::with_capacity(17 + lease.len() + user.len() + info.len());
    entry.put_u64(generation);
    entry.put_u8(announces_leave.into());
    for text in [lease, user] {
        // Users and leases are short.
        entry.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        entry.put_slice(text.as_bytes());
    }
    entry.put_slice(info);
    entry.to_vec()
}

/// The info of an entry of presence.
pub(super) fn presence_info(entry: Vec<u8>) -> Option<Bytes> {
    let mut entry = Bytes::from(entry);
    entry.try_get_u64().ok()?;
    entry.try_get_u8().ok()?;
    for _ in 0..2 {
        let len = usize::try_from(entry.try_get_u32().ok()?).ok()?;
        if entry.len() < len {
            return None;
        }
        entry.advance(len);
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_message_is_decoded_or_refused() {
        let channel = ChannelName::new("a").unwrap();
        let message = [b"p\x02ep".as_slice(), &7_u64.to_be_bytes(), &body(9, b"\0\xff")].concat();
        let Some(Event::Publication { epoch, publication, .. }) = decode(channel.clone(), message.clone().into())
        else {
            panic!("not a publication");
        };
        assert_eq!(epoch, Some(Epoch::new("ep")));
        assert_eq!(
            (publication.offset, publication.previous, publication.time_ms),
            (7, 6, 9)
        );
        assert_eq!(&publication.payload[..], b"\0\xff");
        for len in 0..message.len() - 2 {
            assert!(decode(channel.clone(), message[..len].to_vec().into()).is_none());
        }
        assert!(decode(channel, Bytes::from_static(b"x1")).is_none());
        let entry = presence_entry(1, true, "lease", "ada", b"info");
        assert_eq!(presence_info(entry.clone()).as_deref(), Some(&b"info"[..]));
        assert!(presence_info(entry[..12].to_vec()).is_none());
    }
}
