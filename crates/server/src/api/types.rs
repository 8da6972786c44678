//! The JSON of requests and results. Absent fields and `null` are the zero value; unknown fields are ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::codes::ErrorCode;
use crate::engine::Publication;
use crate::handle::{NodeInfo, StreamPosition};
use crate::presence::ClientInfo;
use crate::protocol::{Data, WireClientInfo};

/// Data that is JSON or, under another name, bytes as base64.
#[derive(Debug, Default)]
pub(super) struct RawJson<'a>(pub(super) Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for RawJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not an `Option`, for which `null` would be absent.
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

/// Deserializes `null` as the zero value.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares requests: every field is optional and nullable.
macro_rules! requests {
    ($($(#[doc = $doc:literal])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(
                #[serde(deserialize_with = "nullable")]
                pub(super) $field: $type,
            )*
        }
    )*};
}

/// The data of a publication and its options, in `publish` and `broadcast`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish<'a> {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    /// In `broadcast`.
    #[serde(deserialize_with = "nullable")]
    pub(super) channels: Vec<String>,
    #[serde(borrow)]
    pub(super) data: RawJson<'a>,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) version: u64,
    #[serde(deserialize_with = "nullable")]
    pub(super) version_epoch: String,
    /// Only its type is checked: the namespace decides whether subscribers get deltas.
    #[serde(rename = "delta", deserialize_with = "nullable")]
    pub(super) _delta: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe<'a> {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) client: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) session: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) expire_at: i64,
    #[serde(borrow)]
    pub(super) info: RawJson<'a>,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64info: String,
    #[serde(borrow)]
    pub(super) data: RawJson<'a>,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    pub(super) recover_since: Option<Since>,
    #[serde(rename = "override", deserialize_with = "nullable")]
    pub(super) overrides: Overrides,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh<'a> {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) client: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) session: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) expire_at: i64,
    #[serde(borrow)]
    pub(super) info: RawJson<'a>,
}

requests! {
    Unsubscribe {
        channel: String,
        user: String,
        client: String,
        session: String,
    }
    DisconnectRequest {
        user: String,
        client: String,
        session: String,
        whitelist: Vec<String>,
        disconnect: Option<WireDisconnect>,
    }
    WireDisconnect {
        code: u16,
        reason: String,
    }
    Channel {
        channel: String,
    }
    History {
        channel: String,
        limit: i32,
        since: Option<Since>,
        reverse: bool,
    }
    Since {
        offset: u64,
        epoch: String,
    }
    Channels {
        pattern: String,
    }
    /// Options that differ from those of the namespace.
    Overrides {
        presence: Option<BoolValue>,
        join_leave: Option<BoolValue>,
        force_recovery: Option<BoolValue>,
        force_positioning: Option<BoolValue>,
        force_push_join_leave: Option<BoolValue>,
    }
    /// A boolean whose absence is not `false`.
    BoolValue {
        value: bool,
    }
    Info {}
}

/// The commands of a batch, each with its arguments under the name of its method.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch<'a> {
    #[serde(borrow)]
    pub(super) commands: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    /// Ignored: a command takes microseconds, and one after the other is always correct.
    #[serde(rename = "parallel", deserialize_with = "nullable")]
    pub(super) _parallel: bool,
}

impl From<Since> for StreamPosition {
    fn from(since: Since) -> Self {
        Self {
            offset: since.offset,
            epoch: since.epoch,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WireError {
    code: u32,
    message: &'static str,
}

impl From<ErrorCode> for WireError {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.code(),
            // The API of Centrifugo has a text of its own.
            message: match code {
                ErrorCode::MethodNotFound => "not found",
                code => code.message(),
            },
        }
    }
}

/// The result of `publish`. Absent fields are zero.
#[derive(Debug, Serialize)]
pub(super) struct Published {
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    epoch: String,
}

impl From<StreamPosition> for Published {
    fn from(position: StreamPosition) -> Self {
        Self {
            offset: position.offset,
            epoch: position.epoch,
        }
    }
}

/// The result of one channel of `broadcast`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PublishResponse {
    Result(Published),
    Error(WireError),
}

#[derive(Debug, Serialize)]
pub(super) struct BroadcastResult {
    pub(super) responses: Vec<PublishResponse>,
}

#[derive(Debug, Serialize)]
pub(super) struct Empty {}

#[derive(Debug, Serialize)]
pub(super) struct PresenceStats {
    pub(super) num_clients: usize,
    pub(super) num_users: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct HistoryResult<'a> {
    pub(super) publications: Vec<HistoryPublication<'a>>,
    pub(super) epoch: &'a str,
    pub(super) offset: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct HistoryPublication<'a> {
    data: &'a Data,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<WireClientInfo<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a BTreeMap<String, String>>,
}

impl<'a> From<&'a Publication> for HistoryPublication<'a> {
    fn from(publication: &'a Publication) -> Self {
        let content = &publication.content;
        Self {
            data: &content.data,
            info: content.info.as_deref().map(ClientInfo::wire),
            offset: publication.offset,
            tags: content.tags.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelsResult {
    pub(super) channels: BTreeMap<String, ChannelInfo>,
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelInfo {
    pub(super) num_clients: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct InfoResult {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
pub(super) struct Node {
    uid: String,
    name: String,
    version: String,
    num_clients: usize,
    num_users: usize,
    num_subs: usize,
    num_channels: usize,
    /// In seconds.
    uptime: u64,
}

impl From<NodeInfo> for Node {
    fn from(info: NodeInfo) -> Self {
        Self {
            uid: info.uid,
            name: info.name,
            version: info.version,
            num_clients: info.clients,
            num_users: info.users,
            num_subs: info.subscriptions,
            num_channels: info.channels,
            uptime: info.uptime.as_secs(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct BatchResponse {
    pub(super) replies: Vec<BatchReply>,
}

/// The result of one command of a batch, under the name of its method.
#[derive(Debug)]
pub(super) enum BatchReply {
    Result(&'static str, Box<RawValue>),
    Error(ErrorCode),
}

impl Serialize for BatchReply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Result(method, result) => serializer.collect_map([(method, result)]),
            Self::Error(code) => serializer.collect_map([("error", WireError::from(*code))]),
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
