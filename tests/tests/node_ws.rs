//! Node's `ws` as a client of `sockeye echo`, and as a server for the Sockeye client and `sockeye connect`.

use sockeye_tests::{
    Certificate, FRAGMENT_CASES, PING_CASES, Sockeye, client, client_cases, connect, node, run_client, server,
};

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn ws_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = node("ws_client.mjs", &[&server.url]);
    run_client(client, server, &ws_cases()).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn ws_client_talks_to_echo_over_tls() {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let mut client = node("ws_client.mjs", &[&server.url]);
    client.env("PEER_CA", certificate.cert_path());
    run_client(client, server, &ws_cases()).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn server_receives_close_of_ws_client() {
    server::receives_close(|url| node("ws_client.mjs", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_talks_to_ws_server() {
    client::talks(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_talks_to_ws_server_over_tls() {
    client::talks_over_tls(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_pings_and_answers_ws_server() {
    client::pings(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_receives_fragments_of_ws_server() {
    client::receives_fragments(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_receives_close_of_ws_server() {
    client::receives_close(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_ws_server() {
    client::rejects_message_over_the_limit(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_reports_rejection_by_ws_server() {
    client::reports_the_rejection(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_notices_death_of_ws_server() {
    client::notices_that_the_server_died(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn connect_talks_to_ws_server() {
    connect::exchanges_lines(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn connect_reports_close_by_ws_server() {
    connect::fails_when_closed_with_3005(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn connect_reports_rejection_by_ws_server() {
    connect::fails_when_refused_with_403(node("ws_server.mjs", &[])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn server_compresses_with_ws_client() {
    server::compresses(|url| node("ws_client.mjs", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn client_compresses_with_ws_server() {
    client::compresses(node("ws_server.mjs", &[])).await;
}

fn ws_cases() -> std::collections::BTreeSet<String> {
    client_cases(
        &[
            &PING_CASES[..],
            &FRAGMENT_CASES,
            &["close without a code", "far too big"],
        ]
        .concat(),
    )
}
