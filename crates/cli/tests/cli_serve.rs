//! `sockeye serve` as a black box: startup, responses, and shutdown. The library tests cover the rest.
#![cfg(unix)]

mod cli_support;

use cli_support::{Certificate, Program, soon};
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

/// Sends a request with a body, and returns the whole response.
async fn post(address: &str, path: &str, headers: &str, body: &str) -> String {
    let mut tcp = soon(TcpStream::connect(address)).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    soon(tcp.write_all(request.as_bytes())).await.unwrap();
    let mut response = String::new();
    soon(tcp.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn a_file_is_checked_with_the_line_of_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.toml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "listen = '127.0.0.1:0'\n[limits]\nconections_max = 5\n").unwrap();
    for options in [
        &["serve", "--config", file, "--check"][..],
        &["serve", "--config", file],
    ] {
        let outcome = cli_support::run(options, b"").await;
        assert_eq!(outcome.code, Some(1));
        assert!(
            outcome.stderr.contains("sockeye.toml: line 3: unknown key"),
            "{}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains("limits.connections_max"), "{}", outcome.stderr);
    }
    std::fs::write(&path, "listen = '127.0.0.1:0'\n").unwrap();
    let outcome = cli_support::run(&["serve", "--config", file, "--check"], b"").await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let missing = cli_support::run(&["serve", "--config", "/nowhere/sockeye.toml"], b"").await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("/nowhere/sockeye.toml"), "{}", missing.stderr);
}

#[tokio::test]
async fn all_errors_of_a_file_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.toml");
    let file = path.to_str().unwrap();
    let text = "listen = 'nonsense'\ntls_cert = '/none.pem'\ntls_key = '/none.key'\n[limits]\nconections_max = 5\n\
                connections_max = 0\n[namespaces.a]\ndelta = true\n";
    std::fs::write(&path, text).unwrap();
    let options = [
        "serve",
        "--config",
        file,
        "--check",
        "--data",
        "/proc/x",
        "--fsync",
        "sometimes",
    ];
    let outcome = cli_support::run(&options, b"").await;
    assert_eq!(outcome.code, Some(1));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    for (line, expect) in [
        (0, "line 1: listen is \"nonsense\""),
        (1, "line 5: unknown key limits.conections_max"),
        (2, "line 6: limits.connections_max is 0"),
        (3, "line 8: namespaces.a.delta needs a history"),
        (4, "fsync must be"),
        (5, "line 2: tls_cert /none.pem: "),
    ] {
        assert!(lines[line].contains(expect), "{expect}: {}", outcome.stderr);
        assert!(lines[line].starts_with("sockeye: "), "{}", outcome.stderr);
        assert_eq!(lines[line].contains("sockeye.toml: line "), expect.contains("line "));
    }
    if cfg!(target_os = "linux") {
        assert!(
            lines[6].contains("data cannot use the log in /proc/x: "),
            "{}",
            outcome.stderr
        );
        assert_eq!(lines.len(), 7, "{}", outcome.stderr);
    }
    // A start reports them, too.
    let start = cli_support::run(&["serve", "--config", file], b"").await;
    assert_eq!(start.code, Some(1));
    assert_eq!(start.stderr.lines().count(), 4, "{}", start.stderr);
}

#[tokio::test]
async fn the_default_file_passes_the_check() {
    let outcome = cli_support::run(&["config", "default"], b"").await;
    assert_eq!(outcome.code, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default.toml");
    std::fs::write(&path, outcome.stdout).unwrap();
    let check = cli_support::run(&["serve", "--check", "--config", path.to_str().unwrap()], b"").await;
    assert_eq!(check.code, Some(0), "{}", check.stderr);
}

#[tokio::test]
async fn the_api_takes_the_key_of_a_flag() {
    let (_server, address) = start(&["--api-key", "k1"]).await;
    let body = r#"{"channel":"room:1","data":{}}"#;
    let response = post(&address, "/api/publish", "X-API-Key: k1\r\n", body).await;
    assert!(response.contains("\"offset\":1"), "{response}");
    assert!(
        post(&address, "/api/publish", "X-API-Key: k2\r\n", body)
            .await
            .starts_with("HTTP/1.1 401")
    );
}

#[tokio::test]
async fn check_reads_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.toml");
    let (first, second) = (Certificate::new(), Certificate::new());
    let none = "/none.pem".to_owned();
    for (cert, key, expect) in [
        (
            &none,
            &first.key(),
            "sockeye.toml: line 2: tls_cert /none.pem: ".to_owned(),
        ),
        (
            &first.cert(),
            &none,
            "sockeye.toml: line 3: tls_key /none.pem: ".to_owned(),
        ),
        (
            &first.cert(),
            &second.key(),
            format!(
                "sockeye.toml: line 2: tls_cert {}: does not match the key in ",
                first.cert()
            ),
        ),
    ] {
        std::fs::write(&path, format!("\ntls_cert = '{cert}'\ntls_key = '{key}'\n")).unwrap();
        let outcome = cli_support::run(&["serve", "--config", path.to_str().unwrap(), "--check"], b"").await;
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains(&expect), "{}", outcome.stderr);
    }
    let options = ["serve", "--check", "--tls-cert", "/none.pem", "--tls-key", "/none.key"];
    let outcome = cli_support::run(&options, b"").await;
    assert!(
        outcome.stderr.contains("/none.pem: ") && !outcome.stderr.contains("line"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn a_hangup_reloads_the_file_and_logs_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.toml");
    let write = |key: &str, rest: &str| {
        let text = format!("listen = '127.0.0.1:0'\nlog_format = 'json'\napi_keys = ['{key}']\n{rest}");
        std::fs::write(&path, text).unwrap();
    };
    write("first", "");
    let mut server = Program::start(&["serve", "--config", path.to_str().unwrap()]);
    let url = server.url().await;
    let address = url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix('/')
        .unwrap()
        .to_owned();
    let info = async |key: &str| {
        let response = post(&address, "/api/info", &format!("X-API-Key: {key}\r\n"), "{}").await;
        response[9..12].to_owned()
    };
    assert_eq!(info("first").await, "200");
    let certificate = Certificate::new();
    let (cert, key) = (certificate.cert(), certificate.key());
    let rest = format!("drain = '7s'\ntls_cert = '{cert}'\ntls_key = '{key}'\n[namespaces.news]\nhistory_size = 3\n");
    write("second", &rest);
    server.signal(Signal::HUP);
    while info("second").await != "200" {
        tokio::task::yield_now().await;
    }
    assert_eq!(info("first").await, "401");
    // An invalid file changes nothing.
    write("third", "nonsense = 1\n");
    server.signal(Signal::HUP);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(info("second").await, "200");
    server.signal(Signal::TERM);
    let log = server.stderr().await;
    for part in [
        "\"message\":\"reloaded: api_keys: changed\"",
        "\"message\":\"reloaded: added [namespaces.news]\"",
        "takes effect after a restart: drain: ",
        "takes effect after a restart: tls_cert: unset -> ",
        "line 4: unknown key nonsense",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(
        !log.contains("second") && log.lines().all(|line| line.starts_with('{')),
        "{log}"
    );
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let (mut server, address) = start(&["--drain", "60s"]).await;
    let url = format!("ws://{address}/connection/websocket");
    let mut client = soon(Client::default().connect(&url)).await.unwrap();
    // The reply shows that the server counts this client, and so waits for it.
    soon(client.send(r#"{"id":1,"connect":{}}"#)).await.unwrap();
    soon(client.recv()).await.unwrap().unwrap();
    server.signal(Signal::TERM);
    while get(&address, &address, "/health/ready").await != "HTTP/1.1 503 Service Unavailable" {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&address, &address, "/health/live").await, "HTTP/1.1 200 OK");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(143));
}

#[tokio::test]
async fn certificates_are_read_again_on_a_hangup() {
    let (first, second) = (Certificate::new(), Certificate::new());
    let options = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        &first.cert(),
        "--tls-key",
        &first.key(),
    ];
    let mut server = Program::start(&options);
    let url = server.url().await;
    let address = url
        .strip_prefix("https://")
        .expect("https://ADDRESS:PORT/")
        .trim_end_matches('/')
        .to_owned();
    let connect = async |certificate: &Certificate| {
        let client = Client::builder()
            .tls_config(certificate.client_config())
            .build()
            .unwrap();
        soon(client.connect(&format!("wss://{address}/connection/websocket")))
            .await
            .is_ok()
    };
    assert!(connect(&first).await && !connect(&second).await);
    std::fs::copy(second.cert(), first.cert()).unwrap();
    std::fs::copy(second.key(), first.key()).unwrap();
    server.signal(Signal::HUP);
    while !connect(&second).await {
        tokio::task::yield_now().await;
    }
    // A certificate that does not match its key changes nothing.
    std::fs::copy(Certificate::new().key(), first.key()).unwrap();
    server.signal(Signal::HUP);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(connect(&second).await);
}

#[tokio::test]
async fn check_tries_the_data_folder_and_leaves_it_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let folder = data.to_str().unwrap();
    let check = ["serve", "--listen", "127.0.0.1:0", "--check", "--data", folder];
    let outcome = cli_support::run(&check, b"").await;
    let stdout = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(stdout.contains("no log yet") && !data.exists(), "{stdout}");

    let (mut server, _) = start(&["--data", folder]).await;
    let outcome = cli_support::run(&check, b"").await;
    let stdout = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(stdout.contains("a running server uses this folder"), "{stdout}");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code().await, Some(0));

    std::fs::create_dir(parent.path().join("x")).unwrap();
    let file = parent.path().join("x/file");
    std::fs::write(&file, "").unwrap();
    let config = parent.path().join("sockeye.toml");
    std::fs::write(&config, format!("\ndata = '{}/data'\n", file.display())).unwrap();
    let outcome = cli_support::run(&["serve", "--check", "--config", config.to_str().unwrap()], b"").await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("line 2: data"), "{}", outcome.stderr);
}

#[tokio::test]
async fn check_reports_errors_of_listen_with_their_line_and_probable_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sockeye.toml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "\nlisten = 'nonsense'\n").unwrap();
    let outcome = cli_support::run(&["serve", "--config", file, "--check"], b"").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("line 2: listen is \"nonsense\""),
        "{}",
        outcome.stderr
    );

    std::fs::write(&path, "[tokens]\nhmac_secret = 'hush1'\n").unwrap();
    let outcome = cli_support::run(&["serve", "--config", file, "--check"], b"").await;
    let stdout = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        stdout.contains("warning: line 2: tokens.hmac_secret has 5 bytes"),
        "{stdout}"
    );
    assert!(!stdout.contains("hush1"), "{stdout}");
}
