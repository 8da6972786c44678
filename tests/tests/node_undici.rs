//! Node's undici, the `WebSocket` of Node itself, as a client of `sockeye echo`. Its API has no pings and no fragments.

use sockeye_tests::{Sockeye, client_cases, node, run_client, run_client_over_tls, server};

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn undici_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = node("undici_client.mjs", &[&server.url]);
    run_client(client, server, &client_cases(&["close without a code"])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn undici_client_talks_to_echo_over_tls() {
    run_client_over_tls(
        |url| node("undici_client.mjs", &[url]),
        &client_cases(&["close without a code"]),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn server_receives_close_of_undici_client() {
    server::receives_close(|url| node("undici_client.mjs", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn server_compresses_with_undici_client() {
    server::compresses_one_way(|url| node("undici_client.mjs", &[url])).await;
}
