//! The examples, run as programs. `cargo test` builds them before the tests; before `cargo test --test examples`, build them
//! with `cargo build --examples`.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{text_of, within};
use sockeye::http::StatusCode;
use sockeye::{CloseCode, Incoming, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running example. Killed when dropped.
struct Example(Child);

impl Example {
    fn start(name: &str, args: &[&str]) -> Self {
        let tests = std::env::current_exe().unwrap();
        let directory = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
        let program: PathBuf = directory.join(name).with_extension(std::env::consts::EXE_EXTENSION);
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// Starts a server on a free port, and returns its address.
    fn serve(name: &str) -> (Self, String) {
        let mut example = Self::start(name, &["127.0.0.1:0"]);
        let mut line = String::new();
        BufReader::new(example.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (_, address) = line
            .trim()
            .trim_end_matches('/')
            .split_once("://")
            .expect("its address");
        (example, address.to_owned())
    }

    /// Sends SIGINT, as Ctrl+C does.
    #[cfg(unix)]
    fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the exit. Returns whether it was successful, and the output.
    async fn finish(mut self) -> (bool, String, String) {
        let status = within(30, async {
            loop {
                match self.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        });
        let status = status.await;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.as_mut().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.as_mut().unwrap().read_to_string(&mut stderr).unwrap();
        (status.success(), stdout, stderr)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(30, tcp.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn echo_server_answers_client_and_health_checks() {
    let (_server, address) = Example::serve("echo_server");
    let client = Example::start("client", &[&format!("ws://{address}/"), "hi there"]);
    let (is_good, stdout, stderr) = client.finish().await;
    assert!(
        is_good && stdout.starts_with("Text(\"hi there\") after "),
        "{stdout}{stderr}"
    );
    let response = get(&address, "/").await;
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok\n"),
        "{response}"
    );
    // Without the server, the client prints the cause on one line.
    drop(_server);
    let (is_good, _, stderr) = Example::start("client", &[&format!("ws://{address}/")]).finish().await;
    assert!(
        !is_good && stderr.contains(&format!("cannot connect to {address}: Connection refused")),
        "{stderr}"
    );
}

#[tokio::test]
async fn chat_separates_rooms_and_closes_with_1001_on_ctrl_c() {
    let (chat, address) = Example::serve("chat");
    let join = async |room: &str| {
        let mut ws = sockeye::connect(&format!("ws://{address}/{room}")).await.unwrap();
        // A member receives its own message once it is in the room.
        ws.send("here").await.unwrap();
        assert!(text_of(within(30, ws.recv()).await).ends_with(": here"));
        ws
    };
    let (mut one, mut other) = (join("one").await, join("other").await);
    let mut second = join("one").await;
    assert_eq!(text_of(within(30, one.recv()).await), "3: here");
    second.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, one.recv()).await), "3: hello");
    other.send("nobody but me").await.unwrap();
    assert_eq!(text_of(within(30, other.recv()).await), "2: nobody but me");
    #[cfg(unix)]
    {
        chat.interrupt();
        for mut ws in [one, other] {
            assert_eq!(within(30, ws.recv()).await.unwrap(), None);
            assert_eq!(u16::from(ws.close_info().unwrap().received().unwrap().code), 1001);
        }
        drop(second);
        let (is_good, ..) = chat.finish().await;
        assert!(is_good);
    }
}

#[tokio::test]
async fn feed_subscribes_and_reconnects_until_ctrl_c() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let feed = Example::start("feed", &[&url, "ETH-USD"]);
    let server = Server::builder().subprotocols(["v1.feed"]).build();
    let accept = async || -> Incoming {
        let (tcp, _) = within(30, listener.accept()).await.unwrap();
        server.accept(tcp).await.unwrap()
    };
    // First unavailable, then the connection is lost, then the server shuts down, then it works.
    accept().await.reject(StatusCode::SERVICE_UNAVAILABLE).await;
    accept().await.accept().await.unwrap().abort();
    let mut leaving = accept().await.accept().await.unwrap();
    within(30, leaving.close(CloseCode::GOING_AWAY, "")).await.unwrap();
    let mut ws = accept().await.accept().await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v1.feed"));
    assert_eq!(text_of(within(30, ws.recv()).await), "subscribe ETH-USD");
    ws.send("ETH-USD 2000.5").await.unwrap();
    #[cfg(unix)]
    {
        ws.send_ping(b"").await.unwrap();
        while ws.rtt().is_none() {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), ws.recv()).await;
        }
        feed.interrupt();
        assert_eq!(within(30, ws.recv()).await.unwrap(), None);
        let (is_good, stdout, stderr) = feed.finish().await;
        assert!(is_good && stdout == "ETH-USD 2000.5\n", "{stdout}{stderr}");
        assert!(
            stderr.contains("status 503 Service Unavailable; trying again in "),
            "{stderr}"
        );
        assert!(stderr.contains("the server restarts; trying again in "), "{stderr}");
        assert_eq!(stderr.matches("; trying again in ").count(), 3, "{stderr}");
        assert!(stderr.contains("messages/s"), "{stderr}");
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_serves_a_websocket_beside_a_page() {
    use sockeye::{Client, ErrorKind};
    let (server, address) = Example::serve("axum");
    let response = get(&address, "/").await;
    assert!(response.contains("a WebSocket is at /ws"), "{response}");
    let client = Client::builder().subprotocols(["v2.echo", "v1.echo"]).build().unwrap();
    let mut ws = client.connect(&format!("ws://{address}/ws")).await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v1.echo"));
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
    let foreign = client
        .request(format!("ws://{address}/ws"))
        .origin("https://evil.example");
    let error = foreign.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.response().unwrap().status(), StatusCode::FORBIDDEN);
    #[cfg(unix)]
    {
        server.interrupt();
        assert_eq!(within(30, ws.recv()).await.unwrap(), None);
        assert_eq!(ws.close_info().unwrap().received().unwrap().code, CloseCode::GOING_AWAY);
        let (is_good, _, stderr) = server.finish().await;
        assert!(is_good && stderr.contains("https://evil.example"), "{stderr}");
    }
}
