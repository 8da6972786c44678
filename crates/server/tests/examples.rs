//! The examples, run as programs. `cargo test` builds them before the tests; before `cargo test --test examples`, build
//! them with `cargo build --examples`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sockeye::WebSocket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The timeout of every wait.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A running example. Killed when dropped.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The built program of an example.
fn program(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let directory = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    Command::new(directory.join(name).with_extension(std::env::consts::EXE_EXTENSION))
}

/// Starts an example on a free port, and returns its address.
fn serve(name: &str) -> (Example, String) {
    let mut command = program(name);
    command.arg("127.0.0.1:0").stdout(Stdio::piped());
    let mut example = Example(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")));
    let mut line = String::new();
    let stdout = example.0.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let (_, address) = line
        .trim()
        .trim_end_matches('/')
        .split_once("://")
        .expect("its address");
    (example, address.to_owned())
}

async fn text(ws: &mut WebSocket) -> String {
    let message = timeout(TIMEOUT, ws.recv()).await.expect("no message").unwrap();
    message.expect("closed").as_text().unwrap().to_owned()
}

async fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let len = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut response = String::new();
    let read = timeout(TIMEOUT, stream.read_to_string(&mut response)).await;
    read.expect("no response").unwrap();
    response
}

#[tokio::test]
async fn an_axum_application_publishes_and_answers_calls() {
    let (_example, address) = serve("axum_channels");
    let url = format!("ws://{address}/connection/websocket");
    let mut ws = sockeye::connect(&url).await.unwrap();
    ws.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"orders\"}}")
        .await
        .unwrap();
    assert!(text(&mut ws).await.contains("\"subscribe\":{}"));

    let response = post(&address, "/orders", r#"{"item":"tea"}"#).await;
    assert!(
        response.starts_with("HTTP/1.1 201 ") && response.ends_with("order 1\n"),
        "{response}"
    );
    assert!(text(&mut ws).await.contains(r#""data":{"item":"tea"}"#));
    let response = post(&address, "/orders", "tea").await;
    assert!(response.ends_with("bad request (107)\n"), "{response}");

    for (method, expect) in [
        ("count", r#"{"id":3,"rpc":{"data":1}}"#),
        ("price", r#"{"id":3,"error":{"code":104,"message":"method not found"}}"#),
    ] {
        ws.send(format!(r#"{{"id":3,"rpc":{{"method":"{method}"}}}}"#))
            .await
            .unwrap();
        assert_eq!(text(&mut ws).await, expect);
    }

    // Refused as by the server itself.
    let client = sockeye::Client::default();
    let error = client
        .request(&url)
        .origin("https://evil.example")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(
        error.response().map(|response| response.status().as_u16()),
        Some(403),
        "{error}"
    );
}

#[tokio::test]
async fn the_backend_of_the_quick_start_publishes() {
    let source = include_str!("../examples/publish.rs");
    let (_, code) = source.split_once("\n\n").expect("a comment and the code");
    let page = include_str!("../../../docs/server/README.md");
    assert!(
        page.contains(&format!("```rust\n{code}```\n")),
        "the page has another program"
    );

    let mut config = sockeye_server::Config::default();
    config.api_keys = vec!["dev-key".into()];
    let server = sockeye_server::Server::builder().config(config).build().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener));
    let mut ws = sockeye::connect(&format!("ws://{address}/connection/websocket"))
        .await
        .unwrap();
    ws.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room:1\"}}")
        .await
        .unwrap();
    assert!(text(&mut ws).await.contains("\"subscribe\":{}"));

    let run = move || program("publish").arg(format!("http://{address}")).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let position = String::from_utf8(output.stdout).unwrap();
    assert!(position.contains("\"offset\":1"), "{position}");
    assert!(text(&mut ws).await.contains(r#""data":{"text":"hello from Rust"}"#));
}
