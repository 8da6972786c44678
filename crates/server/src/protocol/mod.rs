//! The Centrifugo client protocol in its JSON form: what clients say ([`Command`]) and what they are told ([`Reply`], [`Push`]).
//!
//! One text frame carries one or more JSON objects separated by `\n`. A command has an `id` above zero and is answered by
//! a reply with the same `id`; the empty object `{}` is a ping from the server and the pong from the client. Fields typed
//! "bytes" in the protocol's schema are raw JSON here: they are checked to be JSON, and then passed on as they came.
//!
//! Nothing in this module knows a socket, a channel or a clock.

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
