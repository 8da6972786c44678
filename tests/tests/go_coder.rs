//! The Go library coder/websocket as a client of `sockeye echo`, and as a server for the Sockeye client.

use sockeye_tests::{
    FRAGMENT_CASES, PING_CASES, Sockeye, client, client_cases, go_websocket, run_client, run_client_over_tls, server,
};

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn coder_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = go_websocket(&["coder", &server.url]);
    run_client(
        client,
        server,
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn coder_client_talks_to_echo_over_tls() {
    run_client_over_tls(
        |url| go_websocket(&["coder", url]),
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn server_receives_close_of_coder_client() {
    server::receives_close(|url| go_websocket(&["coder", url])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn server_compresses_with_coder_client() {
    server::compresses(|url| go_websocket(&["coder", url])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_talks_to_coder_server() {
    client::talks(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_talks_to_coder_server_over_tls() {
    client::talks_over_tls(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_compresses_with_coder_server() {
    client::compresses(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_pings_and_answers_coder_server() {
    client::pings(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_receives_fragments_of_coder_server() {
    client::receives_fragments(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_receives_close_of_coder_server() {
    client::receives_close(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_coder_server() {
    client::rejects_message_over_the_limit(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_reports_rejection_by_coder_server() {
    client::reports_the_rejection(go_websocket(&["coder"])).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn client_notices_death_of_coder_server() {
    client::notices_that_the_server_died(go_websocket(&["coder"])).await;
}
