//! Commands of clients, in a form that does not depend on the encoding. The JSON encoding is parsed directly into it;
//! [`protobuf`](super::protobuf) converts.
//!
//! A command that is valid JSON but breaks the schema (a field of the wrong type, two requests) becomes
//! [`Request::Invalid`], so that only this command fails. Absent fields are zero. Unknown fields are ignored, because
//! SDKs add optional ones. All fields of the current schema that change the meaning of a request are parsed, so that
//! the session can refuse what it does not support.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::data::Data;
use super::frame::Malformed;
use super::json::{InvalidJson, Json};
use crate::filter::FilterNode;

/// One command: a request, and the id of its reply.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    /// Zero if there is no reply: a pong or a `send`.
    pub(crate) id: u32,
    /// `None` if the command contains no known request.
    pub(crate) request: Option<Request<'a>>,
}

impl<'a> Command<'a> {
    /// Parses one line of a frame, in linear time and without recursion.
    ///
    /// # Errors
    /// Returns [`Malformed`] if the line is not a JSON object, or is an invalid command without an id.
    pub(super) fn parse(line: &'a str) -> Result<Self, Malformed> {
        // serde would accept an array as the fields of the struct in order.
        if !line.trim_ascii_start().starts_with('{') {
            return Err(Malformed);
        }
        serde_json::from_str(line).or_else(|_| Self::parse_id(line))
    }

    /// Parses only the id of a command.
    fn parse_id(line: &str) -> Result<Self, Malformed> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Id {
            id: u32,
        }
        match serde_json::from_str(line) {
            Ok(Id { id }) if id > 0 => Ok(Self {
                id,
                request: Some(Request::Invalid),
            }),
            _ => Err(Malformed),
        }
    }
}

/// A request of a client.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Connect(ConnectRequest<'a>),
    Subscribe(SubscribeRequest<'a>),
    Unsubscribe(ChannelRequest<'a>),
    Publish(PublishRequest<'a>),
    Presence(ChannelRequest<'a>),
    PresenceStats(ChannelRequest<'a>),
    History(HistoryRequest<'a>),
    Ping,
    Send(DataRequest),
    Rpc(RpcRequest<'a>),
    Refresh(RefreshRequest<'a>),
    SubRefresh(SubRefreshRequest<'a>),
    /// A field has a wrong type, or the command contains several requests.
    Invalid,
}

impl Request<'_> {
    /// The channel of the request, if it concerns one.
    pub(crate) fn channel(&self) -> Option<&str> {
        Some(match self {
            Self::Subscribe(request) => &request.channel,
            Self::Unsubscribe(request) | Self::Presence(request) | Self::PresenceStats(request) => &request.channel,
            Self::Publish(request) => &request.channel,
            Self::History(request) => &request.channel,
            Self::SubRefresh(request) => &request.channel,
            Self::Connect(_) | Self::Ping | Self::Send(_) | Self::Rpc(_) | Self::Refresh(_) | Self::Invalid => {
                return None;
            }
        })
    }
}

/// Data of the application, or the error if it is not forwarded.
pub(crate) type DataField = Result<Data, InvalidJson>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectRequest<'a> {
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
    #[serde(deserialize_with = "data")]
    pub(crate) data: Option<DataField>,
    /// Server-side subscriptions to recover.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub(crate) subs: BTreeMap<Cow<'a, str>, SubscribeRequest<'a>>,
    /// Headers for the backend, of clients that cannot set those of their request.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub(crate) headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The name of the client library.
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) version: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubscribeRequest<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
    pub(crate) recover: bool,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
    pub(crate) offset: u64,
    pub(crate) positioned: bool,
    pub(crate) recoverable: bool,
    pub(crate) join_leave: bool,
    pub(crate) flag: i64,
    /// Zero for a stream of publications. Maps, shared polls and future kinds have other numbers.
    #[serde(rename = "type")]
    pub(crate) kind: i64,
    /// The delta format that the client accepts. The reply says whether it is used.
    #[serde(borrow)]
    pub(crate) delta: Cow<'a, str>,
    /// A filter by tags.
    #[serde(rename = "tf")]
    pub(crate) filter: Option<Box<FilterNode>>,
    /// Data for the backend.
    #[serde(deserialize_with = "data")]
    pub(crate) data: Option<DataField>,
    // Pagination of the state of a map.
    pub(super) phase: i64,
    #[serde(borrow)]
    pub(super) cursor: Cow<'a, str>,
    pub(super) limit: i64,
    pub(super) asc: bool,
}

impl SubscribeRequest<'_> {
    /// Bit of `flag`: pushes may have the id of the channel instead of its name.
    const FLAG_CHANNEL_ID: i64 = 1;

    /// Bit of `flag`: the subscription fails if recovery is impossible.
    const FLAG_REJECT_UNRECOVERED: i64 = 2;

    pub(crate) fn rejects_unrecovered(&self) -> bool {
        self.flag & Self::FLAG_REJECT_UNRECOVERED != 0
    }

    pub(crate) fn accepts_channel_id(&self) -> bool {
        self.flag & Self::FLAG_CHANNEL_ID != 0
    }

    /// Whether the client paginates the state of a map.
    pub(crate) fn is_paged(&self) -> bool {
        self.phase != 0 || !self.cursor.is_empty() || self.limit != 0 || self.asc
    }
}

/// A request whose only used field is the channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelRequest<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PublishRequest<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(deserialize_with = "data")]
    pub(crate) data: Option<DataField>,
    /// Zero for a publication; other numbers change a map.
    #[serde(rename = "type")]
    pub(crate) kind: i64,
    // The entry of a map.
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    pub(super) removed: bool,
}

impl PublishRequest<'_> {
    /// Whether the request refers to an entry of a map.
    pub(crate) fn is_keyed(&self) -> bool {
        !self.key.is_empty() || self.removed
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryRequest<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    /// Zero requests only the position; a negative limit requests everything.
    pub(crate) limit: i32,
    #[serde(borrow)]
    pub(crate) since: Option<StreamPosition<'a>>,
    pub(crate) reverse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamPosition<'a> {
    pub(crate) offset: u64,
    #[serde(borrow)]
    pub(crate) epoch: Cow<'a, str>,
}

/// A message from the client to the application.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DataRequest {
    #[serde(deserialize_with = "data")]
    pub(crate) data: Option<DataField>,
}

/// A call of a method of the application.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RpcRequest<'a> {
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(deserialize_with = "data")]
    pub(crate) data: Option<DataField>,
}

/// A new connection token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RefreshRequest<'a> {
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
}

/// A new subscription token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubRefreshRequest<'a> {
    #[serde(borrow)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
}

/// The wire format: one optional field per request.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireCommand<'a> {
    id: u32,
    #[serde(borrow)]
    connect: Option<ConnectRequest<'a>>,
    #[serde(borrow)]
    subscribe: Option<SubscribeRequest<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow)]
    presence: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    presence_stats: Option<ChannelRequest<'a>>,
    #[serde(borrow)]
    history: Option<HistoryRequest<'a>>,
    ping: Option<IgnoredBody>,
    send: Option<DataRequest>,
    #[serde(borrow)]
    rpc: Option<RpcRequest<'a>>,
    #[serde(borrow)]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow)]
    sub_refresh: Option<SubRefreshRequest<'a>>,
}

/// The body of a request whose fields are ignored.
#[derive(Deserialize)]
struct IgnoredBody {}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireCommand::deserialize(deserializer)?;
        let mut requests = [
            wire.connect.map(Request::Connect),
            wire.subscribe.map(Request::Subscribe),
            wire.unsubscribe.map(Request::Unsubscribe),
            wire.publish.map(Request::Publish),
            wire.presence.map(Request::Presence),
            wire.presence_stats.map(Request::PresenceStats),
            wire.history.map(Request::History),
            wire.ping.map(|_| Request::Ping),
            wire.send.map(Request::Send),
            wire.rpc.map(Request::Rpc),
            wire.refresh.map(Request::Refresh),
            wire.sub_refresh.map(Request::SubRefresh),
        ]
        .into_iter()
        .flatten();
        let request = requests.next();
        if requests.next().is_some() {
            return Err(D::Error::custom("two requests in one command"));
        }
        Ok(Self { id: wire.id, request })
    }
}

fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DataField>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(Some(Json::from_line(raw).map(Data::Json)))
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Command<'_>, Malformed> {
        Command::parse(text)
    }

    #[test]
    fn connect_data_is_raw_json() {
        let command = parse(r#"{"id":1,"connect":{"token":"t","data":{ "b":1, "a":[2] },"name":"js"}}"#).unwrap();
        let Some(Request::Connect(connect)) = command.request else {
            panic!("not a connect")
        };
        assert_eq!((command.id, &*connect.token), (1, "t"));
        assert_eq!(connect.data.unwrap().unwrap().to_json(), r#"{ "b":1, "a":[2] }"#);
    }

    #[test]
    fn absent_fields_are_zero_and_unknown_ones_ignored() {
        let command = parse(r#"{"id":2,"subscribe":{"channel":"c","new":[1]},"later":{}}"#).unwrap();
        let Some(Request::Subscribe(subscribe)) = command.request else {
            panic!("not a subscribe")
        };
        assert_eq!(subscribe.channel, "c");
        assert!(!subscribe.recover && !subscribe.join_leave && !subscribe.rejects_unrecovered());
        assert!(subscribe.kind == 0 && subscribe.filter.is_none() && !subscribe.is_paged());
        assert_eq!((subscribe.offset, &*subscribe.epoch), (0, ""));
    }

    #[test]
    fn a_channel_with_escapes_is_unescaped() {
        let command = parse(r#"{"id":2,"presence":{"channel":"caf\u00e9"}}"#).unwrap();
        let Some(Request::Presence(presence)) = command.request else {
            panic!("not a presence")
        };
        assert_eq!(presence.channel, "café");
    }

    #[test]
    fn an_empty_object_and_an_unknown_request_have_no_request() {
        assert!(matches!(parse("{}").unwrap(), Command { id: 0, request: None }));
        assert!(matches!(
            parse(r#"{"id":7,"teleport":{}}"#).unwrap(),
            Command { id: 7, request: None }
        ));
    }

    #[test]
    fn lines_that_are_not_commands_are_malformed() {
        for text in [
            "",
            "null",
            "[]",
            "1",
            "\"x\"",
            "{",
            r#"{"id":-1}"#,
            r#"{"id":4294967296,"ping":{}}"#,
            r#"{"id":"1","ping":{}}"#,
            r#"{"id":1,"id":2,"ping":{}}"#,
            r#"{"id":0,"ping":[1]}"#,
            r#"{"ping":{},"rpc":{}}"#,
            r#"{"id":1,"publish":{"channel":"c","data":}}"#,
            r#"{"id":1,"publish":{"channel":"c","data":{"a"}}}"#,
            r#"{"id":1,"ping":{}} trailing"#,
        ] {
            assert!(parse(text).is_err(), "accepted {text}");
        }
    }

    #[test]
    fn an_invalid_command_keeps_its_id() {
        for text in [
            r#"{"id":7,"ping":{},"rpc":{}}"#,
            r#"{"id":7,"ping":[1]}"#,
            r#"{"id":7,"subscribe":{"channel":5}}"#,
            r#"{"id":7,"subscribe":{"channel":"c","offset":-1}}"#,
            r#"{"subscribe":{"channel":"c","type":"map"},"id":7}"#,
        ] {
            let command = parse(text).unwrap_or_else(|_| panic!("no id: {text}"));
            assert!(
                matches!((command.id, command.request), (7, Some(Request::Invalid))),
                "{text}"
            );
        }
    }

    #[test]
    fn deeply_nested_data_uses_no_stack_and_does_not_affect_other_fields() {
        for (depth, is_taken) in [(62, true), (63, false), (30_000, false)] {
            let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let frame = format!(r#"{{"id":7,"publish":{{"data":{data},"channel":"c"}}}}"#);
            let Some(Request::Publish(publish)) = parse(&frame).unwrap().request else {
                panic!("not a publish")
            };
            assert_eq!(publish.channel, "c");
            assert_eq!(publish.data.unwrap().is_ok(), is_taken, "{depth}");
        }
        // A filter that is nested too deep only fails this command.
        let deep = format!(
            r#"{{"id":7,"subscribe":{{"tf":{}1{}}}}}"#,
            "[".repeat(30_000),
            "]".repeat(30_000)
        );
        assert!(matches!(parse(&deep).unwrap().request, Some(Request::Invalid)));
    }
}
