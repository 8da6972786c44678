//! The Protobuf encoding. The messages have the field numbers of the protocol's schema; fields that this server neither
//! reads nor writes are left out, so they are skipped on decoding.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use prost::Message;

use super::command::{
    ChannelRequest, Command, ConnectRequest, DataField, DataRequest, HistoryRequest, PublishRequest, RefreshRequest,
    Request, RpcRequest, StreamPosition, SubRefreshRequest, SubscribeRequest,
};
use super::data::Data;
use super::frame::Malformed;
use super::reply::{
    ExpiryResult, Push, PushTarget, Reply, ReplyBody, SubscribeResult, WireClientInfo, WirePublication,
};
use crate::filter::{self, FilterNode};

/// Decodes the next command of a frame. Also returns the number of bytes consumed: all of them if the command is
/// malformed.
pub(super) fn next_command(rest: &[u8]) -> Option<(Result<Command<'static>, Malformed>, usize)> {
    if rest.is_empty() {
        return None;
    }
    let mut after = rest;
    Some(match WireCommand::decode_length_delimited(&mut after) {
        Ok(command) => (Ok(command.into()), rest.len() - after.len()),
        Err(_) => (Err(Malformed), rest.len()),
    })
}

/// Encodes a reply behind its length.
pub(super) fn reply(reply: &Reply<'_>) -> Vec<u8> {
    let mut wire = WireReply {
        id: reply.id,
        ..Default::default()
    };
    match &reply.body {
        ReplyBody::Error(code) => {
            wire.error = Some(WireError {
                code: code.code(),
                message: code.message().to_owned(),
                temporary: code.is_temporary(),
            });
        }
        ReplyBody::Custom(error) => {
            wire.error = Some(WireError {
                code: error.code,
                message: error.message.clone(),
                temporary: error.temporary,
            });
        }
        ReplyBody::Connect(result) => {
            wire.connect = Some(WireConnectResult {
                client: result.client.clone(),
                version: result.version.to_owned(),
                expires: result.expiry.expires,
                ttl: result.expiry.ttl,
                data: bytes(result.data.as_ref()),
                subs: result
                    .subs
                    .iter()
                    .map(|(channel, result)| ((*channel).to_owned(), result.into()))
                    .collect(),
                ping: result.ping.unwrap_or_default(),
                pong: result.pong,
                session: result.session.clone(),
                node: result.node.clone(),
            });
        }
        ReplyBody::Subscribe(result) => wire.subscribe = Some(result.into()),
        ReplyBody::Unsubscribe(_) => wire.unsubscribe = Some(WireEmpty {}),
        ReplyBody::Publish(_) => wire.publish = Some(WireEmpty {}),
        ReplyBody::Presence(result) => {
            wire.presence = Some(WirePresenceResult {
                presence: result
                    .clients
                    .iter()
                    .map(|info| (info.client.clone(), info.into()))
                    .collect(),
            });
        }
        ReplyBody::PresenceStats(stats) => {
            wire.presence_stats = Some(WirePresenceStatsResult {
                num_clients: u32::try_from(stats.num_clients).unwrap_or(u32::MAX),
                num_users: u32::try_from(stats.num_users).unwrap_or(u32::MAX),
            });
        }
        ReplyBody::History(result) => {
            wire.history = Some(WireHistoryResult {
                publications: result.publications.iter().map(Into::into).collect(),
                epoch: result.epoch.to_owned(),
                offset: result.offset,
            });
        }
        ReplyBody::Ping(_) => wire.ping = Some(WireEmpty {}),
        ReplyBody::Rpc(result) => {
            wire.rpc = Some(WireData {
                data: bytes(result.data.as_ref()),
            });
        }
        ReplyBody::Refresh(expiry) => {
            wire.refresh = Some(WireRefreshResult {
                expires: expiry.expires,
                ttl: expiry.ttl,
            });
        }
        ReplyBody::SubRefresh(expiry) => wire.sub_refresh = Some((*expiry).into()),
    }
    wire.encode_length_delimited_to_vec()
}

/// Encodes a push behind its length.
pub(super) fn push(target: PushTarget<'_>, push: &Push<'_>) -> Vec<u8> {
    let mut wire = WirePush {
        id: target.id as i64,
        channel: target.channel.to_owned(),
        ..Default::default()
    };
    match push {
        Push::Pub(publication) => wire.publication = Some(publication.into()),
        Push::Join(member) => wire.join = Some(WireMember::from(&member.info)),
        Push::Leave(member) => wire.leave = Some(WireMember::from(&member.info)),
        Push::Unsubscribe(code) => {
            wire.unsubscribe = Some(WireUnsubscribe {
                code: code.code(),
                reason: code.reason().to_owned(),
            });
        }
        Push::Subscribe(subscription) => {
            wire.subscribe = Some(WireServerSubscription {
                recoverable: subscription.recoverable,
                epoch: subscription.epoch.to_owned(),
                offset: subscription.offset,
                positioned: subscription.positioned,
                data: bytes(subscription.data),
            });
        }
        Push::Disconnect(disconnect) => {
            wire.disconnect = Some(WireDisconnect {
                code: disconnect.code.into(),
                reason: disconnect.reason.clone(),
                reconnect: disconnect.allows_reconnect(),
            });
        }
        Push::Refresh(expiry) => wire.refresh = Some((*expiry).into()),
    }
    let reply = WireReply {
        push: Some(wire),
        ..Default::default()
    };
    reply.encode_length_delimited_to_vec()
}

/// A command of a client that receives over another HTTP request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EmulationRequest {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(string, tag = "2")]
    pub(crate) session: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireCommand {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "4")]
    connect: Option<WireConnect>,
    #[prost(message, optional, tag = "5")]
    subscribe: Option<WireSubscribe>,
    #[prost(message, optional, tag = "6")]
    unsubscribe: Option<WireChannel>,
    #[prost(message, optional, tag = "7")]
    publish: Option<WirePublish>,
    #[prost(message, optional, tag = "8")]
    presence: Option<WireChannel>,
    #[prost(message, optional, tag = "9")]
    presence_stats: Option<WireChannel>,
    #[prost(message, optional, tag = "10")]
    history: Option<WireHistory>,
    #[prost(message, optional, tag = "11")]
    ping: Option<WireEmpty>,
    #[prost(message, optional, tag = "12")]
    send: Option<WireData>,
    #[prost(message, optional, tag = "13")]
    rpc: Option<WireRpc>,
    #[prost(message, optional, tag = "14")]
    refresh: Option<WireRefresh>,
    #[prost(message, optional, tag = "15")]
    sub_refresh: Option<WireSubRefresh>,
}

#[derive(Clone, PartialEq, Message)]
struct WireConnect {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(map = "string, message", tag = "3")]
    subs: HashMap<String, WireSubscribe>,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(map = "string, string", tag = "6")]
    headers: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSubscribe {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(bool, tag = "3")]
    recover: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(uint64, tag = "7")]
    offset: u64,
    #[prost(bytes = "vec", tag = "8")]
    data: Vec<u8>,
    #[prost(bool, tag = "9")]
    positioned: bool,
    #[prost(bool, tag = "10")]
    recoverable: bool,
    #[prost(bool, tag = "11")]
    join_leave: bool,
    #[prost(string, tag = "12")]
    delta: String,
    #[prost(message, optional, tag = "13")]
    filter: Option<WireFilter>,
    #[prost(int64, tag = "14")]
    flag: i64,
    #[prost(int32, tag = "15")]
    kind: i32,
    #[prost(int32, tag = "16")]
    phase: i32,
    #[prost(string, tag = "17")]
    cursor: String,
    #[prost(int32, tag = "18")]
    limit: i32,
    #[prost(bool, tag = "19")]
    asc: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WireFilter {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(string, tag = "3")]
    cmp: String,
    #[prost(string, tag = "4")]
    val: String,
    #[prost(string, repeated, tag = "5")]
    vals: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    nodes: Vec<WireFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct WireChannel {
    #[prost(string, tag = "1")]
    channel: String,
}

#[derive(Clone, PartialEq, Message)]
struct WirePublish {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(bool, tag = "5")]
    removed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WireHistory {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(int32, tag = "7")]
    limit: i32,
    #[prost(message, optional, tag = "8")]
    since: Option<WirePosition>,
    #[prost(bool, tag = "9")]
    reverse: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WirePosition {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(string, tag = "2")]
    epoch: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireRpc {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    method: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireRefresh {
    #[prost(string, tag = "1")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireSubRefresh {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireEmpty {}

#[derive(Clone, PartialEq, Message)]
struct WireData {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireReply {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "2")]
    error: Option<WireError>,
    #[prost(message, optional, tag = "4")]
    push: Option<WirePush>,
    #[prost(message, optional, tag = "5")]
    connect: Option<WireConnectResult>,
    #[prost(message, optional, tag = "6")]
    subscribe: Option<WireSubscribeResult>,
    #[prost(message, optional, tag = "7")]
    unsubscribe: Option<WireEmpty>,
    #[prost(message, optional, tag = "8")]
    publish: Option<WireEmpty>,
    #[prost(message, optional, tag = "9")]
    presence: Option<WirePresenceResult>,
    #[prost(message, optional, tag = "10")]
    presence_stats: Option<WirePresenceStatsResult>,
    #[prost(message, optional, tag = "11")]
    history: Option<WireHistoryResult>,
    #[prost(message, optional, tag = "12")]
    ping: Option<WireEmpty>,
    #[prost(message, optional, tag = "13")]
    rpc: Option<WireData>,
    #[prost(message, optional, tag = "14")]
    refresh: Option<WireRefreshResult>,
    #[prost(message, optional, tag = "15")]
    sub_refresh: Option<WireExpiry>,
}

#[derive(Clone, PartialEq, Message)]
struct WireError {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bool, tag = "3")]
    temporary: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WireConnectResult {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bool, tag = "3")]
    expires: bool,
    #[prost(uint32, tag = "4")]
    ttl: u32,
    #[prost(bytes = "vec", tag = "5")]
    data: Vec<u8>,
    #[prost(map = "string, message", tag = "6")]
    subs: HashMap<String, WireSubscribeResult>,
    #[prost(uint32, tag = "7")]
    ping: u32,
    #[prost(bool, tag = "8")]
    pong: bool,
    #[prost(string, tag = "9")]
    session: String,
    #[prost(string, tag = "10")]
    node: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireRefreshResult {
    #[prost(bool, tag = "3")]
    expires: bool,
    #[prost(uint32, tag = "4")]
    ttl: u32,
}

#[derive(Clone, PartialEq, Message)]
struct WireExpiry {
    #[prost(bool, tag = "1")]
    expires: bool,
    #[prost(uint32, tag = "2")]
    ttl: u32,
}

#[derive(Clone, PartialEq, Message)]
struct WireSubscribeResult {
    #[prost(bool, tag = "1")]
    expires: bool,
    #[prost(uint32, tag = "2")]
    ttl: u32,
    #[prost(bool, tag = "3")]
    recoverable: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(message, repeated, tag = "7")]
    publications: Vec<WirePub>,
    #[prost(bool, tag = "8")]
    recovered: bool,
    #[prost(uint64, tag = "9")]
    offset: u64,
    #[prost(bool, tag = "10")]
    positioned: bool,
    #[prost(bytes = "vec", tag = "11")]
    data: Vec<u8>,
    #[prost(bool, tag = "12")]
    was_recovering: bool,
    #[prost(bool, tag = "13")]
    delta: bool,
    #[prost(int64, tag = "14")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WirePresenceResult {
    #[prost(map = "string, message", tag = "1")]
    presence: HashMap<String, WireInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct WirePresenceStatsResult {
    #[prost(uint32, tag = "1")]
    num_clients: u32,
    #[prost(uint32, tag = "2")]
    num_users: u32,
}

#[derive(Clone, PartialEq, Message)]
struct WireHistoryResult {
    #[prost(message, repeated, tag = "1")]
    publications: Vec<WirePub>,
    #[prost(string, tag = "2")]
    epoch: String,
    #[prost(uint64, tag = "3")]
    offset: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WirePush {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(message, optional, tag = "4")]
    publication: Option<WirePub>,
    #[prost(message, optional, tag = "5")]
    join: Option<WireMember>,
    #[prost(message, optional, tag = "6")]
    leave: Option<WireMember>,
    #[prost(message, optional, tag = "7")]
    unsubscribe: Option<WireUnsubscribe>,
    #[prost(message, optional, tag = "9")]
    subscribe: Option<WireServerSubscription>,
    #[prost(message, optional, tag = "11")]
    disconnect: Option<WireDisconnect>,
    #[prost(message, optional, tag = "12")]
    refresh: Option<WireExpiry>,
}

#[derive(Clone, PartialEq, Message)]
struct WirePub {
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    info: Option<WireInfo>,
    #[prost(uint64, tag = "6")]
    offset: u64,
    #[prost(map = "string, string", tag = "7")]
    tags: HashMap<String, String>,
    #[prost(bool, tag = "8")]
    delta: bool,
    #[prost(int64, tag = "9")]
    time: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WireInfo {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    client: String,
    #[prost(bytes = "vec", tag = "3")]
    conn_info: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    chan_info: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireMember {
    #[prost(message, optional, tag = "1")]
    info: Option<WireInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct WireUnsubscribe {
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireServerSubscription {
    #[prost(bool, tag = "1")]
    recoverable: bool,
    #[prost(string, tag = "4")]
    epoch: String,
    #[prost(uint64, tag = "5")]
    offset: u64,
    #[prost(bool, tag = "6")]
    positioned: bool,
    #[prost(bytes = "vec", tag = "7")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct WireDisconnect {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(bool, tag = "3")]
    reconnect: bool,
}

impl From<WireCommand> for Command<'static> {
    fn from(wire: WireCommand) -> Self {
        let channel = |wire: WireChannel| ChannelRequest {
            channel: wire.channel.into(),
        };
        let mut requests = [
            wire.connect.map(|connect| Request::Connect(connect.into())),
            wire.subscribe.map(|subscribe| Request::Subscribe(subscribe.into())),
            wire.unsubscribe.map(|wire| Request::Unsubscribe(channel(wire))),
            wire.publish.map(|publish| Request::Publish(publish.into())),
            wire.presence.map(|wire| Request::Presence(channel(wire))),
            wire.presence_stats.map(|wire| Request::PresenceStats(channel(wire))),
            wire.history.map(|history| Request::History(history.into())),
            wire.ping.map(|_| Request::Ping),
            wire.send.map(|send| {
                Request::Send(DataRequest {
                    data: present(send.data),
                })
            }),
            wire.rpc.map(|rpc| {
                Request::Rpc(RpcRequest {
                    method: rpc.method.into(),
                    data: present(rpc.data),
                })
            }),
            wire.refresh.map(|refresh| {
                Request::Refresh(RefreshRequest {
                    token: refresh.token.into(),
                })
            }),
            wire.sub_refresh.map(|refresh| {
                Request::SubRefresh(SubRefreshRequest {
                    channel: refresh.channel.into(),
                    token: refresh.token.into(),
                })
            }),
        ]
        .into_iter()
        .flatten();
        let request = requests.next();
        let request = match requests.next() {
            None => request,
            Some(_) => Some(Request::Invalid),
        };
        Self { id: wire.id, request }
    }
}

impl From<WireConnect> for ConnectRequest<'static> {
    fn from(wire: WireConnect) -> Self {
        Self {
            token: wire.token.into(),
            data: present(wire.data),
            subs: wire
                .subs
                .into_iter()
                .map(|(channel, subscribe)| (Cow::Owned(channel), subscribe.into()))
                .collect::<BTreeMap<_, _>>(),
            headers: wire
                .headers
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            name: wire.name.into(),
            version: wire.version.into(),
        }
    }
}

impl From<WireSubscribe> for SubscribeRequest<'static> {
    fn from(wire: WireSubscribe) -> Self {
        Self {
            channel: wire.channel.into(),
            token: wire.token.into(),
            recover: wire.recover,
            epoch: wire.epoch.into(),
            offset: wire.offset,
            positioned: wire.positioned,
            recoverable: wire.recoverable,
            join_leave: wire.join_leave,
            flag: wire.flag,
            kind: wire.kind.into(),
            delta: wire.delta.into(),
            filter: wire.filter.map(|filter| filter.into_node(filter::DEPTH_MAX).into()),
            data: present(wire.data),
            phase: wire.phase.into(),
            cursor: wire.cursor.into(),
            limit: wire.limit.into(),
            asc: wire.asc,
        }
    }
}

impl WireFilter {
    /// Converts a filter. The children of a node that is nested deeper than allowed are dropped, and then the node
    /// itself is refused for having none.
    fn into_node(self, depth: usize) -> FilterNode {
        let nodes = match depth {
            0 => Vec::new(),
            _ => self.nodes.into_iter().map(|node| node.into_node(depth - 1)).collect(),
        };
        FilterNode {
            op: self.op,
            key: self.key,
            cmp: self.cmp,
            val: self.val,
            vals: self.vals,
            nodes,
        }
    }
}

impl From<WirePublish> for PublishRequest<'static> {
    fn from(wire: WirePublish) -> Self {
        Self {
            channel: wire.channel.into(),
            data: present(wire.data),
            kind: wire.kind.into(),
            key: wire.key.into(),
            removed: wire.removed,
        }
    }
}

impl From<WireHistory> for HistoryRequest<'static> {
    fn from(wire: WireHistory) -> Self {
        Self {
            channel: wire.channel.into(),
            limit: wire.limit,
            since: wire.since.map(|since| StreamPosition {
                offset: since.offset,
                epoch: since.epoch.into(),
            }),
            reverse: wire.reverse,
        }
    }
}

impl From<ExpiryResult> for WireExpiry {
    fn from(expiry: ExpiryResult) -> Self {
        Self {
            expires: expiry.expires,
            ttl: expiry.ttl,
        }
    }
}

impl From<&SubscribeResult<'_>> for WireSubscribeResult {
    fn from(result: &SubscribeResult<'_>) -> Self {
        Self {
            expires: result.expiry.expires,
            ttl: result.expiry.ttl,
            recoverable: result.recoverable,
            epoch: result.epoch.to_owned(),
            publications: result.publications.iter().map(Into::into).collect(),
            recovered: result.recovered,
            offset: result.offset.unwrap_or_default(),
            positioned: result.positioned,
            data: bytes(result.data),
            was_recovering: result.was_recovering,
            delta: result.delta,
            id: result.id as i64,
        }
    }
}

impl From<&WirePublication<'_>> for WirePub {
    fn from(publication: &WirePublication<'_>) -> Self {
        Self {
            data: publication.data.as_bytes().to_vec(),
            info: publication.info.as_ref().map(Into::into),
            offset: publication.offset,
            tags: publication
                .tags
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            delta: publication.delta,
            time: publication.time.try_into().unwrap_or(i64::MAX),
        }
    }
}

impl From<&WireClientInfo<'_>> for WireInfo {
    fn from(info: &WireClientInfo<'_>) -> Self {
        Self {
            user: info.user.to_owned(),
            client: info.client.clone(),
            conn_info: bytes(info.conn_info),
            chan_info: bytes(info.chan_info),
        }
    }
}

impl From<&WireClientInfo<'_>> for WireMember {
    fn from(info: &WireClientInfo<'_>) -> Self {
        Self {
            info: Some(info.into()),
        }
    }
}

/// An absent field of type "bytes" is an empty one.
fn present(bytes: Vec<u8>) -> Option<DataField> {
    (!bytes.is_empty()).then(|| Ok(Data::from(bytes)))
}

fn bytes(data: Option<&Data>) -> Vec<u8> {
    data.map(|data| data.as_bytes().to_vec()).unwrap_or_default()
}
