//! Hooks and handlers over real sockets: a backend over HTTP, and clients over WebSocket and HTTP streaming.

use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::WebSocket;

use super::tests::{Fixture, TIMEOUT};
use super::*;
use crate::config::Access;

/// A backend that answers by the path of the request. Returns its address and the number of requests so far.
async fn backend(answer: fn(&str, &str) -> Option<&'static str>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut request = String::new();
                let mut buf = [0; 4096];
                while !request.ends_with('}') {
                    match stream.read(&mut buf).await {
                        Ok(len @ 1..) => request.push_str(std::str::from_utf8(&buf[..len]).unwrap()),
                        _ => return,
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let path = request.split(' ').nth(1).unwrap().to_owned();
                match answer(&path, &request) {
                    Some(answer) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                            answer.len()
                        );
                        let _ = stream.write_all((head + answer).as_bytes()).await;
                    }
                    // No answer until the server gives up.
                    None => drop(stream.read(&mut buf).await),
                }
            });
        }
    });
    (address, requests)
}

fn config(backend: SocketAddr) -> Config {
    let mut config = Config::default();
    let url = |path: &str| Some(format!("http://{backend}/{path}"));
    config.hooks.connect_url = url("connect");
    config.hooks.subscribe_url = url("subscribe");
    config.hooks.rpc_url = url("rpc");
    config.hooks.forward_headers = vec!["Cookie".to_owned()];
    // Patient, for busy machines.
    config.hooks.timeout = Duration::from_secs(9);
    let options = config.channels.as_mut().unwrap();
    options.subscribe_hook = true;
    options.allow_subscribe = Access::Nobody;
    config
}

async fn connect(server: &Fixture, cookie: &str) -> WebSocket {
    let client = sockeye::Client::default();
    let url = format!("ws://{}/connection/websocket", server.address);
    let mut ws = client.request(&url).header("cookie", cookie).connect().await.unwrap();
    ws.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    ws
}

async fn text(ws: &mut WebSocket) -> String {
    let message = timeout(TIMEOUT, ws.recv()).await.expect("no message").unwrap();
    message.expect("closed").as_text().unwrap().to_owned()
}

fn by_cookie(path: &str, request: &str) -> Option<&'static str> {
    match path {
        "/connect" if request.contains("\r\ncookie: session=ada\r\n") => Some(r#"{"result":{"user":"ada"}}"#),
        "/connect" => Some(r#"{"disconnect":{"code":4501,"reason":"log in first"}}"#),
        "/subscribe" if request.contains(r#""channel":"slow""#) => None,
        "/subscribe" if request.contains(r#""user":"ada","channel":"open""#) => Some(r#"{"result":{}}"#),
        "/subscribe" => Some(r#"{"error":{"code":1403,"message":"not yours"}}"#),
        _ => Some(r#"{"result":{"data":{"sum":3}}}"#),
    }
}

#[tokio::test]
async fn a_backend_over_http_decides_about_clients_over_websocket() {
    let (address, _) = backend(by_cookie).await;
    let server = Fixture::start(config(address)).await;
    let mut ada = connect(&server, "session=ada").await;
    assert!(text(&mut ada).await.contains("\"client\""));
    for (frame, expect) in [
        (
            r#"{"id":2,"subscribe":{"channel":"open"}}"#,
            r#"{"id":2,"subscribe":{}}"#,
        ),
        (
            r#"{"id":3,"subscribe":{"channel":"closed"}}"#,
            r#"{"id":3,"error":{"code":1403,"message":"not yours"}}"#,
        ),
        (
            r#"{"id":4,"rpc":{"method":"sum"}}"#,
            r#"{"id":4,"rpc":{"data":{"sum":3}}}"#,
        ),
    ] {
        ada.send(frame).await.unwrap();
        assert_eq!(text(&mut ada).await, expect);
    }
    let mut eve = connect(&server, "session=eve").await;
    let error = timeout(TIMEOUT, eve.recv()).await.unwrap().unwrap_err();
    let close = error.close_info().unwrap();
    assert_eq!(u16::from(close.code()), 4501, "{close:?}");
}

#[tokio::test]
async fn a_slow_backend_delays_only_its_channel_and_then_gives_a_temporary_error() {
    let (address, requests) = backend(by_cookie).await;
    let mut config = config(address);
    config.hooks.timeout = Duration::from_secs(2);
    let server = Fixture::start(config).await;
    let mut ada = connect(&server, "session=ada").await;
    assert!(text(&mut ada).await.contains("\"client\""));
    // One message: the second subscription and the ping do not wait for the first.
    let frame = "{\"id\":2,\"subscribe\":{\"channel\":\"slow\"}}\n{\"id\":3,\"subscribe\":{\"channel\":\"open\"}}\n\
                 {\"id\":4,\"unsubscribe\":{\"channel\":\"slow\"}}\n{\"id\":5,\"ping\":{}}";
    ada.send(frame).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.extend(text(&mut ada).await.lines().map(str::to_owned));
    }
    let expect = [
        r#"{"id":3,"subscribe":{}}"#,
        r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        r#"{"id":4,"unsubscribe":{}}"#,
        r#"{"id":5,"ping":{}}"#,
    ];
    assert_eq!(heard, expect);

    // A client that disconnects in the meantime leaves no subscriber.
    let before = requests.load(Ordering::SeqCst);
    ada.send(r#"{"id":6,"subscribe":{"channel":"slow"}}"#).await.unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while requests.load(Ordering::SeqCst) == before && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(ada);
    loop {
        let metrics = server.get("/metrics").await;
        if metrics.contains("\nsockeye_clients 0\n") && metrics.contains("\nsockeye_subscriptions 0\n") {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics}");
    }
}

#[tokio::test]
async fn a_client_without_websocket_learns_the_code_of_the_backend() {
    let (address, _) = backend(by_cookie).await;
    let server = Fixture::start(config(address)).await;
    let body = r#"{"id":1,"connect":{}}"#;
    let answer = server
        .http(&format!(
            "POST /connection/http_stream HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        ))
        .await;
    let push = r#"{"push":{"disconnect":{"code":4501,"reason":"log in first"}}}"#;
    assert!(answer.contains(push), "{answer}");
}

#[tokio::test]
async fn the_embedding_program_answers_calls_and_publishes() {
    let server = Server::builder()
        .on_rpc(async |call: RpcCall| Ok(call.data))
        .build()
        .unwrap();
    let handle = server.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener));
    let mut ws = sockeye::connect(&format!("ws://{address}/connection/websocket"))
        .await
        .unwrap();
    ws.send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\"}}")
        .await
        .unwrap();
    assert!(text(&mut ws).await.contains("\"subscribe\":{}"));
    ws.send(r#"{"id":3,"rpc":{"method":"echo","data":[7]}}"#).await.unwrap();
    assert_eq!(text(&mut ws).await, r#"{"id":3,"rpc":{"data":[7]}}"#);
    handle.publish("room", crate::PublishOptions::new("8")).await.unwrap();
    assert!(text(&mut ws).await.contains("\"data\":8"));
}
