//! Replies and pushes to clients.
//!
//! Most fields are omitted if they are zero or false, because client libraries treat absent fields so. A few are always
//! written, to make frames easier to read.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Json;
use crate::codes::{ErrorCode, UnsubscribeCode};

/// The server's ping: an empty object, which the client sends back.
pub(crate) const PING: &str = "{}";

/// The reply to one command.
#[derive(Debug, Serialize)]
pub(crate) struct Reply<'a> {
    pub(crate) id: u32,
    #[serde(flatten)]
    pub(crate) body: ReplyBody<'a>,
}

/// The result of a command, under the name of the request, or an error.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplyBody<'a> {
    Error(#[serde(serialize_with = "error")] ErrorCode),
    Connect(ConnectResult),
    Subscribe(SubscribeResult<'a>),
    Unsubscribe(Empty),
    Publish(Empty),
    Presence(PresenceResult<'a>),
    PresenceStats(PresenceStatsResult),
    History(HistoryResult<'a>),
    Ping(Empty),
}

/// A result without fields.
#[derive(Debug, Serialize)]
pub(crate) struct Empty {}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectResult {
    pub(crate) client: String,
    pub(crate) version: &'static str,
    /// Interval of the server's pings in seconds; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ping: Option<u64>,
    /// Whether the client must answer pings.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) pong: bool,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct SubscribeResult<'a> {
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) recoverable: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) positioned: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) epoch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) was_recovering: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) recovered: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) publications: Vec<WirePublication<'a>>,
    /// Data of a server-side subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a Json>,
}

#[derive(Debug, Serialize)]
pub(crate) struct WirePublication<'a> {
    pub(crate) data: &'a Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<WireClientInfo<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) offset: u64,
    /// Unix time in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<&'a BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct WireClientInfo<'a> {
    pub(crate) user: &'a str,
    pub(crate) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conn_info: Option<&'a Json>,
}

/// The members of a channel, serialized as a map by client id.
#[derive(Debug)]
pub(crate) struct PresenceResult<'a> {
    pub(crate) clients: Vec<WireClientInfo<'a>>,
}

impl Serialize for PresenceResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Clients<'a>(&'a [WireClientInfo<'a>]);
        impl Serialize for Clients<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|info| (&info.client, info)))
            }
        }
        let mut result = serializer.serialize_map(Some(1))?;
        result.serialize_entry("presence", &Clients(&self.clients))?;
        result.end()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct PresenceStatsResult {
    pub(crate) num_clients: usize,
    pub(crate) num_users: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryResult<'a> {
    pub(crate) publications: Vec<WirePublication<'a>>,
    pub(crate) epoch: &'a str,
    pub(crate) offset: u64,
}

/// A message of a channel that is not a reply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Push<'a> {
    Pub(WirePublication<'a>),
    Join(WireMember<'a>),
    Leave(WireMember<'a>),
    Unsubscribe(#[serde(serialize_with = "unsubscribe")] UnsubscribeCode),
    /// The server subscribed the client.
    Subscribe(SubscribeResult<'a>),
}

/// The client that joined or left.
#[derive(Debug, Serialize)]
pub(crate) struct WireMember<'a> {
    pub(crate) info: WireClientInfo<'a>,
}

impl<'a> Push<'a> {
    pub(crate) fn join(info: WireClientInfo<'a>) -> Self {
        Self::Join(WireMember { info })
    }

    pub(crate) fn leave(info: WireClientInfo<'a>) -> Self {
        Self::Leave(WireMember { info })
    }

    /// Serializes the push for the subscribers of `channel`.
    pub(crate) fn encode(&self, channel: &str) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            push: ChannelPush<'a>,
        }
        #[derive(Serialize)]
        struct ChannelPush<'a> {
            channel: &'a str,
            #[serde(flatten)]
            body: &'a Push<'a>,
        }
        encode(&Wire {
            push: ChannelPush { channel, body: self },
        })
    }
}

/// Serializes a reply or push as one line of JSON.
pub(crate) fn encode(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("string keys, written to memory: cannot fail")
}

fn error<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Wire {
        code: u32,
        message: &'static str,
        #[serde(skip_serializing_if = "is_false")]
        temporary: bool,
    }
    Wire {
        code: code.code(),
        message: code.message(),
        temporary: code.is_temporary(),
    }
    .serialize(serializer)
}

fn unsubscribe<S: Serializer>(code: &UnsubscribeCode, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Wire {
        code: u32,
        reason: &'static str,
    }
    Wire {
        code: code.code(),
        reason: code.reason(),
    }
    .serialize(serializer)
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: ReplyBody<'_>, expect: &str) {
        assert_eq!(encode(&Reply { id: 7, body }), expect);
    }

    fn ada(conn_info: &Json) -> WireClientInfo<'_> {
        WireClientInfo {
            user: "",
            client: "ada-1".to_owned(),
            conn_info: Some(conn_info),
        }
    }

    #[test]
    fn only_temporary_errors_are_marked_temporary() {
        check(
            ReplyBody::Error(ErrorCode::PermissionDenied),
            r#"{"id":7,"error":{"code":103,"message":"permission denied"}}"#,
        );
        check(
            ReplyBody::Error(ErrorCode::Internal),
            r#"{"id":7,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        );
    }

    #[test]
    fn results_are_under_the_name_of_their_command() {
        check(
            ReplyBody::PresenceStats(PresenceStatsResult {
                num_clients: 2,
                num_users: 1,
            }),
            r#"{"id":7,"presence_stats":{"num_clients":2,"num_users":1}}"#,
        );
        check(ReplyBody::Publish(Empty {}), r#"{"id":7,"publish":{}}"#);
        check(
            ReplyBody::Subscribe(SubscribeResult::default()),
            r#"{"id":7,"subscribe":{}}"#,
        );
    }

    #[test]
    fn a_recoverable_subscription_contains_its_position_even_at_zero() {
        let result = SubscribeResult {
            recoverable: true,
            epoch: "abcd",
            offset: Some(0),
            ..Default::default()
        };
        check(
            ReplyBody::Subscribe(result),
            r#"{"id":7,"subscribe":{"recoverable":true,"epoch":"abcd","offset":0}}"#,
        );
    }

    #[test]
    fn presence_is_a_map_from_client_to_info() {
        let conn_info = Json::parse(r#"{"name":"Ada"}"#).unwrap();
        let clients = vec![ada(&conn_info)];
        check(
            ReplyBody::Presence(PresenceResult { clients }),
            concat!(
                r#"{"id":7,"presence":{"presence":{"ada-1":"#,
                r#"{"user":"","client":"ada-1","conn_info":{"name":"Ada"}}}}}"#
            ),
        );
    }

    #[test]
    fn pushes_contain_the_channel_and_unchanged_data() {
        let data = Json::parse("{ \"x\" : 1 }").unwrap();
        let publication = WirePublication {
            data: &data,
            info: None,
            offset: 3,
            time: 0,
            tags: None,
        };
        assert_eq!(
            Push::Pub(publication).encode("a\"b"),
            r#"{"push":{"channel":"a\"b","pub":{"data":{ "x" : 1 },"offset":3}}}"#
        );
        assert_eq!(
            Push::Unsubscribe(UnsubscribeCode::InsufficientState).encode("c"),
            r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
        assert!(
            Push::join(ada(&data))
                .encode("c")
                .starts_with(r#"{"push":{"channel":"c","join":{"info":{"user":"","#)
        );
    }
}
