//! The calls of the pair table: each public method as a sequence of steps, for every way to share a connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sockeye::{
    CloseCode, Compress, Error, Event, Message, Overflow, PreparedMessage, Receiver, Sender, TryReserveError,
    TrySendError, WebSocket,
};
use tokio::time::{sleep, timeout};

use crate::peer;

/// Payload sizes of our messages, in rotation: small, larger than the transport's buffer, larger than the write buffer.
const SIZES: [usize; 6] = [9, 1200, 7000, 17_000, 130, 3000];

/// The number of messages or calls of one operation.
const COUNT: usize = 6;

/// The pause between two calls of an operation that does not wait by itself.
const GAP: Duration = Duration::from_millis(100);

/// The size of our message with this number.
pub(crate) fn size_of(number: usize) -> usize {
    SIZES[number % SIZES.len()]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Recv,
    /// `recv_event`, skipping control frames.
    RecvEvent,
    Next,
    Send,
    Feed,
    FeedWith,
    SendPrepared,
    FeedPrepared,
    /// `try_send`, then `flush`, each time.
    Flush,
    TrySend,
    TrySendPrepared,
    TrySendAll,
    /// `reserve`, then `Permit::send`.
    Reserve,
    /// `try_reserve`, then `Permit::send`.
    TryReserve,
    /// `send` of an outbox with this policy.
    Outbox(Overflow),
    SendPing,
    /// `ping`, which waits for the pong.
    Ping,
    Close,
    StartClose,
    /// `close_info`, `is_open`, `rtt` and `stats`.
    Questions,
    SinkFeed,
    SinkSend,
    /// `try_send` or `start_send`, then `SinkExt::flush`, each time.
    SinkFlush,
    SinkClose,
    /// Nothing for a second: closes beside two receiving operations.
    Wait,
}

thread_local! {
    /// The progress of each operation.
    pub(crate) static NOTES: RefCell<BTreeMap<char, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Every method of `WebSocket` that takes a reference.
pub(crate) const OF_WHOLE: [Call; 19] = [
    Call::Recv,
    Call::RecvEvent,
    Call::Next,
    Call::Send,
    Call::Feed,
    Call::FeedWith,
    Call::SendPrepared,
    Call::FeedPrepared,
    Call::Flush,
    Call::TrySend,
    Call::TrySendPrepared,
    Call::SendPing,
    Call::Close,
    Call::StartClose,
    Call::Questions,
    Call::SinkFeed,
    Call::SinkSend,
    Call::SinkFlush,
    Call::SinkClose,
];

/// Every method of `Sender` that does not need a receiver.
pub(crate) const OF_SENDER: [Call; 17] = [
    Call::Send,
    Call::Feed,
    Call::FeedWith,
    Call::SendPrepared,
    Call::FeedPrepared,
    Call::Flush,
    Call::TrySend,
    Call::TrySendPrepared,
    Call::TrySendAll,
    Call::Reserve,
    Call::TryReserve,
    Call::Outbox(Overflow::Wait),
    Call::Outbox(Overflow::DropNewest),
    Call::Outbox(Overflow::DropOldest),
    Call::SendPing,
    Call::Close,
    Call::Questions,
];

/// Every method of `Receiver` that waits.
pub(crate) const OF_RECEIVER: [Call; 3] = [Call::Recv, Call::RecvEvent, Call::Next];

/// The methods of the sink half of `StreamExt::split`.
pub(crate) const OF_SINK: [Call; 4] = [Call::SinkFeed, Call::SinkSend, Call::SinkFlush, Call::SinkClose];

impl Call {
    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::Recv | Self::RecvEvent | Self::Next)
    }

    /// Whether it is a method of `Stream` or `Sink`.
    pub(crate) fn is_of_trait(self) -> bool {
        matches!(
            self,
            Self::Next | Self::SinkFeed | Self::SinkSend | Self::SinkFlush | Self::SinkClose
        )
    }

    pub(crate) fn closes(self) -> bool {
        matches!(self, Self::Close | Self::StartClose | Self::SinkClose)
    }

    /// Whether it may skip a message because the queue is full.
    pub(crate) fn may_be_full(self) -> bool {
        use Call::{Flush, Outbox, SinkFlush, TryReserve, TrySend, TrySendAll, TrySendPrepared};
        matches!(
            self,
            Flush | TrySend | TrySendPrepared | TrySendAll | SinkFlush | TryReserve | Outbox(_)
        )
    }
}

/// A share of a connection.
pub(crate) enum Handle {
    /// The whole connection, used by one task at a time for complete calls.
    Exclusive(Arc<futures_util::lock::Mutex<WebSocket>>),
    /// The whole connection, behind a lock that is held only during each poll.
    Locked(Arc<Mutex<WebSocket>>),
    Sender(Sender),
    Receiver(Receiver),
    Sink(SplitSink<WebSocket, Message>),
    Stream(SplitStream<WebSocket>),
}

/// The result of a call.
#[derive(Debug)]
pub(crate) enum Got {
    Message(Message),
    End,
    Done,
    /// The queue was full.
    Full,
}

type Given = Result<Got, Error>;

impl Handle {
    /// Another share of the same connection for sending, if possible.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Exclusive(ws) => Some(Self::Exclusive(ws.clone())),
            Self::Locked(ws) => Some(Self::Locked(ws.clone())),
            Self::Sender(sender) => Some(Self::Sender(sender.clone())),
            Self::Receiver(_) | Self::Sink(_) | Self::Stream(_) => None,
        }
    }

    pub(crate) async fn call(&mut self, call: Call, message: Option<Message>) -> Given {
        match self {
            Self::Exclusive(ws) => call_whole(&mut *ws.lock().await, call, message).await,
            Self::Locked(ws) => call_locked(ws, call, message).await,
            Self::Sender(sender) => call_sender(sender, call, message).await,
            Self::Receiver(receiver) => match call {
                Call::Recv => received(receiver.recv().await),
                Call::RecvEvent => loop {
                    if let Some(given) = message_of(receiver.recv_event().await) {
                        break given;
                    }
                },
                Call::Next => received(receiver.next().await.transpose()),
                call => unreachable!("{call:?} of a receiver"),
            },
            Self::Sink(sink) => match call {
                Call::SinkFeed => done(sink.feed(message.expect("a message")).await),
                Call::SinkSend => done(sink.send(message.expect("a message")).await),
                Call::SinkFlush => {
                    sink.feed(message.expect("a message")).await?;
                    done(sink.flush().await)
                }
                Call::SinkClose => done(sink.close().await),
                call => unreachable!("{call:?} of a sink"),
            },
            Self::Stream(stream) => received(stream.next().await.transpose()),
        }
    }

    /// Closes beside a call, so that what the peer still sends is received.
    pub(crate) async fn close_gently(&mut self, call: Call) -> Result<(), Error> {
        match self {
            Self::Exclusive(ws) => {
                let mut ws = ws.lock().await;
                ws.start_close(CloseCode::NORMAL, "bye")?;
                ws.flush().await
            }
            Self::Locked(ws) if call.is_of_trait() => locked(ws, SinkExt::<Message>::poll_close_unpin).await,
            Self::Locked(ws) => {
                ws.lock().unwrap().start_close(CloseCode::NORMAL, "bye")?;
                locked(ws, |ws, cx| once(cx, ws.flush())).await
            }
            Self::Sender(sender) => Sender::close(sender, CloseCode::NORMAL, "bye").await,
            Self::Sink(sink) => sink.close().await,
            Self::Receiver(_) | Self::Stream(_) => unreachable!("half that only receives"),
        }
    }

    /// How the connection was closed.
    pub(crate) fn close_info(&self) -> Option<sockeye::CloseInfo> {
        match self {
            Self::Exclusive(ws) => ws.try_lock().and_then(|ws| ws.close_info().cloned()),
            Self::Locked(ws) => ws.lock().unwrap().close_info().cloned(),
            Self::Sender(sender) => sender.close_info(),
            Self::Receiver(receiver) => receiver.close_info(),
            Self::Sink(_) | Self::Stream(_) => None,
        }
    }
}

fn received(received: Result<Option<Message>, Error>) -> Given {
    Ok(received?.map_or(Got::End, Got::Message))
}

/// `None` for a control frame.
fn message_of(received: Result<Option<Event>, Error>) -> Option<Given> {
    match received {
        Ok(Some(Event::Message(message))) => Some(Ok(Got::Message(message))),
        Ok(Some(_)) => None,
        Ok(None) => Some(Ok(Got::End)),
        Err(error) => Some(Err(error)),
    }
}

fn done(result: Result<(), Error>) -> Given {
    result.map(|()| Got::Done)
}

fn tried(result: Result<(), TrySendError>) -> Given {
    match result {
        Ok(()) => Ok(Got::Done),
        Err(TrySendError::Full { .. }) => Ok(Got::Full),
        Err(TrySendError::Closed(error)) => Err(error),
    }
}

async fn call_whole(ws: &mut WebSocket, call: Call, message: Option<Message>) -> Given {
    let message = || message.expect("a message");
    match call {
        Call::Recv => received(ws.recv().await),
        Call::RecvEvent => loop {
            if let Some(given) = message_of(ws.recv_event().await) {
                break given;
            }
        },
        Call::Next => received(ws.next().await.transpose()),
        Call::Send => done(ws.send(message()).await),
        Call::Feed => done(ws.feed(message()).await),
        Call::FeedWith => done(ws.feed(message().compress(Compress::Never)).await),
        Call::SendPrepared => done(ws.send(PreparedMessage::new(message())).await),
        Call::FeedPrepared => done(ws.feed(PreparedMessage::new(message())).await),
        Call::Flush => {
            let full = tried(ws.try_send(message()))?;
            ws.flush().await?;
            Ok(full)
        }
        Call::TrySend => tried(ws.try_send(message())),
        Call::TrySendPrepared => tried(ws.try_send(PreparedMessage::new(message()))),
        Call::SendPing => done(ws.send_ping(b"there?").await),
        Call::Ping => done(ws.ping().await.map(drop)),
        Call::Close => done(ws.close(CloseCode::NORMAL, "bye").await),
        Call::StartClose => done(ws.start_close(CloseCode::NORMAL, "bye")),
        Call::Questions => {
            assert!(ws.close_info().is_none() || !ws.is_open());
            let _ = (ws.rtt(), ws.stats());
            Ok(Got::Done)
        }
        Call::SinkFeed => done(SinkExt::feed(ws, message()).await),
        Call::SinkSend => done(SinkExt::send(ws, message()).await),
        Call::SinkFlush => {
            let full = tried(ws.try_send(message()))?;
            SinkExt::<Message>::flush(ws).await?;
            Ok(full)
        }
        Call::SinkClose => done(SinkExt::<Message>::close(ws).await),
        Call::TrySendAll | Call::Reserve | Call::TryReserve | Call::Outbox(_) | Call::Wait => {
            unreachable!("not of a WebSocket")
        }
    }
}

/// Creates a new future for each poll, which loses nothing if dropping the future loses nothing.
async fn locked<T>(ws: &Mutex<WebSocket>, mut poll: impl FnMut(&mut WebSocket, &mut Context<'_>) -> Poll<T>) -> T {
    poll_fn(|cx| poll(&mut ws.lock().unwrap(), cx)).await
}

fn once<F: Future>(cx: &mut Context<'_>, future: F) -> Poll<F::Output> {
    pin!(future).poll(cx)
}

async fn call_locked(ws: &Mutex<WebSocket>, call: Call, message: Option<Message>) -> Given {
    let of = || message.clone().expect("a message");
    let flush = async || done(locked(ws, |ws, cx| once(cx, ws.flush())).await);
    match call {
        Call::Recv => received(locked(ws, |ws, cx| once(cx, ws.recv())).await),
        Call::RecvEvent => loop {
            if let Some(given) = message_of(locked(ws, |ws, cx| once(cx, ws.recv_event())).await) {
                break given;
            }
        },
        Call::Next => received(locked(ws, |ws, cx| ws.poll_next_unpin(cx)).await.transpose()),
        Call::Feed | Call::Send => {
            locked(ws, |ws, cx| once(cx, ws.feed(of()))).await?;
            if call == Call::Feed {
                Ok(Got::Done)
            } else {
                flush().await
            }
        }
        Call::FeedWith => done(locked(ws, |ws, cx| once(cx, ws.feed(of().compress(Compress::Never)))).await),
        Call::FeedPrepared | Call::SendPrepared => {
            let prepared = PreparedMessage::new(of());
            locked(ws, |ws, cx| once(cx, ws.feed(&prepared))).await?;
            if call == Call::FeedPrepared {
                Ok(Got::Done)
            } else {
                flush().await
            }
        }
        Call::Flush => {
            let full = tried(ws.lock().unwrap().try_send(of()))?;
            flush().await?;
            Ok(full)
        }
        Call::TrySend => tried(ws.lock().unwrap().try_send(of())),
        Call::TrySendPrepared => tried(ws.lock().unwrap().try_send(PreparedMessage::new(of()))),
        Call::SendPing => {
            let begun = locked(ws, |ws, cx| Poll::Ready(once(cx, ws.send_ping(b"there?")))).await;
            match begun {
                Poll::Ready(result) => done(result),
                Poll::Pending => flush().await,
            }
        }
        Call::Close => done(locked(ws, |ws, cx| once(cx, ws.close(CloseCode::NORMAL, "bye"))).await),
        Call::StartClose => done(ws.lock().unwrap().start_close(CloseCode::NORMAL, "bye")),
        Call::Questions => {
            let ws = ws.lock().unwrap();
            assert!(ws.close_info().is_none() || !ws.is_open());
            let _ = (ws.rtt(), ws.stats());
            Ok(Got::Done)
        }
        Call::SinkFeed | Call::SinkSend => {
            locked(ws, SinkExt::<Message>::poll_ready_unpin).await?;
            // No other operation runs in between on this thread.
            ws.lock().unwrap().start_send_unpin(of())?;
            match call {
                Call::SinkFeed => Ok(Got::Done),
                _ => done(locked(ws, SinkExt::<Message>::poll_flush_unpin).await),
            }
        }
        Call::SinkFlush => {
            let full = tried(ws.lock().unwrap().try_send(of()))?;
            locked(ws, SinkExt::<Message>::poll_flush_unpin).await?;
            Ok(full)
        }
        Call::SinkClose => done(locked(ws, SinkExt::<Message>::poll_close_unpin).await),
        Call::Ping => unreachable!("it borrows the connection"),
        Call::TrySendAll | Call::Reserve | Call::TryReserve | Call::Outbox(_) | Call::Wait => {
            unreachable!("not of a WebSocket")
        }
    }
}

async fn call_sender(sender: &Sender, call: Call, message: Option<Message>) -> Given {
    let message = || message.expect("a message");
    match call {
        Call::Send => done(sender.send(message()).await),
        Call::Feed => done(sender.feed(message()).await),
        Call::FeedWith => done(sender.feed(message().compress(Compress::Never)).await),
        Call::SendPrepared => done(sender.send(PreparedMessage::new(message())).await),
        Call::FeedPrepared => done(sender.feed(PreparedMessage::new(message())).await),
        Call::Flush => {
            let full = tried(sender.try_send(message()))?;
            sender.flush().await?;
            Ok(full)
        }
        Call::TrySend => tried(sender.try_send(message())),
        Call::TrySendPrepared => tried(sender.try_send(PreparedMessage::new(message()))),
        Call::TrySendAll => {
            let sent = sender.try_send_all(&[PreparedMessage::new(message())]);
            tried(sent.map_err(|error| error.cause))
        }
        Call::Reserve => {
            let message = message();
            tried(sender.reserve(message.len()).await?.send(message))
        }
        Call::TryReserve => {
            let message = message();
            match sender.try_reserve(message.len()) {
                Ok(permit) => tried(permit.send(message)),
                Err(TryReserveError::Full { .. }) => Ok(Got::Full),
                Err(TryReserveError::Closed(error)) => Err(error),
            }
        }
        Call::Outbox(overflow) => {
            let outbox = sender.clone().with_overflow(overflow);
            outbox.send(message()).await?;
            // With `DropOldest`, it may be dropped later.
            match outbox.dropped() > 0 || overflow == Overflow::DropOldest {
                true => Ok(Got::Full),
                false => Ok(Got::Done),
            }
        }
        Call::SendPing => done(sender.send_ping(b"there?").await),
        Call::Ping => done(sender.ping().await.map(drop)),
        Call::Close => done(sender.close(CloseCode::NORMAL, "bye").await),
        Call::Questions => {
            assert!(sender.close_info().is_none() || !sender.is_open());
            let _ = (sender.rtt(), sender.stats().await);
            Ok(Got::Done)
        }
        call => unreachable!("{call:?} of a sender"),
    }
}

/// One operation of a combination, and its log.
pub(crate) struct Op {
    pub(crate) handle: Handle,
    pub(crate) call: Call,
    pub(crate) log: Log,
    tag: char,
    steps: usize,
    closes_at_end: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The numbers of the messages that were passed to a call.
    pub(crate) tried: Vec<usize>,
    /// Those for which the call returned `Ok`.
    pub(crate) queued: Vec<usize>,
    /// How many of `queued` are known to be written.
    pub(crate) flushed: usize,
    /// The numbers of the received messages.
    pub(crate) received: Vec<usize>,
    /// The end, if it receives.
    pub(crate) end: Option<Result<(), Error>>,
    /// The result of closing, if that was done at the end.
    pub(crate) closing: Option<Result<(), Error>>,
    /// The first result of the call that was not `Ok`.
    pub(crate) failure: Option<Error>,
    pub(crate) faults: Vec<String>,
    pub(crate) is_done: bool,
}

impl Op {
    pub(crate) fn new(handle: Handle, call: Call, tag: char) -> Self {
        Self {
            handle,
            call,
            log: Log::default(),
            tag,
            steps: 0,
            closes_at_end: false,
        }
    }

    /// Makes it close the connection after its last call, if it does not receive.
    pub(crate) fn then_close_unless_it_receives(mut self) -> Self {
        self.closes_at_end = !self.call.receives();
        self
    }

    /// Runs all steps.
    pub(crate) async fn run(&mut self) {
        while !self.step().await {}
    }

    /// One step. The call is dropped if it takes more than some milliseconds. Returns whether all steps are done.
    pub(crate) async fn step_briefly(&mut self) -> bool {
        self.log.is_done || timeout(Duration::from_millis(10), self.step()).await.unwrap_or(false)
    }

    /// One call. Returns whether it was the last. Cancel-safe if the call is.
    pub(crate) async fn step(&mut self) -> bool {
        if !self.log.is_done {
            let is_last = self.steps >= COUNT || self.call().await;
            if is_last {
                self.steps = COUNT;
                if self.closes_at_end {
                    self.log.closing = Some(self.handle.close_gently(self.call).await);
                }
                self.log.is_done = true;
            }
            self.note();
        }
        self.log.is_done
    }

    /// For debugging a combination that hangs.
    fn note(&self) {
        let Log {
            tried,
            received,
            is_done,
            ..
        } = &self.log;
        let note = match is_done {
            true => "done".to_owned(),
            false => format!(
                "{} steps, sent {}, received {}",
                self.steps,
                tried.len(),
                received.len()
            ),
        };
        NOTES.with_borrow_mut(|notes| notes.insert(self.tag, note));
    }

    async fn call(&mut self) -> bool {
        match self.call {
            Call::Recv | Call::RecvEvent | Call::Next => self.receive().await,
            Call::Close | Call::StartClose | Call::SinkClose => self.close().await,
            Call::Wait => {
                self.steps = COUNT;
                sleep(Duration::from_secs(1)).await;
                true
            }
            Call::SendPing | Call::Ping | Call::Questions => {
                self.steps += 1;
                let given = self.handle.call(self.call, None).await;
                self.take(given);
                sleep(GAP).await;
                self.steps >= COUNT
            }
            _ => self.send().await,
        }
    }

    fn take(&mut self, given: Given) {
        if let Err(error) = given {
            self.log.failure.get_or_insert(error);
        }
    }

    async fn receive(&mut self) -> bool {
        match self.handle.call(self.call, None).await {
            Ok(Got::Message(message)) => {
                match peer::parse(message.as_bytes(), peer::size_of) {
                    Some(('p', number)) if message.is_text() == number.is_multiple_of(2) => {
                        self.log.received.push(number);
                    }
                    _ => self
                        .log
                        .faults
                        .push(format!("received {} bytes of nobody's", message.len())),
                }
                false
            }
            Ok(_) => {
                self.log.end = Some(Ok(()));
                true
            }
            Err(error) => {
                self.log.end = Some(Err(error));
                true
            }
        }
    }

    async fn close(&mut self) -> bool {
        let given = self.handle.call(self.call, None).await;
        self.take(given);
        true
    }

    async fn send(&mut self) -> bool {
        let number = self.steps;
        self.steps += 1;
        self.log.tried.push(number);
        let payload = peer::payload(self.tag, number, size_of(number));
        let message = match number.is_multiple_of(2) {
            true => Message::text(String::from_utf8(payload).expect("ASCII")),
            false => Message::binary(payload),
        };
        match self.handle.call(self.call, Some(message)).await {
            Ok(Got::Full) => {}
            Ok(_) => self.log.queued.push(number),
            Err(error) => {
                self.log.failure = Some(error);
                return true;
            }
        }
        use Call::{Flush, Send, SendPrepared, SinkFlush, SinkSend};
        if matches!(self.call, Send | SendPrepared | Flush | SinkSend | SinkFlush) {
            self.log.flushed = self.log.queued.len();
        }
        if self.call.may_be_full() {
            sleep(GAP).await;
        }
        self.steps >= COUNT
    }
}
