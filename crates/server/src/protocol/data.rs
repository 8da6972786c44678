//! Data of the application, which is forwarded without being interpreted.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::json::{InvalidJson, Json};

/// Data of a publication, a call or a client. Clones share the allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// From a JSON client or the HTTP API; valid JSON.
    Json(Json),
    /// From a Protobuf client, or decoded from base64: any bytes.
    Bytes(Arc<[u8]>),
}

impl Data {
    /// Validates JSON that may span several lines.
    ///
    /// # Errors
    /// Returns [`InvalidJson`] if the text is not JSON or is nested too deep.
    pub(crate) fn json(text: impl AsRef<str>) -> Result<Self, InvalidJson> {
        Json::parse(without_line_breaks(text.as_ref())).map(Self::Json)
    }

    /// The bytes that Protobuf clients receive.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(json) => json.as_str().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The bytes in base64.
    pub(crate) fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(self.as_bytes())
    }

    /// The length in bytes.
    pub(crate) fn len_bytes(&self) -> usize {
        self.as_bytes().len()
    }

    /// The JSON that JSON clients receive. Bytes that are not JSON become a string: the text, or base64 if the bytes
    /// are not text.
    pub(crate) fn to_json(&self) -> Cow<'_, str> {
        let bytes = match self {
            Self::Json(json) => return json.as_str().into(),
            Self::Bytes(bytes) => bytes,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if Json::is_valid(text) => without_line_breaks(text),
            Ok(text) => string(text).into(),
            Err(_) => string(&BASE64_STANDARD.encode(bytes)).into(),
        }
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(serializer),
            Self::Bytes(_) => {
                let json = self.to_json().into_owned();
                RawValue::from_string(json)
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }
        }
    }
}

/// In valid JSON, a line break can only be white space between tokens.
fn without_line_breaks(json: &str) -> Cow<'_, str> {
    match json.contains('\n') {
        true => json.replace('\n', " ").into(),
        false => json.into(),
    }
}

/// A JSON string with this value.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expect: &str) {
        let data = Data::from(bytes.to_vec());
        assert_eq!(data.as_bytes(), bytes);
        assert_eq!(data.to_json(), expect);
        assert_eq!(serde_json::to_string(&data).unwrap(), expect);
    }

    #[test]
    fn bytes_with_json_are_forwarded_as_json() {
        check(br#"{"a": 1}"#, r#"{"a": 1}"#);
        check(b"[1,\n2]", "[1, 2]");
    }

    #[test]
    fn bytes_without_json_become_a_string() {
        check(b"hello", r#""hello""#);
        check(b"", r#""""#);
        check(b"a\nb", r#""a\nb""#);
        check(&[0xff, 0], r#""/wA=""#);
        let deep = "[".repeat(100) + &"]".repeat(100);
        check(deep.as_bytes(), &format!("\"{deep}\""));
    }
}
