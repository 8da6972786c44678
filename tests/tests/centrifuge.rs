//! The official JavaScript SDK `centrifuge`: two clients of `sockeye serve`.

use sockeye_tests::{Sockeye, node, run_realtime_client};

#[tokio::test]
#[ignore = "needs Node: run `cargo xtask test`"]
async fn centrifuge_clients_talk_through_serve_and_survive_its_restart() {
    let server = Sockeye::serve("127.0.0.1:0", &[]).await;
    let url = format!("ws://{}/connection/websocket", server.address());
    run_realtime_client(node("centrifuge.mjs", &[&url]), server).await;
}
