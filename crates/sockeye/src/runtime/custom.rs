//! The runtime services implemented with a runtime of the application.

use std::pin::Pin;
use std::task::{Context, Poll};

use sockeye_proto::Instant;

use super::std_clock;

/// An async runtime other than tokio, such as smol: its clock, its timer, and how it runs tasks.
///
/// [`ClientBuilder::runtime`](crate::ClientBuilder::runtime) and
/// [`ServerBuilder::runtime`](crate::ServerBuilder::runtime) set it. The timeouts of the opening handshake, keepalive and
/// all other deadlines then use it, and no tokio runtime has to exist. Open connections with
/// [`connect_over`](crate::RequestBuilder::connect_over) and [`Server::accept`](crate::Server::accept), over a
/// [`FuturesIo`](crate::FuturesIo).
///
/// The functions have no `self`, so that a connection needs no memory for its runtime. Keep the handle of an executor
/// in a `static`.
///
/// ```
/// use std::pin::Pin;
/// use std::time::Instant;
///
/// use sockeye::Runtime;
///
/// enum Smol {}
///
/// impl Runtime for Smol {
///     fn sleep_until(deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
///         Box::pin(async move {
///             smol::Timer::at(deadline).await;
///         })
///     }
///
///     fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
///         smol::spawn(task).detach();
///     }
/// }
///
/// let client = sockeye::Client::builder().runtime::<Smol>().build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub trait Runtime: 'static {
    /// Returns a future that is ready once [`now`](Self::now) has reached the deadline, which may have passed already
    /// or be years away.
    ///
    /// An open connection has one of these futures. Most deadlines move later with each received byte, so the
    /// connection keeps a future until it is ready, and then asks for the next one. A future that is ready too early
    /// costs a poll; with one that is never ready, a dead peer is never detected.
    fn sleep_until(deadline: std::time::Instant) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

    /// Runs a task in the background. Called from within the poll of another task, so it must not block.
    ///
    /// The tasks write messages of `try_send`, and finish the closing handshake of connections that were dropped or
    /// have reported their end. If a task is dropped instead, the tasks that receive write those messages, and TCP is
    /// closed immediately: the peer may then not receive the close frame.
    fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>);

    /// Returns the current time. Default: [`Instant::now`](std::time::Instant::now). Implement it for a clock that
    /// tests control.
    fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}

/// The functions of a [`Runtime`]. A reference to it is one word, unlike one to a trait object.
pub(crate) struct Services {
    pub(super) sleep_until: fn(std::time::Instant) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    pub(super) spawn: fn(Pin<Box<dyn Future<Output = ()> + Send>>),
    now: fn() -> std::time::Instant,
}

impl Services {
    /// The functions of `R`.
    pub(crate) fn of<R: Runtime>() -> &'static Self {
        const {
            &Self {
                sleep_until: R::sleep_until,
                spawn: R::spawn,
                now: R::now,
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        std_clock::from_std((self.now)())
    }
}

/// The timer of a connection. For the same reason as tokio's it is only replaced for an earlier deadline.
pub(super) struct Timer {
    sleep: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    at: Instant,
}

impl Timer {
    pub(super) fn new(services: &Services, at: Instant) -> Self {
        Self {
            sleep: (services.sleep_until)(std_clock::to_std(at)),
            at,
        }
    }

    pub(super) fn poll(&mut self, services: &Services, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.at > deadline {
            *self = Self::new(services, deadline);
        }
        // The second time for a deadline that has moved.
        for _ in 0..2 {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let is_due = services.now() >= deadline;
            // A future must not be polled again after it was ready.
            *self = Self::new(services, deadline);
            if is_due {
                return Poll::Ready(());
            }
        }
        // A timer that is always ready too early must not keep this thread in a loop.
        reschedule(cx);
        Poll::Pending
    }
}

pub(super) fn reschedule(cx: &mut Context<'_>) {
    cx.waker().wake_by_ref();
}
