//! A client that reconnects.

mod backoff;
mod undelivered;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::random;
use sockeye_proto::{CloseCause, CloseCode};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::client::request::RequestBuilder;
use crate::error::{Error, Kind};
use crate::message::Message;
use crate::message::event::Event;
use crate::message::outbound::Outbound;
use crate::websocket::WebSocket;
use crate::websocket::try_recv::TryRecvError;

pub use backoff::Backoff;
use undelivered::UnconfirmedMessages;
pub use undelivered::Undelivered;

/// Default of [`Reconnecting::keep_undelivered_max`].
const KEPT_SIZE_MAX: usize = 1024 * 1024;

/// Maximum size of the messages that arrived before a sending method found the connection lost. More can only arrive if
/// the peer sends without end after its own failure.
const RECEIVED_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Default of [`Reconnecting::on_connect_timeout`].
const ON_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type ConnectFuture = Pin<Box<dyn Future<Output = Result<WebSocket, Error>> + Send>>;
type Connect = Box<dyn FnMut() -> ConnectFuture + Send>;
type OnConnect = Arc<dyn Fn(WebSocket) -> ConnectFuture + Send + Sync>;
type RetryIf = Box<dyn Fn(&Error) -> bool + Send>;

/// A WebSocket of a client that is opened again when it is lost.
///
/// [`recv`](Self::recv) returns messages, and tells when the connection was opened or lost, and what may have been lost
/// with it. All work is done while `recv` or a sending method is awaited; there is no background task, and it cannot be
/// split. To send from other tasks, give them a channel to the task that owns it, which waits for `recv` and for the
/// channel in one `select!`.
///
/// ```no_run
/// use sockeye::{Client, Error, ReconnectEvent};
///
/// async fn follow(client: &Client) -> Result<(), Error> {
///     let mut feed = client
///         .request("wss://feed.example/")
///         .reconnecting()
///         // Runs on each new connection, before `recv` returns messages of it.
///         .on_connect(|mut ws| async move {
///             ws.send("subscribe BTC-USD").await?;
///             Ok(ws)
///         });
///     while let Some(event) = feed.recv().await? {
///         match event {
///             ReconnectEvent::Message(message) => println!("{message:?}"),
///             ReconnectEvent::Connected { .. } => println!("connected; messages may be missing before this point"),
///             ReconnectEvent::Disconnected { error, undelivered, retry_in, .. } => {
///                 println!("{error}; {} messages may be lost; next attempt in {retry_in:?}", undelivered.count);
///             }
///             ReconnectEvent::ConnectFailed { error, retry_in, .. } => {
///                 println!("{error}; next attempt in {retry_in:?}");
///             }
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// # When it reconnects
///
/// After every error for which [`Error::is_retryable`] is true, also if the first connection fails, and after the close
/// codes 1001 and 1011 to 1014 of the server; [`retry_if`](Self::retry_if) replaces this rule. The delays are those of
/// [`Backoff`]. Other errors are final: `recv` returns them from then on. There is no limit to the number of attempts
/// unless [`attempts_max`](Self::attempts_max) sets one.
///
/// # What may be lost
///
/// - Messages that were sent: [`ReconnectEvent::Disconnected`] lists those whose delivery is unconfirmed. They are not
///   sent again, because the server may have received them: the application decides. To confirm deliveries, a ping is
///   sent after a message unless one is unanswered, about one for each round trip, and its pong confirms what was sent
///   before it. A pong shows that the server's WebSocket implementation has received the messages, not that its
///   application has handled them.
/// - Messages of the server while there is no connection, and those that were on the way. The protocol does not number
///   messages, so the number of lost ones is not known here. A feed that numbers its messages, or a snapshot that the
///   hook asks for, closes the gap.
/// - Nothing else: messages that were received before the connection was lost are returned before the event.
#[must_use = "nothing is done before `recv` or `send`"]
pub struct Reconnecting {
    connect: Connect,
    on_connect: Option<OnConnect>,
    on_connect_timeout: Duration,
    retry_if: RetryIf,
    backoff: Backoff,
    attempts_max: Option<u32>,
    state: State,
    /// Number of delays since the start or since a stable connection.
    delays: u32,
    /// Number of attempts since the last connection.
    attempts: u32,
    unconfirmed: UnconfirmedMessages,
    /// Messages that arrived before a sending method found the connection lost.
    received: VecDeque<Message>,
    pending: Pending,
}

enum State {
    /// The next attempt is after this delay; `None` before the first one.
    Waiting(Option<Pin<Box<Sleep>>>),
    /// An attempt, including the hook.
    Connecting(ConnectFuture),
    Open(Box<Open>),
    /// No more attempts. `is_normal` after a normal close, which is no error for `recv`.
    Ended {
        error: Error,
        is_normal: bool,
    },
}

struct Open {
    ws: WebSocket,
    since: Instant,
}

/// Events that `recv` has not returned yet. A sending method may reconnect too, so events of the same kind are merged:
/// this needs no queue without a limit.
#[derive(Default)]
struct Pending {
    disconnected: Option<(Error, Undelivered, Duration)>,
    failed: Option<(Error, u32, Duration)>,
    connected: Option<u32>,
}

/// What [`Reconnecting::recv`] returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReconnectEvent {
    /// A connection is open, and the hook has run. The messages that follow are from this connection.
    #[non_exhaustive]
    Connected {
        /// Number of attempts that this connection took, at least 1.
        attempts: u32,
    },
    /// A message.
    Message(Message),
    /// The connection was lost. If a sending method has already reconnected meanwhile, [`Connected`](Self::Connected)
    /// follows.
    #[non_exhaustive]
    Disconnected {
        /// Why.
        error: Error,
        /// The messages whose delivery is unconfirmed: the server may or may not have received them.
        undelivered: Undelivered,
        /// Time between the loss and the next attempt.
        retry_in: Duration,
    },
    /// An attempt to connect failed.
    #[non_exhaustive]
    ConnectFailed {
        /// Why.
        error: Error,
        /// Number of attempts since the last connection.
        attempts: u32,
        /// Time between the failure and the next attempt.
        retry_in: Duration,
    },
}

impl RequestBuilder {
    /// Returns a WebSocket that is opened with this request, and again whenever it is lost. Nothing is sent until
    /// [`Reconnecting::recv`] or [`Reconnecting::send`] is awaited.
    ///
    /// For a request that changes, for example because its token expires, use [`Reconnecting::new`].
    pub fn reconnecting(self) -> Reconnecting {
        Reconnecting::new(move || self.clone().connect())
    }
}

impl Reconnecting {
    /// Creates a WebSocket that is opened by `connect`, which is called for each attempt.
    ///
    /// ```no_run
    /// # use sockeye::{Client, Error, Reconnecting};
    /// # async fn fresh_token() -> Result<String, Error> { Ok("t".into()) }
    /// # fn example(client: Client) {
    /// let feed = Reconnecting::new(move || {
    ///     let client = client.clone();
    ///     async move {
    ///         let token = fresh_token().await?;
    ///         client.request("wss://feed.example/").header("authorization", token).await
    ///     }
    /// });
    /// # }
    /// ```
    pub fn new<F, C>(mut connect: C) -> Self
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        Self {
            connect: Box::new(move || Box::pin(connect())),
            on_connect: None,
            on_connect_timeout: ON_CONNECT_TIMEOUT,
            retry_if: Box::new(Error::is_retryable),
            backoff: Backoff::default(),
            attempts_max: None,
            state: State::Waiting(None),
            delays: 0,
            attempts: 0,
            unconfirmed: UnconfirmedMessages::new(KEPT_SIZE_MAX),
            received: VecDeque::new(),
            pending: Pending::default(),
        }
    }

    /// Sets a hook that runs on each new connection before its messages are returned, to authenticate or to subscribe
    /// again. It gets the connection and returns it. An error is treated like one of connecting.
    ///
    /// Messages that the hook sends or receives are its own: they are not counted as undelivered and not returned by
    /// [`recv`](Self::recv).
    pub fn on_connect<F, H>(mut self, hook: H) -> Self
    where
        H: Fn(WebSocket) -> F + Send + Sync + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        self.on_connect = Some(Arc::new(move |ws| Box::pin(hook(ws))));
        self
    }

    /// Sets the time that the [hook](Self::on_connect) may take. Default: 10 s. Then the attempt has failed.
    pub fn on_connect_timeout(mut self, limit: Duration) -> Self {
        self.on_connect_timeout = limit;
        self
    }

    /// Sets the delays between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets which errors are followed by another attempt. Default: [`Error::is_retryable`].
    ///
    /// A close by the server is asked about too, as an error with [`Error::close_code`]; also a normal one. It is not
    /// asked after this side has closed.
    ///
    /// ```
    /// # use sockeye::{Client, ErrorKind};
    /// # let request = Client::new().request("ws://localhost/");
    /// let feed = request.reconnecting().retry_if(|error| error.is_retryable() || error.kind() == ErrorKind::Tls);
    /// ```
    pub fn retry_if(mut self, retry: impl Fn(&Error) -> bool + Send + 'static) -> Self {
        self.retry_if = Box::new(retry);
        self
    }

    /// Sets the number of failed attempts in a row after which the last error is final. Default `None`: no limit.
    pub fn attempts_max(mut self, attempts_max: impl Into<Option<u32>>) -> Self {
        self.attempts_max = attempts_max.into();
        self
    }

    /// Sets how many bytes of messages are kept that the server is not known to have received, for
    /// [`Undelivered::messages`]. Default: 1 MiB. They share the memory of the sent messages. With 0 they are only
    /// counted.
    pub fn keep_undelivered_max(mut self, size_max: usize) -> Self {
        self.unconfirmed.set_size_max(size_max);
        self
    }

    /// Receives the next event: a message, or a change of the connection. Connects if there is no connection.
    ///
    /// Returns `Ok(None)` after this side has closed, or after the server has closed with 1000 or without a code.
    ///
    /// # Errors
    ///
    /// An error that is not followed by another attempt. It is final: every later call returns it.
    /// [`undelivered`](Self::undelivered) then lists the messages that may be lost.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: an attempt, a delay and a message that has arrived in part continue with the next call.
    pub async fn recv(&mut self) -> Result<Option<ReconnectEvent>, Error> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(Some(ReconnectEvent::Message(message)));
            }
            if let Some(event) = self.pending.take() {
                return Ok(Some(event));
            }
            match &mut self.state {
                State::Open(open) => match open.ws.recv_event().await {
                    Ok(Some(Event::Message(message))) => return Ok(Some(ReconnectEvent::Message(message))),
                    Ok(Some(Event::Pong(payload))) => {
                        self.unconfirmed.handle_pong(&payload);
                        // Written by `recv_event` before it waits. If it fails, so does that.
                        let _ = queue_ping(&mut self.unconfirmed, &mut open.ws);
                    }
                    Ok(Some(Event::Ping(_))) => {}
                    Ok(None) => {
                        let error = close_error(&open.ws);
                        self.lose(error);
                    }
                    Err(error) => self.lose(error),
                },
                State::Ended { is_normal: true, .. } => return Ok(None),
                State::Ended { error, .. } => return Err(error.clone()),
                State::Waiting(_) | State::Connecting(_) => self.advance().await,
            }
        }
    }

    /// Sends a message. Waits for a connection if there is none, and until the message is written.
    ///
    /// `Ok` means that the message is either delivered or in the [`Undelivered`] list of one event: this includes the
    /// case that the connection is lost while the message is being written.
    ///
    /// Events that occur meanwhile are returned by the next [`recv`](Self::recv). If the connection is lost more than
    /// once between two calls of `recv`, one event reports the last error and all undelivered messages.
    ///
    /// # Errors
    ///
    /// The message was not sent: the connection has ended for good ([`recv`](Self::recv) returns the same error, or
    /// `None` if it was closed normally).
    ///
    /// # Cancel safety
    ///
    /// As for [`WebSocket::send`]: a message that is not queued yet is not sent; a queued one is sent completely.
    pub async fn send(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message, as [`WebSocket::feed`] does. Waits for a connection if there is none. [`send`](Self::send)
    /// says what `Ok` means.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A message that is not queued yet is not sent. A queued message is sent completely by the next call.
    pub async fn feed(&mut self, message: impl Into<Outbound>) -> Result<(), Error> {
        let message = message.into();
        loop {
            match &mut self.state {
                State::Open(open) => match open.ws.feed(message.clone()).await {
                    Ok(()) => {
                        self.unconfirmed.record(message);
                        let _ = queue_ping(&mut self.unconfirmed, &mut open.ws);
                        return Ok(());
                    }
                    Err(error) if error.is_invalid_input() => return Err(error),
                    Err(error) => self.lose_after_receiving(error).await,
                },
                State::Ended { error, .. } => return Err(error.clone()),
                State::Waiting(_) | State::Connecting(_) => self.advance().await,
            }
        }
    }

    /// Writes everything that is queued. Returns immediately if there is no connection.
    ///
    /// # Errors
    ///
    /// The connection was lost, and the error is final.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if let State::Open(open) = &mut self.state
            && let Err(error) = open.ws.flush().await
        {
            self.lose_after_receiving(error).await;
            if let State::Ended { error, .. } = &self.state {
                return Err(error.clone());
            }
        }
        Ok(())
    }

    /// Closes the connection for good: see [`WebSocket::close`]. Without a connection, only ends the attempts.
    ///
    /// # Errors
    ///
    /// Those of [`WebSocket::close`].
    ///
    /// # Cancel safety
    ///
    /// The next call of `close` or [`recv`](Self::recv) continues.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        if let State::Open(open) = &mut self.state {
            let closed = open.ws.close(code, reason).await;
            if is_answered(&open.ws) {
                self.unconfirmed.confirm_all();
            }
            self.state = State::Ended {
                error: close_error(&open.ws),
                is_normal: true,
            };
            return closed;
        }
        if !matches!(self.state, State::Ended { .. }) {
            self.state = State::Ended {
                error: Error::new(Kind::Aborted),
                is_normal: true,
            };
        }
        Ok(())
    }

    /// The messages sent on the current or last connection whose delivery is unconfirmed, unless
    /// [`ReconnectEvent::Disconnected`] has reported them.
    #[must_use]
    pub fn undelivered(&self) -> Undelivered {
        self.unconfirmed.undelivered()
    }

    /// The open connection, for its [`rtt`](WebSocket::rtt) or [`stats`](WebSocket::stats). `None` between connections.
    #[must_use]
    pub fn websocket(&self) -> Option<&WebSocket> {
        match &self.state {
            State::Open(open) => Some(&open.ws),
            _ => None,
        }
    }

    /// Waits for the next step between two connections. Each future is part of the state, so that dropping this loses
    /// nothing.
    async fn advance(&mut self) {
        match &mut self.state {
            State::Waiting(delay) => {
                if let Some(delay) = delay {
                    delay.as_mut().await;
                }
                self.attempts = self.attempts.saturating_add(1);
                self.state = State::Connecting(self.attempt());
            }
            State::Connecting(attempt) => match attempt.as_mut().await {
                Ok(ws) => {
                    self.pending.connected = Some(self.attempts);
                    self.attempts = 0;
                    self.state = State::Open(Box::new(Open {
                        ws,
                        since: Instant::now(),
                    }));
                }
                Err(error) => {
                    let is_last = self.attempts_max.is_some_and(|max| self.attempts >= max);
                    if is_last || !(self.retry_if)(&error) {
                        self.state = State::Ended {
                            error,
                            is_normal: false,
                        };
                        return;
                    }
                    let retry_in = self.wait_after(&error);
                    self.pending.failed = Some((error, self.attempts, retry_in));
                }
            },
            State::Open(_) | State::Ended { .. } => {}
        }
    }

    /// Starts an attempt, including the hook.
    fn attempt(&mut self) -> ConnectFuture {
        let connecting = (self.connect)();
        let Some(hook) = self.on_connect.clone() else {
            return connecting;
        };
        let limit = self.on_connect_timeout;
        Box::pin(async move {
            let ws = connecting.await?;
            let late = |_| Error::timeout_of("the hook after connecting", "Reconnecting::on_connect_timeout");
            timeout(limit, hook(ws)).await.map_err(late)?
        })
    }

    /// Starts the delay after a failure.
    fn wait_after(&mut self, error: &Error) -> Duration {
        let delay = self.backoff.delay(self.delays, error, random());
        self.delays = self.delays.saturating_add(1);
        self.state = State::Waiting(Some(Box::pin(sleep(delay))));
        delay
    }

    /// Ends a connection after its writing direction has failed. The messages that have arrived are kept for `recv`.
    /// The receiving direction may know the cause, such as a close frame.
    async fn lose_after_receiving(&mut self, write_error: Error) {
        let mut is_empty = false;
        loop {
            let State::Open(open) = &mut self.state else {
                return;
            };
            let received_size: usize = self.received.iter().map(Message::len).sum();
            match open.ws.try_recv() {
                Ok(message) if received_size < RECEIVED_SIZE_MAX => {
                    self.received.push_back(message);
                    is_empty = false;
                }
                Err(TryRecvError::Ended) => {
                    let error = close_error(&open.ws);
                    return self.lose(error);
                }
                Err(TryRecvError::Failed(error)) => return self.lose(error),
                // `Empty` is also returned to let other tasks run.
                Err(TryRecvError::Empty) if !is_empty => {
                    is_empty = true;
                    tokio::task::yield_now().await;
                }
                Ok(_) | Err(TryRecvError::Empty) => return self.lose(write_error),
            }
        }
    }

    /// Handles the end of the open connection.
    fn lose(&mut self, error: Error) {
        let State::Open(open) = &self.state else {
            return;
        };
        if is_answered(&open.ws) {
            self.unconfirmed.confirm_all();
        }
        let is_closed_here = open
            .ws
            .close_info()
            .is_some_and(|info| info.cause() == CloseCause::Local);
        if is_closed_here || !(self.retry_if)(&error) {
            let is_normal = error.is_normal_close();
            self.state = State::Ended { error, is_normal };
            return;
        }
        if self.backoff.is_stable(open.since.elapsed()) {
            self.delays = 0;
        }
        let retry_in = self.wait_after(&error);
        let mut undelivered = self.unconfirmed.take();
        if let Some((_, earlier, _)) = self.pending.disconnected.take() {
            let later = std::mem::replace(&mut undelivered, earlier);
            undelivered.append(later, self.unconfirmed.size_max());
        }
        self.pending.disconnected = Some((error, undelivered, retry_in));
        (self.pending.failed, self.pending.connected) = (None, None);
    }
}

impl Pending {
    /// Takes the oldest event.
    fn take(&mut self) -> Option<ReconnectEvent> {
        if let Some((error, undelivered, retry_in)) = self.disconnected.take() {
            return Some(ReconnectEvent::Disconnected {
                error,
                undelivered,
                retry_in,
            });
        }
        if let Some((error, attempts, retry_in)) = self.failed.take() {
            return Some(ReconnectEvent::ConnectFailed {
                error,
                attempts,
                retry_in,
            });
        }
        let attempts = self.connected.take()?;
        Some(ReconnectEvent::Connected { attempts })
    }
}

/// Queues a ping that asks whether all messages have arrived, unless one is unanswered.
fn queue_ping(unconfirmed: &mut UnconfirmedMessages, ws: &mut WebSocket) -> Result<(), Error> {
    match unconfirmed.next_ping() {
        Some(payload) => ws.queue_ping(&payload),
        None => Ok(()),
    }
}

/// The end of a connection as an error, also if it was closed normally.
fn close_error(ws: &WebSocket) -> Error {
    match ws.close_info() {
        Some(close_info) => Error::new(Kind::Closed(close_info.clone())),
        None => Error::new(Kind::Aborted),
    }
}

/// Whether the peer has answered our close frame, and therefore received everything before it.
fn is_answered(ws: &WebSocket) -> bool {
    ws.close_info()
        .is_some_and(|info| info.cause() == CloseCause::Local && info.received().is_some())
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting(_) => "waiting",
            State::Connecting(_) => "connecting",
            State::Open(_) => "open",
            State::Ended { .. } => "ended",
        };
        f.debug_struct("Reconnecting")
            .field("state", &state)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}
