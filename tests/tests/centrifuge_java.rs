//! The official Java SDK `centrifuge-java`: two clients of `sockeye serve`. It has Protobuf only.

use sockeye_tests::{centrifuge_java, run_sdk};

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn java_clients_with_protobuf() {
    run_sdk(centrifuge_java(), &[]).await;
}
