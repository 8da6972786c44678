//! The test cases that external clients run against Sockeye servers.

use std::collections::BTreeSet;

use tokio::process::Command;

use crate::interop::{self, Role};
use crate::{Certificate, Process, Report, Signal, Sockeye};

/// Message sizes around the limits of the three length forms (RFC 6455 §5.2), and a large one.
pub const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20];

/// The message limit of the echo server under test. One byte more is answered with 1009.
pub const MESSAGE_SIZE_MAX: usize = 2 << 20;

/// Cases of every client of the echo server, besides the sizes.
const ECHO_CASES: [&str; 6] = [
    "subprotocol",
    "unicode",
    "burst in order",
    "close with code and reason",
    "too big",
    "shutdown",
];

/// Additional cases of a client whose API supports pings.
pub const PING_CASES: [&str; 1] = ["ping"];

/// Additional cases of a client whose API can send fragments.
pub const FRAGMENT_CASES: [&str; 3] = ["fragmented text", "fragmented binary", "ping between fragments"];

/// Cases of a client of the real-time server.
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

/// Cases of the SDKs in other languages than JavaScript.
const SDK_CASES: [&str; 8] = [
    "connect and subscribe",
    "publish",
    "history",
    "presence",
    "call without a handler",
    "leave",
    "resubscribe after a restart",
    "disconnect",
];

/// Cases of two people in the chat page.
pub const CHAT_CASES: &[&str] = &[
    "both people are listed",
    "messages arrive at the other page",
    "a burst keeps its order",
    "markup is shown as text",
    "code and links are formatted",
    "typing is shown until the message arrives",
    "unread messages are counted",
    "the code to connect another program works",
    "rooms are separate and have their own address",
    "names cannot be impersonated",
    "two tabs are one person, each with its own queue",
    "pages reconnect after a server restart",
    "a page in the back/forward cache is not in the room",
    "a rejected page shows the reason",
    "screenshots",
    "leaving is announced",
    "the pages log no errors",
];

/// Cases of two people in the market page.
pub const MARKET_CASES: &[&str] = &[
    "prices tick in the table and the chart",
    "two tabs see the same prices",
    "a symbol is chosen by keyboard, and filtered",
    "a slow link shows its delay, and recovers",
    "the page follows a restart",
    "screenshots",
    "the pages log no errors",
];

/// Cases of two people in the game page.
pub const GAME_CASES: &[&str] = &[
    "a spectator sees the pond",
    "players see each other",
    "the own fish follows the keys at once",
    "prediction and interpolation can be switched off",
    "added latency and loss are shown",
    "a late joiner knows all names",
    "a player who leaves is gone",
    "a restart brings the players back",
    "screenshots",
    "the pages log no errors",
];

/// Cases of an operator in the admin console.
pub const CONSOLE_CASES: &[&str] = &[
    "a wrong password is refused",
    "figures and plots are live",
    "scripts cannot read the session",
    "a publication by hand arrives at a client and in the live view",
    "a paused live view keeps what arrives",
    "markup from channels is shown as text",
    "the history is read page by page and removed",
    "a client is disconnected by hand",
    "screenshots",
    "signing out ends the session",
    "the pages log no errors",
];

/// The names of all cases of a client of the echo server; `more` are the optional ones that it supports.
pub fn client_cases(more: &[&str]) -> BTreeSet<String> {
    let sizes = SIZES
        .iter()
        .flat_map(|size| [format!("text {size}"), format!("binary {size}")]);
    sizes
        .chain(ECHO_CASES.iter().chain(more).map(|&case| case.to_owned()))
        .collect()
}

/// Runs a client of the echo server `server`. Asserts that exactly the `expected` cases ran and passed, and that the
/// server exits with status 0 after it is told to stop.
///
/// # Panics
/// If anything else happens.
pub async fn run_client(client: Command, server: Sockeye, expected: &BTreeSet<String>) {
    let is_tls = server.url.starts_with("wss:");
    let mut server = run_cases(client, server, expected).await;
    server.process.exit_ok().await;
    interop::record(Role::Client, &interop::features_of(expected));
    if is_tls {
        interop::record(Role::Client, &["TLS"]);
    }
}

/// Runs a client of an echo server with TLS, as [`run_client`] does. `client` gets the server's URL, and `PEER_CA`.
///
/// # Panics
/// If anything but the `expected` cases happens.
pub async fn run_client_over_tls(client: impl FnOnce(&str) -> Command, expected: &BTreeSet<String>) {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let mut client = client(&server.url);
    client.env("PEER_CA", certificate.cert_path());
    run_client(client, server, expected).await;
}

/// Runs a client of the real-time server `server`, which is killed and restarted when the client asks for it.
///
/// # Panics
/// If a case failed or was not run.
pub async fn run_realtime_client(client: Command, server: Sockeye) {
    let expected = REALTIME_CASES.iter().map(|&case| case.to_owned()).collect();
    run_cases(client, server, &expected).await;
}

/// Runs two clients of an SDK, whose program gets the address of a real-time server and then `arguments`.
///
/// # Panics
/// If a case failed or was not run.
pub async fn run_sdk(mut client: Command, arguments: &[&str]) {
    let server = Sockeye::serve("127.0.0.1:0", &[]).await;
    client.arg(server.address()).args(arguments);
    let expected = SDK_CASES.iter().map(|&case| case.to_owned()).collect();
    run_cases(client, server, &expected).await;
}

/// Runs people in a page of the real-time server `server`, which may be stopped and restarted during the test.
///
/// # Panics
/// If a case failed or was not run.
pub async fn run_page(people: Command, server: Sockeye, cases: &[&str]) {
    let expected = cases.iter().map(|&case| case.to_owned()).collect();
    run_cases(people, server, &expected).await;
}

/// Runs `client` and performs the actions that it asks for. Returns the server, which may have been restarted.
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
