//! `sockeye serve` as a black box: startup, responses, and shutdown. The library tests cover the rest.
#![cfg(unix)]

mod cli_support;

use cli_support::{Program, soon};
use rustix::process::Signal;
use sockeye::{Client, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts `sockeye serve` on a free port, and returns its address.
async fn start(options: &[&str]) -> (Program, String) {
    let mut server = Program::start(&[&["serve", "--listen", "127.0.0.1:0"], options].concat());
    let url = server.url().await;
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
    let address = address.expect("http://ADDRESS:PORT/").to_owned();
    (server, address)
}

/// Sends a GET request for this host, and returns the status line.
async fn get(address: &str, host: &str, path: &str) -> String {
    let mut tcp = soon(TcpStream::connect(address)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    soon(tcp.write_all(request.as_bytes())).await.unwrap();
    let mut response = Vec::new();
    soon(tcp.read_to_end(&mut response)).await.unwrap();
    let response = String::from_utf8_lossy(&response).into_owned();
    response.lines().next().unwrap_or_default().to_owned()
}

/// Returns the status with which a WebSocket from a page of this origin is refused, if it is.
async fn refusal(address: &str, origin: &str) -> Option<u16> {
    let client = Client::builder()
        .origin(Origin::parse(origin).unwrap())
        .build()
        .unwrap();
    let url = format!("ws://{address}/connection/websocket");
    let opened = soon(client.connect(&url)).await;
    opened.err().map(|error| error.response().unwrap().status().as_u16())
}

#[tokio::test]
async fn it_serves_its_page_and_exits_with_0_on_a_signal() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 0)] {
        let (mut server, address) = start(&[]).await;
        assert_eq!(get(&address, &address, "/").await, "HTTP/1.1 200 OK");
        assert_eq!(get(&address, &address, "/health").await, "HTTP/1.1 200 OK");
        server.signal(signal);
        assert_eq!(server.exit_code().await, Some(code));
    }
}

#[tokio::test]
async fn pages_of_the_same_host_may_connect_and_others_when_allowed() {
    let (_server, address) = start(&[]).await;
    assert_eq!(refusal(&address, &format!("http://{address}")).await, None);
    assert_eq!(refusal(&address, "https://a.example").await, Some(403));
    let (_server, address) = start(&["--allow-origin", "https://a.example"]).await;
    assert_eq!(refusal(&address, "https://a.example").await, None);
    assert_eq!(refusal(&address, "https://b.example").await, Some(403));
}

/// The situation behind a proxy that does not preserve the Host header.
#[tokio::test]
async fn a_refusal_is_logged_with_the_option_that_allows_it() {
    let (mut server, address) = start(&[]).await;
    assert_eq!(refusal(&address, "https://chat.example").await, Some(403));
    assert!(get(&address, "chat.example", "/").await.starts_with("HTTP/1.1 421"));
    server.signal(Signal::TERM);
    let log = server.stderr().await;
    for part in [
        "origin https://chat.example",
        "--allow-origin=https://chat.example",
        "host chat.example",
        "--allow-host=chat.example",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[tokio::test]
async fn contradictory_sizes_are_reported() {
    let outcome = cli_support::run(&["serve", "--listen", "127.0.0.1:0", "--max-message-size=1KiB"], b"").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("limits.publication_size_max"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn an_address_in_use_is_reported() {
    let (_server, address) = start(&[]).await;
    let outcome = cli_support::run(&["serve", "--listen", &address], b"").await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("choose another port"), "{}", outcome.stderr);
}
