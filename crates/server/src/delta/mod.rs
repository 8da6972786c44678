//! The fossil delta format: a publication as its difference to the previous one (`delta: "fossil"`).
//!
//! A delta is the size of the target, a newline, and commands: `<count>@<offset>,` copies from the source,
//! `<count>:<bytes>` inserts, `<checksum>;` ends it. Integers are unsigned, 32 bits wide, in base 64 with an alphabet
//! of the format's own. The format is described at <https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki>.
//!
//! [`create`] works on bytes, for Protobuf. [`create_text`] makes a delta that is itself valid UTF-8, because JSON
//! clients receive it inside a JSON string: no insert command begins or ends within a character.
//!
//! Creation takes time linear in both sizes for any input, and gives no delta that is not smaller than its target.
//! Application takes time and memory bounded by the size of the delta and the caller's limit on the target.

mod create;
mod number;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::protocol::{Data, Encoding};

pub(crate) use self::create::{create, create_text};

/// Largest source or target that deltas are made for. Offsets and sizes are 32 bits in the format; publications are
/// much smaller.
pub(crate) const SIZE_MAX: usize = 16 << 20;

/// Creates the delta between two publications in the form for an encoding, or returns `None` if it would not be
/// smaller.
pub(crate) fn between(encoding: Encoding, previous: &Data, next: &Data) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Json => create_text(&previous.to_json(), &next.to_json()).map(String::into_bytes),
        Encoding::Protobuf => create(previous.as_bytes(), next.as_bytes()),
    }
}

/// Applies a delta to the source it was made from.
///
/// # Errors
/// [`DeltaError`] if the delta is malformed, does not belong to the source, or would give more than `target_size_max`
/// bytes. Nothing is allocated for a size that the delta merely declares.
pub(crate) fn apply(source: &[u8], delta: &[u8], target_size_max: usize) -> Result<Vec<u8>, DeltaError> {
    let mut rest = delta;
    let size = number::read(&mut rest)?;
    expect(&mut rest, b'\n')?;
    let size = usize::try_from(size).map_err(|_| DeltaError::TooLarge)?;
    if size > target_size_max {
        return Err(DeltaError::TooLarge);
    }
    let mut target = Vec::new();
    loop {
        let number = number::read(&mut rest)?;
        let (&command, after) = rest.split_first().ok_or(DeltaError::Truncated)?;
        rest = after;
        let part = match command {
            b'@' => {
                let offset = number::read(&mut rest)?;
                expect(&mut rest, b',')?;
                slice(source, offset, number).ok_or(DeltaError::CopyOutsideSource)?
            }
            b':' => {
                let (part, after) = usize::try_from(number)
                    .ok()
                    .and_then(|count| rest.split_at_checked(count))
                    .ok_or(DeltaError::Truncated)?;
                rest = after;
                part
            }
            b';' if target.len() != size => return Err(DeltaError::WrongSize),
            b';' if checksum(&target) != number => return Err(DeltaError::WrongChecksum),
            b';' if !rest.is_empty() => return Err(DeltaError::TrailingBytes),
            b';' => return Ok(target),
            _ => return Err(DeltaError::UnknownCommand),
        };
        if part.len() > size - target.len() {
            return Err(DeltaError::WrongSize);
        }
        target.extend_from_slice(part);
    }
}

fn slice(source: &[u8], offset: u32, count: u32) -> Option<&[u8]> {
    let offset = usize::try_from(offset).ok()?;
    let end = offset.checked_add(usize::try_from(count).ok()?)?;
    source.get(offset..end)
}

fn expect(rest: &mut &[u8], byte: u8) -> Result<(), DeltaError> {
    match rest.split_first() {
        Some((&first, after)) if first == byte => {
            *rest = after;
            Ok(())
        }
        Some(_) => Err(DeltaError::UnknownCommand),
        None => Err(DeltaError::Truncated),
    }
}

/// Sum of the bytes read as big-endian 32-bit words, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum = words
        .iter()
        .fold(0u32, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)));
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u32::from_be_bytes(last))
}

/// Why a delta cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeltaError {
    /// The delta ends within a command, or without the final one.
    Truncated,
    /// A byte stands where a command or separator should.
    UnknownCommand,
    /// An integer does not fit into 32 bits.
    NumberTooLarge,
    /// A copy command reaches beyond the source.
    CopyOutsideSource,
    /// The target would be larger than the caller allows.
    TooLarge,
    /// The commands give more or fewer bytes than the delta declares.
    WrongSize,
    /// The checksum of the result differs: the delta was made from another source.
    WrongChecksum,
    /// Bytes follow the final command.
    TrailingBytes,
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "delta is truncated",
            Self::UnknownCommand => "delta has an unknown command",
            Self::NumberTooLarge => "delta has an integer of more than 32 bits",
            Self::CopyOutsideSource => "delta copies from beyond the end of its source",
            Self::TooLarge => "delta gives more bytes than allowed",
            Self::WrongSize => "delta gives another number of bytes than it declares",
            Self::WrongChecksum => "delta was made from another source: the checksum differs",
            Self::TrailingBytes => "delta has bytes after its end",
        })
    }
}

impl std::error::Error for DeltaError {}
