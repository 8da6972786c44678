//! The payload of a message.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use sockeye_proto::RawMessage;

/// Payloads up to this length are stored inline, without an allocation.
///
/// 24 bytes fit beside a `Bytes` (four words) without enlarging the enum, because the compiler stores its tag in a
/// niche of `Bytes`. One of the 24 bytes is the length.
pub(crate) const INLINE_MAX: usize = InlineBytes::SIZE - 1;

/// Spare capacity required to append an inline payload: it is copied at full width, then truncated.
pub(crate) const APPENDED_LEN_MIN: usize = InlineBytes::SIZE;

/// The payload of a message: stored inline up to 23 bytes, otherwise shared, so that a clone costs a reference count.
///
/// Converts from and to [`Bytes`], `Vec<u8>` and slices, without a copy if the bytes are already on the heap.
/// Exception: converting a received message of more than 512 KiB into a `Vec` copies it, because its buffer returns to
/// a pool.
#[derive(Clone)]
pub struct Payload(pub(crate) Repr);

#[derive(Clone)]
pub(crate) enum Repr {
    Inline(InlineBytes),
    Shared(Bytes),
}

impl Payload {
    /// Creates an empty payload.
    pub const fn new() -> Self {
        Self(Repr::Inline(InlineBytes::EMPTY))
    }

    /// Copies `bytes` into a new payload.
    #[inline]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        match InlineBytes::copy_from(bytes) {
            Some(inline) => Self(Repr::Inline(inline)),
            None => Self(Repr::Shared(Bytes::copy_from_slice(bytes))),
        }
    }

    /// Copies and unmasks a message's payload in one pass. `None` if a text message is not UTF-8.
    #[inline(always)]
    pub(crate) fn unmasked(message: &RawMessage<'_>) -> Option<Self> {
        Some(Self(match message.len() {
            len @ ..=INLINE_MAX => Repr::Inline(InlineBytes::new(message.to_array()?, len)),
            // Not `Bytes::from(Vec)`, which is not inlined and returns its result through memory: 6 ns per message of 1
            // KiB.
            _ => Repr::Shared(message.to_vec()?.into_boxed_slice().into()),
        }))
    }

    /// Returns the bytes as a slice.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(inline) => inline.as_slice(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

/// Up to 23 bytes, with their number in the last byte.
///
/// Written as two stores of 16 and 8 bytes, because moves load it with these widths. A load wider than the preceding
/// store defeats store forwarding; that stall was a quarter of the user-space cost of a 20-byte echo.
#[derive(Clone, Copy)]
pub(crate) struct InlineBytes([u8; InlineBytes::SIZE]);

impl InlineBytes {
    const SIZE: usize = 24;
    pub(crate) const EMPTY: Self = Self([0; Self::SIZE]);

    /// Uses the first `len` of `bytes`; at most [`INLINE_MAX`].
    #[inline]
    fn new(mut bytes: [u8; Self::SIZE], len: usize) -> Self {
        debug_assert!(len <= INLINE_MAX);
        // Set within the last word: storing a single byte would be a third store.
        if let Some(last) = bytes.last_chunk_mut() {
            *last = (u64::from_le_bytes(*last) << 8 >> 8 | (len as u64) << 56).to_le_bytes();
        }
        Self(bytes)
    }

    #[inline]
    fn copy_from(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::SIZE];
        bytes[..INLINE_MAX].get_mut(..from.len())?.copy_from_slice(from);
        Some(Self::new(bytes, from.len()))
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.0[INLINE_MAX])
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0[..self.len()]
    }

    /// Appends the bytes to `out`: copies a fixed length ([`APPENDED_LEN_MIN`]), then truncates.
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
    fn inline_payload_ignores_bytes_behind_its_length() {
        for len in 0..=INLINE_MAX {
            let [zeros, ones] = [0, 0xff].map(|behind| {
                let mut bytes = [behind; InlineBytes::SIZE];
                bytes[..len].fill(b'x');
                InlineBytes::new(bytes, len)
            });
            let expected = vec![b'x'; len];
            for inline in [zeros, ones] {
                let mut out = vec![];
                inline.append_to(&mut out);
                assert_eq!(out, expected);
                assert_eq!(Payload(Repr::Inline(inline)).as_slice(), expected);
            }
        }
    }

    #[test]
    fn inline_and_shared_payloads_are_equal() {
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
