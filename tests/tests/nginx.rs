//! nginx as a reverse proxy in front of `sockeye serve` and `sockeye echo`.

use std::{fs, path::Path};

use sockeye_tests::{
    FRAGMENT_CASES, PING_CASES, Process, Sockeye, client_cases, free_address, http_get, nginx, node, run_client,
    run_realtime_client, server,
};
use tempfile::TempDir;

#[tokio::test]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn ws_client_talks_to_echo_through_nginx() {
    let server = Sockeye::echo(&[]).await;
    let proxy = Proxy::start(server.address(), server.address()).await;
    let url = format!("ws://{}/echo/", proxy.address);
    let mut cases = client_cases(&[&PING_CASES[..], &FRAGMENT_CASES, &["close without a code"]].concat());
    let mut client = node("ws_client.mjs", &[&url]);
    // When the server closes its sending half after an error, nginx closes the client's connection at once, even while
    // the client is still sending. That resets TCP and may lose the close frame. The tests without nginx run these
    // cases.
    cases.remove("too big");
    client.env("PEER_SKIP", "too big,far too big");
    run_client(client, server, &cases).await;
}

#[tokio::test]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn centrifuge_clients_talk_through_nginx_and_survive_a_restart_behind_it() {
    let server = Sockeye::serve("127.0.0.1:0", &[]).await;
    let proxy = Proxy::start(server.address(), server.address()).await;
    run_realtime_client(node("centrifuge.mjs", &[&proxy.address.to_string()]), server).await;
}

#[tokio::test]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn page_is_served_through_nginx() {
    let server = Sockeye::serve("127.0.0.1:0", &[]).await;
    let proxy = Proxy::start(server.address(), server.address()).await;
    let [direct, proxied] = [
        http_get(server.address(), "/").await,
        http_get(&proxy.address, "/").await,
    ];
    assert!(proxied.starts_with("HTTP/1.1 200"), "{proxied}");
    assert_eq!(body(&proxied), body(&direct));
}

#[tokio::test]
#[ignore = "needs nginx: run `cargo xtask test`"]
async fn compression_passes_nginx() {
    server::compresses_behind(async |address| {
        let proxy = Proxy::start(address, address).await;
        let url = format!("ws://{}/echo/", proxy.address);
        (node("ws_client.mjs", &[&url]), proxy)
    })
    .await;
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// nginx with a folder of its own, both removed when dropped.
struct Proxy {
    address: String,
    _process: Process,
    _folder: TempDir,
}

impl Proxy {
    async fn start(serve: &str, echo: &str) -> Self {
        let address = free_address();
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/nginx.conf");
        let template = fs::read_to_string(template).expect("the file is part of this crate");
        let config = template
            .replace("@LISTEN@", &address)
            .replace("@SERVE@", serve)
            .replace("@ECHO@", echo);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::write(folder.path().join("nginx.conf"), config).expect("the folder is writable");
        let mut process = Process::start(nginx(folder.path()));
        // nginx writes its pid file after it has opened its sockets.
        process.line_after("event method").await;
        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }
}
