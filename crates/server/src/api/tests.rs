//! The HTTP API as a backend and a client see it: over TCP, with our own WebSocket client.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sockeye::{Message, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{Config, NamespaceOptions, Server};

const TIMEOUT: Duration = Duration::from_secs(20);

const KEY: &str = "X-API-Key: secret\r\n";

struct Fixture {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Fixture {
    async fn start() -> Self {
        let mut config = Config {
            api_keys: vec!["secret".into()],
            ..Config::default()
        };
        config.limits.api_request_size_max = 1 << 20;
        let mut plain = NamespaceOptions::open();
        plain.history_size = 0;
        plain.presence = false;
        config.namespaces.insert("plain".to_owned(), plain);
        Self::with(config).await
    }

    async fn with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().config(config).build().unwrap();
        let handle = server.handle();
        tokio::spawn(server.serve(listener));
        Self { address, handle }
    }

    /// Sends a request, and returns the status and the body of the response.
    async fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        let reading = stream.read_to_end(&mut response);
        timeout(TIMEOUT, reading)
            .await
            .expect("the server did not close")
            .unwrap();
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn post_with(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }

    async fn post(&self, method: &str, body: &str) -> (u16, String) {
        self.post_with(&format!("/api/{method}"), KEY, body.as_bytes()).await
    }

    /// Calls a method, and returns the JSON of the response.
    async fn call(&self, method: &str, body: Value) -> Value {
        let (status, response) = self.post(method, &body.to_string()).await;
        assert_eq!(status, 200, "{method} {body}: {response}");
        serde_json::from_str(&response).unwrap()
    }

    #[track_caller]
    fn error(code: u32) -> Value {
        let code = [
            ErrorCode::UnknownChannel,
            ErrorCode::MethodNotFound,
            ErrorCode::LimitExceeded,
            ErrorCode::BadRequest,
            ErrorCode::NotAvailable,
            ErrorCode::Expired,
            ErrorCode::UnrecoverablePosition,
        ]
        .into_iter()
        .find(|known| known.code() == code)
        .unwrap();
        let message = if code == ErrorCode::MethodNotFound {
            "not found"
        } else {
            code.message()
        };
        json!({"error": {"code": code.code(), "message": message}})
    }

    /// Returns a client that is connected and has sent further commands, whose replies are discarded.
    async fn client(&self, commands: &[&str]) -> WebSocket {
        let url = format!("ws://{}/connection/websocket", self.address);
        let mut client = sockeye::connect(&url).await.unwrap();
        let frame = [&[r#"{"id":1,"connect":{}}"#], commands].concat().join("\n");
        client.send(&*frame).await.unwrap();
        let mut replies = 0;
        while replies < commands.len() + 1 {
            replies += text(&mut client)
                .await
                .lines()
                .filter(|line| line.contains("\"id\""))
                .count();
        }
        client
    }
}

async fn text(client: &mut WebSocket) -> String {
    match timeout(TIMEOUT, client.recv()).await.expect("no message").unwrap() {
        Some(Message::Text(text)) => text.to_string(),
        other => panic!("not a text: {other:?}"),
    }
}

/// Waits for the end of the connection, and returns the close code and reason.
async fn close(client: &mut WebSocket) -> (u16, String) {
    while let Ok(Some(_)) = timeout(TIMEOUT, client.recv()).await.expect("not closed") {}
    let info = client.close_info().unwrap();
    let frame = info.received().unwrap();
    (frame.code.into(), frame.reason.clone())
}

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"room"}}"#;

#[tokio::test]
async fn a_publication_reaches_subscribers_and_the_history() {
    let api = Fixture::start().await;
    let mut client = api.client(&[SUBSCRIBE]).await;
    let published = api
        .call(
            "publish",
            json!({"channel": "room", "data": {"x": 1}, "tags": {"t": "v"}}),
        )
        .await;
    assert_eq!(published["result"]["offset"], 1);
    let epoch = published["result"]["epoch"].as_str().unwrap();
    assert!(!epoch.is_empty());
    let push: Value = serde_json::from_str(&text(&mut client).await).unwrap();
    assert_eq!(push["push"]["channel"], "room");
    assert_eq!(push["push"]["pub"]["data"], json!({"x": 1}));
    assert_eq!(push["push"]["pub"]["tags"], json!({"t": "v"}));

    let history = api.call("history", json!({"channel": "room", "limit": 10})).await;
    let publication = json!({"data": {"x": 1}, "offset": 1, "tags": {"t": "v"}});
    let expect = json!({"result": {"publications": [publication], "offset": 1, "epoch": epoch}});
    assert_eq!(history, expect);
}

#[tokio::test]
async fn data_is_json_or_base64_and_may_span_lines() {
    let api = Fixture::start().await;
    let mut client = api.client(&[SUBSCRIBE]).await;
    for (body, expect) in [
        (
            "{\"channel\":\"room\",\"data\":{\n  \"x\":\r\n1}\n}",
            "\"data\":{   \"x\":  1}",
        ),
        (r#"{"channel":"room","data":null}"#, "\"data\":null"),
        (r#"{"channel":"room","b64data":"eyJ5IjoyfQ=="}"#, "\"data\":{\"y\":2}"),
        (
            r#"{"channel":"room","data":1,"tags":null,"skip_history":null,"new":[{}]}"#,
            "\"data\":1",
        ),
    ] {
        let (status, response) = api.post("publish", body).await;
        assert_eq!(status, 200, "{response}");
        let push = text(&mut client).await;
        assert!(push.contains(expect), "{push}");
    }
    let bad = [
        json!({"channel": "room"}),
        json!({"data": 1}),
        json!({"channel": "", "data": 1}),
        json!({"channel": "room", "b64data": "***"}),
        json!({"channel": "room", "b64data": "bm90IGpzb24="}),
        json!({"channel": "x".repeat(256), "data": 1}),
    ];
    for body in bad {
        assert_eq!(api.call("publish", body.clone()).await, Fixture::error(107), "{body}");
    }
    let large = json!({"channel": "room", "data": "x".repeat(64 << 10)});
    assert_eq!(api.call("publish", large).await, Fixture::error(106));
    let unknown = json!({"channel": "unknown:x", "data": 1});
    assert_eq!(api.call("publish", unknown).await, Fixture::error(102));
}

#[tokio::test]
async fn publications_without_history_have_no_position() {
    let api = Fixture::start().await;
    let plain = api.call("publish", json!({"channel": "plain:x", "data": 1})).await;
    assert_eq!(plain, json!({"result": {}}));
    let skipped = json!({"channel": "room", "data": 1, "skip_history": true});
    let mut client = api.client(&[SUBSCRIBE]).await;
    assert_eq!(api.call("publish", skipped).await, json!({"result": {}}));
    let push: Value = serde_json::from_str(&text(&mut client).await).unwrap();
    assert_eq!(
        (&push["push"]["pub"]["data"], &push["push"]["pub"]["offset"]),
        (&json!(1), &Value::Null)
    );
    let history = api.call("history", json!({"channel": "room", "limit": 1})).await;
    assert_eq!(history["result"]["publications"], json!([]));
}

#[tokio::test]
async fn history_without_limit_is_the_position_only() {
    let api = Fixture::start().await;
    for n in 1..=5 {
        api.call("publish", json!({"channel": "room", "data": n})).await;
    }
    let position = api.call("history", json!({"channel": "room"})).await;
    assert_eq!(position["result"]["publications"], json!([]));
    assert_eq!(position["result"]["offset"], 5);
    let epoch = &position["result"]["epoch"];
    for (request, expect) in [
        (json!({"limit": -1}), vec![1, 2, 3, 4, 5]),
        (json!({"limit": 2, "since": {"offset": 1, "epoch": epoch}}), vec![2, 3]),
        (json!({"limit": 2, "reverse": true}), vec![5, 4]),
        (
            json!({"limit": 9, "reverse": true, "since": {"offset": 3, "epoch": epoch}}),
            vec![2, 1],
        ),
    ] {
        let mut body = request.clone();
        body["channel"] = "room".into();
        let history = api.call("history", body).await;
        let publications = history["result"]["publications"].as_array().unwrap();
        let data: Vec<_> = publications
            .iter()
            .map(|publication| publication["data"].clone())
            .collect();
        assert_eq!(data, expect, "{request}");
    }
    let other = json!({"channel": "room", "limit": 1, "since": {"offset": 1, "epoch": "other"}});
    assert_eq!(api.call("history", other).await, Fixture::error(112));
    assert_eq!(
        api.call("history_remove", json!({"channel": "room"})).await,
        json!({"result": {}})
    );
    let removed = api.call("history", json!({"channel": "room", "limit": -1})).await;
    assert_eq!(
        (&removed["result"]["publications"], &removed["result"]["offset"]),
        (&json!([]), &json!(5))
    );
    for method in ["history", "history_remove"] {
        assert_eq!(
            api.call(method, json!({"channel": "plain:x"})).await,
            Fixture::error(108)
        );
        assert_eq!(api.call(method, json!({"channel": ""})).await, Fixture::error(107));
        assert_eq!(
            api.call(method, json!({"channel": "unknown:x"})).await,
            Fixture::error(102)
        );
    }
}

#[tokio::test]
async fn a_repeated_idempotency_key_publishes_once_per_channel() {
    let api = Fixture::start().await;
    let publish = |channel: &str| json!({"channel": channel, "data": 1, "idempotency_key": "k"});
    let (first, room) = (publish("room"), publish("other"));
    let calls: Vec<_> = (0..20).map(|_| api.call("publish", first.clone())).collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await);
    }
    assert!(
        results
            .iter()
            .all(|result| *result == results[0] && result["result"]["offset"] == 1)
    );
    assert_eq!(api.call("publish", room).await["result"]["offset"], 1);
    let position = api.call("history", json!({"channel": "room"})).await;
    assert_eq!(position["result"]["offset"], 1);
    let broadcast = json!({"channels": ["room", "third"], "data": 2, "idempotency_key": "k"});
    let broadcast = api.call("broadcast", broadcast).await;
    assert_eq!(broadcast["result"]["responses"][0], results[0]);
    assert_eq!(broadcast["result"]["responses"][1]["result"]["offset"], 1);
}

#[tokio::test]
async fn an_outdated_version_is_not_published() {
    let api = Fixture::start().await;
    let publish = |version: u64, epoch: &str| json!({"channel": "room", "data": version, "version": version, "version_epoch": epoch});
    for (version, epoch, offset) in [(5, "a", 1), (4, "a", 1), (5, "a", 1), (6, "a", 2), (1, "b", 3)] {
        let result = api.call("publish", publish(version, epoch)).await;
        assert_eq!(result["result"]["offset"], offset, "{version} {epoch}: {result}");
    }
    let expired = json!({"user": "ada", "channel": "room", "expire_at": 1});
    assert_eq!(api.call("subscribe", expired).await, Fixture::error(110));
}

#[tokio::test]
async fn a_broadcast_has_a_response_for_each_channel() {
    let api = Fixture::start().await;
    let body = json!({"channels": ["room", "unknown:x", "", "plain:x"], "data": 1});
    let response = api.call("broadcast", body).await;
    let responses = &response["result"]["responses"];
    assert_eq!(responses[0]["result"]["offset"], 1);
    assert_eq!(responses[1], Fixture::error(102));
    assert_eq!(responses[2], Fixture::error(107));
    assert_eq!(responses[3], json!({"result": {}}));
    assert_eq!(
        api.call("broadcast", json!({"channels": [], "data": 1})).await,
        Fixture::error(107)
    );
}

#[tokio::test]
async fn presence_channels_and_info_count_clients() {
    let api = Fixture::start().await;
    let _ada = api.client(&[SUBSCRIBE]).await;
    let _bob = api
        .client(&[SUBSCRIBE, r#"{"id":3,"subscribe":{"channel":"chat:x"}}"#])
        .await;
    let presence = api.call("presence", json!({"channel": "room"})).await;
    let members = presence["result"]["presence"].as_object().unwrap();
    assert_eq!(members.len(), 2);
    assert!(
        members
            .iter()
            .all(|(id, info)| info["client"] == **id && info["user"] == "")
    );
    let stats = api.call("presence_stats", json!({"channel": "room"})).await;
    assert_eq!(stats, json!({"result": {"num_clients": 2, "num_users": 1}}));
    assert_eq!(
        api.call("presence", json!({"channel": "plain:x"})).await,
        Fixture::error(108)
    );

    let all = api.call("channels", json!({})).await;
    assert_eq!(
        all,
        json!({"result": {"channels": {"room": {"num_clients": 2}, "chat:x": {"num_clients": 1}}}})
    );
    let some = api.call("channels", json!({"pattern": "chat:*"})).await;
    assert_eq!(some, json!({"result": {"channels": {"chat:x": {"num_clients": 1}}}}));

    let either = api.call("channels", json!({"pattern": "{chat:[x-z],none}"})).await;
    assert_eq!(either, some);
    assert_eq!(
        api.call("channels", json!({"pattern": "chat:["})).await,
        Fixture::error(107)
    );

    let info = api.call("info", json!({})).await;
    let node = &info["result"]["nodes"][0];
    let numbers = ["num_clients", "num_users", "num_subs", "num_channels"].map(|name| node[name].as_u64().unwrap());
    assert_eq!(numbers, [2, 1, 3, 2]);
    assert_eq!(node["name"], "sockeye");
}

#[tokio::test]
async fn clients_are_subscribed_unsubscribed_and_disconnected() {
    let api = Fixture::start().await;
    let mut client = api.client(&[]).await;
    let subscribe = json!({"user": "", "channel": "room", "data": {"hello": 1}});
    assert_eq!(api.call("subscribe", subscribe.clone()).await, json!({"result": {}}));
    assert_eq!(
        text(&mut client).await,
        r#"{"push":{"channel":"room","subscribe":{"data":{"hello":1}}}}"#
    );
    // A second time changes nothing.
    api.call("subscribe", subscribe).await;
    api.call("publish", json!({"channel": "room", "data": 1})).await;
    assert!(text(&mut client).await.contains("\"pub\""));
    let stats = api.call("presence_stats", json!({"channel": "room"})).await;
    assert_eq!(stats["result"]["num_clients"], 1);

    api.call("unsubscribe", json!({"user": "", "channel": "room"})).await;
    let push = r#"{"push":{"channel":"room","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(text(&mut client).await, push);

    let disconnect = json!({"user": "", "disconnect": {"code": 4321, "reason": "bye"}});
    assert_eq!(api.call("disconnect", disconnect).await, json!({"result": {}}));
    assert_eq!(close(&mut client).await, (4321, "bye".to_owned()));
    let invalid = json!({"user": "", "disconnect": {"code": 1000}});
    assert_eq!(api.call("disconnect", invalid).await, Fixture::error(107));
}

#[tokio::test]
async fn a_disconnect_may_spare_clients() {
    let api = Fixture::start().await;
    let mut clients = [api.client(&[SUBSCRIBE]).await, api.client(&[SUBSCRIBE]).await];
    let members = api.handle.presence("room").await.unwrap();
    let spared = &members[0].client;
    api.call("disconnect", json!({"user": "", "whitelist": [spared]})).await;
    // The one that is left still receives publications.
    let mut closed = 0;
    while api.handle.presence("room").await.unwrap().len() > 1 {
        tokio::task::yield_now().await;
    }
    api.call("publish", json!({"channel": "room", "data": 1})).await;
    for client in &mut clients {
        match timeout(TIMEOUT, client.recv()).await.unwrap() {
            Ok(Some(_)) => {}
            _ => {
                let info = client.close_info().unwrap();
                assert_eq!(info.received().unwrap().reason, "force disconnect");
                closed += 1;
            }
        }
    }
    assert_eq!(closed, 1);
    assert_eq!(api.handle.presence("room").await.unwrap()[0].client, *spared);
    api.call("refresh", json!({"user": "", "expired": true})).await;
    while !api.handle.presence("room").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_has_a_reply_for_each_command() {
    let api = Fixture::start().await;
    let commands = json!([
        {"publish": {"channel": "room", "data": 1}},
        {"teleport": {}},
        {"batch": {"commands": []}},
        {"publish": {"channel": "unknown:x", "data": 1}},
        {"presence": null, "history": {"channel": "room", "limit": 1}},
        {},
    ]);
    for parallel in [false, true] {
        let response = api
            .call("batch", json!({"commands": commands, "parallel": parallel}))
            .await;
        let replies = response["replies"].as_array().unwrap();
        assert_eq!(replies.len(), 6);
        assert!(replies[0]["publish"]["offset"].is_u64());
        for unknown in [1, 2, 5] {
            assert_eq!(replies[unknown], Fixture::error(104));
        }
        assert_eq!(replies[3], Fixture::error(102));
        assert_eq!(replies[4]["history"]["publications"].as_array().unwrap().len(), 1);
    }
    // If one command is malformed, none is executed.
    let malformed = r#"{"commands":[{"publish":{"channel":"room","data":1}},{"publish":{"channel":5}}]}"#;
    assert_eq!(api.post("batch", malformed).await.0, 400);
    let position = api.call("history", json!({"channel": "room"})).await;
    assert_eq!(position["result"]["offset"], 2);
    assert_eq!(api.call("batch", json!({})).await, json!({"replies": []}));
}

#[tokio::test]
async fn the_results_of_a_batch_are_limited_together() {
    let api = Fixture::start().await;
    for _ in 0..5 {
        api.call("publish", json!({"channel": "room", "data": "x".repeat(50_000)}))
            .await;
    }
    let history = json!({"history": {"channel": "room", "limit": -1}});
    let mut commands = vec![history; 100];
    commands.push(json!({"publish": {"channel": "room", "data": 1}}));
    let response = api.call("batch", json!({"commands": commands})).await;
    let replies = response["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 101);
    let is_complete = |reply: &serde_json::Value| reply["history"]["publications"].is_array();
    let complete = replies.iter().take_while(|reply| is_complete(reply)).count();
    assert_eq!(complete, (16 << 20) / 250_000, "each has 250,000 bytes and some more");
    assert!(replies[complete..100].iter().all(|reply| *reply == Fixture::error(106)));
    assert!(replies[100]["publish"]["offset"].is_u64(), "small results follow");
}

#[tokio::test]
async fn malformed_requests_are_400() {
    let api = Fixture::start().await;
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"room\"",
        "[\"room\"]",
        "{\"channel\":5}",
        "{\"channel\":\"room\",\"data\":1,\"skip_history\":1}",
        "{\"channel\":\"room\",\"data\":1,\"tags\":{\"a\":1}}",
        "{\"channel\":\"room\",\"data\":}",
        "{\"channel\":\"room\",\"data\":1} x",
    ] {
        assert_eq!(api.post("publish", body).await.0, 400, "{body}");
    }
    assert_eq!(
        api.post_with("/api/publish", KEY, b"{\"channel\":\"\xff\"}").await.0,
        400
    );
    assert_eq!(api.post("info", "").await.0, 400);
    let deep = format!(
        "{{\"channel\":\"room\",\"data\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let (status, body) = api.post("publish", &deep).await;
    assert_eq!((status, body.contains("107")), (200, true), "{body}");
}

#[tokio::test]
async fn a_request_needs_post_a_key_and_a_known_method() {
    let api = Fixture::start().await;
    let get = format!(
        "GET /api/info HTTP/1.1\r\nHost: {}\r\n{KEY}Connection: close\r\n\r\n",
        api.address
    );
    assert_eq!(api.send(get.as_bytes()).await.0, 405);
    for (headers, status) in [
        (KEY, 200),
        ("Authorization: apikey secret\r\n", 200),
        ("Authorization: Bearer secret\r\n", 401),
        ("X-API-Key: wrong\r\n", 401),
        ("", 401),
    ] {
        assert_eq!(api.post_with("/api/info", headers, b"{}").await.0, status, "{headers}");
    }
    assert_eq!(api.post("teleport", "{}").await.0, 404);
    assert_eq!(api.post("", "{}").await.0, 404);

    let without_key = Fixture::with(Config::default()).await;
    assert_eq!(without_key.post("info", "{}").await.0, 401);
    let config = Config {
        insecure_api: true,
        ..Config::default()
    };
    let insecure = Fixture::with(config).await;
    assert_eq!(insecure.post_with("/api/info", "", b"{}").await.0, 200);
}

/// The response to a request that is too large arrives, although the client sends everything before it reads.
#[tokio::test]
async fn a_request_that_is_too_large_gets_its_answer() {
    let api = Fixture::start().await;
    let data = "x".repeat(1 << 20);
    let (status, reason) = api
        .post("publish", &format!(r#"{{"channel":"room","data":"{data}"}}"#))
        .await;
    assert_eq!(status, 413);
    assert!(reason.contains("limits.api_request_size_max"), "{reason}");
    let (status, _) = api.post("publish", &"x".repeat(8 << 20)).await;
    assert_eq!(status, 413);
    // The same without a declared length.
    let mut chunked = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {}\r\n{KEY}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        api.address
    );
    for _ in 0..40 {
        chunked.push_str(&format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
    }
    chunked.push_str("0\r\n\r\n");
    assert_eq!(api.send(chunked.as_bytes()).await.0, 413);
    // A client that asks first is refused before it sends.
    let asking = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {}\r\n{KEY}Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n",
        api.address
    );
    let (status, _) = api.send(asking.as_bytes()).await;
    assert_eq!(status, 413);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_during_an_outage() {
    use crate::engine::cluster::simulated::{SimServer, SimStore};
    use crate::node::Node;

    let mut config = crate::config::Config::default();
    config.channels.as_mut().unwrap().outage_buffer = std::time::Duration::from_secs(5);
    let server = SimServer::new(1);
    let uid = crate::node::random_uid();
    let node = Node::with_store(config, SimStore::new(&server, &uid), uid);
    tokio::spawn(crate::handle::run(node.clone()));
    while node.check_ready().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.set_down(true);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let publish = r#"{"publish":{"channel":"a","data":1}}"#;
    let body = format!(r#"{{"commands":[{publish},{publish},{publish}]}}"#);
    let start = tokio::time::Instant::now();
    let handle = crate::handle::ServerHandle::new(node);
    let Ok(reply) = super::methods::call(&handle, super::ApiMethod::Batch, body.as_bytes()).await else {
        panic!("a valid request");
    };
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
    assert_eq!(reply.matches(r#""code":100"#).count(), 3, "{reply}");
}
