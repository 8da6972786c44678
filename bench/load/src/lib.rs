//! A load generator that measures servers and its own overhead.
//!
//! It runs one thread with one epoll loop and no task per connection. Messages are encoded and masked beforehand;
//! replies are compared byte for byte, or discarded in the kernel where the plan says so. This keeps the generator
//! cheaper than the servers it measures. It takes a [`Plan`], returns a [`Report`], and contains no code of any server.
//!
//! | file | contents |
//! |---|---|
//! | `plan` | the parameters of a measurement |
//! | `payload`, `wire`, `script` | the bytes: payloads, frames, and the endless stream made of them |
//! | `transport`, `opening` | a socket with or without TLS, and its opening handshake |
//! | `connection`, `inbound` | one connection: what it sends, and the check of its replies |
//! | `ledger` | when each message was due, sent and answered |
//! | `run` | the event loop, with `pace` (open loop) and `fanout` |
//! | `counters`, `report` | counters and the report made of them |
//! | `account` | processor time and memory, read from `/proc` |
//! | `idle` | memory of idle connections |
//! | `channels` | servers of the Centrifugo client protocol |
//! | `self_check` | measurements of a server with known delays |

mod account;
mod channels;
mod connection;
mod counters;
mod fanout;
mod idle;
mod inbound;
mod ledger;
mod opening;
mod pace;
mod payload;
mod plan;
mod report;
mod run;
mod script;
mod self_check;
mod transport;
mod wire;

pub use channels::{ChannelsPlan, Node, Scenario, channels};
pub use idle::{IdlePlan, IdleReport, idle};
pub use plan::{Drive, Kind, Plan, Protocol, Target, Verify, trust};
pub use report::{Cpu, Generator, Latency, Report, Server, Verdict};
pub use run::run;
pub use self_check::{Check, self_check};
