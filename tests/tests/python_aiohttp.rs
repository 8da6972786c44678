//! Python's `aiohttp`, as a client of `sockeye echo` and as a server for `sockeye connect`.

use sockeye_tests::{PING_CASES, Sockeye, client_cases, python, run_client};

mod connect;

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn aiohttp_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = python("aiohttp_client.py", &[&server.url]);
    run_client(client, server, &client_cases(&PING_CASES)).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_talks_to_aiohttp_server() {
    connect::exchanges_lines(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_how_aiohttp_server_closed() {
    connect::fails_when_closed_with_3005(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_that_aiohttp_server_refused() {
    connect::fails_when_refused_with_403(python("aiohttp_server.py", &[])).await;
}
