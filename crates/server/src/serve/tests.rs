//! The whole server over real sockets, with our own client and with plain TCP.

use std::net::SocketAddr;

use parking_lot::Mutex;
use sockeye::HostPolicy;
use sockeye::handshake::Authority;
use sockeye::{Client, Message, WebSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

/// The timeout of every wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<io::Result<()>>,
}

impl Fixture {
    pub(crate) async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, config, async { drop(told.await) }));
        Self {
            address,
            shutdown,
            serving,
        }
    }

    pub(crate) async fn connect(&self) -> WebSocket {
        sockeye::connect(&format!("ws://{}/connection/websocket", self.address))
            .await
            .unwrap()
    }

    /// Returns a client that is connected and subscribed to the room.
    pub(crate) async fn join(&self) -> WebSocket {
        let mut ws = self.connect().await;
        ws.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\"}}")
            .await
            .unwrap();
        assert!(text(&mut ws).await.contains("\"subscribe\":{}"));
        ws
    }

    /// Sends `request`, and returns everything that the server sends until it closes the connection.
    pub(crate) async fn http(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(TIMEOUT, stream.read_to_string(&mut answer))
            .await
            .expect("the server did not close")
            .unwrap();
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.http(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        ))
        .await
    }

    fn upgrade_request(&self, target: &str, headers: &str) -> String {
        self.upgrade_request_to(&self.address.to_string(), target, headers)
    }

    fn upgrade_request_to(&self, host: &str, target: &str, headers: &str) -> String {
        let key = match headers.contains("Sec-WebSocket-Key") {
            true => "",
            false => "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
        };
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{key}{headers}\r\n"
        )
    }

    /// Returns the response to a refused handshake.
    async fn upgrade(&self, host: &str, headers: &str) -> String {
        // Send another request that closes the connection, which stays open otherwise.
        let request = self.upgrade_request_to(host, "/connection/websocket", headers);
        let end = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = self.http(&format!("{request}{end}")).await;
        // The first response may already have closed the connection.
        match answer.rsplit_once("HTTP/1.1 200") {
            Some((refusal, _)) => refusal.to_owned(),
            None => answer,
        }
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        timeout(TIMEOUT, self.serving)
            .await
            .expect("the server did not stop")
            .unwrap()
            .unwrap();
    }
}

async fn text(ws: &mut WebSocket) -> String {
    match timeout(TIMEOUT, ws.recv()).await.expect("nothing came").unwrap() {
        Some(Message::Text(text)) => text.to_string(),
        other => panic!("not a text: {other:?}"),
    }
}

/// Receives until the close frame, and returns its code and reason.
async fn close(ws: &mut WebSocket) -> (u16, String) {
    let ended = async { while let Ok(Some(_)) = ws.recv().await {} };
    timeout(TIMEOUT, ended).await.expect("the connection did not end");
    let frame = ws
        .close_info()
        .and_then(|closure| closure.received())
        .expect("no close frame came");
    (frame.code.into(), frame.reason.clone())
}

#[tokio::test]
async fn a_publication_reaches_the_other_client() {
    let server = Fixture::start(Config::default()).await;
    let (mut ada, mut bob) = (server.join().await, server.join().await);
    ada.send(r#"{"id":3,"publish":{"channel":"room","data":{"text":"hi"}}}"#)
        .await
        .unwrap();
    assert!(text(&mut bob).await.contains(r#""pub":{"data":{"text":"hi"}"#));
    assert!(text(&mut ada).await.contains(r#""pub":{"data":{"text":"hi"}"#));
    assert_eq!(text(&mut ada).await, r#"{"id":3,"publish":{}}"#);
    drop((ada, bob));
    server.stop().await;
}

/// Encodes a text frame of a client, with a masking key of zeros.
fn masked(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap().to_be_bytes();
    let mut frame = vec![0x81, 0xfe, len[0], len[1], 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Subscribes to the room, publishes `data`, and returns the number of bytes received until the reply.
async fn bytes_of_a_publication(server: &Fixture, extensions: &str, data: &str) -> usize {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n",
        server.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let publish = format!(r#"{{"id":3,"publish":{{"channel":"room","data":"{data}"}}}}"#);
    // Long enough for a 16-bit length field.
    let join = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"room\"}}}}{:100}",
        ""
    );
    for commands in [&join, &publish] {
        stream.write_all(&masked(commands)).await.unwrap();
    }
    let mut received = Vec::new();
    let answered = async {
        while !received.ends_with(br#"{"id":3,"publish":{}}"#) {
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
        }
    };
    timeout(TIMEOUT, answered)
        .await
        .expect("the publication was not answered");
    received.len()
}

#[tokio::test]
async fn a_publication_is_compressed_for_clients_that_offer_compression() {
    const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let data = "again ".repeat(1000);
    let server = Fixture::start(Config::default()).await;
    assert!(bytes_of_a_publication(&server, OFFER, &data).await < 1500);
    assert!(bytes_of_a_publication(&server, "", &data).await > data.len());
    server.stop().await;

    let config = Config {
        compression: None,
        ..Config::default()
    };
    let server = Fixture::start(config).await;
    assert!(bytes_of_a_publication(&server, OFFER, &data).await > data.len());
    server.stop().await;
}

#[tokio::test]
async fn shutdown_disconnects_clients_with_3001() {
    let server = Fixture::start(Config::default()).await;
    let mut opened = server.connect().await;
    let mut joined = server.join().await;
    let closes = async { (close(&mut opened).await, close(&mut joined).await) };
    let (closes, ()) = tokio::join!(closes, server.stop());
    assert_eq!(closes, ((3001, "shutdown".to_owned()), (3001, "shutdown".to_owned())));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_unresponsive_clients() {
    let mut config = Config::default();
    config.timeouts.close = Duration::from_millis(50);
    let server = Fixture::start(config).await;
    let _silent = server.join().await;
    let _half_open = TcpStream::connect(server.address).await.unwrap();
    // Connections are accepted in order, so the other one is accepted when this one is answered.
    assert!(server.get("/health").await.starts_with("HTTP/1.1 200"));
    // With paused time and without traffic, the clock advances to the next deadline.
    tokio::time::pause();
    let start = Instant::now();
    server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_contradictory_configuration_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::default();
    config.limits.queue_bytes_max = 0;
    let error = serve(listener, config, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("limits.queue_bytes_max"), "{error}");
}

#[tokio::test]
async fn protocol_violations_close_with_their_codes() {
    let server = Fixture::start(Config::default()).await;
    for (message, code, reason) in [
        (Message::text("hello"), 3501, "bad request"),
        (Message::text(r#"{"id":1,"ping":{}}"#), 3501, "bad request"),
        (
            Message::text(r#"{"id":1,"connect":{"token":"t"}}"#),
            3500,
            "invalid token",
        ),
        (Message::binary(&b"\x08\x01"[..]), 3506, "inappropriate protocol"),
        (Message::binary(&b"\xff\xfe{}"[..]), 3506, "inappropriate protocol"),
        (Message::text(" ".repeat((256 << 10) + 1)), 1009, ""),
    ] {
        let mut ws = server.connect().await;
        ws.send(message).await.unwrap();
        let (received, text) = close(&mut ws).await;
        assert_eq!(received, code);
        assert!(reason.is_empty() || text == reason, "{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reply_before_a_violation_still_arrives() {
    let server = Fixture::start(Config::default()).await;
    let mut ws = server.connect().await;
    ws.send("{\"id\":1,\"connect\":{}}\nnonsense").await.unwrap();
    assert!(text(&mut ws).await.contains("\"connect\""));
    assert_eq!(close(&mut ws).await.0, 3501);
    server.stop().await;
}

#[tokio::test]
async fn a_client_without_pongs_is_disconnected_and_its_leave_is_announced() {
    let mut config = Config::default();
    config.timeouts.ping_interval = Duration::from_millis(100);
    config.timeouts.pong = Duration::from_millis(50);
    let server = Fixture::start(config).await;
    let mut silent = server.connect().await;
    silent
        .send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\"}}")
        .await
        .unwrap();
    let mut ada = server.connect().await;
    ada.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\",\"join_leave\":true}}")
        .await
        .unwrap();
    let watching = async {
        loop {
            let heard = text(&mut ada).await;
            if heard == "{}" {
                ada.send("{}").await.unwrap();
            } else if heard.contains("\"leave\"") {
                break;
            }
        }
    };
    let ((code, reason), ()) = tokio::join!(close(&mut silent), watching);
    assert_eq!((code, &*reason), (3012, "no pong"));
    drop(ada);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_sends_connect_is_disconnected() {
    let mut config = Config::default();
    config.timeouts.connect = Duration::from_millis(20);
    let server = Fixture::start(config).await;
    let (code, reason) = close(&mut server.connect().await).await;
    assert_eq!((code, &*reason), (3000, "connection closed"));
    server.stop().await;
}

#[tokio::test]
async fn json_in_a_binary_message_is_accepted() {
    let server = Fixture::start(Config::default()).await;
    let mut ws = server.connect().await;
    ws.send(&b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"ping\":{}}"[..])
        .await
        .unwrap();
    assert!(text(&mut ws).await.ends_with("{\"id\":2,\"ping\":{}}"));
    drop(ws);
    server.stop().await;
}

/// The first message of an SDK that connects with many subscriptions.
#[tokio::test]
async fn a_first_message_of_120_subscriptions_with_tokens_is_accepted() {
    let server = Fixture::start(Config::default()).await;
    let mut ws = server.connect().await;
    let mut frame = "{\"id\":1,\"connect\":{}}".to_owned();
    for n in 0..120 {
        let token = "t".repeat(600);
        let subscribe = format!(
            r#"{{"id":{},"subscribe":{{"channel":"c{n}","token":"{token}"}}}}"#,
            n + 2
        );
        frame = format!("{frame}\n{subscribe}");
    }
    assert!(frame.len() > 76_000, "{}", frame.len());
    ws.send(frame).await.unwrap();
    let mut replies = 0;
    while replies < 121 {
        replies += text(&mut ws).await.lines().count();
    }
    drop(ws);
    server.stop().await;
}

#[tokio::test]
async fn ping_frames_on_request_disconnect_a_client_without_pongs() {
    let mut config = Config::default();
    config.timeouts.ping_interval = Duration::from_millis(100);
    config.timeouts.pong = Duration::from_millis(50);
    let server = Fixture::start(config).await;
    let url = format!(
        "ws://{}/connection/websocket?format=json&cf_ws_frame_ping_pong=true",
        server.address
    );
    let mut ws = sockeye::connect(&url).await.unwrap();
    ws.send("{\"id\":1,\"connect\":{}}").await.unwrap();
    let reply = text(&mut ws).await;
    assert!(!reply.contains("\"ping\"") && !reply.contains("\"pong\""), "{reply}");
    // The plain TCP client does not answer pings.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = server.upgrade_request("/connection/websocket?cf_ws_frame_ping_pong=true", "");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
        .write_all(&masked(&format!("{{\"id\":1,\"connect\":{{}}}}{:200}", "")))
        .await
        .unwrap();
    let mut received = Vec::new();
    tokio::select! {
        // The library answers ping frames while it receives.
        message = ws.recv() => panic!("{message:?} came to the client that answers"),
        read = timeout(TIMEOUT, stream.read_to_end(&mut received)) => {
            read.expect("the silent client was kept").unwrap();
        }
    }
    // A ping frame with a payload of four bytes.
    const PING: [u8; 2] = [0x89, 4];
    assert!(received.windows(2).any(|window| window == PING), "{received:x?}");
    ws.send("{\"id\":2,\"ping\":{}}").await.unwrap();
    assert_eq!(text(&mut ws).await, "{\"id\":2,\"ping\":{}}");
    drop(ws);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_others_receive_everything() {
    let mut config = Config::default();
    config.limits.queue_bytes_max = 256 << 10;
    config.limits.reply_size_max = 128 << 10;
    config.limits.history_bytes_per_channel_max = 96 << 10;
    config.timeouts.close = Duration::from_millis(20);
    let server = Fixture::start(config).await;
    let mut slow = server.join().await;
    let (mut ada, mut bob) = (server.join().await, server.join().await);
    let big = format!(
        r#"{{"id":3,"publish":{{"channel":"room","data":"{}"}}}}"#,
        "x".repeat(32 << 10)
    );
    // 16 MiB: more than the buffers of the kernel, the write buffer and the queue together.
    for _ in 0..512 {
        ada.send(big.as_str()).await.unwrap();
        for ws in [&mut ada, &mut bob] {
            assert!(text(ws).await.contains("\"pub\""));
        }
        assert_eq!(text(&mut ada).await, r#"{"id":3,"publish":{}}"#);
    }
    ada.send(r#"{"id":4,"presence_stats":{"channel":"room"}}"#)
        .await
        .unwrap();
    assert!(text(&mut ada).await.contains(r#""num_clients":2"#));
    let drained = async { while let Ok(Some(_)) = slow.recv().await {} };
    timeout(TIMEOUT, drained).await.expect("the connection did not end");
    server.stop().await;
}

/// Captures the log of this thread, on which the whole server of a test runs.
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(crate) fn capture() -> Self {
        let lines = Arc::<Mutex<Vec<u8>>>::default();
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || Sink(sink.clone()))
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Returns the lines about refusals since the last call.
    fn refusals(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.lines.lock());
        let lines = String::from_utf8(lines).unwrap();
        let refusals = lines.lines().filter(|line| line.contains("refused a connection"));
        refusals.map(str::to_owned).collect()
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// All lines since the last call of [`refusals`](Self::refusals).
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.lock()).into_owned()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn pages_of_other_sites_may_not_connect() {
    let server = Fixture::start(Config::default()).await;
    let own = server.address.to_string();
    let foreign = server.upgrade(&own, "Origin: https://attacker.example\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    // A name that resolves to this machine (DNS rebinding).
    let rebound = server
        .upgrade("attacker.example", "Origin: http://attacker.example\r\n")
        .await;
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    let client = Client::builder().origin(format!("http://{own}")).build().unwrap();
    assert!(
        client
            .connect(&format!("ws://{own}/connection/websocket"))
            .await
            .is_ok()
    );
    server.stop().await;
}

/// An empty list of subprotocols is treated as absent, as by other servers.
#[tokio::test]
async fn an_empty_subprotocol_header_offers_none() {
    let server = Fixture::start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = server.upgrade_request("/connection/websocket", "Sec-WebSocket-Protocol: \r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn every_refusal_is_logged_with_the_reason_in_the_response() {
    let log = Log::capture();
    let mut config = Config::default();
    config.limits.connections_max = 2;
    let server = Fixture::start(config).await;
    let own = server.address.to_string();
    for (host, headers, status, reason) in [
        (
            &*own,
            "Origin: https://chat.example\r\n",
            403,
            "origin https://chat.example may not connect; the request was for host",
        ),
        (
            "chat.example",
            "Origin: https://chat.example\r\n",
            421,
            "host chat.example is not allowed; the request came from origin https://chat.example",
        ),
        (
            &*own,
            "Sec-WebSocket-Protocol: a,,a b\r\n",
            400,
            "Sec-WebSocket-Protocol",
        ),
        (&*own, "Sec-WebSocket-Key: eA==\r\n", 400, "Sec-WebSocket-Key"),
    ] {
        let answer = server.upgrade(host, headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(reason), "{answer}");
        let lines = log.refusals();
        assert_eq!(lines.len(), 1, "{lines:?}");
        // The list of what is allowed is only logged.
        let is_denied = matches!(status, 403 | 421);
        assert_eq!(lines[0].contains("; allowed: "), is_denied, "{lines:?}");
        assert!(!answer.contains("allowed: "), "{answer}");
        assert!(
            lines[0].contains(reason) && lines[0].contains(&format!("status={status}")),
            "{lines:?}"
        );
    }
    // Requests that hyper refuses.
    assert!(server.http("NO HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_eq!(log.refusals().len(), 1);
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    assert!(server.http(&large).await.starts_with("HTTP/1.1 431"));
    assert_eq!(log.refusals().len(), 1);
    let clients = (server.join().await, server.join().await);
    let full = server.get("/").await;
    assert!(
        full.starts_with("HTTP/1.1 503") && full.ends_with("try again later\r\n"),
        "{full}"
    );
    let lines = log.refusals();
    assert!(
        lines.len() == 1 && lines[0].contains("limits.connections_max (2)"),
        "{lines:?}"
    );
    drop(clients);
    server.stop().await;
}

/// Operators can see codes after which SDKs do not reconnect.
#[tokio::test]
async fn disconnects_without_reconnect_are_logged() {
    let log = Log::capture();
    let server = Fixture::start(Config::default()).await;
    let large = "x".repeat(9000);
    for (message, line) in [
        ("nonsense".to_owned(), "bad request (3501)"),
        (" ".repeat((256 << 10) + 1), "limits.message_size_max"),
        (
            format!(r#"{{"id":1,"connect":{{"data":"{large}"}}}}"#),
            "code=limit exceeded (106)",
        ),
    ] {
        let mut ws = server.connect().await;
        ws.send(message).await.unwrap();
        // Ends the connection if the first message did not.
        let _ = ws.send("{\"id\":2,\"ping\":{}}").await;
        close(&mut ws).await;
        // Logged before the closing handshake, or after it if the library has closed the connection.
        let logged = async {
            while !log.contains(line) {
                tokio::task::yield_now().await;
            }
        };
        timeout(TIMEOUT, logged).await.expect(line);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_refusal_log_is_rate_limited() {
    let log = Log::capture();
    let server = Fixture::start(Config::default()).await;
    let own = server.address.to_string();
    let start = std::time::Instant::now();
    for _ in 0..300 {
        server.upgrade(&own, "Origin: https://attacker.example\r\n").await;
    }
    let bound = 20 + 1 + start.elapsed().as_secs() as usize;
    let lines = log.refusals().len();
    assert!((20..=bound).contains(&lines), "{lines} lines");
    server.stop().await;
}

/// A proxy on the same machine that preserves the Host header. The page and the WebSocket have the same policy.
#[tokio::test]
async fn a_denied_host_gets_the_reason_and_no_page() {
    let server = Fixture::start(Config::default()).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n");
    for path in ["/", "/chat.js", "/market/symbols.json"] {
        let answer = server.http(&get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert!(answer.contains("--allow-host=chat.example"), "{answer}");
    }
    // Health probes may use any host.
    assert!(server.http(&get("/health")).await.starts_with("HTTP/1.1 200"));
    server.stop().await;

    let config = Config {
        hosts: Some(HostPolicy::List(vec![Authority::parse("chat.example").unwrap()])),
        ..Config::default()
    };
    let server = Fixture::start(config).await;
    assert!(server.http(&get("/")).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn a_page_can_ask_why_its_websocket_is_refused() {
    let server = Fixture::start(Config::default()).await;
    let own = server.address.to_string();
    let check = |host: &str, origin: &str| {
        format!(
            "GET /connection/check HTTP/1.1\r\nHost: {host}\r\nSockeye-Page-Origin: {origin}\r\n\
             Connection: close\r\n\r\n"
        )
    };
    let ok = server.http(&check(&own, &format!("http://{own}"))).await;
    assert!(ok.starts_with("HTTP/1.1 200") && ok.ends_with("\r\n\r\nok\n"), "{ok}");
    let origin = server.http(&check(&own, "https://chat.example")).await;
    assert!(origin.starts_with("HTTP/1.1 403"), "{origin}");
    assert!(origin.contains("--allow-origin=https://chat.example"), "{origin}");
    let host = server.http(&check("chat.example", "https://chat.example")).await;
    assert!(host.starts_with("HTTP/1.1 421"), "{host}");
    assert!(host.contains("--allow-host=chat.example"), "{host}");
    server.stop().await;
}

/// Pages of browser extensions and embedded browsers have special origins, which can be listed too.
#[tokio::test]
async fn listed_origins_without_a_web_scheme_may_connect() {
    const ORIGINS: [&str; 3] = ["chrome-extension://abcdefghijklmnop", "file://", "null"];
    for allowed in ORIGINS {
        let config = Config {
            origins: sockeye::OriginPolicy::List(vec![allowed.parse().unwrap()]),
            ..Config::default()
        };
        let server = Fixture::start(config).await;
        for origin in ORIGINS {
            let client = Client::builder().origin(origin).build().unwrap();
            let url = format!("ws://{}/connection/websocket", server.address);
            assert_eq!(
                client.connect(&url).await.is_ok(),
                origin == allowed,
                "{origin} at {allowed}"
            );
        }
        server.stop().await;
    }
}

/// A client may close with any code, including private ones. It is not an error for other clients or in the log.
#[tokio::test]
async fn any_close_code_from_the_client_is_a_normal_end() {
    let log = Log::capture();
    let server = Fixture::start(Config::default()).await;
    let mut watchers = Vec::new();
    for code in [1000, 1001, 1011, 3000, 4001] {
        let mut watcher = server.connect().await;
        watcher
            .send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\",\"join_leave\":true}}")
            .await
            .unwrap();
        let mut ws = server.join().await;
        ws.close(sockeye::CloseCode::from(code), "done").await.unwrap();
        while !text(&mut watcher).await.contains("\"leave\"") {}
        assert!(!log.contains("connection failed"), "{code}");
        // Kept, because dropping it would abort the connection.
        watchers.push(watcher);
    }
    server.stop().await;
}

#[tokio::test]
async fn only_the_page_and_its_files_are_served() {
    let server = Fixture::start(Config::default()).await;
    for (path, content_type) in [
        ("/", "text/html"),
        ("/?room=x", "text/html"),
        ("/chat", "text/html"),
        ("/chat.css", "text/css"),
        ("/chat.js", "text/javascript"),
        ("/connection.js", "text/javascript"),
        ("/view.js", "text/javascript"),
        ("/market", "text/html"),
        ("/market/symbols.json", "application/json"),
        ("/market/candles.json?symbol=ALAI", "application/json"),
        ("/game", "text/html"),
        ("/vendor/centrifuge-5.8.0.js", "text/javascript"),
        ("/vendor/centrifuge.LICENSE", "text/plain"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let answer = server.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(
            answer.contains(&format!("content-type: {content_type}")),
            "{path}: {answer}"
        );
        assert!(
            answer.contains("content-security-policy: default-src 'none';"),
            "{path}"
        );
    }
    assert!(server.get("/index.html").await.starts_with("HTTP/1.1 404"));
    assert!(server.get("/../Cargo.toml").await.starts_with("HTTP/1.1 404"));
    assert!(server.get("/connection/websocket").await.starts_with("HTTP/1.1 426"));
    assert!(server.get("/market/candles.json").await.starts_with("HTTP/1.1 404"));
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
    assert!(server.http(post).await.starts_with("HTTP/1.1 405"));
    server.stop().await;
}

#[tokio::test]
async fn without_demonstrations_there_are_no_pages() {
    let config = Config {
        demos: false,
        ..Config::default()
    };
    let server = Fixture::start(config).await;
    for path in ["/", "/chat", "/market/symbols.json", "/favicon.svg"] {
        assert!(server.get(path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(server.get("/health").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn files_with_a_version_in_their_path_may_be_kept() {
    let server = Fixture::start(Config::default()).await;
    let kept = "cache-control: public, max-age=31536000, immutable";
    assert!(server.get("/vendor/centrifuge-5.8.0.js").await.contains(kept));
    assert!(!server.get("/connection.js").await.contains(kept));
    server.stop().await;
}

#[tokio::test]
async fn request_heads_that_are_too_large_or_too_slow_end_the_connection() {
    let mut config = Config::default();
    config.timeouts.request_head = Duration::from_millis(50);
    let server = Fixture::start(config).await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(20 << 10)
    );
    let answer = server.http(&large).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(!server.http("GET / HTTP/1.1\r\nHost:").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_gets_503_and_a_freed_permit_is_reused() {
    let mut config = Config::default();
    config.limits.connections_max = 2;
    let server = Fixture::start(config).await;
    let (first, mut second) = (server.join().await, server.join().await);
    assert!(server.get("/health").await.starts_with("HTTP/1.1 503"));
    first.abort();
    // The pings give the server time to notice the abort.
    let health = async {
        while !server.get("/health").await.starts_with("HTTP/1.1 200") {
            second.send_ping(b"").await.unwrap();
        }
    };
    timeout(TIMEOUT, health).await.expect("the place was not freed");
    drop(second);
    server.stop().await;
}
