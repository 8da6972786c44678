//! OkHttp as a client of `sockeye echo`. Its API has no pings and no fragments.

use sockeye_tests::{Sockeye, client_cases, java_peers, run_client, run_client_over_tls, server};

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn okhttp_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = java_peers(&["okhttp", &server.url]);
    run_client(client, server, &client_cases(&[])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn okhttp_client_talks_to_echo_over_tls() {
    run_client_over_tls(|url| java_peers(&["okhttp", url]), &client_cases(&[])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn server_receives_close_of_okhttp_client() {
    server::receives_close(|url| java_peers(&["okhttp", url])).await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn server_compresses_with_okhttp_client() {
    server::compresses(|url| java_peers(&["okhttp", url])).await;
}
