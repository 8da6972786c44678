//! The Centrifugo client protocol in JSON: [`Command`], [`Reply`] and [`Push`].
//!
//! A text frame contains one or more JSON objects, separated by `\n`. A command has an `id` above zero, and its reply has
//! the same `id`. The empty object `{}` is a ping from the server or a pong from the client. Fields of type "bytes" in the
//! schema of the protocol are raw JSON here: they are validated and forwarded unchanged.

mod command;
mod frame;
mod json;
mod reply;

pub(crate) use command::{Command, ConnectRequest, Data, HistoryRequest, PublishRequest, Request, SubscribeRequest};
pub(crate) use frame::{Malformed, commands};
pub(crate) use json::{InvalidJson, Json};
pub(crate) use reply::{
    ConnectResult, Empty, HistoryResult, PING, PresenceResult, PresenceStatsResult, Push, Reply, ReplyBody,
    SubscribeResult, WireClientInfo, WirePublication, encode,
};
