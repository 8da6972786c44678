//! Calls to a backend over HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::types::{CallData, ReplyDisconnect, ReplyError};
use super::*;

/// A backend that answers every request with the same bytes, and passes the requests to the test.
async fn backend(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut request = String::new();
                let mut buf = [0; 4096];
                while !request.ends_with('}') {
                    match stream.read(&mut buf).await {
                        Ok(len @ 1..) => request.push_str(std::str::from_utf8(&buf[..len]).unwrap()),
                        _ => return,
                    }
                }
                let _ = requests.send(request);
                if answer.is_empty() {
                    // Never answers.
                    std::future::pending::<()>().await;
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    answer.len()
                );
                stream.write_all((head + answer).as_bytes()).await.unwrap();
            });
        }
    });
    (address, received)
}

fn hooks(address: SocketAddr, change: impl FnOnce(&mut HookOptions)) -> Hooks {
    let mut options = HookOptions {
        rpc_url: Some(format!("http://{address}/rpc?x=1")),
        ..HookOptions::default()
    };
    change(&mut options);
    Hooks::new(Arc::new(HttpBackend::new(&options).unwrap()))
}

fn rpc<'a>(method: &'a str, data: &'a serde_json::value::RawValue) -> RpcCall<'a> {
    RpcCall {
        common: Common {
            client: "c1",
            transport: "websocket",
            protocol: "json",
            encoding: "json",
        },
        user: "ada",
        method,
        data: CallData {
            data: Some(data),
            b64data: None,
        },
        meta: None,
    }
}

async fn call(hooks: &Hooks, headers: &HeaderMap) -> Result<HookReply<RpcDecision>, HookError> {
    let data = serde_json::value::to_raw_value(&[1, 2]).unwrap();
    let body = crate::protocol::encode(&rpc("sum", &data));
    hooks.call(Hook::Rpc, headers, body).await
}

#[tokio::test]
async fn a_call_has_the_fields_of_the_protocol_and_only_listed_headers() {
    let (address, mut requests) = backend(r#"{"result":{"data":{"sum":3},"new":1}}"#).await;
    let hooks = hooks(address, |options| options.forward_headers = vec!["Cookie".to_owned()]);
    let mut headers = HeaderMap::new();
    headers.insert("cookie", "session=1".parse().unwrap());
    headers.insert("authorization", "secret".parse().unwrap());
    assert_eq!(hooks.forwarded(&headers).unwrap().len(), 1);
    assert_eq!(hooks.forwarded(&HeaderMap::new()), None);
    let HookReply::Result(Some(result)) = call(&hooks, &headers).await.unwrap() else {
        panic!("no result")
    };
    assert_eq!(result.data.unwrap().get(), r#"{"sum":3}"#);
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /rpc?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\ncookie: session=1\r\n") && !request.contains("secret"),
        "{request}"
    );
    let body = concat!(
        r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","#,
        r#""user":"ada","method":"sum","data":[1,2]}"#
    );
    assert!(request.ends_with(body), "{request}");
}

#[tokio::test]
async fn listed_headers_of_the_connect_command_are_forwarded_behind_those_of_the_request() {
    let (address, mut requests) = backend("{}").await;
    let hooks = hooks(address, |options| {
        options.forward_headers = vec!["X-User".to_owned()];
        options.emulated_headers = vec!["authorization".to_owned(), "X-User".to_owned(), "X-Bad".to_owned()];
    });
    let mut request = HeaderMap::new();
    request.insert("x-user", "from the proxy".parse().unwrap());
    let mut headers = hooks.forwarded(&request);
    let emulated = [
        ("Authorization", "Bearer 1"),
        ("X-User", "forged"),
        ("X-Bad", "a\r\nb"),
        ("X-Other", "not listed"),
    ];
    hooks.add_emulated(
        &mut headers,
        &emulated.map(|(name, value)| (name.into(), value.into())).into(),
    );
    call(&hooks, &headers.unwrap()).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(request.contains("\r\nauthorization: Bearer 1\r\n"), "{request}");
    assert!(request.contains("\r\nx-user: from the proxy\r\n"), "{request}");
    for absent in ["forged", "x-bad", "not listed"] {
        assert!(!request.contains(absent), "{request}");
    }
    // A header that only clients may send is not taken from their request.
    let mut request = HeaderMap::new();
    request.insert("authorization", "Basic 2".parse().unwrap());
    assert_eq!(hooks.forwarded(&request), None);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_timeout_and_then_a_pause() {
    let (address, mut requests) = backend("").await;
    let hooks = hooks(address, |options| {
        options.timeout = Duration::from_millis(50);
        options.failures_max = 2;
    });
    let metrics = Arc::new(crate::metrics::Metrics::new(None));
    let hooks = hooks.with_metrics(metrics.clone());
    for expect in [
        HookError::Timeout,
        HookError::Timeout,
        HookError::Paused,
        HookError::Paused,
    ] {
        assert_eq!(call(&hooks, &HeaderMap::new()).await.unwrap_err(), expect);
    }
    assert!(requests.try_recv().is_ok() && requests.try_recv().is_ok() && requests.try_recv().is_err());
    let page = metrics.encode(Default::default());
    for outcome in ["timeout", "paused"] {
        let line = format!("sockeye_hook_calls_total{{hook=\"rpc\",outcome=\"{outcome}\"}} 2\n");
        assert!(page.contains(&line), "{line}: {page}");
    }
}

#[tokio::test]
async fn concurrent_calls_are_limited() {
    let (address, mut requests) = backend("").await;
    let hooks = hooks(address, |options| {
        options.timeout = Duration::from_millis(300);
        options.concurrency_max = 2;
    });
    let failures = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let (hooks, failures) = (hooks.clone(), failures.clone());
            tokio::spawn(async move {
                assert_eq!(call(&hooks, &HeaderMap::new()).await.unwrap_err(), HookError::Timeout);
                failures.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    // Two calls arrive at the backend, and the others wait for them until they time out.
    for _ in 0..2 {
        requests.recv().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(requests.try_recv().is_err());
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(failures.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_backend_that_is_down_fails() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = call(&hooks(address, |_| {}), &HeaderMap::new()).await.unwrap_err();
    assert!(matches!(error, HookError::Failed(_)), "{error}");
}

#[test]
fn answers_are_results_errors_or_disconnects() {
    let parse = |text: &str| HookReply::<SubscribeDecision>::parse(text.as_bytes());
    assert!(matches!(parse("{}"), Ok(HookReply::Result(None))));
    assert!(matches!(parse(r#"{"result":{}}"#), Ok(HookReply::Result(Some(_)))));
    let Ok(HookReply::Result(Some(result))) =
        parse(r#"{"result":{"override":{"presence":{"value":false}},"expire_at":7}}"#)
    else {
        panic!("no result")
    };
    assert_eq!(
        (
            result.overrides.unwrap().presence.map(|presence| presence.value),
            result.expire_at
        ),
        (Some(false), 7)
    );
    let Ok(HookReply::Error(error)) = parse(r#"{"error":{"code":1000,"message":"no","temporary":true}}"#) else {
        panic!("no error")
    };
    let expect = ReplyError {
        code: 1000,
        message: "no".to_owned(),
        temporary: true,
    };
    assert_eq!(error, expect);
    let Ok(HookReply::Disconnect(disconnect)) = parse(r#"{"disconnect":{"code":4501,"reason":"bye"}}"#) else {
        panic!("no disconnect")
    };
    let expect = ReplyDisconnect {
        code: 4501,
        reason: "bye".to_owned(),
    };
    assert_eq!(disconnect, expect);
    for text in [
        "",
        "[]",
        "{\"result\":5}",
        "{\"disconnect\":{\"code\":1000}}",
        "{\"error\":{}}",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn invalid_options_are_named() {
    let check = |change: fn(&mut HookOptions), field: &str| {
        let mut options = HookOptions::default();
        change(&mut options);
        assert_eq!(HttpBackend::new(&options).unwrap_err().0, field);
    };
    check(
        |options| options.connect_url = Some("nonsense".to_owned()),
        "hooks.connect_url",
    );
    check(|options| options.rpc_url = Some("ftp://a/".to_owned()), "hooks.rpc_url");
    check(
        |options| options.forward_headers = vec!["a b".to_owned()],
        "hooks.forward_headers",
    );
    check(
        |options| options.forward_headers = vec!["Host".to_owned()],
        "hooks.forward_headers",
    );
}
