//! The payload of a publication in the log.
//!
//! A list of fields: number (1 byte), length (4 bytes, little endian), content. Fields with unknown numbers are
//! skipped, so that a log can be read by an older version of the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Content, Version};
use crate::ids::ClientId;
use crate::presence::ClientInfo;
use crate::protocol::Data;

/// What the log keeps of a publication beside its position and time.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) content: Content,
    pub(super) idempotency_key: Option<Box<str>>,
    pub(super) version: Option<Version>,
}

const DATA: u8 = 1;
const CLIENT: u8 = 2;
const USER: u8 = 3;
const CONN_INFO: u8 = 4;
const TAG_NAME: u8 = 5;
/// Follows its name.
const TAG_VALUE: u8 = 6;
const IDEMPOTENCY_KEY: u8 = 7;
const VERSION: u8 = 8;
const VERSION_EPOCH: u8 = 9;
/// Instead of `DATA`, if the data is not from a JSON client.
const DATA_BYTES: u8 = 10;
/// Instead of `CONN_INFO`.
const CONN_INFO_BYTES: u8 = 11;
const CHAN_INFO: u8 = 12;
/// Instead of `CHAN_INFO`.
const CHAN_INFO_BYTES: u8 = 13;

/// Encodes the payload of a publication.
pub(super) fn encode(content: &Content, idempotency_key: Option<&str>, version: Option<&Version>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64 + content.data.len_bytes());
    let mut field = |number: u8, content: &[u8]| add_field(&mut payload, number, content);
    field(number_of(&content.data, DATA, DATA_BYTES), content.data.as_bytes());
    if let Some(info) = &content.info {
        add_client(info, &mut field);
    }
    for (name, value) in content.tags.iter().flat_map(|tags| tags.iter()) {
        field(TAG_NAME, name.as_bytes());
        field(TAG_VALUE, value.as_bytes());
    }
    if let Some(key) = idempotency_key {
        field(IDEMPOTENCY_KEY, key.as_bytes());
    }
    if let Some(version) = version {
        field(VERSION, &version.number.to_le_bytes());
        field(VERSION_EPOCH, version.epoch.as_bytes());
    }
    payload
}

/// Encodes a client.
pub(super) fn encode_client(info: &ClientInfo) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    add_client(info, &mut |number, content: &[u8]| {
        add_field(&mut payload, number, content)
    });
    payload
}

fn add_client(info: &ClientInfo, field: &mut impl FnMut(u8, &[u8])) {
    field(CLIENT, &info.client.to_bits().to_le_bytes());
    field(USER, info.user.as_bytes());
    if let Some(conn_info) = &info.conn_info {
        field(number_of(conn_info, CONN_INFO, CONN_INFO_BYTES), conn_info.as_bytes());
    }
    if let Some(chan_info) = &info.chan_info {
        field(number_of(chan_info, CHAN_INFO, CHAN_INFO_BYTES), chan_info.as_bytes());
    }
}

fn add_field(payload: &mut Vec<u8>, number: u8, content: &[u8]) {
    payload.push(number);
    // Larger publications are refused by their total size.
    payload.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    payload.extend(content);
}

/// Decodes a client. Returns `None` if the payload is not one.
pub(super) fn decode_client(payload: &[u8]) -> Option<Arc<ClientInfo>> {
    fields(payload)?.client
}

/// Decodes the payload of a publication. Returns `None` if it is not one.
pub(super) fn decode(payload: &[u8]) -> Option<Stored> {
    let fields = fields(payload)?;
    Some(Stored {
        content: Content {
            data: fields.data?,
            info: fields.client,
            tags: (!fields.tags.is_empty()).then(|| Arc::new(fields.tags)),
        },
        idempotency_key: fields.idempotency_key,
        version: fields.version,
    })
}

/// The fields of a payload. Each may be missing.
struct Fields {
    data: Option<Data>,
    client: Option<Arc<ClientInfo>>,
    tags: BTreeMap<String, String>,
    idempotency_key: Option<Box<str>>,
    version: Option<Version>,
}

fn fields(payload: &[u8]) -> Option<Fields> {
    let mut data = None;
    let mut client = None;
    let mut user = "";
    let mut conn_info = None;
    let mut chan_info = None;
    let mut tags = BTreeMap::new();
    let mut tag_name = "";
    let mut idempotency_key = None;
    let mut version = None;
    let mut version_epoch = "";
    let mut rest = payload;
    while !rest.is_empty() {
        let (number, content) = next_field(&mut rest)?;
        match number {
            DATA => data = Some(Data::json(text(content)?).ok()?),
            DATA_BYTES => data = Some(Data::from(content.to_vec())),
            CLIENT => client = Some(ClientId::from_random(u128::from_le_bytes(content.try_into().ok()?))),
            USER => user = text(content)?,
            CONN_INFO => conn_info = Some(Data::json(text(content)?).ok()?),
            CONN_INFO_BYTES => conn_info = Some(Data::from(content.to_vec())),
            CHAN_INFO => chan_info = Some(Data::json(text(content)?).ok()?),
            CHAN_INFO_BYTES => chan_info = Some(Data::from(content.to_vec())),
            TAG_NAME => tag_name = text(content)?,
            TAG_VALUE => drop(tags.insert(tag_name.to_owned(), text(content)?.to_owned())),
            IDEMPOTENCY_KEY => idempotency_key = Some(text(content)?.into()),
            VERSION => version = Some(u64::from_le_bytes(content.try_into().ok()?)),
            VERSION_EPOCH => version_epoch = text(content)?,
            _ => {}
        }
    }
    let client = client.map(|client| {
        Arc::new(ClientInfo {
            client,
            user: user.into(),
            conn_info,
            chan_info,
        })
    });
    Some(Fields {
        data,
        client,
        tags,
        idempotency_key,
        version: version.map(|number| Version {
            number,
            epoch: version_epoch.into(),
        }),
    })
}

/// The number of a field with JSON or with other bytes.
fn number_of(data: &Data, json: u8, bytes: u8) -> u8 {
    match data {
        Data::Json(_) => json,
        Data::Bytes(_) => bytes,
    }
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (number, after) = rest.split_first()?;
    let (len, after) = after.split_first_chunk()?;
    let (content, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some((*number, content))
}

fn text(content: &[u8]) -> Option<&str> {
    std::str::from_utf8(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: Content, key: Option<&str>, version: Option<Version>) {
        let payload = encode(&content, key, version.as_ref());
        let stored = decode(&payload).unwrap();
        assert_eq!(stored.content.data, content.data);
        assert_eq!(stored.content.info, content.info);
        assert_eq!(stored.content.tags, content.tags);
        assert_eq!(stored.idempotency_key.as_deref(), key);
        assert_eq!(stored.version, version);
        for len in 0..payload.len() {
            // A cut between two fields is a valid payload of fewer fields.
            let _ = decode(&payload[..len]);
        }
        // A newer version of the server has more fields.
        let extended = [&payload[..], &[200, 2, 0, 0, 0, 1, 2]].concat();
        assert!(decode(&extended).is_some());
        assert!(decode(&[&payload[..], &[200, 3, 0, 0, 0, 1, 2]].concat()).is_none());
    }

    #[test]
    fn publications_survive_the_round_trip() {
        let data = Data::json(r#"{"text":"ä"}"#).unwrap();
        let server = Content {
            data: data.clone(),
            info: None,
            tags: None,
        };
        check(server, None, None);
        let client = Content {
            data,
            info: Some(Arc::new(ClientInfo {
                client: ClientId::from_random(7),
                user: "ada".into(),
                conn_info: Some(Data::json("[1]").unwrap()),
                chan_info: None,
            })),
            tags: Some(Arc::new(
                [("a", "1"), ("b", "")]
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .into(),
            )),
        };
        let version = Version {
            number: 9,
            epoch: "v".into(),
        };
        check(client, Some("key"), Some(version));
    }

    #[test]
    fn anything_else_is_refused() {
        for payload in [&b""[..], b"\x01", b"\x01\x01\x00\x00\x00{", b"\x02\x01\x00\x00\x001"] {
            assert!(decode(payload).is_none(), "{payload:?}");
        }
    }
}
