//! The cases every foreign client runs against `sockeye echo`.

use std::collections::BTreeSet;

use tokio::process::Command;

use crate::{Process, Report, Signal, Sockeye};

/// Message sizes at the borders of the three length forms (RFC 6455 §5.2), and a big one.
pub const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20];

/// The message limit of the echo server under test: one byte more is answered with 1009.
pub const MESSAGE_SIZE_MAX: usize = 2 << 20;

/// What every client does besides the sizes.
pub const CLIENT_CASES: [&str; 7] = [
    "subprotocol",
    "unicode",
    "burst in order",
    "ping",
    "close with code and reason",
    "too big",
    "shutdown",
];

/// What a client does as well whose API lets it send fragments.
pub const FRAGMENT_CASES: [&str; 3] = ["fragmented text", "fragmented binary", "ping between fragments"];

/// The names of all cases expected of a client, `more` being those that only this one has.
pub fn client_cases(more: &[&str]) -> BTreeSet<String> {
    let sizes = SIZES
        .iter()
        .flat_map(|size| [format!("text {size}"), format!("binary {size}")]);
    sizes
        .chain(CLIENT_CASES.iter().chain(more).map(|&case| case.to_owned()))
        .collect()
}

/// Runs the client `command` against `server` and demands that exactly the cases `expected` were run and passed.
///
/// When the client waits for "shutdown", the server is told to stop; it must then end with status 0.
///
/// # Panics
/// If anything else happens.
pub async fn run_client(command: Command, mut server: Sockeye, expected: &BTreeSet<String>) {
    let mut peer = Process::start(command);
    let mut passed = BTreeSet::new();
    while let Some(report) = Report::next(&mut peer).await {
        match report {
            Report::Passed(case) => assert!(passed.insert(case.clone()), "{case} was run twice"),
            Report::Failed { case, error } => {
                panic!(
                    "case {case:?} failed: {error}\nthe server wrote:\n{}",
                    server.process.log()
                )
            }
            Report::Waiting(what) if what == "shutdown" => server.process.signal(Signal::TERM),
            other => peer.fail(&format!("reported {other:?}")),
        }
    }
    peer.exit_ok().await;
    server.process.exit_ok().await;
    assert_eq!(&passed, expected, "the cases run differ from those expected");
}
