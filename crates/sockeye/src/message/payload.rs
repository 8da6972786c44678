//! The bytes of a message.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use sockeye_proto::MaskedMessage;

/// Payloads up to this length lie in the message itself, without any allocation.
///
/// 24 bytes fit where the four words of a `Bytes` leave room for the choice between the two; one is the length.
pub(crate) const INLINE_MAX: usize = Small::SIZE - 1;

/// How much room a payload takes while it is being appended, however small it is.
pub(crate) const APPENDED_LEN_MIN: usize = Small::SIZE;

/// The bytes of a message: shared, so that a clone costs next to nothing; a copy of up to 23 bytes lies in place.
///
/// Converts from and to [`Bytes`], `Vec<u8>` and slices; without a copy where the bytes are on the heap already. But a
/// `Vec` of a received message of more than 512 KiB is a copy, for its buffer goes to another message.
#[derive(Clone)]
pub struct Payload(pub(crate) Repr);

#[derive(Clone)]
pub(crate) enum Repr {
    Inline(Small),
    Shared(Bytes),
}

impl Payload {
    /// No bytes.
    pub const fn new() -> Self {
        Self(Repr::Inline(Small::EMPTY))
    }

    /// A copy of `bytes`.
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        match Small::copy_of(bytes) {
            Some(small) => Self(Repr::Inline(small)),
            None => Self(Repr::Shared(Bytes::copy_from_slice(bytes))),
        }
    }

    /// A copy of a message's payload, unmasked on the way; `None` if it should be text and is not UTF-8.
    #[inline(always)]
    pub(crate) fn unmasked(message: &MaskedMessage<'_>) -> Option<Self> {
        Some(Self(match message.len() {
            len @ ..=INLINE_MAX => Repr::Inline(Small::of(message.to_array()?, len)),
            // `Bytes::from` of a vector is a call, whose result goes through memory: 6 ns a message of 1 KiB in bursts.
            _ => Repr::Shared(message.to_vec()?.into_boxed_slice().into()),
        }))
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(small) => small.as_slice(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

/// A few bytes in place, and in the last one how many.
///
/// They are written in two moves, of 16 and 8 bytes, as they are moved on: what is loaded in other pieces than it was
/// stored in waits until these have reached the cache, which was a quarter of what an echo of 20 B cost outside of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Small([u8; Small::SIZE]);

impl Small {
    const SIZE: usize = 24;
    pub(crate) const EMPTY: Self = Self([0; Self::SIZE]);

    /// Of `bytes`, the first `len`; at most [`INLINE_MAX`].
    #[inline]
    fn of(mut bytes: [u8; Self::SIZE], len: usize) -> Self {
        debug_assert!(len <= INLINE_MAX);
        // As a part of its word: a byte of its own would be one more move.
        if let Some(last) = bytes.last_chunk_mut() {
            *last = (u64::from_le_bytes(*last) << 8 >> 8 | (len as u64) << 56).to_le_bytes();
        }
        Self(bytes)
    }

    #[inline]
    fn copy_of(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::SIZE];
        bytes[..INLINE_MAX].get_mut(..from.len())?.copy_from_slice(from);
        Some(Self::of(bytes, from.len()))
    }

    /// How many bytes it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.0[INLINE_MAX])
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0[..self.len()]
    }

    /// Appends the bytes to `out`: a copy of a fixed length ([`APPENDED_LEN_MIN`]), of which what is too much is taken
    /// back.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len();
        out.extend_from_slice(&self.0);
        out.truncate(end);
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Payload {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl std::hash::Hash for Payload {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl PartialEq<[u8]> for Payload {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_slice() == other
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Shared(bytes))
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Repr::Inline(_) => Self::copy_from_slice(&payload),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        match payload.0 {
            Repr::Inline(_) => payload.to_vec(),
            Repr::Shared(bytes) => bytes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_small_payload_means_nothing() {
        for len in 0..=INLINE_MAX {
            let [zeros, ones] = [0, 0xff].map(|behind| {
                let mut bytes = [behind; Small::SIZE];
                bytes[..len].fill(b'x');
                Small::of(bytes, len)
            });
            let expected = vec![b'x'; len];
            for small in [zeros, ones] {
                let mut out = vec![];
                small.append_to(&mut out);
                assert_eq!(out, expected);
                assert_eq!(Payload(Repr::Inline(small)).as_slice(), expected);
            }
        }
    }

    #[test]
    fn payloads_are_the_same_whether_in_place_or_shared() {
        for len in (0..=INLINE_MAX + 1).chain([1000]) {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let copied = Payload::from(bytes.as_slice());
            let shared = Payload::from(bytes.clone());
            assert_eq!(copied, shared);
            assert_eq!(Vec::from(copied.clone()), bytes);
            assert_eq!(Bytes::from(copied), bytes);
            assert_eq!(Bytes::from(shared.clone()), bytes);
            assert_eq!(Vec::from(shared), bytes);
        }
    }
}
