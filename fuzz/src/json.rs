//! A reference reader for the lines of the client protocol: JSON objects and their ids.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// A line of a frame.
#[derive(Debug)]
pub enum Line {
    /// Nested too deep for the reference.
    TooDeep,
    /// Not a JSON object.
    Invalid,
    /// An object, with the values of all its fields with the name `id`.
    Object(Vec<Value>),
}

/// serde_json reads values that are at most this deep.
const DEPTH_MAX: usize = 120;

/// Reads a line.
#[must_use]
pub fn read(line: &str) -> Line {
    if line.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEPTH_MAX {
        return Line::TooDeep;
    }
    match serde_json::from_str::<Ids>(line) {
        Ok(Ids(ids)) => Line::Object(ids),
        Err(_) => Line::Invalid,
    }
}

struct Ids(Vec<Value>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name == "id" {
                        true => ids.push(map.next_value()?),
                        // Not a `Value`: numbers of any size are JSON.
                        false => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Ids(ids))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
