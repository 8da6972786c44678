//! The official JavaScript SDK `centrifuge`: two clients of `sockeye serve`, with each encoding and over each
//! transport.

use sockeye_tests::{Sockeye, node, run_realtime_client};

async fn check(transport: &str, encoding: &str) {
    let server = Sockeye::serve("127.0.0.1:0", &[]).await;
    let address = server.address().to_string();
    run_realtime_client(node("centrifuge.mjs", &[&address, transport, encoding]), server).await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn centrifuge_clients_talk_through_serve_and_survive_its_restart() {
    check("websocket", "json").await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn centrifuge_clients_with_protobuf() {
    check("websocket", "protobuf").await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn centrifuge_clients_without_websocket() {
    check("http_stream", "json").await;
    check("http_stream", "protobuf").await;
}

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn centrifuge_clients_with_server_sent_events() {
    // Events are text, so the SDK has no Protobuf over them.
    check("sse", "json").await;
}
