//! Health, metrics, draining, limits for new connections, and reloads, as operators and clients see them.

use super::tests::{Fixture, Log, TIMEOUT};
use super::*;
use crate::codes::DisconnectCode;
use crate::config::Access;

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or_default()
}

#[tokio::test]
async fn health_and_metrics_describe_a_running_server() {
    let server = Fixture::start(Config::default()).await;
    let _client = server.join().await;
    assert_eq!(status(&server.get("/health/live").await), "200");
    let ready = server.get("/health/ready").await;
    assert!(ready.ends_with("\r\n\r\nready\n"), "{ready}");
    let metrics = server.get("/metrics").await;
    for line in [
        "\r\ncontent-type: application/openmetrics-text",
        "\nsockeye_clients 1\n",
        "\nsockeye_channels 1\n",
        "\nsockeye_subscriptions 1\n",
        "\nsockeye_ready 1\n",
        "\nsockeye_commands_total 2\n",
        "\nsockeye_handshakes_total 1\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            server.address
        );
        assert_eq!(status(&server.http(&request).await), "405", "{path}");
    }
    let foreign = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.http(foreign).await), "421");
}

#[tokio::test]
async fn a_draining_server_is_alive_and_not_ready_and_disconnects_clients_over_time() {
    let server = Fixture::start(config(|config| {
        config.timeouts.drain = Duration::from_millis(800);
        config.timeouts.shutdown = Duration::from_secs(5);
    }))
    .await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.join().await);
    }
    let start = Instant::now();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let reading = async { while let Ok(Some(_)) = client.recv().await {} };
                timeout(TIMEOUT, reading).await.unwrap();
                let frame = client.close_info().unwrap().received().cloned().unwrap();
                assert_eq!(u16::from(frame.code), DisconnectCode::Shutdown.code());
                start.elapsed()
            })
        })
        .collect();
    let Fixture {
        address,
        shutdown,
        serving,
    } = server;
    shutdown.send(()).unwrap();
    let (unused, _) = tokio::sync::oneshot::channel();
    let server = Fixture {
        address,
        shutdown: unused,
        serving: tokio::spawn(async { Ok(()) }),
    };
    // The first client leaves after 50 ms at the earliest, and the last one after 750 ms.
    assert_eq!(status(&server.get("/health/live").await), "200");
    let ready = server.get("/health/ready").await;
    assert_eq!(status(&ready), "503");
    assert!(ready.ends_with("not ready: shutting down\n"), "{ready}");
    let url = format!("ws://{address}/connection/websocket");
    let refused = sockeye::connect(&url).await.unwrap_err();
    assert_eq!(refused.response().unwrap().status().as_u16(), 503);

    let mut left = Vec::new();
    for client in clients {
        left.push(client.await.unwrap());
    }
    left.sort();
    assert!(
        left[0] < Duration::from_millis(400) && left[7] >= Duration::from_millis(700),
        "{left:?}"
    );
    timeout(TIMEOUT, serving).await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let server = Fixture::start(config(|config| config.limits.connections_per_address_max = 2)).await;
    let first = server.connect().await;
    let _second = server.connect().await;
    let refused = server.get("/health").await;
    assert_eq!(status(&refused), "503");
    assert!(refused.contains("Retry-After: 5"), "{refused}");
    drop(first);
    while status(&server.get("/health").await) == "503" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_handshake_over_the_rate_gets_503_with_retry_after() {
    let server = Fixture::start(config(|config| config.limits.handshakes_per_second_max = 1)).await;
    let _clients = [server.connect().await, server.connect().await];
    let url = format!("ws://{}/connection/websocket", server.address);
    let error = sockeye::connect(&url).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status().as_u16(), 503);
    let after = response.headers().get("retry-after").unwrap();
    let after: u64 = after.to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&after), "{after}");
    // The other transports open sessions, too.
    for path in ["/connection/sse?cf_connect=%7B%7D", "/connection/http_stream"] {
        let response = server.get(path).await;
        assert_eq!(status(&response), "503", "{path}");
        assert!(response.contains("retry-after: "), "{response}");
    }
    let commands = server.get("/emulation").await;
    assert_eq!(status(&commands), "405", "{commands}");
    // Other requests are not handshakes.
    assert_eq!(status(&server.get("/health/live").await), "200");
}

#[tokio::test]
async fn a_reload_applies_to_connected_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/connection/websocket", listener.local_addr().unwrap());
    let server = Server::builder().build().unwrap();
    let handle = server.handle();
    tokio::spawn(server.serve(listener));
    let mut client = sockeye::connect(&url).await.unwrap();
    client.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    client.recv().await.unwrap();

    handle
        .reload(config(|config| {
            config.limits.channels_per_client_max = 1;
            config.namespaces.clear();
        }))
        .unwrap();
    for (id, channel, expect) in [(2, "room", "\"subscribe\":"), (3, "room2", "\"code\":106")] {
        let subscribe = format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#);
        client.send(subscribe).await.unwrap();
        let reply = timeout(TIMEOUT, client.recv()).await.unwrap().unwrap().unwrap();
        assert!(reply.as_text().unwrap().contains(expect), "{reply:?}");
    }
    let publication = crate::PublishOptions::new("1");
    let error = handle.publish("chat:x", publication).await.unwrap_err();
    assert_eq!(error, crate::codes::ErrorCode::UnknownChannel);

    let contradictory = handle.reload(config(|config| config.timeouts.pong = config.timeouts.ping_interval));
    assert_eq!(contradictory.unwrap_err().field(), "timeouts.pong");
}

#[tokio::test]
async fn a_reload_ends_subscriptions_that_are_not_allowed_any_more() {
    let log = Log::capture();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/connection/websocket", listener.local_addr().unwrap());
    let server = Server::builder().build().unwrap();
    let handle = server.handle();
    tokio::spawn(server.serve(listener));
    let mut client = sockeye::connect(&url).await.unwrap();
    let mut receive = async |text: &str, part: &str| {
        client.send(text).await.unwrap();
        let message = timeout(TIMEOUT, client.recv()).await.unwrap().unwrap().unwrap();
        assert!(message.as_text().unwrap().contains(part), "{message:?}");
    };
    receive(r#"{"id":1,"connect":{}}"#, "\"connect\"").await;
    receive(r#"{"id":2,"subscribe":{"channel":"chat:x"}}"#, "\"subscribe\"").await;
    receive(r#"{"id":3,"subscribe":{"channel":"room:x"}}"#, "\"subscribe\"").await;
    // A change of other settings ends nothing.
    handle
        .reload(config(|config| config.limits.channels_per_client_max = 5))
        .unwrap();
    receive(r#"{"id":4,"subscribe":{"channel":"room:y"}}"#, "\"subscribe\"").await;
    handle
        .reload(config(|config| drop(config.namespaces.remove("chat"))))
        .unwrap();
    let ended = timeout(TIMEOUT, client.recv()).await.unwrap().unwrap().unwrap();
    let expect = r#"{"push":{"channel":"chat:x","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(ended.as_text().unwrap(), expect);
    let closed = |config: &mut Config| config.namespaces.get_mut("room").unwrap().allow_subscribe = Access::Token;
    handle.reload(config(closed)).unwrap();
    for _ in 0..2 {
        let ended = timeout(TIMEOUT, client.recv()).await.unwrap().unwrap().unwrap();
        let expect = "\"unsubscribe\":{\"code\":2502,\"reason\":\"state invalidated\"}";
        assert!(ended.as_text().unwrap().contains(expect), "{ended:?}");
    }
    assert_eq!(handle.info().subscriptions, 0);
    assert_eq!(handle.channels("chat:*").await, Ok(Vec::new()));
    // Unclosed.
    assert_eq!(handle.channels("[a").await, Err(crate::codes::ErrorCode::BadRequest));
    let text = log.text();
    assert!(
        text.contains("subscriptions=1") && text.contains("subscriptions=2"),
        "{text}"
    );
}

#[tokio::test]
async fn the_log_names_the_setting_that_refuses_anonymous_clients() {
    let log = Log::capture();
    let server = Fixture::start(config(|config| config.anonymous = false)).await;
    let mut client = server.connect().await;
    client.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    let ended = timeout(TIMEOUT, async { while let Ok(Some(_)) = client.recv().await {} }).await;
    assert!(ended.is_ok());
    assert!(
        log.text().contains("the setting `anonymous` is false"),
        "{}",
        log.text()
    );
}

#[tokio::test]
async fn the_log_and_the_hub_have_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let server = Fixture::start(config(|config| {
        let mut log = crate::JournalConfig::new(folder.path());
        log.fsync = crate::Fsync::Always;
        config.journal = Some(log);
        config.insecure_api = true;
    }))
    .await;
    let _clients = (server.join().await, server.join().await);
    let body = r#"{"channel":"room","data":"text"}"#;
    let publish = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    assert_eq!(status(&server.http(&publish).await), "200");
    let metrics = server.get("/metrics").await;
    let value = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
            .parse()
            .unwrap()
    };
    // The seed of the epochs, the readiness check at the start, and the publication.
    assert_eq!(value("sockeye_journal_records_total"), 3.0);
    assert_eq!(value("sockeye_journal_segments"), 1.0);
    assert!(value("sockeye_journal_written_bytes_total") > 50.0);
    assert!(value("sockeye_journal_size_bytes") > value("sockeye_journal_written_bytes_total"));
    // Records that wait at the same time share an fdatasync.
    assert!((2.0..=3.0).contains(&value("sockeye_journal_sync_duration_seconds_count")));
    for zero in [
        "journal_failures_total",
        "journal_full",
        "journal_poisoned",
        "history_evictions_total",
        "gaps_total",
    ] {
        assert_eq!(value(&format!("sockeye_{zero}")), 0.0, "{zero}");
    }
    assert_eq!(value("sockeye_deliveries_total"), 2.0);
    assert!(value("sockeye_history_bytes") > 0.0);
    let clients = r#"sockeye_transport_clients{transport="websocket",format="json"}"#;
    assert_eq!(value(clients), 2.0);
}

#[tokio::test]
async fn refused_handshakes_are_counted_by_reason() {
    let server = Fixture::start(Config::default()).await;
    let own = server.address.to_string();
    for (host, headers) in [
        (&*own, "Origin: http://evil.example\r\n"),
        ("evil.example", ""),
        (&*own, "Sec-WebSocket-Version: 12\r\n"),
    ] {
        let request = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n{headers}\r\n\
             GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        server.http(&request).await;
    }
    let metrics = server.get("/metrics").await;
    for reason in ["origin", "host", "invalid"] {
        let line = format!("sockeye_refusals_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

/// RFC 9112 §3.2.
#[tokio::test]
async fn a_request_needs_exactly_one_host() {
    let server = Fixture::start(config(|config| config.demos = false)).await;
    for (request, expect) in [
        ("GET / HTTP/1.1\r\n", "400"),
        ("GET /health/live HTTP/1.1\r\n", "400"),
        ("POST /api/info HTTP/1.1\r\n", "400"),
        ("GET /connection/sse HTTP/1.1\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", "404"),
        ("GET /health/live HTTP/1.0\r\n", "200"),
    ] {
        let answer = server.http(&format!("{request}Connection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), expect, "{request}");
    }
}
