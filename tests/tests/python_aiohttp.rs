//! Python's `aiohttp`, as a client of `sockeye echo` and as a server for our client and `sockeye connect`.

use sockeye_tests::{Certificate, PING_CASES, Sockeye, client, client_cases, connect, python, run_client, server};

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn aiohttp_client_talks_to_echo() {
    let server = Sockeye::echo(&[]).await;
    let client = python("aiohttp_client.py", &[&server.url]);
    run_client(client, server, &client_cases(&PING_CASES)).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn aiohttp_client_talks_to_echo_over_tls() {
    let certificate = Certificate::generate();
    let server = Sockeye::echo_tls(&certificate).await;
    let mut client = python("aiohttp_client.py", &[&server.url]);
    client.env("PEER_CA", certificate.cert_path());
    run_client(client, server, &client_cases(&PING_CASES)).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_server_receives_the_close_of_aiohttp_client() {
    server::receives_close(|url| python("aiohttp_client.py", &[url])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_talks_to_aiohttp_server() {
    client::talks(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_talks_to_aiohttp_server_over_tls() {
    client::talks_over_tls(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_pings_and_answers_aiohttp_server() {
    client::pings(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_receives_a_close_of_aiohttp_server() {
    client::receives_close(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_refuses_a_message_too_big_of_aiohttp_server() {
    client::refuses_what_is_too_big(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_keeps_the_refusal_of_aiohttp_server() {
    client::keeps_the_refusal(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn our_client_notices_that_aiohttp_server_died() {
    client::notices_that_the_server_died(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_talks_to_aiohttp_server() {
    connect::exchanges_lines(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_how_aiohttp_server_closed() {
    connect::fails_when_closed_with_3005(python("aiohttp_server.py", &[])).await;
}

#[tokio::test]
#[ignore = "needs Python: run `cargo xtask test`"]
async fn connect_reports_that_aiohttp_server_refused() {
    connect::fails_when_refused_with_403(python("aiohttp_server.py", &[])).await;
}
