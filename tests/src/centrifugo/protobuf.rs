//! Commands and replies of the client protocol in Protobuf, converted from and to their JSON form by a table of fields.
//!
//! Independent of the code of the server, so that the test would notice a wrong field number there.

use serde_json::{Map, Value, json};

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `uint32`, `uint64`, `int32` or `int64`; no test needs negative numbers.
    Number,
    Bool,
    Text,
    /// `bytes`, which are JSON in these tests.
    Data,
    Message(Fields),
    Messages(Fields),
    Texts,
    TextMap,
    MessageMap(Fields),
}

pub(super) type Fields = &'static [(u32, &'static str, Kind)];

use Kind::{Bool, Data, Message, MessageMap, Messages, Number, Text, TextMap, Texts};

pub(super) const COMMAND: Fields = &[
    (1, "id", Number),
    (4, "connect", Message(CONNECT_REQUEST)),
    (5, "subscribe", Message(SUBSCRIBE_REQUEST)),
    (6, "unsubscribe", Message(CHANNEL)),
    (
        7,
        "publish",
        Message(&[
            (1, "channel", Text),
            (2, "data", Data),
            (3, "type", Number),
            (4, "key", Text),
        ]),
    ),
    (8, "presence", Message(CHANNEL)),
    (9, "presence_stats", Message(CHANNEL)),
    (
        10,
        "history",
        Message(&[
            (1, "channel", Text),
            (7, "limit", Number),
            (8, "since", Message(&[(1, "offset", Number), (2, "epoch", Text)])),
            (9, "reverse", Bool),
        ]),
    ),
    (11, "ping", Message(&[])),
    (12, "send", Message(&[(1, "data", Data)])),
    (13, "rpc", Message(&[(1, "data", Data), (2, "method", Text)])),
    (14, "refresh", Message(&[(1, "token", Text)])),
    (15, "sub_refresh", Message(&[(1, "channel", Text), (2, "token", Text)])),
];

const CHANNEL: Fields = &[(1, "channel", Text)];

const CONNECT_REQUEST: Fields = &[
    (1, "token", Text),
    (2, "data", Data),
    (3, "subs", MessageMap(SUBSCRIBE_REQUEST)),
    (4, "name", Text),
    (5, "version", Text),
    (6, "headers", TextMap),
    (7, "flag", Number),
];

const SUBSCRIBE_REQUEST: Fields = &[
    (1, "channel", Text),
    (2, "token", Text),
    (3, "recover", Bool),
    (6, "epoch", Text),
    (7, "offset", Number),
    (8, "data", Data),
    (9, "positioned", Bool),
    (10, "recoverable", Bool),
    (11, "join_leave", Bool),
    (12, "delta", Text),
    (13, "tf", Message(&FILTER)),
    (14, "flag", Number),
    (15, "type", Number),
];

/// A static, because it contains itself.
static FILTER: [(u32, &str, Kind); 6] = [
    (1, "op", Text),
    (2, "key", Text),
    (3, "cmp", Text),
    (4, "val", Text),
    (5, "vals", Texts),
    (6, "nodes", Messages(&FILTER)),
];

pub(super) const REPLY: Fields = &[
    (1, "id", Number),
    (
        2,
        "error",
        Message(&[(1, "code", Number), (2, "message", Text), (3, "temporary", Bool)]),
    ),
    (4, "push", Message(PUSH)),
    (5, "connect", Message(CONNECT_RESULT)),
    (6, "subscribe", Message(SUBSCRIBE_RESULT)),
    (7, "unsubscribe", Message(&[])),
    (8, "publish", Message(&[])),
    (9, "presence", Message(&[(1, "presence", MessageMap(CLIENT_INFO))])),
    (
        10,
        "presence_stats",
        Message(&[(1, "num_clients", Number), (2, "num_users", Number)]),
    ),
    (
        11,
        "history",
        Message(&[
            (1, "publications", Messages(PUBLICATION)),
            (2, "epoch", Text),
            (3, "offset", Number),
        ]),
    ),
    (12, "ping", Message(&[])),
    (13, "rpc", Message(&[(1, "data", Data)])),
    (
        14,
        "refresh",
        Message(&[
            (1, "client", Text),
            (2, "version", Text),
            (3, "expires", Bool),
            (4, "ttl", Number),
        ]),
    ),
    (15, "sub_refresh", Message(&[(1, "expires", Bool), (2, "ttl", Number)])),
];

const PUSH: Fields = &[
    (1, "id", Number),
    (2, "channel", Text),
    (4, "pub", Message(PUBLICATION)),
    (5, "join", Message(&[(1, "info", Message(CLIENT_INFO))])),
    (6, "leave", Message(&[(1, "info", Message(CLIENT_INFO))])),
    (7, "unsubscribe", Message(&[(2, "code", Number), (3, "reason", Text)])),
    (8, "message", Message(&[(1, "data", Data)])),
    (
        9,
        "subscribe",
        Message(&[
            (1, "recoverable", Bool),
            (4, "epoch", Text),
            (5, "offset", Number),
            (6, "positioned", Bool),
            (7, "data", Data),
        ]),
    ),
    (10, "connect", Message(CONNECT_RESULT)),
    (
        11,
        "disconnect",
        Message(&[(1, "code", Number), (2, "reason", Text), (3, "reconnect", Bool)]),
    ),
    (12, "refresh", Message(&[(1, "expires", Bool), (2, "ttl", Number)])),
];

const CONNECT_RESULT: Fields = &[
    (1, "client", Text),
    (2, "version", Text),
    (3, "expires", Bool),
    (4, "ttl", Number),
    (5, "data", Data),
    (6, "subs", MessageMap(SUBSCRIBE_RESULT)),
    (7, "ping", Number),
    (8, "pong", Bool),
    (9, "session", Text),
    (10, "node", Text),
    (11, "time", Number),
];

const SUBSCRIBE_RESULT: Fields = &[
    (1, "expires", Bool),
    (2, "ttl", Number),
    (3, "recoverable", Bool),
    (6, "epoch", Text),
    (7, "publications", Messages(PUBLICATION)),
    (8, "recovered", Bool),
    (9, "offset", Number),
    (10, "positioned", Bool),
    (11, "data", Data),
    (12, "was_recovering", Bool),
    (13, "delta", Bool),
    (14, "id", Number),
    (15, "type", Number),
];

const PUBLICATION: Fields = &[
    (4, "data", Data),
    (5, "info", Message(CLIENT_INFO)),
    (6, "offset", Number),
    (7, "tags", TextMap),
    (8, "delta", Bool),
    (9, "time", Number),
    (10, "channel", Text),
    (11, "key", Text),
    (12, "removed", Bool),
    (14, "epoch", Text),
    (16, "version", Number),
];

const CLIENT_INFO: Fields = &[
    (1, "user", Text),
    (2, "client", Text),
    (3, "conn_info", Data),
    (4, "chan_info", Data),
];

/// Encodes a message without its length.
///
/// # Panics
/// If it has a field that the table lacks, or of another type.
pub(super) fn encode(fields: Fields, message: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in message.as_object().expect("a message is an object") {
        let field = fields.iter().find(|(_, known, _)| known == name);
        let (number, _, kind) = field.unwrap_or_else(|| panic!("the Protobuf schema of the tests has no {name:?}"));
        encode_field(&mut bytes, *number, *kind, value);
    }
    bytes
}

fn encode_field(bytes: &mut Vec<u8>, number: u32, kind: Kind, value: &Value) {
    let text = |value: &Value| value.as_str().expect("text").as_bytes().to_vec();
    match kind {
        Number | Bool => {
            let value = match value {
                Value::Bool(value) => u64::from(*value),
                // A negative number is encoded as its 64-bit two's complement.
                _ => value.as_i64().expect("a number").cast_unsigned(),
            };
            put_varint(bytes, u64::from(number) << 3);
            put_varint(bytes, value);
        }
        Text => put_bytes(bytes, number, &text(value)),
        Data => put_bytes(bytes, number, value.to_string().as_bytes()),
        Message(fields) => put_bytes(bytes, number, &encode(fields, value)),
        Messages(fields) => {
            for value in value.as_array().expect("a list") {
                put_bytes(bytes, number, &encode(fields, value));
            }
        }
        Texts => {
            for value in value.as_array().expect("a list") {
                put_bytes(bytes, number, &text(value));
            }
        }
        TextMap | MessageMap(_) => {
            for (key, value) in value.as_object().expect("a map") {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                match kind {
                    MessageMap(fields) => put_bytes(&mut entry, 2, &encode(fields, value)),
                    _ => put_bytes(&mut entry, 2, &text(value)),
                }
                put_bytes(bytes, number, &entry);
            }
        }
    }
}

/// Decodes a message. Unknown fields get a name that shows their number, so that they make a difference.
pub(super) fn decode(fields: Fields, bytes: &[u8]) -> Option<Value> {
    let mut message = Map::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let number = u32::try_from(key >> 3).ok()?;
        let (content, payload) = match key & 7 {
            0 => (take_varint(&mut rest)?, &[][..]),
            2 => (0, take_bytes(&mut rest)?),
            _ => return None,
        };
        let Some((_, name, kind)) = fields.iter().find(|(known, ..)| *known == number) else {
            message.insert(format!("field {number}"), json!(content));
            continue;
        };
        let name = (*name).to_owned();
        match *kind {
            Number => drop(message.insert(name, json!(content))),
            Bool => drop(message.insert(name, json!(content != 0))),
            Text => drop(message.insert(name, json!(std::str::from_utf8(payload).ok()?))),
            Data => drop(message.insert(name, data(payload))),
            Message(fields) => drop(message.insert(name, decode(fields, payload)?)),
            Messages(_) | Texts => {
                let value = match *kind {
                    Messages(fields) => decode(fields, payload)?,
                    _ => json!(std::str::from_utf8(payload).ok()?),
                };
                let list = message.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(value);
            }
            TextMap | MessageMap(_) => {
                let (key, value) = decode_entry(*kind, payload)?;
                let map = message.entry(name).or_insert_with(|| json!({}));
                map.as_object_mut()?.insert(key, value);
            }
        }
    }
    Some(message.into())
}

fn decode_entry(kind: Kind, bytes: &[u8]) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), &[][..]);
    let mut rest = bytes;
    while !rest.is_empty() {
        let number = take_varint(&mut rest)? >> 3;
        let payload = take_bytes(&mut rest)?;
        match number {
            1 => key = std::str::from_utf8(payload).ok()?.to_owned(),
            _ => value = payload,
        }
    }
    let value = match kind {
        MessageMap(fields) => decode(fields, value)?,
        _ => json!(std::str::from_utf8(value).ok()?),
    };
    Some((key, value))
}

/// Data as JSON, or as text if it is none, as a delta is.
fn data(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| json!({ "bytes": String::from_utf8_lossy(bytes) }))
}

/// Puts the length of a message in front of it.
pub(super) fn delimited(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 2);
    put_varint(&mut bytes, message.len() as u64);
    bytes.extend_from_slice(message);
    bytes
}

/// Takes a message with its length from the front of `bytes`; `None` if it is not complete.
pub(super) fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *bytes;
    let message = take_bytes(&mut rest)?;
    *bytes = rest;
    Some(message)
}

fn put_bytes(bytes: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_varint(bytes, u64::from(number) << 3 | 2);
    put_varint(bytes, payload.len() as u64);
    bytes.extend_from_slice(payload);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    let (payload, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_bytes_of_the_protocol() {
        let command = json!({"id": 2, "subscribe": {"channel": "a", "recover": true}});
        // Field 1, varint 2; field 5, five bytes: field 1, one byte `a`; field 3, varint 1.
        assert_eq!(encode(COMMAND, &command), b"\x08\x02\x2a\x05\x0a\x01a\x18\x01");
    }

    #[test]
    fn a_reply_decodes_to_its_json() {
        let reply = json!({
            "id": 300,
            "presence": {"presence": {"c1": {"user": "ada", "client": "c1", "conn_info": {"a": [1]}}}},
        });
        assert_eq!(decode(REPLY, &encode(REPLY, &reply)), Some(reply));
        assert_eq!(decode(REPLY, b"\x08"), None);
        assert_eq!(decode(REPLY, b"\x98\x01\x05"), Some(json!({"field 19": 5})));
    }
}
