//! A piece of JSON that is carried, never looked into.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting of objects and arrays in a value. Every client that a value is passed on to has to parse it, inside
/// up to four levels of ours; the parsers of some SDKs end at 128.
const DEPTH_MAX: usize = 62;

/// A JSON value kept as its text: checked once, shared by cheap clones, written out as it came.
///
/// It holds no line break, so that it can stand in a frame where `\n` separates messages, and nests no deeper than
/// the server accepts from a client.
#[derive(Clone)]
pub(crate) struct Json(Arc<RawValue>);

/// The text is not JSON that this server passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidJson;

impl Json {
    /// Takes text as JSON after checking that it is one JSON value.
    ///
    /// # Errors
    /// [`InvalidJson`] if it is not, if it contains a line break, or if it nests too deep.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        let text = text.into();
        if text.contains('\n') || !is_shallow(text.as_bytes()) {
            return Err(InvalidJson);
        }
        let raw = RawValue::from_string(text).map_err(|_| InvalidJson)?;
        Ok(Self(raw.into()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The length of the text in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.as_str().len()
    }

    /// Keeps a value that came inside a line of a frame, which has no line breaks.
    ///
    /// # Errors
    /// [`InvalidJson`] if it nests too deep.
    pub(super) fn from_line(raw: &RawValue) -> Result<Self, InvalidJson> {
        match is_shallow(raw.get().as_bytes()) {
            true => Ok(Self(raw.to_owned().into())),
            false => Err(InvalidJson),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (*self.0).serialize(serializer)
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not one line of JSON within the depth limit")
    }
}

impl std::error::Error for InvalidJson {}

/// Whether no object or array lies deeper than [`DEPTH_MAX`]. Linear in the text, which need not be valid JSON.
fn is_shallow(text: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_allowed_to_62_and_not_63() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_shallow(nested(62).as_bytes()));
        assert!(!is_shallow(nested(63).as_bytes()));
        assert!(!is_shallow(nested(100_000).as_bytes()));
    }

    #[test]
    fn brackets_inside_strings_are_not_nesting() {
        let text = format!("\"{}\\\"{}\"", "[".repeat(100), "{".repeat(100));
        assert!(is_shallow(text.as_bytes()));
    }
}
