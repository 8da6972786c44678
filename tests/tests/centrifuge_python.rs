//! The official Python SDK `centrifuge-python`: two clients of `sockeye serve`, with each encoding.

use sockeye_tests::{python, run_sdk};

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn python_clients_with_json() {
    run_sdk(python("centrifuge_client.py", &[]), &["json"]).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn python_clients_with_protobuf() {
    run_sdk(python("centrifuge_client.py", &[]), &["protobuf"]).await;
}
