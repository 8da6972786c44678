//! Java's `java.net.http.WebSocket` as a client of `sockeye echo`.

use sockeye_tests::{FRAGMENT_CASES, PING_CASES, Sockeye, client_cases, java, run_client, run_client_over_tls, server};

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn java_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = java("EchoClient.java", &[&server.url]);
    run_client(
        client,
        server,
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn java_client_talks_to_echo_over_tls() {
    run_client_over_tls(
        |url| java("EchoClient.java", &[url]),
        &client_cases(&[&PING_CASES[..], &FRAGMENT_CASES].concat()),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs a JDK: run `cargo xtask test`"]
async fn server_receives_close_of_java_client() {
    server::receives_close(|url| java("EchoClient.java", &[url])).await;
}
