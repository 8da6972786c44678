//! Clients whose events a scripted backend or a handler decides about.

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::*;
use crate::handlers::{Handlers, RpcError};
use crate::hooks::{Backend, Hook, HookError, Hooks};

type Answer = Result<Vec<u8>, HookError>;

/// A backend whose calls wait for the test.
#[derive(Debug, Default)]
struct Script {
    calls: Mutex<Vec<(Hook, String, oneshot::Sender<Answer>)>>,
}

impl Backend for Script {
    fn forwarded(&self, _headers: &HeaderMap) -> HeaderMap {
        HeaderMap::new()
    }

    fn emulated_headers(&self) -> &[::http::HeaderName] {
        const NAMES: &[::http::HeaderName] = &[::http::header::AUTHORIZATION];
        NAMES
    }

    fn call<'a>(
        &'a self,
        hook: Hook,
        _headers: &'a HeaderMap,
        body: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        let (answer, answered) = oneshot::channel();
        self.calls.lock().push((hook, body, answer));
        Box::pin(async { answered.await.unwrap_or(Err(HookError::Timeout)) })
    }
}

impl Script {
    /// The calls without an answer, by their channel or method.
    fn waiting(&self) -> Vec<String> {
        let calls = self.calls.lock();
        let name = |body: &str| {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let name = body
                .get("channel")
                .or(body.get("method"))
                .or(body.get("client"))
                .unwrap();
            name.as_str().unwrap().to_owned()
        };
        calls.iter().map(|(_, body, _)| name(body)).collect()
    }

    /// Answers the oldest call. Returns its body.
    fn answer(&self, answer: &str) -> String {
        let (_, body, call) = self.calls.lock().remove(0);
        let _ = call.send(Ok(answer.as_bytes().to_vec()));
        body
    }

    fn fail(&self, error: HookError) {
        let (_, _, call) = self.calls.lock().remove(0);
        let _ = call.send(Err(error));
    }
}

fn asking(change: impl FnOnce(&mut Config)) -> (Arc<Node>, Arc<Script>) {
    let mut config = Config::default();
    let url = || Some("http://127.0.0.1:1/".to_owned());
    config.hooks.subscribe_url = url();
    config.hooks.publish_url = url();
    config.hooks.rpc_url = url();
    let options = config.channels.as_mut().unwrap();
    (options.subscribe_hook, options.publish_hook) = (true, true);
    change(&mut config);
    config.check().unwrap();
    let node = Node::new(config);
    let script = Arc::new(Script::default());
    node.set_hooks(Hooks::new(script.clone()));
    (node, script)
}

impl Peer {
    /// Receives a message, and executes what can be executed.
    pub(super) async fn feed(&mut self, frame: &str) -> Vec<String> {
        self.0.receive(Message::text(frame)).unwrap();
        self.run_until_idle().await.unwrap()
    }

    /// Executes decisions, and commands that waited for them. Returns the lines that the client received.
    pub(super) async fn run_until_idle(&mut self) -> Result<Vec<String>, DisconnectCode> {
        let mut heard = Vec::new();
        loop {
            while self.0.handle_next().await? {}
            run_pending_tasks().await;
            let before = heard.len();
            while let Some(frame) = self.0.next_frame()? {
                heard.extend(frame.message().as_text().unwrap().lines().map(str::to_owned));
            }
            if !self.0.has_pending() && heard.len() == before {
                return Ok(heard);
            }
            self.0.run_pending().await?;
        }
    }
}

pub(super) async fn client(node: &Arc<Node>) -> Peer {
    let mut peer = Peer::new(node);
    assert_eq!(peer.feed(r#"{"id":1,"connect":{}}"#).await.len(), 1);
    peer
}

fn subscribe(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","data":[{id}]}}}}"#)
}

fn publish(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{id}}}}}"#)
}

fn rpc(id: u32, method: &str) -> String {
    format!(r#"{{"id":{id},"rpc":{{"method":"{method}"}}}}"#)
}

fn has_subscribers(node: &Node, channel: &str) -> bool {
    use crate::engine::Deliver;
    node.hub().has_subscribers(&ChannelName::new(channel).unwrap())
}

#[tokio::test]
async fn an_unsubscribe_of_the_server_cancels_a_subscription_that_waits_for_the_backend() {
    let (node, script) = asking(|_| {});
    let handle = crate::ServerHandle::new(node.clone());
    let mut ada = client(&node).await;
    assert!(
        ada.feed(&[subscribe(2, "a"), subscribe(3, "b")].join("\n"))
            .await
            .is_empty()
    );
    // A command that waits for the first decision.
    assert!(ada.feed(&publish(4, "a")).await.is_empty());
    handle.unsubscribe("", "a").await.unwrap();
    let denied = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(ada.run_until_idle().await.unwrap(), [denied]);
    assert_eq!(script.waiting(), ["a", "b", "a"]);
    // The late decision changes nothing.
    script.answer("{}");
    assert!(ada.run_until_idle().await.unwrap().is_empty());
    assert!(!has_subscribers(&node, "a"));
    handle.unsubscribe("", "").await.unwrap();
    assert_eq!(ada.run_until_idle().await.unwrap().len(), 1);
    script.answer("{}");
    ada.run_until_idle().await.unwrap();
    assert!(!has_subscribers(&node, "b"));
}

#[tokio::test]
async fn an_unsubscribe_from_all_channels_ends_those_of_the_user_and_no_others() {
    let node = Node::new(Config::default());
    let handle = crate::ServerHandle::new(node.clone());
    let (mut ada, mut bob) = (client(&node).await, client(&node).await);
    for peer in [&mut ada, &mut bob] {
        peer.feed(&[subscribe(2, "a"), subscribe(3, "b")].join("\n")).await;
    }
    let mut target = crate::Target::user("");
    target.client = Some(ada.0.id.to_string());
    // The client has not executed this command yet when it gets the next one.
    let options = crate::SubscribeOptions::default();
    handle.subscribe(target.clone(), "c", options).await.unwrap();
    handle.unsubscribe(target, "").await.unwrap();
    let heard = ada.run_until_idle().await.unwrap();
    for channel in ["a", "b", "c"] {
        let ended = format!(r#"{{"push":{{"channel":"{channel}","unsubscribe":{{"code":2000"#);
        assert!(
            heard.iter().any(|push| push.starts_with(&ended)),
            "{channel}: {heard:?}"
        );
    }
    assert!(!has_subscribers(&node, "c"));
    assert!(
        bob.run_until_idle()
            .await
            .unwrap()
            .iter()
            .all(|push| !push.contains("unsubscribe"))
    );
    let counts = node.hub().subscriber_counts();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 2, "{counts:?}");
}

#[tokio::test]
async fn a_pending_decision_delays_only_its_own_channel() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    let frame = [subscribe(2, "a"), subscribe(3, "b"), r#"{"id":4,"ping":{}}"#.to_owned()].join("\n");
    assert_eq!(ada.feed(&frame).await, [r#"{"id":4,"ping":{}}"#]);
    assert_eq!(script.waiting(), ["a", "b"]);
    let body = script.answer("{}");
    let id = ada.0.id;
    assert_eq!(
        body,
        format!(
            concat!(
                r#"{{"client":"{}","transport":"websocket","protocol":"json","encoding":"json","#,
                r#""user":"","channel":"a","data":[2]}}"#
            ),
            id
        )
    );
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":2,"subscribe":{}}"#]);
    assert!(has_subscribers(&node, "a") && !has_subscribers(&node, "b"));
    script.answer("{}");
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":3,"subscribe":{}}"#]);
}

#[tokio::test]
async fn commands_of_one_channel_keep_their_order() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    let unsubscribe = r#"{"id":4,"unsubscribe":{"channel":"a"}}"#.to_owned();
    let frame = [subscribe(2, "a"), publish(3, "a"), unsubscribe, subscribe(5, "a")].join("\n");
    assert!(ada.feed(&frame).await.is_empty());
    assert_eq!(script.waiting(), ["a"]);
    script.answer("{}");
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":2,"subscribe":{}}"#]);
    script.answer("{}");
    let heard = ada.run_until_idle().await.unwrap();
    assert!(heard[0].contains("\"pub\":{\"data\":3"), "{heard:?}");
    assert_eq!(heard[1..], [r#"{"id":3,"publish":{}}"#, r#"{"id":4,"unsubscribe":{}}"#]);
    assert!(!has_subscribers(&node, "a"));
    script.answer("{}");
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":5,"subscribe":{}}"#]);
}

#[tokio::test]
async fn a_client_that_disconnects_before_the_decision_leaves_no_subscriber() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    ada.feed(&subscribe(2, "a")).await;
    drop(ada);
    run_pending_tasks().await;
    // The call was aborted, and an answer changes nothing.
    assert!(script.calls.lock()[0].2.is_closed());
    script.answer("{}");
    run_pending_tasks().await;
    assert!(!has_subscribers(&node, "a"));
    assert_eq!(node.clients().stats().clients, 0);
}

#[tokio::test]
async fn without_an_answer_the_command_fails_with_a_temporary_error() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    ada.feed(&subscribe(2, "a")).await;
    script.fail(HookError::Timeout);
    let heard = ada.run_until_idle().await.unwrap();
    assert_eq!(
        heard,
        [r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#]
    );
    assert!(
        node.encode_metrics()
            .contains("sockeye_hook_failures_total{hook=\"subscribe\"} 1")
    );
    // And may be repeated.
    ada.feed(&subscribe(3, "a")).await;
    script.answer("{}");
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":3,"subscribe":{}}"#]);
}

#[tokio::test]
async fn everything_waits_for_the_decision_about_the_connection() {
    let (node, script) = asking(|config| {
        config.hooks.connect_url = Some("http://127.0.0.1:1/".to_owned());
        config.channels.as_mut().unwrap().subscribe_hook = false;
    });
    let mut ada = Peer::new(&node);
    let connect = r#"{"id":1,"connect":{"name":"js","headers":{"authorization":"Bearer 1"}}}"#;
    let frame = format!("{connect}\n{}", subscribe(2, "a"));
    assert!(ada.feed(&frame).await.is_empty());
    assert!(ada.feed(r#"{"id":3,"ping":{}}"#).await.is_empty());
    let body = script.answer(r#"{"result":{"user":"ada","data":{"x":1},"channels":["news"]}}"#);
    assert!(body.ends_with(r#""encoding":"json","name":"js"}"#), "{body}");
    let heard = ada.run_until_idle().await.unwrap();
    assert!(heard[0].contains(r#""data":{"x":1},"subs":{"news":{}}"#), "{heard:?}");
    assert_eq!(heard[1..], [r#"{"id":2,"subscribe":{}}"#, r#"{"id":3,"ping":{}}"#]);
    assert_eq!(node.clients().of_user("ada").len(), 1);
    assert_eq!(ada.0.headers.as_ref().unwrap()["authorization"], "Bearer 1");

    // A client that the backend disconnects gets its code.
    let mut eve = Peer::new(&node);
    eve.feed(r#"{"id":1,"connect":{}}"#).await;
    script.answer(r#"{"disconnect":{"code":4501,"reason":"go away"}}"#);
    assert_eq!(eve.run_until_idle().await, Err(DisconnectCode::ForceDisconnect));
    let frame = eve.0.queue().close_frame(DisconnectCode::ForceDisconnect);
    assert_eq!(frame, (4501, "go away".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_decision_ends_after_the_time_for_connect() {
    let (node, _script) = asking(|config| config.hooks.connect_url = Some("http://127.0.0.1:1/".to_owned()));
    let mut ada = Peer::new(&node);
    ada.feed(r#"{"id":1,"connect":{}}"#).await;
    tokio::time::sleep_until(ada.0.deadline().unwrap()).await;
    assert_eq!(ada.0.handle_timeout(), Err(DisconnectCode::ConnectionClosed));
}

#[tokio::test]
async fn calls_of_one_client_are_made_in_order_and_those_of_others_at_the_same_time() {
    let (node, script) = asking(|_| {});
    let (mut ada, mut bob) = (client(&node).await, client(&node).await);
    ada.feed(&[rpc(2, "first"), rpc(3, "second")].join("\n")).await;
    bob.feed(&rpc(2, "other")).await;
    assert_eq!(script.waiting(), ["first", "other"]);
    script.answer(r#"{"result":{"data":1}}"#);
    assert_eq!(ada.run_until_idle().await.unwrap(), [r#"{"id":2,"rpc":{"data":1}}"#]);
    run_pending_tasks().await;
    assert_eq!(script.waiting(), ["other", "second"]);

    let (node, script) = asking(|config| config.hooks.rpc_per_client_max = 2);
    let mut ada = client(&node).await;
    ada.feed(&[rpc(2, "a"), rpc(3, "b"), rpc(4, "c")].join("\n")).await;
    assert_eq!(script.waiting(), ["a", "b"]);
}

#[tokio::test]
async fn one_client_has_a_limited_number_of_pending_decisions() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    let commands: Vec<_> = (2..100).map(|n| subscribe(n, &format!("c{n}"))).collect();
    ada.feed(&commands.join("\n")).await;
    assert_eq!(script.waiting().len(), 16);
    for _ in 2..100 {
        script.answer("{}");
        assert_eq!(ada.run_until_idle().await.unwrap().len(), 1);
        run_pending_tasks().await;
    }
    assert_eq!(ada.0.session.take_subscriptions().len(), 98);
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_waits_behind_a_decision_is_in_time() {
    let (node, script) = asking(|_| {});
    let mut ada = client(&node).await;
    tokio::time::sleep_until(ada.0.deadline().unwrap()).await;
    ada.0.handle_timeout().unwrap();
    ada.feed(&[rpc(2, "slow"), rpc(3, "slow"), "{}".to_owned()].join("\n"))
        .await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    ada.0.handle_timeout().unwrap();
    for _ in 0..2 {
        script.answer("{}");
        ada.run_until_idle().await.unwrap();
        run_pending_tasks().await;
    }
    // Pinged again at the usual time.
    tokio::time::sleep_until(ada.0.deadline().unwrap()).await;
    ada.0.handle_timeout().unwrap();
    assert_eq!(ada.run_until_idle().await.unwrap(), ["{}"]);
}

#[tokio::test]
async fn a_protobuf_client_sends_bytes_in_base64() {
    let (node, script) = asking(|_| {});
    let options = TransportOptions {
        encoding: Encoding::Protobuf,
        transport: Transport::HttpStream,
        ..PingedBy::Commands.into()
    };
    let mut ada = Peer(Client::new(node.clone(), None, options));
    // connect, and rpc (13) with data (1) ff 00
    let frames: [&[u8]; 2] = [&[4, 8, 1, 34, 0], &[8, 8, 2, 106, 4, 10, 2, 0xff, 0]];
    for frame in frames {
        ada.0.receive(Message::binary(frame)).unwrap();
        while ada.0.handle_next().await.unwrap() {}
    }
    run_pending_tasks().await;
    let body = script.answer(r#"{"result":{"b64data":"/wA="}}"#);
    let expect = r#""transport":"http_stream","protocol":"protobuf","encoding":"binary","user":"","b64data":"/wA="}"#;
    assert!(body.ends_with(expect), "{body}");
}

fn handling(node: &Node, said: &Arc<Mutex<Vec<String>>>) {
    let mut handlers = Handlers::default();
    handlers.set_rpc(async |call: crate::RpcCall| match &*call.method {
        "echo" => Ok(call.data),
        "text" => Ok(b"not json".to_vec()),
        "panic" => panic!("as asked"),
        "never" => std::future::pending().await,
        _ => Err(RpcError::new(1404, format!("no {}", call.method))),
    });
    let said = said.clone();
    handlers.set_message(move |message: crate::ClientMessage| {
        said.lock().push(String::from_utf8(message.data).unwrap());
        std::future::ready(())
    });
    node.set_handlers(handlers);
}

#[tokio::test(start_paused = true)]
async fn handlers_of_the_embedding_program_answer_calls_and_get_messages() {
    let (node, said) = (node(), Arc::default());
    handling(&node, &said);
    let mut ada = client(&node).await;
    let internal = r#""error":{"code":100,"message":"internal server error","temporary":true}}"#;
    for (frame, expect) in [
        (
            r#"{"id":2,"rpc":{"method":"echo","data":{"x":1}}}"#,
            r#"{"id":2,"rpc":{"data":{"x":1}}}"#.to_owned(),
        ),
        (r#"{"id":3,"rpc":{"method":"echo"}}"#, r#"{"id":3,"rpc":{}}"#.to_owned()),
        (
            r#"{"id":4,"rpc":{"method":"text"}}"#,
            r#"{"id":4,"rpc":{"data":"not json"}}"#.to_owned(),
        ),
        (
            r#"{"id":5,"rpc":{}}"#,
            r#"{"id":5,"error":{"code":1404,"message":"no "}}"#.to_owned(),
        ),
        (r#"{"id":6,"rpc":{"method":"panic"}}"#, format!("{{\"id\":6,{internal}")),
    ] {
        assert_eq!(ada.feed(frame).await, [expect], "{frame}");
    }
    // A handler that takes too long is dropped, and later calls continue.
    assert!(ada.feed(&[rpc(7, "never"), rpc(8, "echo")].join("\n")).await.is_empty());
    tokio::time::sleep(Duration::from_millis(1001)).await;
    let heard = ada.run_until_idle().await.unwrap();
    assert_eq!(
        heard,
        [format!("{{\"id\":7,{internal}"), r#"{"id":8,"rpc":{}}"#.to_owned()]
    );

    assert!(
        ada.feed("{\"send\":{\"data\":[1]}}\n{\"send\":{\"data\":[2]}}")
            .await
            .is_empty()
    );
    ada.run_until_idle().await.unwrap();
    assert_eq!(*said.lock(), ["[1]", "[2]"]);
}
