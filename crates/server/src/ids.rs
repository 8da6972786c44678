//! Ids of clients and of their subscriptions.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::channel::ChannelName;

/// The random id of a connection, shown to other clients as a UUID (version 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(u128);

impl ClientId {
    /// Creates an id from 128 random bits. Six bits are replaced by the version and variant of RFC 9562 §5.4.
    pub(crate) fn from_random(bits: u128) -> Self {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        Self(bits & !VERSION & !VARIANT | 0x4 << 76 | 0b10 << 62)
    }

    /// The bits of the id, from which [`from_random`](Self::from_random) makes the same id.
    pub(crate) fn to_bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e] = [
            self.0 >> 96,
            self.0 >> 80 & 0xffff,
            self.0 >> 64 & 0xffff,
            self.0 >> 48 & 0xffff,
            self.0,
        ];
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", e & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::hash::Hash for ClientId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64 ^ (self.0 >> 64) as u64);
    }
}

/// Sequence number of a subscription of one client. It prevents that a late event of an old subscription ends a newer
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u64);

impl Generation {
    /// Returns the generation of the next subscription.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A client's subscription to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelName,
    pub(crate) generation: Generation,
}

/// A map from client ids, without hashing: the ids are random, and clients cannot choose them.
pub(crate) type ClientMap<T> = HashMap<ClientId, T, BuildHasherDefault<IdentityHasher>>;

/// A hasher that returns its input.
#[derive(Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_formatted_as_a_random_uuid() {
        assert_eq!(
            ClientId::from_random(u128::MAX).to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert_eq!(
            ClientId::from_random(0).to_string(),
            "00000000-0000-4000-8000-000000000000"
        );
    }
}
