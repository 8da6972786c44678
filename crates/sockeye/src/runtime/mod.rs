//! The services that a connection needs from its runtime: a clock, a timer, yielding and spawning.
//!
//! Only this module and [`transport`](crate::transport) depend on the runtime of an open connection. To support another
//! runtime, add a variant to the four enums here and a module beside [`tokio`](self::tokio).

#[cfg(all(unix, feature = "blocking"))]
pub(crate) mod blocking;
pub(crate) mod tokio;

use std::future::poll_fn;
use std::task::{Context, Poll};

use sockeye_proto::Instant;

/// The runtime of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Runtime {
    #[default]
    Tokio,
    /// None: a thread drives the connection.
    #[cfg(all(unix, feature = "blocking"))]
    Blocking,
}

/// The timer of one connection. One word: see [`tokio::Timer`].
#[derive(Debug, Default)]
pub(crate) struct Timer(tokio::Timer);

/// Spawns tasks on a runtime.
#[derive(Clone, Debug)]
pub(crate) enum Spawner {
    Tokio(::tokio::runtime::Handle),
}

/// Identifies the runtime of a [`Spawner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpawnerId {
    Tokio(::tokio::runtime::Id),
}

impl Runtime {
    /// The current time.
    #[inline]
    pub(crate) fn now(self) -> Instant {
        match self {
            Self::Tokio => tokio::now(),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => blocking::now(),
        }
    }

    /// Converts a time of this runtime's clock for users of the library.
    pub(crate) fn to_std(self, instant: Instant) -> std::time::Instant {
        match self {
            Self::Tokio => tokio::to_tokio(instant).into_std(),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => blocking::to_std(instant),
        }
    }

    /// Schedules the task to be polled again after other tasks and the I/O driver have run. The caller then returns
    /// [`Poll::Pending`].
    pub(crate) fn reschedule(self, cx: &mut Context<'_>) {
        match self {
            Self::Tokio => tokio::reschedule(cx),
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
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => Poll::Ready(()),
        }
    }

    /// Polls a future without the limit of the task's cooperative budget.
    pub(crate) fn poll_unconstrained<R>(self, cx: &mut Context<'_>, future: impl Future<Output = R>) -> Poll<R> {
        match self {
            Self::Tokio => tokio::poll_unconstrained(cx, future),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => std::pin::pin!(future).poll(cx),
        }
    }

    /// A handle to the current runtime. `None` outside of one.
    pub(crate) fn spawner(self) -> Option<Spawner> {
        match self {
            Self::Tokio => ::tokio::runtime::Handle::try_current().ok().map(Spawner::Tokio),
            #[cfg(all(unix, feature = "blocking"))]
            Self::Blocking => None,
        }
    }
}

impl Timer {
    /// Ready once the deadline has passed. The deadline may change between calls.
    #[inline]
    pub(crate) fn poll(&mut self, runtime: Runtime, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match runtime {
            Runtime::Tokio => self.0.poll(cx, deadline),
            // The thread calls again when the deadline has passed.
            #[cfg(all(unix, feature = "blocking"))]
            Runtime::Blocking => match blocking::now() >= deadline {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
        }
    }
}

impl Spawner {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Tokio(handle) => drop(handle.spawn(task)),
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> SpawnerId {
        match self {
            Self::Tokio(handle) => SpawnerId::Tokio(handle.id()),
        }
    }
}
