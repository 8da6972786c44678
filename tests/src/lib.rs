//! The harness for tests against programs nobody here wrote.
//!
//! A test starts the built `sockeye` and one peer, each as a [`Process`] that is killed when it is dropped, and reads
//! what they print line by line. Every wait ends at one deadline, [`patience`]; nothing sleeps. A peer is a small program
//! in `tests/peers/` that reports each case as one line of JSON ([`Report`]); the test knows the names of the cases it
//! expects, so none can vanish quietly.
//!
//! The peers need tools from outside (Node, Python, a browser, ...). `cargo xtask test` installs them, names their
//! folder in `SOCKEYE_PEERS` and runs these tests, which a plain `cargo test` shows as ignored, never as passed.

pub mod autobahn;
mod cases;
mod certificate;
pub mod client;
pub mod connect;
pub mod differential;
mod foreign_server;
#[cfg(doctest)]
mod guide;
mod net;
mod patience;
mod process;
mod programs;
mod report;
pub mod server;

pub use cases::{
    FRAGMENT_CASES, MESSAGE_SIZE_MAX, PING_CASES, SIZES, client_cases, run_cases, run_chat, run_client,
    run_realtime_client,
};
pub use certificate::{Certificate, trusting};
pub use foreign_server::ForeignServer;
pub use net::{free_address, http_get};
pub use patience::patience;
pub use process::{Process, Signal};
pub use programs::{Sockeye, artifacts, java, nginx, node, peers, python, tool};
pub use report::Report;
