//! Runs each program: its WebSocket, the rejection of a foreign origin, the page beside it, and the shutdown.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sockeye::http::StatusCode;
use sockeye::{Client, CloseCode, Message};
use tokio::time::{sleep, timeout};

/// The timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program. Killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(path: &str) -> (Self, String) {
        let child = Command::new(path).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn();
        let mut program = Self(child.expect("the program starts"));
        let mut line = String::new();
        let stdout = program.0.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it prints its address");
        let (_, address) = line
            .trim()
            .trim_end_matches('/')
            .split_once("://")
            .expect("its address");
        let address = address.to_owned();
        (program, address)
    }

    /// Sends SIGINT, as Ctrl+C does, and waits for the exit.
    async fn interrupt(mut self) -> bool {
        let kill = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(kill.expect("kill is installed").success());
        let exited = timeout(PATIENCE, async {
            loop {
                match self.0.try_wait().expect("the child can be waited for") {
                    Some(status) => return status.success(),
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        });
        exited.await.expect("it exits")
    }
}

async fn serves_a_websocket(path: &str) {
    let (program, address) = Program::start(path);
    let url = format!("ws://{address}/ws");
    let client = Client::builder().subprotocols(["v1.echo"]).build().unwrap();
    let exchange = async {
        let mut ws = client.connect(&url).await.unwrap();
        assert_eq!(ws.subprotocol(), Some("v1.echo"));
        for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
            ws.send(message.clone()).await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some(message));
        }
        ws.close(CloseCode::NORMAL, "").await.unwrap();

        let foreign = client.request(&url).origin("https://evil.example").connect();
        let error = foreign.await.unwrap_err();
        let response = error.response().expect("the server answers");
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(String::from_utf8_lossy(response.body()).contains("https://evil.example"));

        let mut open = client.connect(&url).await.unwrap();
        open.send("still here").await.unwrap();
        assert_eq!(open.recv().await.unwrap(), Some(Message::text("still here")));
        open
    };
    let mut open = timeout(PATIENCE, exchange).await.expect("the exchange ends");
    assert!(get(&address, "/").contains("a WebSocket is at /ws"));
    let plain = get(&address, "/ws");
    assert!(plain.starts_with("HTTP/1.1 426 "), "{plain}");

    let (is_good, end) = tokio::join!(program.interrupt(), timeout(PATIENCE, open.recv()));
    assert_eq!(end.expect("the connection ends").unwrap(), None);
    let received = open.close_info().and_then(|close_info| close_info.received().cloned());
    assert_eq!(received.expect("the server closes").code, CloseCode::GOING_AWAY);
    assert!(is_good);
}

fn get(address: &str, path: &str) -> String {
    use std::io::Write;
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        tcp,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    tcp.read_to_string(&mut response).unwrap();
    response
}

#[tokio::test]
async fn poem_serves_a_websocket() {
    serves_a_websocket(env!("CARGO_BIN_EXE_poem")).await;
}

#[tokio::test]
async fn salvo_serves_a_websocket() {
    serves_a_websocket(env!("CARGO_BIN_EXE_salvo")).await;
}

#[tokio::test]
async fn warp_serves_a_websocket() {
    serves_a_websocket(env!("CARGO_BIN_EXE_warp")).await;
}
