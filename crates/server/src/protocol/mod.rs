//! The Centrifugo client protocol: [`Command`], [`Reply`] and [`Push`], and their encodings.
//!
//! A frame contains one or more commands. A command has an `id` above zero, and its reply has the same `id`. An empty
//! reply is a ping from the server, an empty command a pong from the client.
//!
//! - In JSON, a text frame contains one or more objects, separated by `\n`. Fields of type "bytes" in the schema of the
//!   protocol are raw JSON: they are validated and forwarded unchanged.
//! - In Protobuf, a binary frame contains one or more messages, each behind its length as a varint.
//!
//! Only the client's queue and transport know the [`Encoding`]; session, hub and engine do not depend on it.

mod command;
mod data;
mod encoding;
mod frame;
mod json;
mod protobuf;
mod reply;

pub(crate) use command::{
    Command, ConnectRequest, DataField, HistoryRequest, PublishRequest, Request, SubRefreshRequest, SubscribeRequest,
};
pub(crate) use data::Data;
pub(crate) use encoding::{Encoding, PushCache, Shape, bytes};
pub(crate) use frame::Malformed;
#[cfg(test)]
pub(crate) use frame::commands;
pub(crate) use json::InvalidJson;
pub(crate) use protobuf::EmulationRequest;
pub(crate) use reply::to_json as encode;
pub(crate) use reply::{
    ConnectResult, CustomError, DataResult, Empty, ExpiryResult, HistoryResult, PresenceResult, PresenceStatsResult,
    Push, PushTarget, Reply, ReplyBody, ServerSubscription, SubscribeResult, WireClientInfo, WireClose, WireData,
    WirePublication,
};
