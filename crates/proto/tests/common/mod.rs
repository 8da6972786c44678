//! Shared code for connection tests: frames, recording endpoints, and checks.
//!
//! | module | contents |
//! |---|---|
//! | `frame` | a DSL of frames: `text("a").fin(false)` |
//! | `endpoint` | a connection, its clock, and its events as owned values |
//! | `check` | feeds input at once, in every split in two, byte by byte, and next to other messages |
//! | `pair` | a client and a server connected by a link, in virtual time |
//! | `reference` | a naive decoder written from the RFC that sees the whole stream at once |

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]

mod check;
mod endpoint;
mod frame;
mod pair;
mod reference;

pub(crate) use check::{check_fails, check_receives, client_fails, client_receives, server_fails, server_receives};
pub(crate) use endpoint::{Endpoint, Got, Local, at, keys_drawn, mask};
pub(crate) use frame::{Frame, KEY, binary, close, continuation, frame, ping, pong, text, wire};
pub(crate) use pair::{Node, Pair};
pub(crate) use reference::decode_naively;
