//! The services that a connection needs from its runtime: a clock, a timer, yielding and spawning.
//!
//! Only this module and [`transport`](crate::transport) depend on the runtime of an open connection. An application
//! adds a runtime with the trait [`custom::Runtime`]. To support another one in this crate, add a variant to the four
//! enums here and a module beside [`tokio`](self::tokio).

#[cfg(all(unix, feature = "blocking"))]
pub(crate) mod blocking;
#[cfg(feature = "futures-io")]
pub(crate) mod custom;
mod deadline;
mod never;
#[cfg(any(feature = "futures-io", all(unix, feature = "blocking")))]
pub(crate) mod std_clock;
mod timer;
pub(crate) mod tokio;

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use sockeye_proto::Instant;

pub(crate) use deadline::Deadline;
use never::NEVER;
pub(crate) use timer::Timer;

/// The runtime of a connection.
#[derive(Clone, Copy, Default)]
pub(crate) enum Runtime {
    #[default]
    Tokio,
    /// A runtime of the application.
    #[cfg(feature = "futures-io")]
    Custom(&'static custom::Services),
    /// None: a thread drives the connection.
    #[cfg(all(unix, feature = "blocking"))]
    Blocking,
}

/// Spawns tasks on a runtime.
#[derive(Clone)]
pub(crate) enum Spawner {
    Tokio(::tokio::runtime::Handle),
    #[cfg(feature = "futures-io")]
    Custom(&'static custom::Services),
}

/// Identifies the runtime of a [`Spawner`].
#[derive(Clone, Copy)]
pub(crate) enum SpawnerId {
    Tokio(::tokio::runtime::Id),
    #[cfg(feature = "futures-io")]
    Custom(&'static custom::Services),
}

impl Runtime {
    /// The current time.
    #[inline]
    pub(crate) fn now(self) -> Instant {
        match self {
            Self::Tokio => tokio::now(),
            #[cfg(feature = "futures-io")]
            Self::Custom(services) => services.now(),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => blocking::now(),
        }
    }

    /// The deadline of a wait that starts now. Very long durations mean never.
    pub(crate) fn deadline_after(self, wait: Duration) -> Instant {
        self.now() + wait.min(NEVER)
    }

    /// Converts a time of this runtime's clock for users of the library.
    pub(crate) fn to_std(self, instant: Instant) -> std::time::Instant {
        match self {
            Self::Tokio => tokio::to_tokio(instant).into_std(),
            #[cfg(feature = "futures-io")]
            Self::Custom(_) => std_clock::to_std(instant),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => std_clock::to_std(instant),
        }
    }

    /// Schedules the task to be polled again after other tasks and the I/O driver have run. The caller then returns
    /// [`Poll::Pending`].
    pub(crate) fn reschedule(self, cx: &mut Context<'_>) {
        match self {
            Self::Tokio => tokio::reschedule(cx),
            #[cfg(feature = "futures-io")]
            Self::Custom(_) => custom::reschedule(cx),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => blocking::reschedule(),
        }
    }

    /// Lets other tasks run once.
    pub(crate) async fn yield_now(self) {
        let mut has_yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut has_yielded, true) {
                return Poll::Ready(());
            }
            self.reschedule(cx);
            Poll::Pending
        })
        .await;
    }

    /// Consumes one unit of the task's cooperative budget. If it is exhausted, reschedules the task and is pending.
    pub(crate) fn poll_coop(self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tokio => tokio::poll_coop(cx),
            #[cfg(feature = "futures-io")]
            Self::Custom(_) => Poll::Ready(()),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => Poll::Ready(()),
        }
    }

    /// Polls a future without the limit of the task's cooperative budget.
    pub(crate) fn poll_unconstrained<R>(self, cx: &mut Context<'_>, future: impl Future<Output = R>) -> Poll<R> {
        match self {
            Self::Tokio => tokio::poll_unconstrained(cx, future),
            #[cfg(feature = "futures-io")]
            Self::Custom(_) => std::pin::pin!(future).poll(cx),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => std::pin::pin!(future).poll(cx),
        }
    }

    /// A handle to the current runtime. `None` outside of one.
    pub(crate) fn spawner(self) -> Option<Spawner> {
        match self {
            Self::Tokio => ::tokio::runtime::Handle::try_current().ok().map(Spawner::Tokio),
            #[cfg(feature = "futures-io")]
            Self::Custom(services) => Some(Spawner::Custom(services)),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => None,
        }
    }
}

impl Spawner {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Tokio(handle) => drop(handle.spawn(task)),
            #[cfg(feature = "futures-io")]
            Self::Custom(services) => (services.spawn)(Box::pin(task)),
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> SpawnerId {
        match self {
            Self::Tokio(handle) => SpawnerId::Tokio(handle.id()),
            #[cfg(feature = "futures-io")]
            Self::Custom(services) => SpawnerId::Custom(services),
        }
    }
}

impl PartialEq for SpawnerId {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tokio(a), Self::Tokio(b)) => a == b,
            // If the compiler duplicates the functions of a runtime, this only costs another batch.
            #[cfg(feature = "futures-io")]
            (Self::Custom(a), Self::Custom(b)) => std::ptr::eq(*a, *b),
            #[cfg(feature = "futures-io")]
            _ => false,
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokio => "Tokio",
            #[cfg(feature = "futures-io")]
            Self::Custom(_) => "Custom",
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => "Blocking",
        })
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawner")
    }
}
