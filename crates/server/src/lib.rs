//! The Sockeye server.

#![allow(dead_code, unused_imports, reason = "the part that serves comes next")]

mod channel;
mod client;
pub mod codes;
mod config;
mod engine;
mod node;
mod presence;
mod protocol;
mod queue;
mod session;
mod sync;

pub use config::{ChannelOptions, Config, HostPolicy, Limits, OriginPolicy, PublishPolicy, Timeouts};
