//! The JSON of calls and answers. Absent fields of answers are the zero value, unknown ones are ignored.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::HookError;
use crate::filter::FilterNode;

/// The fields of every call.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Common<'a> {
    /// The id of the client.
    pub(crate) client: &'a str,
    /// `websocket`, `sse` or `http_stream`.
    pub(crate) transport: &'a str,
    /// `json` or `protobuf`.
    pub(crate) protocol: &'a str,
    /// `json` or `binary`: the form of data.
    pub(crate) encoding: &'a str,
}

/// Data of a client: JSON in one field, or base64 in another.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CallData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b64data: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConnectCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    #[serde(flatten)]
    pub(crate) data: CallData<'a>,
    /// Name and version of the client's application.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) version: &'a str,
    /// Server-side channels that the client asks for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) channels: &'a [&'a str],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RefreshCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    pub(crate) user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubscribeCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    pub(crate) user: &'a str,
    pub(crate) channel: &'a str,
    #[serde(flatten)]
    pub(crate) data: CallData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubRefreshCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    pub(crate) user: &'a str,
    pub(crate) channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PublishCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    pub(crate) user: &'a str,
    pub(crate) channel: &'a str,
    #[serde(flatten)]
    pub(crate) data: CallData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RpcCall<'a> {
    #[serde(flatten)]
    pub(crate) common: Common<'a>,
    pub(crate) user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) method: &'a str,
    #[serde(flatten)]
    pub(crate) data: CallData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<&'a RawValue>,
}

/// The answer of the backend.
#[derive(Clone, Debug)]
pub(crate) enum HookReply<T> {
    /// The answer has a result, or is empty.
    Result(Option<T>),
    /// The client gets an error reply.
    Error(ReplyError),
    /// The client is disconnected.
    Disconnect(ReplyDisconnect),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ReplyError {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) temporary: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ReplyDisconnect {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl<T: DeserializeOwned> HookReply<T> {
    /// Parses an answer: `result`, `error` or `disconnect`, or none of them.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, HookError> {
        #[derive(Deserialize)]
        struct Wire<T> {
            result: Option<T>,
            error: Option<ReplyError>,
            disconnect: Option<ReplyDisconnect>,
        }
        let invalid = |reason: &str| HookError::Failed(format!("the response is not valid: {reason}"));
        let wire: Wire<T> = serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        Ok(match wire {
            Wire {
                disconnect: Some(disconnect),
                ..
            } => match disconnect.code {
                3000..5000 => Self::Disconnect(disconnect),
                _ => return Err(invalid("the code of a disconnect must be from 3000 to 4999")),
            },
            Wire { error: Some(error), .. } => match error.code {
                0 => return Err(invalid("the code of an error must not be 0")),
                _ => Self::Error(error),
            },
            Wire { result, .. } => Self::Result(result),
        })
    }
}

/// Who the client is, and what it is subscribed to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectDecision {
    pub(crate) user: String,
    /// Unix time in seconds; 0 for never.
    pub(crate) expire_at: i64,
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: String,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: String,
    pub(crate) channels: Vec<String>,
    pub(crate) subs: BTreeMap<String, SubscribeDecision>,
    pub(crate) meta: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RefreshDecision {
    pub(crate) expired: bool,
    pub(crate) expire_at: i64,
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: String,
    pub(crate) meta: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubscribeDecision {
    pub(crate) expire_at: i64,
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: String,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: String,
    #[serde(rename = "override")]
    pub(crate) overrides: Option<DecisionOverrides>,
    /// Only publications whose tags match are delivered.
    pub(crate) server_tags_filter: Option<FilterNode>,
}

/// Options of the namespace that are different for this subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct DecisionOverrides {
    pub(crate) presence: Option<BoolValue>,
    pub(crate) join_leave: Option<BoolValue>,
    pub(crate) force_recovery: Option<BoolValue>,
    pub(crate) force_positioning: Option<BoolValue>,
    pub(crate) force_push_join_leave: Option<BoolValue>,
}

/// A boolean whose absence is not `false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct BoolValue {
    pub(crate) value: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubRefreshDecision {
    pub(crate) expired: bool,
    pub(crate) expire_at: i64,
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: String,
}

/// What to publish instead of the data of the client, if it is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PublishDecision {
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: String,
    pub(crate) skip_history: bool,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) idempotency_key: String,
    pub(crate) version: u64,
    pub(crate) version_epoch: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RpcDecision {
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: String,
}
