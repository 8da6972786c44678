//! Clients that reconnect, with paused time and connections in memory.

mod common;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::script::transport;
use common::wire::{close, text, texts};
use common::{Peer, answer, poll_once, run_until_idle, within};
use sockeye::{
    Backoff, Client, CloseCode, Error, ErrorKind, Message, ReconnectEvent, Reconnecting, Server, Undelivered, WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, advance};

/// What an attempt to connect does.
enum Attempt {
    /// Fails with this error.
    Fails(Error),
    /// The server answers with this response.
    Rejected(&'static str),
}

fn lost() -> Error {
    Error::io(io::ErrorKind::ConnectionRefused.into())
}

/// The other side of a reconnecting client.
struct Network {
    /// The server's side of each connection.
    opened: UnboundedReceiver<WebSocket>,
    /// When each attempt started.
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Network {
    /// A client whose first attempts do what is given, and whose later ones succeed.
    fn start(attempts: impl IntoIterator<Item = Attempt>) -> (Reconnecting, Self) {
        let (tell, opened) = unbounded_channel();
        let times = Arc::new(Mutex::new(vec![]));
        let recorder = times.clone();
        let mut attempts: VecDeque<_> = attempts.into_iter().collect();
        let client = Reconnecting::new(move || {
            recorder.lock().unwrap().push(Instant::now());
            let (attempt, tell) = (attempts.pop_front(), tell.clone());
            async move {
                let (near, mut far) = tokio::io::duplex(1 << 16);
                let connecting = Client::default().request("ws://localhost/").connect_over(near);
                match attempt {
                    Some(Attempt::Fails(error)) => Err(error),
                    Some(Attempt::Rejected(response)) => {
                        let rejecting = async {
                            let _ = far.read(&mut [0; 1000]).await;
                            far.write_all(response.as_bytes()).await.unwrap();
                        };
                        tokio::join!(connecting, rejecting).0.map(|(ws, _)| ws)
                    }
                    None => {
                        let accepting = async { Server::default().accept(far).await?.accept().await };
                        let (connected, accepted) = tokio::join!(connecting, accepting);
                        tell.send(accepted.unwrap()).unwrap();
                        connected.map(|(ws, _)| ws)
                    }
                }
            }
        });
        (client, Self { opened, times })
    }

    async fn next(&mut self) -> WebSocket {
        within(600, self.opened.recv()).await.unwrap()
    }
}

async fn next(client: &mut Reconnecting) -> ReconnectEvent {
    within(600, client.recv())
        .await
        .unwrap()
        .expect("an event, not the end")
}

#[track_caller]
fn message(event: ReconnectEvent) -> String {
    match event {
        ReconnectEvent::Message(message) => message.as_text().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn disconnected(event: ReconnectEvent) -> (Error, Undelivered, Duration) {
    match event {
        ReconnectEvent::Disconnected {
            error,
            undelivered,
            retry_in,
            ..
        } => (error, undelivered, retry_in),
        other => panic!("{other:?}"),
    }
}

async fn connected(client: &mut Reconnecting) -> u32 {
    match next(client).await {
        ReconnectEvent::Connected { attempts, .. } => attempts,
        other => panic!("{other:?}"),
    }
}

fn undelivered_texts(undelivered: &Undelivered) -> Vec<String> {
    undelivered
        .messages
        .iter()
        .map(|message| message.to_message().as_text().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn hook_runs_on_each_connection_before_its_messages() {
    let (client, mut network) = Network::start([]);
    let mut client = client.on_connect(|mut ws| async move {
        ws.send("subscribe").await?;
        let greeting = ws.recv().await?.unwrap();
        assert_eq!(greeting.as_text(), Some("subscribed"));
        Ok(ws)
    });
    let server = tokio::spawn(async move {
        for last in ["one", "two"] {
            let mut ws = network.next().await;
            assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("subscribe"));
            ws.feed("subscribed").await.unwrap();
            ws.send(last).await.unwrap();
            ws.close(CloseCode::from(1012), "").await.unwrap();
        }
        network
    });
    for last in ["one", "two"] {
        assert_eq!(connected(&mut client).await, 1);
        assert_eq!(message(next(&mut client).await), last);
        let (error, undelivered, _) = disconnected(next(&mut client).await);
        assert_eq!(error.close_code().map(u16::from), Some(1012));
        // What the hook sends is its own.
        assert_eq!(undelivered, Undelivered::default());
    }
    assert_eq!(within(60, server).await.unwrap().times.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn delays_are_random_below_a_limit_that_doubles_and_starts_again() {
    // checks [6455-7.2.3-1, 6455-7.2.3-2, 6455-7.2.3-3]
    let (mut client, mut network) = Network::start((0..7).map(|_| Attempt::Fails(lost())));
    let mut delays = vec![];
    for (number, limit) in (1..).zip([5, 10, 20, 40, 60, 60, 60]) {
        match next(&mut client).await {
            ReconnectEvent::ConnectFailed {
                attempts,
                retry_in,
                error,
                ..
            } => {
                assert_eq!((attempts, error.kind()), (number, ErrorKind::Io));
                assert!(retry_in <= Duration::from_secs(limit), "{retry_in:?}");
                delays.push(retry_in);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connected(&mut client).await, 8);
    let mut ws = network.next().await;
    {
        let times = network.times.lock().unwrap();
        for (delay, times) in delays.iter().zip(times.windows(2)) {
            // tokio's timers have a resolution of 1 ms.
            let measured = times[1] - times[0];
            assert!(
                measured >= *delay && measured <= *delay + Duration::from_millis(2),
                "{measured:?} {delay:?}"
            );
        }
    }
    // Random, so not all alike.
    assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");

    // After 59 s the limit stays, after 60 s it is the first one again.
    let mut retries = vec![];
    for (lasted, limit) in [(59, 60), (60, 5)] {
        let serving = async {
            let _ = tokio::time::timeout(Duration::from_secs(lasted), ws.recv()).await;
            ws.abort();
        };
        let (event, ()) = tokio::join!(next(&mut client), serving);
        let (_, _, retry_in) = disconnected(event);
        assert!(retry_in <= Duration::from_secs(limit), "{retry_in:?}");
        retries.push(retry_in);
        connected(&mut client).await;
        ws = network.next().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_the_server_lengthens_the_delay_up_to_the_maximum() {
    let responses = [
        "HTTP/1.1 503 X\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 X\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n",
    ];
    let (client, _network) = Network::start(responses.map(Attempt::Rejected));
    let mut client = client.backoff(Backoff::default().initial(Duration::ZERO));
    for expected in [30, 60] {
        match next(&mut client).await {
            ReconnectEvent::ConnectFailed { retry_in, .. } => assert_eq!(retry_in.as_secs(), expected),
            other => panic!("{other:?}"),
        }
    }
    connected(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn event_lists_what_the_server_is_not_known_to_have_received() {
    let (mut client, mut network) = Network::start([]);
    connected(&mut client).await;
    let mut server = network.next().await;
    client.send("a").await.unwrap();
    client.send("b").await.unwrap();
    assert_eq!(undelivered_texts(&client.undelivered()), ["a", "b"]);
    // The server reads, and its pongs confirm: first "a", then "b" with a ping of its own.
    let serving = async {
        for _ in 0..2 {
            server.recv().await.unwrap().unwrap();
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), server.recv()).await;
    };
    tokio::select! {
        biased;
        event = client.recv() => panic!("{event:?}"),
        () = serving => {}
    }
    assert_eq!(client.undelivered(), Undelivered::default());
    // This one arrives at the server's kernel, so to speak, but the server ends without reading it.
    client.send("c").await.unwrap();
    server.abort();
    let (error, undelivered, _) = disconnected(next(&mut client).await);
    assert!(error.is_retryable());
    assert_eq!(undelivered.count, 1);
    assert_eq!(undelivered_texts(&undelivered), ["c"]);
    assert_eq!(connected(&mut client).await, 1);
    assert_eq!(client.undelivered(), Undelivered::default());
    assert_eq!(client.websocket().unwrap().rtt(), None);
}

#[tokio::test(start_paused = true)]
async fn one_ping_is_unanswered_at_a_time() {
    let (mut client, peer) = scripted();
    connected(&mut client).await;
    for number in 0..10 {
        client.send(format!("{number}")).await.unwrap();
    }
    let frames = peer.take_frames();
    assert_eq!(frames.iter().filter(|frame| frame.is_ping()).count(), 1);
    // In the same write as the first message.
    assert!(frames[1].is_ping());
    peer.send([common::wire::pong(frames[1].payload())]);
    assert!(poll_once(Box::pin(client.recv())).await.is_pending());
    assert_eq!(client.undelivered().count, 9);
    let frames = peer.take_frames();
    assert!(frames.len() == 1 && frames[0].is_ping());
}

/// A client on a scripted transport. A second attempt fails for good.
fn scripted() -> (Reconnecting, Peer) {
    let (io, peer) = transport(false);
    let server = peer.clone();
    let mut io = Some(io);
    let client = Reconnecting::new(move || {
        let (io, server) = (io.take(), server.clone());
        async move {
            let io = io.ok_or_else(|| Error::other("only one transport"))?;
            let mut connecting = Box::pin(Client::default().request("ws://localhost/").connect_over(io));
            assert!(poll_once(&mut connecting).await.is_pending());
            server.send_bytes(answer(&server.take_bytes()));
            Ok(connecting.await?.0)
        }
    });
    (client, peer)
}

#[tokio::test(start_paused = true)]
async fn messages_that_arrived_are_returned_before_the_loss() {
    for is_sending in [false, true] {
        let (mut client, peer) = scripted();
        connected(&mut client).await;
        peer.send([text("one"), text("two"), close(1013, "busy")]);
        peer.fail_writes_and_end();
        if is_sending {
            // Accepted, and lost while it was written.
            within(60, client.send("late")).await.unwrap();
            assert!(client.websocket().is_none());
        }
        assert_eq!(message(next(&mut client).await), "one");
        assert_eq!(message(next(&mut client).await), "two");
        let (error, undelivered, _) = disconnected(next(&mut client).await);
        assert!(error.is_retryable(), "{error}");
        let expected: &[&str] = if is_sending { &["late"] } else { &[] };
        assert_eq!(undelivered_texts(&undelivered), expected);
        let error = within(60, client.recv()).await.unwrap_err();
        assert_eq!(error.to_string(), "only one transport");
    }
}

#[tokio::test(start_paused = true)]
async fn close_code_decides_unless_the_caller_does() {
    for (code, expected) in [
        (1000, "end"),
        (1001, "again"),
        (1008, "error"),
        (1011, "again"),
        (1012, "again"),
        (1013, "again"),
        (1014, "again"),
        (4000, "again by the caller"),
        (4001, "error"),
    ] {
        let (client, mut network) = Network::start([]);
        let own = |error: &Error| error.is_retryable() || error.close_code() == Some(CloseCode::from(4000));
        let mut client = client.retry_if(own);
        connected(&mut client).await;
        let mut server = network.next().await;
        let closing = server.close(CloseCode::from(code), "");
        let (event, closed) = tokio::join!(within(60, client.recv()), closing);
        closed.unwrap();
        match event {
            Ok(None) => {
                assert_eq!(expected, "end", "{code}");
                assert!(within(60, client.recv()).await.unwrap().is_none());
                let error = client.send("late").await.unwrap_err();
                assert!(error.is_normal_close(), "{error}");
            }
            Ok(Some(event)) => {
                assert!(expected.starts_with("again"), "{code}");
                let (error, ..) = disconnected(event);
                assert_eq!(error.close_code().map(u16::from), Some(code));
                connected(&mut client).await;
            }
            Err(error) => {
                assert_eq!((expected, error.close_code().map(u16::from)), ("error", Some(code)));
                // It stays failed.
                let text = error.to_string();
                assert_eq!(within(60, client.recv()).await.unwrap_err().to_string(), text);
                assert_eq!(within(60, client.send("late")).await.unwrap_err().to_string(), text);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn final_errors_end_the_attempts() {
    let (mut client, network) = Network::start([Attempt::Fails(lost()), Attempt::Fails(Error::other("no"))]);
    assert!(matches!(next(&mut client).await, ReconnectEvent::ConnectFailed { .. }));
    for _ in 0..2 {
        assert_eq!(within(60, client.recv()).await.unwrap_err().to_string(), "no");
    }
    assert_eq!(network.times.lock().unwrap().len(), 2);
    let (client, network) = Network::start((0..9).map(|_| Attempt::Fails(lost())));
    let mut client = client.attempts_max(3);
    for _ in 0..2 {
        assert!(matches!(next(&mut client).await, ReconnectEvent::ConnectFailed { .. }));
    }
    assert_eq!(within(60, client.recv()).await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(network.times.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn hook_that_fails_or_hangs_is_a_failed_attempt() {
    let (client, mut network) = Network::start([]);
    let count = Arc::new(Mutex::new(0));
    let mut client = client.on_connect(move |ws| {
        *count.lock().unwrap() += 1;
        let count = *count.lock().unwrap();
        async move {
            match count {
                1 => Err(lost()),
                2 => std::future::pending().await,
                _ => Ok(ws),
            }
        }
    });
    let start = Instant::now();
    for (number, expected) in [
        (1, "connection lost: connection refused"),
        (
            2,
            "the hook after connecting timed out; the limit is Reconnecting::on_connect_timeout",
        ),
    ] {
        match next(&mut client).await {
            ReconnectEvent::ConnectFailed { error, attempts, .. } => {
                assert_eq!((error.to_string().as_str(), attempts), (expected, number));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() >= Duration::from_secs(10));
    assert_eq!(connected(&mut client).await, 3);
    // The connections of the failed attempts are closed.
    for _ in 0..2 {
        assert!(within(60, network.next().await.recv()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn send_reconnects_and_the_next_recv_reports_it_once() {
    let (mut client, mut network) = Network::start([]);
    within(600, client.send("first")).await.unwrap();
    for number in 0..3 {
        network.next().await.abort();
        // Whether the writing or the waiting half finds it first, the message is sent on a connection that is open.
        run_until_idle().await;
        within(600, client.send(format!("{number}"))).await.unwrap();
        within(600, client.send("again")).await.unwrap();
    }
    let mut ws = network.next().await;
    let mut received = vec![];
    while let Ok(Ok(Some(message))) = tokio::time::timeout(Duration::from_secs(1), ws.recv()).await {
        received.push(message.as_text().unwrap().to_owned());
    }
    // One event for three losses, then the open connection.
    let (_, undelivered, _) = disconnected(next(&mut client).await);
    connected(&mut client).await;
    let all = ["first", "0", "again", "1", "again", "2", "again"];
    let mut found = undelivered_texts(&undelivered);
    found.extend(received);
    assert_eq!(found, all, "each message is reported or received, in order");
    assert!(poll_once(Box::pin(client.recv())).await.is_pending());
}

#[tokio::test(start_paused = true)]
async fn dropped_futures_lose_nothing() {
    let (client, mut network) = Network::start([Attempt::Fails(lost())]);
    let mut client = client.on_connect(|mut ws| async move {
        ws.send("subscribe").await?;
        Ok(ws)
    });
    let server = tokio::spawn(async move {
        let mut ws = network.next().await;
        ws.recv().await.unwrap();
        ws.send("x".repeat(100_000)).await.unwrap();
        ws.abort();
        let mut ws = network.next().await;
        ws.recv().await.unwrap();
        ws.send("last").await.unwrap();
        let _ = ws.recv().await;
    });
    let mut seen = vec![];
    while seen.last().is_none_or(|last| last != "last") {
        // Each future is polled once and dropped.
        match poll_once(Box::pin(client.recv())).await {
            std::task::Poll::Ready(event) => seen.push(match event.unwrap().unwrap() {
                ReconnectEvent::Message(message) if message.len() == 100_000 => "large".to_owned(),
                ReconnectEvent::Message(message) => message.as_text().unwrap().to_owned(),
                ReconnectEvent::Connected { .. } => "connected".to_owned(),
                ReconnectEvent::Disconnected { .. } => "disconnected".to_owned(),
                _ => "failed".to_owned(),
            }),
            std::task::Poll::Pending => advance(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(
        seen,
        ["failed", "connected", "large", "disconnected", "connected", "last"]
    );
    client.close(CloseCode::NORMAL, "").await.unwrap();
    within(60, server).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_ends_the_connection_or_the_attempts() {
    let (mut client, mut network) = Network::start([]);
    connected(&mut client).await;
    let mut server = network.next().await;
    client.send("last").await.unwrap();
    let serving = async {
        assert_eq!(server.recv().await.unwrap(), Some(Message::text("last")));
        assert_eq!(server.recv().await.unwrap(), None);
    };
    let (closed, ()) = tokio::join!(client.close(CloseCode::NORMAL, "done"), serving);
    closed.unwrap();
    // The close frame of the server shows that it has received everything before.
    assert_eq!(client.undelivered(), Undelivered::default());
    assert!(client.recv().await.unwrap().is_none());
    assert!(client.send("late").await.is_err() && client.close(CloseCode::NORMAL, "").await.is_ok());

    let (mut client, network) = Network::start([Attempt::Fails(lost())]);
    next(&mut client).await;
    client.close(CloseCode::NORMAL, "").await.unwrap();
    assert!(client.recv().await.unwrap().is_none());
    advance(Duration::from_secs(600)).await;
    assert_eq!(network.times.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn frames_are_sent_once() {
    let (mut client, peer) = scripted();
    connected(&mut client).await;
    client.feed("a").await.unwrap();
    client.feed("b").await.unwrap();
    client.flush().await.unwrap();
    let frames: Vec<_> = peer
        .take_frames()
        .into_iter()
        .filter(|frame| !frame.is_ping())
        .collect();
    assert_eq!(texts(&frames), ["a", "b"]);
}
