//! libwebsockets (C) as a client of `sockeye echo`, and as a server for the Sockeye client.

use sockeye_tests::{
    FRAGMENT_CASES, PING_CASES, Sockeye, built, client, client_cases, run_client, run_client_over_tls, server,
};

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn lws_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = built("lws_peer", &[&server.url]);
    run_client(
        client,
        server,
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn lws_client_talks_to_echo_over_tls() {
    run_client_over_tls(
        |url| built("lws_peer", &[url]),
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn server_receives_close_of_lws_client() {
    server::receives_close(|url| built("lws_peer", &[url])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn server_compresses_with_lws_client() {
    server::compresses(|url| built("lws_peer", &[url])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_talks_to_lws_server() {
    client::talks(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_talks_to_lws_server_over_tls() {
    client::talks_over_tls(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_compresses_with_lws_server() {
    client::compresses(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_pings_and_answers_lws_server() {
    client::pings(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_receives_fragments_of_lws_server() {
    client::receives_fragments(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_receives_close_of_lws_server() {
    client::receives_close(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_lws_server() {
    client::rejects_message_over_the_limit(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_reports_rejection_by_lws_server() {
    client::reports_the_rejection(built("lws_peer", &[])).await;
}

#[tokio::test]
#[ignore = "needs libwebsockets: run `cargo xtask test`"]
async fn client_notices_death_of_lws_server() {
    client::notices_that_the_server_died(built("lws_peer", &[])).await;
}
