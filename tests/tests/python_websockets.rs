//! Python's `websockets` as a client of `sockeye echo`, and as a server for the Sockeye client and `sockeye connect`.

use sockeye_tests::{
    Certificate, FRAGMENT_CASES, PING_CASES, Sockeye, client, client_cases, connect, python, run_client, server,
};

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn websockets_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = python("websockets_client.py", &[&server.url]);
    run_client(client, server, &websockets_cases()).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn websockets_client_talks_to_echo_over_tls() {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let mut client = python("websockets_client.py", &[&server.url]);
    client.env("PEER_CA", certificate.cert_path());
    run_client(client, server, &websockets_cases()).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn server_receives_close_of_websockets_client() {
    server::receives_close(|url| python("websockets_client.py", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_talks_to_websockets_server() {
    client::talks(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_talks_to_websockets_server_over_tls() {
    client::talks_over_tls(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_pings_and_answers_websockets_server() {
    client::pings(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_receives_fragments_of_websockets_server() {
    client::receives_fragments(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_receives_close_of_websockets_server() {
    client::receives_close(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_websockets_server() {
    client::rejects_message_over_the_limit(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_reports_rejection_by_websockets_server() {
    client::reports_the_rejection(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_notices_death_of_websockets_server() {
    client::notices_that_the_server_died(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_talks_to_websockets_server() {
    connect::exchanges_lines(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_close_by_websockets_server() {
    connect::fails_when_closed_with_3005(python("websockets_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_rejection_by_websockets_server() {
    connect::fails_when_refused_with_403(python("websockets_server.py", &[])).await;
}

fn websockets_cases() -> std::collections::BTreeSet<String> {
    client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat())
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn server_compresses_with_websockets_client() {
    server::compresses(|url| python("websockets_client.py", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn client_compresses_with_websockets_server() {
    client::compresses(python("websockets_server.py", &[])).await;
}
