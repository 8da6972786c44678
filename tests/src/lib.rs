//! Test harness for tests against external programs.
//!
//! A test starts the built `sockeye` and a peer. Both are a [`Process`], which is killed when dropped, and whose output
//! is read line by line. Every wait has the same deadline, [`patience`]; nothing sleeps. A peer is a small program in
//! `tests/peers/` that reports each case as one line of JSON ([`Report`]). The test knows the names of the expected
//! cases, so a missing case fails it.
//!
//! The peers need external tools (Node, Python, a browser, ...). `cargo xtask test` installs them, passes their folder
//! in `SOCKEYE_PEERS` and runs these tests. A plain `cargo test` shows them as ignored.

pub mod autobahn;
mod cases;
pub mod centrifugo;
mod certificate;
pub mod client;
pub mod connect;
pub mod differential;
mod foreign_server;
#[cfg(doctest)]
mod guide;
pub mod interop;
mod net;
mod patience;
mod process;
mod programs;
mod proxy;
mod report;
pub mod server;

pub use cases::{
    CHAT_CASES, CONSOLE_CASES, FRAGMENT_CASES, GAME_CASES, MARKET_CASES, MESSAGE_SIZE_MAX, PING_CASES, SIZES,
    client_cases, run_cases, run_client, run_client_over_tls, run_page, run_realtime_client, run_sdk,
};
pub use certificate::{Certificate, trusting};
pub use foreign_server::ForeignServer;
pub use net::{free_address, http_get};
pub use patience::patience;
pub use process::{Process, Signal};
pub use programs::{
    Sockeye, artifacts, built, centrifuge_go, centrifuge_java, dotnet_client, go_websocket, java, java_peers, nginx,
    node, peers, python, tool,
};
pub use proxy::Proxy;
pub use report::Report;
