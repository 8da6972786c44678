//! The crate `sockeye` on wasm32, in a page of headless Chromium, against a Sockeye server.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use sockeye::http::{Response, StatusCode, header};
use sockeye::{CloseCode, DeflateConfig, Error, Incoming, OriginPolicy, Rejection, Server, WebSocket};
use sockeye_tests::interop::{self, Role};
use sockeye_tests::{Certificate, Process, Report, node, patience, peers};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

#[path = "../wasm/page/src/greet.rs"]
#[allow(unreachable_pub, reason = "the guide shows its text")]
mod greet;

/// The cases of `tests/wasm/page/src/cases.rs`.
const CASES: &[&str] = &[
    "the program of the guide",
    "subprotocol",
    "text and binary",
    "1 MiB",
    "burst in order",
    "TLS and compression",
    "json",
    "stream and sink",
    "split",
    "try_recv",
    "close from the page",
    "close with a code that the browser does not send",
    "close from the server",
    "normal close from the server",
    "end without a close frame",
    "server that does not answer the close frame",
    "invalid URL and subprotocols",
    "refused connection",
    "rejected request",
    "server that does not answer the opening handshake",
    "full queue",
    "server that does not read",
    "overflow of the received messages",
    "message over the limit",
    "drop closes",
    "dropped receiver closes",
    "dropped while its event is handled",
    "dropped connect closes",
    "dropped futures lose nothing",
    // Of `tests/peers/wasm_client.mjs`, after the others.
    "in a worker",
    "every socket is closed without event handlers",
];

/// The close frames that the server must have received in these cases: the code and the reason.
const CLOSED_WITH: &[(&str, u16, &str)] = &[
    ("the program of the guide", 1000, "done"),
    ("split", 3001, "done here"),
    ("close from the page", 3001, "done here"),
    ("close with a code that the browser does not send", 4001, "leaving"),
    ("overflow of the received messages", 4013, "too many messages wait"),
    ("message over the limit", 4009, "message too big"),
    // A close frame without a code.
    ("drop closes", 1005, ""),
    ("dropped receiver closes", 1005, ""),
    ("dropped while its event is handled", 1005, ""),
    ("dropped futures lose nothing", 1005, ""),
];

/// The codes and reasons that the server received, by case.
type Ends = BTreeMap<String, Vec<(u16, String)>>;

/// What the server has seen so far.
#[derive(Clone, Default)]
struct Seen {
    ends: Arc<watch::Sender<Ends>>,
    late: Arc<watch::Sender<Late>>,
    /// Compressed messages of the server with TLS: received, sent.
    compressed: Arc<watch::Sender<(u64, u64)>>,
}

/// The progress of the request to `/late`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Late {
    #[default]
    Expected,
    Arrived,
    /// The client has dropped it, so the server may answer.
    Dropped,
    /// The connection has ended.
    Closed,
}

#[tokio::test]
async fn the_program_of_the_guide_runs_natively() {
    let (address, seen) = serve().await;
    let answer = greet::greet(&format!("ws://{address}/echo?native")).await;
    assert_eq!(answer.expect("the server echoes"), "hello");
    seen.closed("native", 1000, "done").await;
}

/// The guide shows the program that the page runs.
#[test]
fn the_guide_shows_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("the file is part of the repository");
    let (guide, program) = (read("../docs/guide/wasm.md"), read("wasm/page/src/greet.rs"));
    assert!(guide.contains(&program), "docs/guide/wasm.md shows another program");
}

#[tokio::test]
#[ignore = "needs Chromium: run `cargo xtask test`"]
async fn chromium_runs_the_crate() {
    let (address, seen) = serve().await;
    let tls_address = serve_tls(seen.clone()).await;
    let mut client = Process::start(node("wasm_client.mjs", &[&address, &tls_address]));
    let mut passed = BTreeSet::new();
    while let Some(report) = Report::next(&mut client).await {
        match report {
            Report::Passed(case) => assert!(passed.insert(case.clone()), "{case} was run twice"),
            other => client.fail(&format!("reported {other:?}")),
        }
    }
    client.exit_ok().await;
    assert_eq!(passed, CASES.iter().map(|&case| case.to_owned()).collect());
    for (case, code, reason) in CLOSED_WITH {
        seen.closed(&case.replace(' ', "-"), *code, reason).await;
    }
    let mut compressed = seen.compressed.subscribe();
    let all = timeout(patience(), compressed.wait_for(|counts| *counts == (3, 3))).await;
    assert!(all.is_ok(), "compressed messages: {:?}", seen.compressed.borrow());
    let features = ["text", "binary", "1 MiB", "close", "compression", "TLS"];
    interop::record(Role::Client, &features);
}

/// Serves the page and the WebSockets of the cases on one port, so that the default policy for origins accepts them.
async fn serve() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound").to_string();
    let seen = Seen::default();
    let (record, late) = (seen.clone(), seen.clone());
    let server = Server::builder().subprotocols(["chat", "superchat"]).build();
    let serving = server
        .serve(listener)
        .on_http(move |request| answer(request.uri().path().to_owned(), late.clone()))
        .run(move |incoming| handle(incoming, record.clone()));
    tokio::spawn(serving);
    (address, seen)
}

/// Serves WebSockets with TLS and compression on a port of their own, which is another origin than that of the page.
async fn serve_tls(seen: Seen) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound").to_string();
    let server = Server::builder()
        .origins(OriginPolicy::Any)
        .compression(DeflateConfig::default())
        .tls_config(Certificate::generate().server_config())
        .build();
    tokio::spawn(server.serve(listener).run(move |incoming| {
        let compressed = seen.compressed.clone();
        async move {
            let mut ws = incoming.accept().await?;
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
                let stats = ws.stats();
                let counts = (stats.received.compressed_messages, stats.sent.compressed_messages);
                compressed.send_replace(counts);
            }
            Ok(())
        }
    }));
    address
}

/// Answers a request that is no opening handshake.
async fn answer(path: String, seen: Seen) -> Response<Vec<u8>> {
    match &*path {
        "/late/arrived" => seen.late(Late::Arrived).await,
        "/late/closed" => seen.late(Late::Closed).await,
        "/late/go" => drop(seen.late.send_replace(Late::Dropped)),
        _ => return file(&path),
    }
    status(StatusCode::OK)
}

/// A file of the page.
fn file(path: &str) -> Response<Vec<u8>> {
    let kind = match path {
        "/index.html" => "text/html",
        "/page.js" | "/worker.js" => "text/javascript",
        "/page_bg.wasm" => "application/wasm",
        _ => return status(StatusCode::NOT_FOUND),
    };
    let Ok(content) = std::fs::read(peers().join("wasm").join(&path[1..])) else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(content);
    let kind = kind.parse().expect("the type is a valid header value");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn status(status: StatusCode) -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = status;
    response
}

/// Does what the path says.
async fn handle(incoming: Incoming, seen: Seen) -> Result<(), Error> {
    let uri = incoming.request().uri().clone();
    let case = uri.query().unwrap_or_default().to_owned();
    match uri.path() {
        "/echo" => {
            let mut ws = incoming.accept().await?;
            let echoed = echo(&mut ws).await;
            seen.record(&case, &ws);
            echoed
        }
        "/close/1000" => close(incoming, CloseCode::NORMAL, "").await,
        "/close/4001" => close(incoming, CloseCode(4001), "from the server").await,
        "/abort" => {
            incoming.accept().await?.abort();
            Ok(())
        }
        // Reads nothing, so it answers neither messages nor a close frame.
        "/silent" => {
            let _ws = incoming.accept().await?;
            pending().await
        }
        "/flood" => {
            let mut ws = incoming.accept().await?;
            let flooded = flood(&mut ws).await;
            seen.record(&case, &ws);
            flooded
        }
        // Answers the request when the client has dropped it.
        "/late" => {
            seen.late.send_replace(Late::Arrived);
            seen.late(Late::Dropped).await;
            // The browser has closed the socket, or does so now with 1001.
            let ended = match incoming.accept().await {
                Ok(mut ws) => echo(&mut ws).await,
                Err(error) => Err(error),
            };
            seen.late.send_replace(Late::Closed);
            ended
        }
        // Does not answer the request.
        "/hang" => {
            let _incoming = incoming;
            pending().await
        }
        _ => {
            incoming.reject(Rejection::from(StatusCode::FORBIDDEN)).await;
            Ok(())
        }
    }
}

async fn echo(ws: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

async fn close(incoming: Incoming, code: CloseCode, reason: &str) -> Result<(), Error> {
    let mut ws = incoming.accept().await?;
    ws.send("the last message").await?;
    ws.close(code, reason).await
}

/// Sends more than the client lets wait, and waits for its close frame.
async fn flood(ws: &mut WebSocket) -> Result<(), Error> {
    for _ in 0..20 {
        ws.send(vec![0; 1000]).await?;
    }
    echo(ws).await
}

impl Seen {
    /// Records the close frame that was received.
    fn record(&self, case: &str, ws: &WebSocket) {
        let received = ws.close_info().and_then(|close_info| close_info.received().cloned());
        let received = received.map_or((1006, String::new()), |frame| (frame.code.0, frame.reason));
        self.ends
            .send_modify(|ends| ends.entry(case.to_owned()).or_default().push(received));
    }

    /// Waits for this progress of the request to `/late`.
    async fn late(&self, progress: Late) {
        let mut late = self.late.subscribe();
        let reached = timeout(patience(), late.wait_for(|late| *late >= progress)).await;
        assert!(reached.is_ok(), "the request to /late did not get this far");
    }

    /// Waits until a connection of a case was closed like this.
    async fn closed(&self, case: &str, code: u16, reason: &str) {
        let expected = (code, reason.to_owned());
        let mut ends = self.ends.subscribe();
        let closed = ends.wait_for(|ends| ends.get(case).is_some_and(|ends| ends.contains(&expected)));
        let closed = timeout(patience(), closed).await.is_ok();
        assert!(
            closed,
            "{case}: expected {expected:?}, saw {:?}",
            self.ends.borrow().get(case)
        );
    }
}
