//! Java-WebSocket as a client of `sockeye echo`, and as a server for the Sockeye client.

use sockeye_tests::{
    FRAGMENT_CASES, PING_CASES, Sockeye, client, client_cases, java_peers, run_client, run_client_over_tls, server,
};

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn java_websocket_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = java_peers(&["java-websocket", &server.url]);
    run_client(
        client,
        server,
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn java_websocket_client_talks_to_echo_over_tls() {
    run_client_over_tls(
        |url| java_peers(&["java-websocket", url]),
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn server_receives_close_of_java_websocket_client() {
    server::receives_close(|url| java_peers(&["java-websocket", url])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn server_compresses_with_java_websocket_client() {
    server::compresses(|url| java_peers(&["java-websocket", url])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_talks_to_java_websocket_server() {
    client::talks(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_talks_to_java_websocket_server_over_tls() {
    client::talks_over_tls(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_compresses_with_java_websocket_server() {
    client::compresses(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_pings_and_answers_java_websocket_server() {
    client::pings(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_receives_fragments_of_java_websocket_server() {
    client::receives_fragments(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_receives_close_of_java_websocket_server() {
    client::receives_close(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_rejects_message_over_the_limit_of_java_websocket_server() {
    client::rejects_message_over_the_limit(java_peers(&["java-websocket"])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn client_notices_death_of_java_websocket_server() {
    client::notices_that_the_server_died(java_peers(&["java-websocket"])).await;
}
