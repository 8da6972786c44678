//! A load generator that measures servers, and itself.
//!
//! One thread, one epoll loop, no task per connection. What is sent is encoded and masked beforehand; what comes back is
//! compared byte for byte, or thrown away in the kernel where the plan says so, so that the server is the limit and not
//! this. A [`Plan`] goes in and a [`Report`] comes out; nothing here knows any server's code.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | what to do |
//! | `payload`, `wire`, `script` | the bytes: payloads, frames, and the endless stream made of them |
//! | `transport`, `opening` | a socket with or without TLS, and how it becomes a connection |
//! | `connection`, `inbound` | one connection: what it sends, and what it makes of the replies |
//! | `ledger` | when each message was meant to leave, left, and was answered |
//! | `run` | the loop of all connections, and its parts `pace` (open loop) and `fanout` |
//! | `tally`, `report` | counting, and what comes of it |
//! | `account` | processor time and memory, read from the system's books |
//! | `idle` | what connections cost that do nothing |
//! | `self_check` | known delays, to see whether they are reported |

mod account;
mod connection;
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
mod tally;
mod transport;
mod wire;

pub use idle::{IdlePlan, IdleReport, idle};
pub use plan::{Drive, Kind, Plan, Protocol, Target, Verify, trust};
pub use report::{Cpu, Generator, Latency, Report, Server, Verdict};
pub use run::run;
pub use self_check::{Check, self_check};
