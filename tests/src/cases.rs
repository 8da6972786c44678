//! The cases that foreign clients run against our servers.

use std::collections::BTreeSet;

use tokio::process::Command;

use crate::{Process, Report, Signal, Sockeye};

/// Message sizes at the borders of the three length forms (RFC 6455 §5.2), and a big one.
pub const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20];

/// The message limit of the echo server under test: one byte more is answered with 1009.
pub const MESSAGE_SIZE_MAX: usize = 2 << 20;

/// What every client of the echo server does besides the sizes.
const ECHO_CASES: [&str; 6] = [
    "subprotocol",
    "unicode",
    "burst in order",
    "close with code and reason",
    "too big",
    "shutdown",
];

/// What a client does as well whose API knows pings.
pub const PING_CASES: [&str; 1] = ["ping"];

/// What a client does as well whose API can send fragments.
pub const FRAGMENT_CASES: [&str; 3] = ["fragmented text", "fragmented binary", "ping between fragments"];

/// What a client of the real-time server does.
const REALTIME_CASES: [&str; 10] = [
    "connect and subscribe",
    "join",
    "publish",
    "publish from the client",
    "order",
    "presence",
    "call without a handler",
    "leave",
    "resubscribe after a restart",
    "disconnect",
];

/// What two people do in the chat page.
const CHAT_CASES: [&str; 13] = [
    "two people see each other",
    "they talk",
    "a burst stays in order",
    "markup stays text",
    "another room is apart, and its address opens it",
    "nobody can speak as another",
    "two tabs are one person, and each keeps what it has to send",
    "they come back after the server was away",
    "a page in the back/forward cache is not in the room",
    "a page that may not connect shows the reason",
    "screenshots",
    "who leaves is seen to leave",
    "no error in the pages",
];

/// The names of all cases expected of a client of the echo server, `more` being those that not all have.
pub fn client_cases(more: &[&str]) -> BTreeSet<String> {
    let sizes = SIZES
        .iter()
        .flat_map(|size| [format!("text {size}"), format!("binary {size}")]);
    sizes
        .chain(ECHO_CASES.iter().chain(more).map(|&case| case.to_owned()))
        .collect()
}

/// Runs a client of the echo server `server`; demands that exactly the cases `expected` were run and passed, and that the
/// server, once it was told to stop, ended with status 0.
///
/// # Panics
/// If anything else happens.
pub async fn run_client(client: Command, server: Sockeye, expected: &BTreeSet<String>) {
    let mut server = run_cases(client, server, expected).await;
    server.process.exit_ok().await;
}

/// Runs a client of the real-time server `server`, which is killed and started again when the client asks for it.
///
/// # Panics
/// If a case failed or was not run.
pub async fn run_realtime_client(client: Command, server: Sockeye) {
    let expected = REALTIME_CASES.iter().map(|&case| case.to_owned()).collect();
    run_cases(client, server, &expected).await;
}

/// Runs people in the chat page of the real-time server `server`, which is stopped and started again meanwhile.
///
/// # Panics
/// If a case failed or was not run.
pub async fn run_chat(people: Command, server: Sockeye) {
    let expected = CHAT_CASES.iter().map(|&case| case.to_owned()).collect();
    run_cases(people, server, &expected).await;
}

/// Runs `client` and does for it what it waits for; gives back the server, which may be another by then.
///
/// # Panics
/// If the cases that passed are not exactly those expected.
pub async fn run_cases(client: Command, mut server: Sockeye, expected: &BTreeSet<String>) -> Sockeye {
    let mut peer = Process::start(client);
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
            Report::Waiting(what) if what == "restart" => {
                server.process.kill().await;
                server = Sockeye::serve(server.address(), &[]).await;
            }
            Report::Waiting(what) if what == "stop" => server.process.kill().await,
            Report::Waiting(what) if what == "start" => server = Sockeye::serve(server.address(), &[]).await,
            other => peer.fail(&format!("reported {other:?}")),
        }
    }
    peer.exit_ok().await;
    assert_eq!(&passed, expected, "the cases run differ from those expected");
    server
}
