//! Protobuf over WebSocket, and the transports without WebSocket, over real sockets.

use sockeye::Message;

use super::tests::{Fixture, TIMEOUT};
use super::*;
use crate::engine::cluster::simulated::{SimServer, SimStore};

/// A stream of frames in the response to one request.
struct Stream {
    tcp: TcpStream,
    heard: String,
}

impl Stream {
    async fn open(fixture: &Fixture, request: &str) -> Self {
        let mut tcp = TcpStream::connect(fixture.address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        Self {
            tcp,
            heard: String::new(),
        }
    }

    /// Reads until the response contains a text.
    #[track_caller]
    fn hear(&mut self, text: &str) -> impl Future<Output = &str> {
        let caller = std::panic::Location::caller();
        async move {
            while !self.heard.contains(text) {
                let mut buf = [0; 4096];
                let read = timeout(TIMEOUT, self.tcp.read(&mut buf)).await;
                let len = read.unwrap_or_else(|_| panic!("{caller}: no {text} in {}", self.heard));
                let len = len.unwrap();
                assert!(len > 0, "{caller}: closed after {}", self.heard);
                self.heard.push_str(std::str::from_utf8(&buf[..len]).unwrap());
            }
            &*self.heard
        }
    }
}

fn post(fixture: &Fixture, path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        fixture.address,
        body.len()
    )
}

/// Publishes over `/emulation` with the secret in what a stream has received, and waits for the publication.
async fn publish(fixture: &Fixture, stream: &mut Stream) {
    let heard = stream.hear("\"session\":\"").await;
    let (_, rest) = heard.split_once("\"session\":\"").unwrap();
    let secret = rest.split('"').next().unwrap();
    let body = format!(
        r#"{{"session":"{secret}","node":"n","data":"{{\"id\":3,\"publish\":{{\"channel\":\"room\",\"data\":42}}}}"}}"#
    );
    let request = post(fixture, "/emulation", &body).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answer = fixture.http(&request).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    stream.hear(r#""pub":{"data":42"#).await;
    stream.hear(r#"{"id":3,"publish":{}}"#).await;
}

const COMMANDS: &str = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"room\"}}";

#[tokio::test]
async fn a_client_uses_http_streaming() {
    let fixture = Fixture::start(Config::default()).await;
    let request = post(&fixture, "/connection/http_stream", COMMANDS);
    let mut stream = Stream::open(&fixture, &request).await;
    stream.hear("{\"id\":2,\"subscribe\":{").await;
    publish(&fixture, &mut stream).await;
    fixture.shutdown.send(()).unwrap();
    stream
        .hear(r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#)
        .await;
}

#[tokio::test]
async fn a_client_uses_server_sent_events() {
    let fixture = Fixture::start(Config::default()).await;
    let commands = COMMANDS
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22")
        .replace('\n', "%0A");
    let request = format!(
        "GET /connection/sse?cf_connect={commands} HTTP/1.1\r\nHost: {}\r\n\r\n",
        fixture.address
    );
    let mut stream = Stream::open(&fixture, &request).await;
    stream.hear("content-type: text/event-stream").await;
    stream.hear("data: {\"id\":2,\"subscribe\":{").await;
    publish(&fixture, &mut stream).await;
}

#[tokio::test]
async fn streams_are_refused_to_other_origins_and_unknown_sessions() {
    let fixture = Fixture::start(Config::default()).await;
    let close = |request: String| request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let request = post(&fixture, "/connection/http_stream", COMMANDS);
    let foreign = request.replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n");
    let answer = fixture.http(&close(foreign)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let unknown = post(&fixture, "/emulation", r#"{"session":"x","node":"n","data":"{}"}"#);
    let answer = fixture.http(&close(unknown)).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let answer = fixture.get("/connection/http_stream").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn protobuf_is_chosen_by_subprotocol_or_query() {
    let fixture = Fixture::start(Config::default()).await;
    let url = |query: &str| format!("ws://{}/connection/websocket{query}", fixture.address);
    for (url, subprotocol) in [
        (url(""), Some("centrifuge-protobuf")),
        (url("?format=protobuf"), None),
        (url("?cf_protocol=protobuf"), None),
    ] {
        let mut client = sockeye::Client::builder();
        if let Some(subprotocol) = subprotocol {
            client = client.subprotocols([subprotocol]);
        }
        let client = client.build().unwrap();
        let mut ws = client.connect(&url).await.unwrap();
        // Two commands: id 1 with an empty connect (field 4), id 2 with a ping (field 11).
        let frame: &[u8] = &[4, 1 << 3, 1, 4 << 3 | 2, 0, 4, 1 << 3, 2, 11 << 3 | 2, 0];
        ws.send(frame).await.unwrap();
        let Message::Binary(replies) = timeout(TIMEOUT, ws.recv()).await.unwrap().unwrap().unwrap() else {
            panic!("not binary")
        };
        let (connect, ping) = replies.split_at(usize::from(replies[0]) + 1);
        assert_eq!(connect[1..4], [1 << 3, 1, 5 << 3 | 2]);
        assert_eq!(ping, [4, 1 << 3, 2, 12 << 3 | 2, 0]);
    }
}

/// A node of a cluster, on a socket of its own.
async fn node(store: &Arc<SimServer>) -> (Fixture, String) {
    let uid = crate::node::random_uid();
    let node = Node::with_store(Config::default(), SimStore::new(store, &uid), uid.clone());
    let (shutdown, told) = tokio::sync::oneshot::channel();
    let server = Server {
        node: node.clone(),
        shutdown: async { drop(told.await) },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fixture = Fixture {
        address: listener.local_addr().unwrap(),
        shutdown,
        serving: tokio::spawn(server.serve(listener)),
    };
    let is_registered = async || {
        let nodes = node.engine().nodes()?.nodes().await.ok()?;
        nodes.iter().any(|node| node.uid == *uid).then_some(())
    };
    while is_registered().await.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (fixture, uid.to_string())
}

/// The text between two others.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

#[tokio::test]
async fn commands_reach_a_stream_on_another_node_in_their_order() {
    let store = SimServer::new(1);
    let ((one, uid), (two, _)) = (node(&store).await, node(&store).await);
    let request = post(&one, "/connection/http_stream", COMMANDS);
    let mut stream = Stream::open(&one, &request).await;
    let heard = stream.hear("{\"id\":2,\"subscribe\":{").await;
    let secret = between(heard, "\"session\":\"", "\"").to_owned();
    assert_eq!(between(heard, "\"node\":\"", "\""), uid);
    let send = async |session: &str, at: &str, data: &str| {
        let data = data.replace('"', "\\\"");
        let body = format!(r#"{{"session":"{session}","node":"{at}","data":"{data}"}}"#);
        let request = post(&two, "/emulation", &body).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        two.http(&request).await
    };
    for n in 1..=30 {
        let command = format!(r#"{{"id":{n},"publish":{{"channel":"room","data":{n}}}}}"#);
        let answer = send(&secret, &uid, &command).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
    let heard = stream.hear(r#""pub":{"data":30"#).await.to_owned();
    let places: Vec<_> = (1..=30)
        .map(|n| {
            heard
                .find(&format!(r#""pub":{{"data":{n},"#))
                .or(heard.find(&format!(r#""pub":{{"data":{n}}}"#)))
        })
        .collect();
    assert!(places.is_sorted() && places[0].is_some(), "{heard}");

    let missing = "there is no such session; connect again\n";
    for (session, at) in [(&*secret, "other"), ("other", &*uid), (&*secret, "")] {
        let answer = send(session, at, "{}").await;
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.ends_with(missing),
            "{answer}"
        );
    }
    // A node that was killed is registered a little longer.
    store.kill(&uid);
    let answer = send(&secret, &uid, "{}").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.ends_with("does not answer; connect again\n"), "{answer}");
    store.set_down(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = send(&secret, &uid, "{}").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}
