//! Names of keys and pub/sub channels.
//!
//! | key | type | content |
//! |---|---|---|
//! | `prefix:{channel}:m` | hash | epoch, offset, lineage, size and version of a stream |
//! | `prefix:{channel}:h` | list | its publications |
//! | `prefix:{channel}:i:key` | string | the position of the publication with this idempotency key |
//! | `prefix:{channel}:p` | hash | client id to presence entry |
//! | `prefix:{channel}:u` | hash | user to number of clients |
//! | `prefix:{channel}:n` | hash | lease of a node to number of clients |
//! | `prefix!nodes:{nodes}:…` | | leases of nodes |
//! | `prefix!node:{lease}:c` | set | the channels with presence entries of this lease |
//! | `prefix!lineage` | hash | what the epochs of a server depend on |
//!
//! Pub/sub channels: `prefix:{channel}`, `prefix!control` for all nodes, `prefix!node:{uid}` for one.
//!
//! The part in braces decides about the slot in a cluster, so all keys of a channel are on one server.

use crate::channel::ChannelName;

/// Number of slots of a cluster.
pub(super) const SLOTS: u16 = 16384;

#[derive(Debug)]
pub(super) struct Names {
    prefix: Box<str>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The pub/sub channel of a channel, and the start of its keys.
    pub(super) fn channel(&self, channel: &ChannelName) -> String {
        let name = channel.as_str();
        let mut key = String::with_capacity(self.prefix.len() + name.len() + 12);
        key.push_str(&self.prefix);
        key.push_str(":{");
        for c in name.chars() {
            match c {
                // A brace would end the part that decides about the slot.
                '{' => key.push_str("%7B"),
                '}' => key.push_str("%7D"),
                '%' => key.push_str("%25"),
                c => key.push(c),
            }
        }
        key.push('}');
        key
    }

    /// The channel of a pub/sub channel.
    pub(super) fn parse_channel(&self, name: &[u8]) -> Option<ChannelName> {
        let encoded = std::str::from_utf8(name).ok()?;
        let encoded = encoded
            .strip_prefix(&*self.prefix)?
            .strip_prefix(":{")?
            .strip_suffix('}')?;
        if !encoded.contains('%') {
            return ChannelName::new(encoded).ok();
        }
        let decoded = encoded.replace("%7B", "{").replace("%7D", "}").replace("%25", "%");
        ChannelName::new(&decoded).ok()
    }

    /// The pub/sub channel of all nodes.
    pub(super) fn control(&self) -> String {
        format!("{}!control", self.prefix)
    }

    /// The pub/sub channel of a node.
    pub(super) fn node(&self, uid: &str) -> String {
        format!("{}!node:{{{uid}}}", self.prefix)
    }

    /// The start of the keys with the leases of nodes.
    pub(super) fn nodes(&self) -> String {
        format!("{}!nodes:{{nodes}}", self.prefix)
    }

    /// The set of channels with presence entries of a lease.
    pub(super) fn lease_channels(&self, lease: &str) -> String {
        format!("{}!node:{{{lease}}}:c", self.prefix)
    }

    /// What the epochs of a server depend on.
    pub(super) fn lineage(&self) -> String {
        format!("{}!lineage", self.prefix)
    }
}

/// The slot of a key: CRC-16/XMODEM of the part in the first braces, or of all of it
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
pub(super) fn slot(key: &[u8]) -> u16 {
    let start = key.iter().position(|&byte| byte == b'{').map(|open| open + 1);
    let tag = start.and_then(|start| {
        let len = key[start..].iter().position(|&byte| byte == b'}')?;
        (len > 0).then(|| &key[start..start + len])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn channels_survive_the_round_trip() {
        let names = Names::new("a:b");
        for name in ["news", "}", "{}", "a{b}c", "100%", "%7B", "%257D", "ä#1,2"] {
            let channel = ChannelName::new(name).unwrap();
            let key = names.channel(&channel);
            assert_eq!(names.parse_channel(key.as_bytes()), Some(channel));
            assert_eq!(slot(key.as_bytes()), slot(format!("{key}:m").as_bytes()));
        }
        for other in ["a:b!control", "a:c:{x}", "a:b:{x", "a:b:{}", "{x}"] {
            assert_eq!(names.parse_channel(other.as_bytes()), None, "{other}");
        }
    }
}
