//! One connection, several tasks.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use sockeye_proto::{CloseCode, Closure, Compress};
use tokio::runtime::Handle;
use tokio::task::unconstrained;

use crate::connection::{Driver, FlushEnd, Passed};
use crate::error::Error;
use crate::flusher;
use crate::lock::lock;
use crate::message::Message;
use crate::outgoing::Outgoing;
use crate::prepared::Prepared;
use crate::waiters::Waiters;
use crate::websocket::{TrySendAllError, TrySendError, try_send, try_send_prepared};

/// Sends on a connection that was [split](crate::WebSocket::split). Clones send on the same connection, and whole
/// messages never mix.
///
/// Its futures are cancel-safe as those of [`WebSocket`](crate::WebSocket) are.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// Receives on a connection that was [split](crate::WebSocket::split).
///
/// Pings are answered and the peer's silence is noticed while [`recv`](Self::recv) is being awaited. The connection
/// stays as long as the receiver or any sender does; without the receiver nothing is read any more.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    /// Whether it is known on which runtime it receives.
    is_at_home: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    waiters: Arc<Waiters>,
    /// Wakes `waiters`.
    waker: Waker,
    subprotocol: Option<Box<str>>,
}

#[derive(Debug)]
struct State {
    driver: Driver,
    news: News,
    /// Where the receiver's task runs, or is expected to: where the connection was split.
    runtime: Option<Handle>,
}

/// Who knows of what was queued without waiting. A burst is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// Nobody, or there is none: a task has looked since.
    Untold,
    /// The tasks that wait were woken, and none has looked yet.
    Told,
    /// It is on a list of the [`flusher`]'s, which will look.
    Listed,
}

pub(crate) fn split(driver: Driver, subprotocol: Option<Box<str>>) -> (Sender, Receiver) {
    let waiters = Arc::<Waiters>::default();
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            driver,
            news: News::Untold,
            runtime: Handle::try_current().ok(),
        }),
        waker: Waker::from(waiters.clone()),
        waiters,
        subprotocol,
    });
    let sender = Sender { shared: shared.clone() };
    let receiver = Receiver {
        shared,
        is_at_home: false,
    };
    (sender, receiver)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on the receiver's task runs on this runtime.
    #[cold]
    fn settle(&self) {
        let mut state = self.state();
        state.runtime = Handle::try_current().ok();
        // A list that it is on may be that of a runtime which nobody drives any more. What is queued, this task writes.
        state.news = News::Untold;
    }

    /// Has what was queued without waiting written: by the flusher, or where it is not known on which runtime by the tasks
    /// that wait for the connection.
    fn tell(self: &Arc<Self>, mut guard: MutexGuard<'_, State>) {
        let state = &mut *guard;
        match (&state.runtime, state.news) {
            (_, News::Listed) | (None, News::Told) => {}
            (Some(runtime), News::Untold | News::Told) => {
                let begun = flusher::enlist(self, runtime);
                state.news = News::Listed;
                drop(guard);
                if let Some(begun) = begun {
                    begun.spawn();
                }
            }
            (None, News::Untold) => {
                state.news = News::Told;
                drop(guard);
                self.waker.wake_by_ref();
            }
        }
    }

    /// Writes what is queued here and now, if this is the runtime where that is done; else as [`tell`](Self::tell). Says
    /// whether that made room.
    fn write_or_tell(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        let is_at_home = match (&state.runtime, Handle::try_current()) {
            (Some(home), Ok(here)) => home.id() == here.id(),
            _ => false,
        };
        if !is_at_home {
            self.tell(state);
            return false;
        }
        let passed = self.write(&mut state);
        match passed.is_unfinished {
            true => self.tell(state),
            false => drop(state),
        }
        if passed.concerns_waiters {
            self.waker.wake_by_ref();
        }
        passed.work > 0 && !passed.is_unfinished
    }

    /// Writes what is queued, for the flusher, which comes again if there is more to compress.
    pub(crate) fn write_queued(&self) -> Passed {
        let mut state = self.state();
        let passed = self.write(&mut state);
        state.news = match passed.is_unfinished {
            true => News::Listed,
            false => News::Untold,
        };
        drop(state);
        if passed.concerns_waiters {
            self.waker.wake_by_ref();
        }
        passed
    }

    /// Writes what is queued, in the place of the tasks that wait for the connection. These go on waiting unless something
    /// has changed for them: a deadline, room, the end.
    fn write(&self, state: &mut State) -> Passed {
        let mut passed = Passed::default();
        let write = poll_fn(|cx| {
            passed = state.driver.write_for_others(cx);
            Poll::Ready(())
        });
        // The budget of a task is for what it receives. Where it ends, a transport does as if it were full.
        let _ = pin!(unconstrained(write)).poll(&mut Context::from_waker(&self.waker));
        passed
    }

    /// The flusher will not come: whoever waits for the connection writes.
    pub(crate) fn leave_to_its_tasks(&self) {
        self.state().news = News::Told;
        self.waker.wake_by_ref();
    }

    /// Lets one task make progress with the connection. The lock is never held while a task waits.
    fn poll<R>(&self, cx: &Context<'_>, poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>) -> Poll<R> {
        let mut state = self.state();
        let is_new = self.waiters.register(cx.waker());
        if state.news == News::Told {
            state.news = News::Untold;
        }
        let driver = &mut state.driver;
        let was_lost = driver.is_lost();
        let polled = poll(driver, &mut Context::from_waker(&self.waker));
        let is_lost_now = !was_lost && driver.is_lost();
        drop(state);
        if polled.is_ready() && is_new {
            self.waiters.forget(cx.waker());
        }
        if is_lost_now {
            // The others wait for a transport and a timer that may be gone.
            self.waker.wake_by_ref();
        }
        polled
    }
}

impl Sender {
    /// Sends a message; returns when its bytes, and those of all before it, are with the kernel.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message; waits only while it would go beyond [`Limits::write_buffer_max`](crate::Limits::write_buffer_max),
    /// or while an earlier one is being compressed: see [`WebSocket::feed`](crate::WebSocket::feed).
    /// It leaves with [`flush`](Self::flush), or when [`Receiver::recv`] is next polled; [`try_send`](Self::try_send) has
    /// that done at once.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    pub fn feed(&self, message: impl Into<Message>) -> impl Future<Output = Result<(), Error>> {
        self.feed_with(message, Compress::Auto)
    }

    /// As [`feed`](Self::feed), with a choice about compression for this message, where it was negotiated.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    pub fn feed_with(
        &self,
        message: impl Into<Message>,
        compress: Compress,
    ) -> impl Future<Output = Result<(), Error>> {
        let message = Outgoing::new(message.into(), compress);
        poll_fn(move |cx| self.shared.poll(cx, |driver, cx| driver.poll_feed(cx, &message)))
    }

    /// As [`send`](Self::send), of a message that other connections are sent too.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    pub async fn send_prepared(&self, prepared: &Prepared) -> Result<(), Error> {
        self.feed_prepared(prepared).await?;
        self.flush().await
    }

    /// As [`feed`](Self::feed), of a message that other connections are sent too.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    pub async fn feed_prepared(&self, prepared: &Prepared) -> Result<(), Error> {
        poll_fn(|cx| {
            self.shared
                .poll(cx, |driver, cx| driver.poll_feed_prepared(cx, prepared))
        })
        .await
    }

    /// Hands to the kernel everything that is queued by now; what other senders queue meanwhile may stay behind.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let mut end = FlushEnd::default();
        poll_fn(|cx| self.shared.poll(cx, |driver, cx| driver.poll_flush_to(cx, &mut end))).await
    }

    /// Queues a message if there is room for it now, and never waits. There is no room while a large message is being
    /// compressed.
    ///
    /// It leaves by itself, together with all that was queued until the calling task let others run: a task of the
    /// runtime on which the [`Receiver`] receives (or, before it has, on which the connection was split) writes for all
    /// connections on which something was queued. Outside of a runtime, the receiver's task does. What the kernel does not
    /// take at once leaves while [`Receiver::recv`] is being awaited.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the message back.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let mut state = self.shared.state();
        try_send(&mut state.driver, message.into())?;
        self.shared.tell(state);
        Ok(())
    }

    /// As [`try_send`](Self::try_send), of a message that other connections are sent too: what a broadcast calls for
    /// each of its receivers. It may be compressed within this call: see [`Prepared`].
    ///
    /// Of several messages at hand, [`try_send_all`](Self::try_send_all) costs less.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_prepared(&self, prepared: &Prepared) -> Result<(), TrySendError> {
        let mut state = self.shared.state();
        try_send_prepared(&mut state.driver, prepared)?;
        self.shared.tell(state);
        Ok(())
    }

    /// As [`try_send_prepared`](Self::try_send_prepared), of several messages, and writes at once what the kernel takes of
    /// them and of all that was queued before: the cheapest broadcast, where all that there is to send is at hand.
    ///
    /// A call is a system call as a rule, some 5 us; with thousands of receivers, let other tasks run now and then. Messages
    /// of other senders come between only where these do not fit the write buffer together. On another runtime than that of
    /// the [`Receiver`], or outside of one, the messages leave as with `try_send_prepared`.
    ///
    /// # Errors
    ///
    /// [`TrySendAllError`] says how many were queued, of which some may have left, and why the next was not.
    pub fn try_send_all(&self, messages: &[Prepared]) -> Result<(), TrySendAllError> {
        let mut queued = 0;
        loop {
            let mut state = self.shared.state();
            let stopped = messages[queued..].iter().find_map(|message| {
                let sent = try_send_prepared(&mut state.driver, message);
                queued += usize::from(sent.is_ok());
                sent.err()
            });
            let has_made_room = self.shared.write_or_tell(state);
            match stopped {
                Some(TrySendError::Full(_)) if has_made_room => {}
                Some(cause) => return Err(TrySendAllError { queued, cause }),
                None => return Ok(()),
            }
        }
    }

    /// Sends a ping with a payload of at most 125 bytes; see [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    ///
    /// As [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.shared.state().driver.ping(payload)?;
        // The receiver's alarm is set for a later deadline than that of the pong.
        self.shared.waker.wake_by_ref();
        self.flush().await
    }

    /// Sends the close frame after everything queued. The receiver goes through the rest of the closing handshake: it
    /// gives the messages that still arrive, then `None`.
    ///
    /// # Errors
    ///
    /// The code or reason may not be sent, or the connection is lost.
    ///
    /// # Cancel safety
    ///
    /// The close frame leaves with the next call of any method.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.shared.state().driver.start_close(code, reason)?;
        // The receiver's alarm is set for a later deadline than that of the closing handshake.
        self.shared.waker.wake_by_ref();
        self.flush().await
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn closure(&self) -> Option<Closure> {
        self.shared.state().driver.connection().closure().cloned()
    }

    /// Whether messages can still be sent.
    pub fn is_open(&self) -> bool {
        self.shared.state().driver.is_open()
    }

    /// The round-trip time of the newest answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.state().driver.connection().round_trip_time()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol.as_deref()
    }
}

impl Receiver {
    /// Receives the next message; `None` after a clean close, from then on.
    ///
    /// # Errors
    ///
    /// As [`WebSocket::recv`](crate::WebSocket::recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        poll_fn(|cx| self.poll(cx, Driver::poll_recv))
    }

    /// How the connection was closed, as far as it is known; `None` while it is open.
    pub fn closure(&self) -> Option<Closure> {
        self.shared.state().driver.connection().closure().cloned()
    }

    /// The round-trip time of the newest answered ping.
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.state().driver.connection().round_trip_time()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.shared.subprotocol.as_deref()
    }

    fn poll<R>(&mut self, cx: &Context<'_>, poll: impl FnOnce(&mut Driver, &mut Context<'_>) -> Poll<R>) -> Poll<R> {
        if !self.is_at_home {
            self.is_at_home = true;
            self.shared.settle();
        }
        self.shared.poll(cx, poll)
    }
}

/// The messages until the connection is closed. After an error comes the end.
impl Stream for Receiver {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx, Driver::poll_next)
    }
}
