//! HAProxy as a reverse proxy in front of a Sockeye server.

use sockeye_tests::{FRAGMENT_CASES, PING_CASES, Proxy, Sockeye, client_cases, node, run_client, server};

async fn proxy(echo: &str) -> Proxy {
    Proxy::start("haproxy", "haproxy.cfg", &["-db", "-f"], echo).await
}

#[tokio::test]
#[ignore = "needs HAProxy: run `cargo xtask test`"]
async fn ws_client_talks_to_echo_through_haproxy() {
    let server = Sockeye::echo(&[]).await;
    let proxy = proxy(server.address()).await;
    let mut client = node("ws_client.mjs", &[&format!("ws://{}/", proxy.address)]);
    let mut cases = client_cases(&[&PING_CASES[..], &FRAGMENT_CASES, &["close without a code"]].concat());
    // As with nginx: a proxy may reset the connection of a client that still sends when the server closes. The tests
    // without a proxy run these cases.
    cases.remove("too big");
    client.env("PEER_SKIP", "too big,far too big");
    run_client(client, server, &cases).await;
}

#[tokio::test]
#[ignore = "needs HAProxy: run `cargo xtask test`"]
async fn compression_passes_haproxy() {
    server::compresses_behind(async |address| {
        let proxy = proxy(address).await;
        let url = format!("ws://{}/", proxy.address);
        (node("ws_client.mjs", &[&url]), proxy)
    })
    .await;
}
