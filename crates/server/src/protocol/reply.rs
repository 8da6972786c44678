//! Replies and pushes to clients, independent of the encoding, and their JSON encoding.
//!
//! Most fields are omitted if they are zero or false, because client libraries treat absent fields as zero or false. A
//! few are always written, to make frames easier to read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::data::Data;
use crate::codes::{ErrorCode, UnsubscribeCode};
use crate::engine::Tags;

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
    /// An error of the backend or of a handler.
    #[serde(rename = "error")]
    Custom(CustomError),
    Connect(ConnectResult<'a>),
    Subscribe(SubscribeResult<'a>),
    Unsubscribe(Empty),
    Publish(Empty),
    Presence(PresenceResult<'a>),
    PresenceStats(PresenceStatsResult),
    History(HistoryResult<'a>),
    Ping(Empty),
    Rpc(DataResult),
    Refresh(ExpiryResult),
    SubRefresh(ExpiryResult),
}

/// An error with a code and message of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CustomError {
    pub(crate) code: u32,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) temporary: bool,
}

/// A result without fields.
#[derive(Debug, Serialize)]
pub(crate) struct Empty {}

#[derive(Debug, Serialize)]
pub(crate) struct ConnectResult<'a> {
    pub(crate) client: String,
    pub(crate) version: &'static str,
    #[serde(flatten)]
    pub(crate) expiry: ExpiryResult,
    /// Data of the backend for the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Data>,
    /// Server-side subscriptions by channel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) subs: BTreeMap<&'a str, SubscribeResult<'a>>,
    /// Interval of the server's pings in seconds; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ping: Option<u32>,
    /// Whether the client must answer pings.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) pong: bool,
    /// Secret with which a client of a transport in one direction sends commands; empty for other transports.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) session: String,
    /// The node that keeps the session, if there is a secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
}

/// When a client must present a new token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ExpiryResult {
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) expires: bool,
    /// Seconds until then.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ttl: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct DataResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Data>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct SubscribeResult<'a> {
    #[serde(flatten)]
    pub(crate) expiry: ExpiryResult,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a Data>,
    /// Whether publications may be sent as deltas.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) delta: bool,
    /// The id that replaces the channel name in pushes; zero if there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) id: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct WirePublication<'a> {
    pub(crate) data: WireData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<WireClientInfo<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<&'a Tags>,
    /// Whether the data is a delta.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) delta: bool,
    /// Unix time in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) time: u64,
}

/// The data of a publication as it is sent.
#[derive(Debug)]
pub(crate) enum WireData<'a> {
    Plain(&'a Data),
    /// Complete data in a subscription with deltas. In JSON it is a string that contains JSON.
    Complete(&'a Data),
    /// A difference to the previous publication. In JSON it is a string.
    Delta(Cow<'a, [u8]>),
}

impl WireData<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(data) | Self::Complete(data) => data.as_bytes(),
            Self::Delta(delta) => delta,
        }
    }
}

impl Serialize for WireData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(data) => data.serialize(serializer),
            Self::Complete(data) => data.to_json().serialize(serializer),
            Self::Delta(delta) => String::from_utf8_lossy(delta).serialize(serializer),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct WireClientInfo<'a> {
    pub(crate) user: &'a str,
    pub(crate) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conn_info: Option<&'a Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chan_info: Option<&'a Data>,
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

/// A message that is not a reply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Push<'a> {
    Pub(WirePublication<'a>),
    Join(WireMember<'a>),
    Leave(WireMember<'a>),
    Unsubscribe(#[serde(serialize_with = "unsubscribe")] UnsubscribeCode),
    /// A subscription that the server started.
    Subscribe(ServerSubscription<'a>),
    /// The server closes the connection. Only for transports that have no close code.
    Disconnect(WireClose),
    Refresh(ExpiryResult),
}

/// The close code and reason.
#[derive(Debug, Serialize)]
pub(crate) struct WireClose {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl WireClose {
    /// Whether clients reconnect after this code.
    pub(crate) fn allows_reconnect(&self) -> bool {
        !matches!(self.code, 3500..4000 | 4500..5000)
    }
}

/// The client that joined or left.
#[derive(Debug, Serialize)]
pub(crate) struct WireMember<'a> {
    pub(crate) info: WireClientInfo<'a>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct ServerSubscription<'a> {
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) recoverable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) epoch: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) offset: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) positioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a Data>,
}

impl<'a> Push<'a> {
    pub(crate) fn join(info: WireClientInfo<'a>) -> Self {
        Self::Join(WireMember { info })
    }

    pub(crate) fn leave(info: WireClientInfo<'a>) -> Self {
        Self::Leave(WireMember { info })
    }

    /// Serializes the push as one line of JSON. Without a channel it concerns the connection.
    pub(super) fn to_json(&self, channel: PushTarget<'_>) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            push: ChannelPush<'a>,
        }
        #[derive(Serialize)]
        struct ChannelPush<'a> {
            #[serde(flatten)]
            channel: PushTarget<'a>,
            #[serde(flatten)]
            body: &'a Push<'a>,
        }
        to_json(&Wire {
            push: ChannelPush { channel, body: self },
        })
    }
}

impl<'a> PushTarget<'a> {
    /// A channel by its name.
    pub(crate) fn channel(channel: &'a str) -> Self {
        Self { id: 0, channel }
    }

    /// A channel by the id that the client knows.
    pub(crate) fn id(id: u64) -> Self {
        Self { id, channel: "" }
    }

    /// The whole connection.
    pub(crate) fn connection() -> Self {
        Self { id: 0, channel: "" }
    }
}

/// What a push concerns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PushTarget<'a> {
    /// The id that replaces the name of the channel; zero if the name is sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) id: u64,
    /// Empty if the push concerns the connection.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) channel: &'a str,
}

/// Serializes a reply or push as one line of JSON.
pub(crate) fn to_json(value: &impl Serialize) -> String {
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

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: ReplyBody<'_>, expect: &str) {
        assert_eq!(to_json(&Reply { id: 7, body }), expect);
    }

    fn to(channel: &str) -> PushTarget<'_> {
        PushTarget { id: 0, channel }
    }

    fn ada(conn_info: &Data) -> WireClientInfo<'_> {
        WireClientInfo {
            user: "",
            client: "ada-1".to_owned(),
            conn_info: Some(conn_info),
            chan_info: None,
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
        let conn_info = Data::json(r#"{"name":"Ada"}"#).unwrap();
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
        let data = Data::json("{ \"x\" : 1 }").unwrap();
        let publication = WirePublication {
            data: WireData::Plain(&data),
            info: None,
            offset: 3,
            tags: None,
            delta: false,
            time: 0,
        };
        assert_eq!(
            Push::Pub(publication).to_json(to("a\"b")),
            r#"{"push":{"channel":"a\"b","pub":{"data":{ "x" : 1 },"offset":3}}}"#
        );
        assert_eq!(
            Push::Unsubscribe(UnsubscribeCode::InsufficientState).to_json(to("c")),
            r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        );
        assert!(
            Push::join(ada(&data))
                .to_json(to("c"))
                .starts_with(r#"{"push":{"channel":"c","join":{"info":{"user":"","#)
        );
    }
}
