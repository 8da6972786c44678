//! The usage patterns of a connection: each sends small messages to a peer that echoes them, and receives the echoes.
#![allow(dead_code, reason = "each program uses its part")]

use std::pin::Pin;

use futures_util::{SinkExt, StreamExt};
use sockeye::{Error, Message, Receiver, Sender, WebSocket};

/// How many messages are sent before any is received, if one task does both.
const WINDOW: usize = 16;

const PAYLOAD: &str = "twenty bytes of text";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsagePattern {
    /// `send`, `recv`, one message at a time.
    Whole,
    /// `feed` several times, `flush`, then `recv` as often.
    WholeInBursts,
    /// Like `WholeInBursts`, with each `recv` in a `select!`.
    WholeInSelect,
    /// Like `WholeInBursts`, with the traits `Sink` and `Stream`.
    SinkAndStream,
    /// `Sender` and `Receiver` in one `join!`.
    SplitInOneTask,
    /// `Sender` and `Receiver` in one task each.
    SplitInTwoTasks,
    /// Like `SplitInOneTask`, with `try_send`.
    TrySend,
    /// The halves of `StreamExt::split` in one `join!`.
    FuturesInOneTask,
    /// The halves of `StreamExt::split` in one task each.
    FuturesInTwoTasks,
}

pub(crate) const USAGE_PATTERNS: [UsagePattern; 9] = [
    UsagePattern::Whole,
    UsagePattern::WholeInBursts,
    UsagePattern::WholeInSelect,
    UsagePattern::SinkAndStream,
    UsagePattern::SplitInOneTask,
    UsagePattern::SplitInTwoTasks,
    UsagePattern::TrySend,
    UsagePattern::FuturesInOneTask,
    UsagePattern::FuturesInTwoTasks,
];

pub(crate) type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Observes the polls of a pattern's futures.
pub(crate) trait Watch: Send + Sync {
    fn watch<'a>(&self, future: Boxed<'a>) -> Boxed<'a> {
        future
    }
}

/// The peer: echoes until the end.
pub(crate) async fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

/// Sends and receives `count` messages.
pub(crate) async fn run(pattern: UsagePattern, mut ws: WebSocket, count: usize, watch: &dyn Watch) {
    match pattern {
        UsagePattern::Whole
        | UsagePattern::WholeInBursts
        | UsagePattern::WholeInSelect
        | UsagePattern::SinkAndStream => {
            let window = if pattern == UsagePattern::Whole { 1 } else { WINDOW };
            let rounds = async {
                for begin in (0..count).step_by(window) {
                    round(pattern, &mut ws, window.min(count - begin)).await;
                }
            };
            watch.watch(Box::pin(rounds)).await;
        }
        UsagePattern::SplitInOneTask | UsagePattern::TrySend => {
            let (sender, mut receiver) = ws.split();
            let both = async {
                match pattern {
                    UsagePattern::TrySend => {
                        _ = tokio::join!(try_send_all(&sender, count), receive_all(&mut receiver, count))
                    }
                    _ => _ = tokio::join!(feed_all(&sender, count), receive_all(&mut receiver, count)),
                }
            };
            watch.watch(Box::pin(both)).await;
        }
        UsagePattern::SplitInTwoTasks => {
            let (sender, mut receiver) = ws.split();
            let sending = watch.watch(Box::pin(async move { feed_all(&sender, count).await }));
            let receiving = watch.watch(Box::pin(async move { receive_all(&mut receiver, count).await }));
            in_two_tasks(sending, receiving).await;
        }
        UsagePattern::FuturesInOneTask | UsagePattern::FuturesInTwoTasks => {
            let (mut sink, mut stream) = StreamExt::split(ws);
            let sending = async move {
                for _ in 0..count {
                    sink.feed(Message::text(PAYLOAD)).await.unwrap();
                }
                sink.flush().await.unwrap();
            };
            let receiving = async move {
                for _ in 0..count {
                    check(stream.next().await.transpose());
                }
            };
            if pattern == UsagePattern::FuturesInOneTask {
                let both = async { _ = tokio::join!(sending, receiving) };
                watch.watch(Box::pin(both)).await;
            } else {
                in_two_tasks(watch.watch(Box::pin(sending)), watch.watch(Box::pin(receiving))).await;
            }
        }
    }
}

async fn in_two_tasks(sending: Boxed<'static>, receiving: Boxed<'static>) {
    let (sending, receiving) = (tokio::spawn(sending), tokio::spawn(receiving));
    sending.await.unwrap();
    receiving.await.unwrap();
}

async fn round(pattern: UsagePattern, ws: &mut WebSocket, window: usize) {
    match pattern {
        UsagePattern::Whole => ws.send(PAYLOAD).await.unwrap(),
        UsagePattern::SinkAndStream => {
            for _ in 0..window {
                SinkExt::feed(ws, Message::text(PAYLOAD)).await.unwrap();
            }
            SinkExt::<Message>::flush(ws).await.unwrap();
        }
        _ => {
            for _ in 0..window {
                ws.feed(PAYLOAD).await.unwrap();
            }
            ws.flush().await.unwrap();
        }
    }
    for _ in 0..window {
        match pattern {
            UsagePattern::SinkAndStream => check(ws.next().await.transpose()),
            UsagePattern::WholeInSelect => tokio::select! {
                received = ws.recv() => check(received),
                () = std::future::pending() => {}
            },
            _ => check(ws.recv().await),
        }
    }
}

async fn feed_all(sender: &Sender, count: usize) {
    for _ in 0..count {
        sender.feed(PAYLOAD).await.unwrap();
    }
    sender.flush().await.unwrap();
}

async fn try_send_all(sender: &Sender, count: usize) {
    for _ in 0..count {
        while sender.try_send(PAYLOAD).is_err() {
            sender.flush().await.unwrap();
        }
    }
    sender.flush().await.unwrap();
}

async fn receive_all(receiver: &mut Receiver, count: usize) {
    for _ in 0..count {
        check(receiver.recv().await);
    }
}

#[track_caller]
fn check(received: Result<Option<Message>, Error>) {
    let message = received.unwrap().expect("a message, not the end");
    assert_eq!(message.as_text(), Some(PAYLOAD));
}
