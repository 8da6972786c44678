//! The official Go SDK `centrifuge-go`: two clients of `sockeye serve`, with each encoding.

use sockeye_tests::{centrifuge_go, run_sdk};

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn go_clients_with_json() {
    run_sdk(centrifuge_go(), &["json"]).await;
}

#[tokio::test]
#[ignore = "needs Go: run `cargo xtask test`"]
async fn go_clients_with_protobuf() {
    run_sdk(centrifuge_go(), &["protobuf"]).await;
}
