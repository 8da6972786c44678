//! A piece of JSON that is carried, never looked into.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::frame;

/// A JSON value kept as its text: checked once, shared by cheap clones, written out as it came.
///
/// It holds no line break, so that it can stand in a frame where `\n` separates messages, and nests no deeper than
/// the server accepts from a client.
#[derive(Clone)]
pub(crate) struct Json(Arc<RawValue>);

/// The text given to [`Json::parse`] is not acceptable JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidJson;

impl Json {
    /// Takes text as JSON after checking that it is one JSON value.
    ///
    /// # Errors
    /// [`InvalidJson`] if it is not, if it contains a line break, or if it nests too deep.
    pub(crate) fn parse(text: impl Into<String>) -> Result<Self, InvalidJson> {
        let text = text.into();
        if text.contains('\n') || !frame::is_shallow(text.as_bytes()) {
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

    /// Keeps a value that came inside a frame, where depth and line breaks are already checked.
    pub(super) fn from_frame(raw: &RawValue) -> Self {
        Self(raw.to_owned().into())
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
