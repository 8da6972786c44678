//! JSON that is validated and forwarded without being interpreted.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Maximum nesting depth of a value. Receiving clients must parse it inside of up to four more levels, and the parsers
/// of some SDKs are limited to 128.
const DEPTH_MAX: usize = 62;

/// A JSON value as text. It is validated once, and clones share the allocation.
///
/// It contains no line break, which separates the messages of a frame, and is nested at most [`DEPTH_MAX`] deep.
#[derive(Clone)]
pub(crate) struct Json(Arc<RawValue>);

/// Error: the text is not JSON, contains a line break, or is nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidJson;

impl Json {
    /// Validates a JSON value.
    ///
    /// # Errors
    /// Returns [`InvalidJson`] if the text is not JSON, contains a line break, or is nested too deep.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        let text = text.into();
        if text.contains('\n') || !is_shallow(text.as_bytes()) {
            return Err(InvalidJson);
        }
        let raw = RawValue::from_string(text).map_err(|_| InvalidJson)?;
        Ok(Self(raw.into()))
    }

    /// Whether a text is JSON of an allowed depth. It may contain line breaks.
    pub(super) fn is_valid(text: &str) -> bool {
        is_shallow(text.as_bytes()) && serde_json::from_str::<&RawValue>(text).is_ok()
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The value, for JSON that contains it.
    pub(crate) fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Copies a parsed value from a line of a frame, which contains no line break.
    ///
    /// # Errors
    /// Returns [`InvalidJson`] if the value is nested too deep.
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

/// Whether the nesting depth is at most [`DEPTH_MAX`]. Takes linear time. The text need not be valid JSON.
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
