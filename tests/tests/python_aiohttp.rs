//! Python's `aiohttp` as a client of `sockeye echo`, and as a server for the Sockeye client and `sockeye connect`.

use sockeye_tests::{Certificate, PING_CASES, Sockeye, client, client_cases, connect, python, run_client, server};

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn aiohttp_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = python("aiohttp_client.py", &[&server.url]);
    run_client(client, server, &client_cases(&PING_CASES)).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn aiohttp_client_talks_to_echo_over_tls() {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let mut client = python("aiohttp_client.py", &[&server.url]);
    client.env("PEER_CA", certificate.cert_path());
    run_client(client, server, &client_cases(&PING_CASES)).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn server_receives_close_of_aiohttp_client() {
    server::receives_close(|url| python("aiohttp_client.py", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_talks_to_aiohttp_server() {
    client::talks(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_talks_to_aiohttp_server_over_tls() {
    client::talks_over_tls(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_pings_and_answers_aiohttp_server() {
    client::pings(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_receives_close_of_aiohttp_server() {
    client::receives_close(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_aiohttp_server() {
    client::rejects_message_over_the_limit(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_reports_rejection_by_aiohttp_server() {
    client::reports_the_rejection(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_notices_death_of_aiohttp_server() {
    client::notices_that_the_server_died(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_talks_to_aiohttp_server() {
    connect::exchanges_lines(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_close_by_aiohttp_server() {
    connect::fails_when_closed_with_3005(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_rejection_by_aiohttp_server() {
    connect::fails_when_refused_with_403(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn server_compresses_with_aiohttp_client() {
    server::compresses(|url| python("aiohttp_client.py", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_compresses_with_aiohttp_server() {
    client::compresses(python("aiohttp_server.py", &[])).await;
}
