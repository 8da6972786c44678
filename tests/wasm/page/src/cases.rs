//! The cases. The server is that of `tests/tests/chromium_wasm.rs`: the path says what it does, and the query names the
//! case for its report of how the connection ended.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::{Either, join, select};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sockeye::{
    Client, CloseCode, CloseFrame, ErrorKind, Limits, Message, Side, Timeouts, TryRecvError, TrySendError, WebSocket,
};
use wasm_bindgen_futures::spawn_local;

use crate::greet::greet;
use crate::{fetch, set_timeout};

type Case = Result<(), Box<dyn StdError>>;

/// All cases.
pub(crate) const NAMES: &[&str] = &[
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
];

pub(crate) async fn run(name: &str, base: &str) -> Case {
    let url = |path: &str| format!("{base}/{path}?{}", name.replace(' ', "-"));
    let echo = &url("echo");
    match name {
        "the program of the guide" => equal(greet(echo).await?.as_str(), "hello"),
        "subprotocol" => subprotocol(echo).await,
        "text and binary" => text_and_binary(echo).await,
        "1 MiB" => large(echo).await,
        "burst in order" => burst(echo).await,
        "TLS and compression" => compressed(echo).await,
        "json" => json(echo).await,
        "stream and sink" => stream_and_sink(echo).await,
        "split" => split(echo).await,
        "try_recv" => try_recv(echo).await,
        "close from the page" => close(echo).await,
        "close with a code that the browser does not send" => close_with_unsendable_code(echo).await,
        "close from the server" => closed_by_server(&url("close/4001")).await,
        "normal close from the server" => closed_normally(&url("close/1000")).await,
        "end without a close frame" => lost(&url("abort")).await,
        "server that does not answer the close frame" => close_without_answer(&url("silent")).await,
        "invalid URL and subprotocols" => invalid_input(echo).await,
        "refused connection" => refused().await,
        "rejected request" => rejected(&url("reject")).await,
        "server that does not answer the opening handshake" => handshake_without_answer(&url("hang")).await,
        "full queue" => full_queue(echo).await,
        "server that does not read" => stalled(&url("silent")).await,
        "overflow of the received messages" => overflow(&url("flood")).await,
        "message over the limit" => message_over_the_limit(echo).await,
        "drop closes" => drop_closes(echo).await,
        "dropped receiver closes" => dropped_receiver_closes(echo).await,
        "dropped while its event is handled" => dropped_in_event(echo).await,
        "dropped connect closes" => dropped_connect_closes(&url("late")).await,
        "dropped futures lose nothing" => dropped_futures(echo).await,
        _ => Err(format!("there is no case {name}").into()),
    }
}

async fn subprotocol(url: &str) -> Case {
    let client = Client::builder().subprotocols(["superchat", "chat"]).build()?;
    let ws = client.connect(url).await?;
    equal(ws.subprotocol(), Some("chat"))?;
    let ws = client.request(url).subprotocols(["superchat"]).await?;
    equal(ws.subprotocol(), Some("superchat"))?;
    let ws = sockeye::connect(url).await?;
    equal(ws.subprotocol(), None)?;
    check(ws.is_open() && ws.close_info().is_none(), "the connection is open")
}

async fn text_and_binary(url: &str) -> Case {
    // The schemes of HTTP mean the same.
    let mut ws = sockeye::connect(&url.replace("ws:", "http:")).await?;
    let messages: [Message; 6] = [
        "".into(),
        "hello".into(),
        "Gr\u{fc}\u{df}e, \u{4e16}\u{754c} \u{1f41f}\0".into(),
        Message::binary(Vec::new()),
        Message::binary(vec![0, 1, 0xff]),
        Message::binary((0..1000).map(|at| at as u8).collect::<Vec<_>>()),
    ];
    for message in messages {
        ws.send(message.clone()).await?;
        equal(ws.recv().await?, Some(message))?;
    }
    // Around the limits of the three forms of the length (RFC 6455 §5.2).
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537] {
        let text: String = ('a'..='z').cycle().take(size).collect();
        for message in [Message::binary(text.clone().into_bytes()), Message::text(text)] {
            ws.send(message.clone()).await?;
            check(ws.recv().await? == Some(message), size)?;
        }
    }
    Ok(())
}

async fn large(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    let text = "\u{fc}".repeat(1 << 19);
    ws.send(text.as_str()).await?;
    check(ws.recv().await? == Some(text.into()), "the text came back")?;
    let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| (at * 7 + (at >> 8)) as u8).collect();
    ws.send(bytes.clone()).await?;
    check(ws.recv().await? == Some(bytes.into()), "the bytes came back")
}

async fn burst(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    for number in 0..1000 {
        ws.feed(format!("message {number}")).await?;
    }
    ws.flush().await?;
    for number in 0..1000 {
        equal(ws.recv().await?, Some(format!("message {number}").into()))?;
    }
    Ok(())
}

/// The server counts the compressed messages.
async fn compressed(url: &str) -> Case {
    check(url.starts_with("wss:"), url)?;
    let mut ws = sockeye::connect(url).await?;
    for size in [2000, 65_536, 1 << 20] {
        let text: String = "compressible ".chars().cycle().take(size).collect();
        ws.send(text.as_str()).await?;
        check(ws.recv().await? == Some(text.into()), size)?;
    }
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn json(url: &str) -> Case {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Order {
        symbol: String,
        quantity: u32,
    }
    let order = || Order {
        symbol: "ABC".to_owned(),
        quantity: 7,
    };
    let mut ws = sockeye::connect(url).await?.json();
    ws.send(&order()).await?;
    equal(ws.recv::<Order>().await?, Some(order()))
}

async fn stream_and_sink(url: &str) -> Case {
    let (mut sink, mut stream) = sockeye::connect(url).await?.split_as_sink();
    for number in 0..10 {
        sink.send(Message::from(number.to_string())).await?;
    }
    sink.close().await?;
    // The browser discards what arrives after it has begun to close.
    while let Some(message) = stream.next().await {
        message?;
    }
    Ok(())
}

/// `StreamExt::split`, which the method of the same name hides.
trait SplitAsSink: Sized {
    fn split_as_sink(self) -> (SplitSink<Self, Message>, SplitStream<Self>);
}

impl SplitAsSink for WebSocket {
    fn split_as_sink(self) -> (SplitSink<Self, Message>, SplitStream<Self>) {
        StreamExt::split(self)
    }
}

async fn split(url: &str) -> Case {
    let (sender, mut receiver) = sockeye::connect(url).await?.split();
    for name in ["one", "two"] {
        let sender = sender.clone();
        spawn_local(async move {
            for number in 0..100 {
                // A failure shows as a missing message.
                let _ = sender.send(format!("{name} {number}")).await;
            }
        });
    }
    let mut next = [0, 0];
    for _ in 0..200 {
        let message = receiver.recv().await?.ok_or("the connection ended early")?;
        let text = message.as_text().ok_or("the message is no text")?.to_owned();
        let at = usize::from(text.starts_with("two"));
        equal(text, format!("{} {}", ["one", "two"][at], next[at]))?;
        next[at] += 1;
    }
    check(sender.is_open(), "the connection is open")?;
    let closed = async {
        sender.closed().await;
        sender.is_open()
    };
    let closing = async {
        sender.close(CloseCode(3001), "done here").await?;
        receiver.recv().await
    };
    let (is_open, received) = join(closed, closing).await;
    check(!is_open, "the sender noticed the end")?;
    equal(received?, None)?;
    let error = sender.send("late").await.expect_err("the connection is closed");
    check(error.is_normal_close(), &error)
}

async fn try_recv(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    check(matches!(ws.try_recv(), Err(TryRecvError::Empty)), "nothing has arrived")?;
    for text in ["one", "two", "three"] {
        ws.send(text).await?;
    }
    equal(ws.recv().await?, Some("one".into()))?;
    let mut received = Vec::new();
    while received.len() < 2 {
        match ws.try_recv() {
            Ok(message) => received.push(message),
            Err(TryRecvError::Empty) => sleep(1).await,
            Err(error) => return Err(error.into()),
        }
    }
    equal(received, vec!["two".into(), "three".into()])?;
    ws.close(CloseCode::NORMAL, "").await?;
    check(
        matches!(ws.try_recv(), Err(TryRecvError::Ended)),
        "the connection has ended",
    )
}

async fn close(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    ws.send("one").await?;
    ws.close(CloseCode(3001), "done here").await?;
    equal(ws.recv().await?, None)?;
    let close_info = ws.close_info().ok_or("there is no CloseInfo")?;
    let sent = CloseFrame::new(CloseCode(3001), "done here")?;
    equal(close_info.sent(), Some(&sent))?;
    // The server returns the code.
    equal(close_info.code(), CloseCode(3001))?;
    check(close_info.is_clean() && close_info.is_normal(), "the close is clean")?;
    let error = ws.send("late").await.expect_err("the connection is closed");
    check(error.is_normal_close() && error.kind() == ErrorKind::Closed, &error)?;
    // Closing again changes nothing.
    ws.close(CloseCode::NORMAL, "").await?;
    equal(
        ws.close_info().and_then(|close_info| close_info.sent().cloned()),
        Some(sent),
    )
}

async fn close_with_unsendable_code(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    let error = ws
        .close(CloseCode::GOING_AWAY, "leaving")
        .await
        .expect_err("1001 is not sent");
    check(
        error.is_invalid_input() && error.to_string().contains("1000 or 3000 to 4999"),
        &error,
    )?;
    let close_info = ws.close_info().ok_or("there is no CloseInfo")?;
    equal(close_info.sent().map(|frame| frame.code), Some(CloseCode(4001)))?;
    check(close_info.is_clean(), "the close is clean")
}

async fn closed_by_server(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    equal(ws.recv().await?, Some("the last message".into()))?;
    for _ in 0..2 {
        let error = ws.recv().await.expect_err("4001 is no normal close");
        equal(error.close_code(), Some(CloseCode(4001)))?;
        equal(error.kind(), ErrorKind::Closed)?;
        equal(
            error.to_string().as_str(),
            "closed by the peer: 4001 \"from the server\"",
        )?;
    }
    let close_info = ws.close_info().ok_or("there is no CloseInfo")?;
    equal(close_info.initiator(), Side::Peer)?;
    equal(close_info.reason(), "from the server")?;
    check(close_info.is_clean(), "the close is clean")?;
    let Err(TrySendError::Closed(error)) = ws.try_send("late") else {
        return Err("the connection is closed".into());
    };
    equal(error.close_code(), Some(CloseCode(4001)))
}

async fn closed_normally(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    equal(ws.recv().await?, Some("the last message".into()))?;
    equal(ws.recv().await?, None)?;
    equal(ws.recv().await?, None)
}

async fn lost(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    let error = ws.recv().await.expect_err("there was no close frame");
    check(
        error.is_retryable() && error.is_closed() && error.close_code().is_none(),
        &error,
    )
}

async fn close_without_answer(url: &str) -> Case {
    let client = Client::builder()
        .timeouts(Timeouts::default().close(Duration::from_millis(200)))
        .build()?;
    let mut ws = client.connect(url).await?;
    let error = ws
        .close(CloseCode::NORMAL, "")
        .await
        .expect_err("the server does not answer");
    check(
        error.is_timeout() && error.to_string().contains("Timeouts::close"),
        &error,
    )
}

async fn invalid_input(url: &str) -> Case {
    for invalid in ["ws://[", "ftp://127.0.0.1/", "ws://127.0.0.1/#fragment"] {
        let error = sockeye::connect(invalid).await.expect_err("the URL is invalid");
        check(
            error.is_invalid_input() && error.to_string().starts_with("invalid URL"),
            &error,
        )?;
    }
    for invalid in [vec!["two words"], vec!["chat", "chat"], vec![""]] {
        let error = Client::new().request(url).subprotocols(invalid.clone()).await;
        check(error.is_err_and(|error| error.is_invalid_input()), &invalid)?;
        check(
            Client::builder().subprotocols(invalid.clone()).build().is_err(),
            &invalid,
        )?;
    }
    Ok(())
}

async fn refused() -> Case {
    // Nothing listens on port 1.
    let error = sockeye::connect("ws://127.0.0.1:1/secret")
        .await
        .expect_err("nothing listens");
    check(error.kind() == ErrorKind::Connect && error.is_retryable(), &error)?;
    equal(
        error.to_string().as_str(),
        "cannot connect to 127.0.0.1:1: the browser does not tell programs why, but its console may",
    )
}

async fn rejected(url: &str) -> Case {
    let error = sockeye::connect(url).await.expect_err("the server rejects the request");
    equal(error.kind(), ErrorKind::Connect)?;
    // The server chooses none of the subprotocols.
    let plain = url.replace("reject", "echo");
    let error = Client::new().request(plain).subprotocols(["unknown"]).await;
    equal(error.err().map(|error| error.kind()), Some(ErrorKind::Connect))
}

async fn handshake_without_answer(url: &str) -> Case {
    let timeout = Duration::from_millis(200);
    let request = Client::new().request(url).timeout(timeout);
    let error = request.await.expect_err("the server does not answer");
    check(
        error.is_timeout() && error.to_string().contains("RequestBuilder::timeout"),
        &error,
    )?;
    let client = Client::builder()
        .timeouts(Timeouts::default().connect_total(timeout))
        .build()?;
    let error = client.connect(url).await.expect_err("the server does not answer");
    check(
        error.is_timeout() && error.to_string().contains("Timeouts::connect_total"),
        &error,
    )
}

async fn full_queue(url: &str) -> Case {
    const PART: usize = 64 * 1024;
    let limits = Limits::default().write_buffer_max(4 * PART);
    let client = Client::builder().limits(limits).build()?;
    let (sender, mut receiver) = client.connect(url).await?.split();
    // The browser sends nothing before this task waits.
    let mut sent = 0;
    let (message, queued) = loop {
        match sender.try_send(vec![1; PART]) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full {
                message, queued_bytes, ..
            }) => break (message, queued_bytes),
            Err(error) => return Err(error.into()),
        }
    };
    equal((sent, queued, message.len()), (4, 4 * PART, PART))?;
    // A message larger than the limit waits until nothing else is queued.
    let sending = async {
        sender.send(message).await?;
        sender.send(vec![2; 5 * PART]).await?;
        check(sender.queued_bytes() <= 5 * PART, sender.queued_bytes())?;
        sender.flush().await?;
        equal(sender.queued_bytes(), 0)
    };
    let receiving = async {
        let mut bytes = 0;
        while bytes < 10 * PART {
            bytes += receiver.recv().await?.ok_or("the connection ended early")?.len();
        }
        equal(bytes, 10 * PART)
    };
    let (sent, received) = join(sending, receiving).await;
    sent.and(received)
}

async fn stalled(url: &str) -> Case {
    let client = Client::builder()
        .timeouts(Timeouts::default().write(Duration::from_millis(500)))
        .build()?;
    let mut ws = client.connect(url).await?;
    // More than the buffers of the browser and of both kernels.
    for _ in 0..256 {
        if let Err(error) = ws.send(vec![0; 1 << 20]).await {
            check(error.is_timeout() && error.is_closed(), &error)?;
            let again = ws.recv().await.expect_err("the connection has failed");
            return equal(again.to_string(), error.to_string());
        }
    }
    Err("256 MiB were sent to a server that does not read".into())
}

async fn overflow(url: &str) -> Case {
    let limits = Limits::default().read_ahead_max(10_000);
    let client = Client::builder().limits(limits).build()?;
    let (sender, mut receiver) = client.connect(url).await?.split();
    // Messages arrive while nothing receives.
    sender.closed().await;
    let mut received = 0;
    let error = loop {
        match receiver.recv().await {
            Ok(Some(message)) => {
                equal(message.len(), 1000)?;
                received += 1;
            }
            Ok(None) => return Err("the end is not normal".into()),
            Err(error) => break error,
        }
    };
    // The oldest one, and as many as fit with 1000 bytes and 64 for each message.
    equal(received, 10)?;
    check(error.kind() == ErrorKind::Closed && !error.is_retryable(), &error)?;
    check(error.to_string().contains("Limits::read_ahead_max"), &error)?;
    let sent = receiver.close_info().and_then(|close_info| close_info.sent().cloned());
    equal(sent.map(|frame| frame.code), Some(CloseCode(4013)))?;
    // The server sees the close frame: the browser finishes the closing handshake after the drop.
    Ok(())
}

async fn message_over_the_limit(url: &str) -> Case {
    let client = Client::builder()
        .limits(Limits::default().message_size_max(5))
        .build()?;
    let mut ws = client.connect(url).await?;
    ws.send("\u{20ac}ab").await?;
    equal(ws.recv().await?, Some("\u{20ac}ab".into()))?;
    // Five UTF-16 units in six bytes.
    ws.send("\u{fc}abcd").await?;
    let error = ws.recv().await.expect_err("the message has six bytes");
    check(
        error.is_protocol() && error.to_string().contains("message_size_max"),
        &error,
    )
}

async fn drop_closes(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    // Sent before the close frame.
    ws.send("the last message").await?;
    drop(ws);
    Ok(())
}

async fn dropped_receiver_closes(url: &str) -> Case {
    let (sender, receiver) = sockeye::connect(url).await?.split();
    drop(receiver);
    let error = sender.send("late").await.expect_err("the receiver was dropped");
    equal(error.kind(), ErrorKind::Closed)?;
    sender.closed().await;
    check(!sender.is_open(), "the connection is closed")
}

/// A waker may run its task at once, and that task may drop the connection.
async fn dropped_in_event(url: &str) -> Case {
    thread_local! {
        static CONNECTION: RefCell<Option<WebSocket>> = const { RefCell::new(None) };
    }
    struct DropConnection;

    impl Wake for DropConnection {
        fn wake(self: Arc<Self>) {
            drop(CONNECTION.take());
        }
    }

    let mut ws = sockeye::connect(url).await?;
    ws.send("one").await?;
    let waker = Waker::from(Arc::new(DropConnection));
    let is_ready = pin!(ws.recv()).poll(&mut Context::from_waker(&waker)).is_ready();
    check(!is_ready, "nothing has arrived")?;
    CONNECTION.set(Some(ws));
    while CONNECTION.with_borrow(Option::is_some) {
        sleep(1).await;
    }
    Ok(())
}

async fn dropped_connect_closes(url: &str) -> Case {
    let mut connecting = Box::pin(sockeye::connect(url));
    let is_ready = poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx).is_ready())).await;
    check(!is_ready, "the server does not answer yet")?;
    request("/late/arrived").await?;
    drop(connecting);
    // The server now answers. The browser may not have closed the socket yet, but it does.
    request("/late/go").await?;
    request("/late/closed").await
}

async fn dropped_futures(url: &str) -> Case {
    let mut ws = sockeye::connect(url).await?;
    for number in 0..20 {
        ws.send(number.to_string()).await?;
    }
    for number in 0..20 {
        let message = loop {
            let receive = Box::pin(ws.recv());
            match select(receive, Box::pin(sleep(0))).await {
                Either::Left((message, _)) => break message?,
                Either::Right(_) => {}
            }
        };
        equal(message, Some(number.to_string().into()))?;
    }
    Ok(())
}

/// Requests a path of the server, and waits for the answer.
async fn request(path: &str) -> Case {
    let answered = wasm_bindgen_futures::JsFuture::from(fetch(path)).await;
    let response = answered.map_err(|error| format!("{path}: {error:?}"))?;
    let is_ok = js_sys::Reflect::get(&response, &"ok".into()).is_ok_and(|ok| ok.is_truthy());
    check(is_ok, path)
}

/// Waits for the event loop of the browser.
async fn sleep(millis: u32) {
    let fired = js_sys::Promise::new(&mut |resolve, _| set_timeout(&resolve, millis));
    // It is never rejected.
    let _ = wasm_bindgen_futures::JsFuture::from(fired).await;
}

fn equal<T: PartialEq<U> + Debug, U: Debug>(left: T, right: U) -> Case {
    check(left == right, format_args!("{left:?} is not {right:?}"))
}

fn check(is_true: bool, what: impl Debug) -> Case {
    match is_true {
        true => Ok(()),
        false => Err(format!("failed: {what:?}").into()),
    }
}
