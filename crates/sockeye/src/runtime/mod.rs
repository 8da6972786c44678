//! The services that a connection takes from its runtime: a clock, a timer, yielding, and spawning tasks.
//!
//! Nothing outside this module and [`transport`](crate::transport) depends on the runtime of an open connection. To support
//! another runtime, add a variant to the three enums here and a module beside [`tokio`](self::tokio).

pub(crate) mod tokio;

use std::future::poll_fn;
use std::task::{Context, Poll};

use sockeye_proto::Instant;

/// The runtime of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Runtime {
    #[default]
    Tokio,
}

/// The timer of one connection.
#[derive(Debug)]
pub(crate) enum Timer {
    Tokio(tokio::Timer),
}

/// A handle that spawns tasks on a runtime.
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
    /// The present time.
    #[inline]
    pub(crate) fn now(self) -> Instant {
        match self {
            Self::Tokio => tokio::now(),
        }
    }

    /// A timer that is not set.
    pub(crate) fn timer(self) -> Timer {
        match self {
            Self::Tokio => Timer::Tokio(tokio::Timer::default()),
        }
    }

    /// Has the task polled again after other tasks and the I/O driver have run. The caller then returns [`Poll::Pending`].
    pub(crate) fn reschedule(self, cx: &mut Context<'_>) {
        match self {
            Self::Tokio => tokio::reschedule(cx),
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

    /// Takes one unit of the task's cooperative budget. Pending, and the task is rescheduled, if the budget is used up.
    pub(crate) fn poll_coop(self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tokio => tokio::poll_coop(cx),
        }
    }

    /// Polls a future that the task's cooperative budget does not limit.
    pub(crate) fn poll_unconstrained<R>(self, cx: &mut Context<'_>, future: impl Future<Output = R>) -> Poll<R> {
        match self {
            Self::Tokio => tokio::poll_unconstrained(cx, future),
        }
    }

    /// Spawns on the runtime of the present task. `None` outside of a runtime.
    pub(crate) fn spawner(self) -> Option<Spawner> {
        match self {
            Self::Tokio => ::tokio::runtime::Handle::try_current().ok().map(Spawner::Tokio),
        }
    }
}

impl Timer {
    /// Ready when the deadline has passed. The deadline may differ from call to call.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match self {
            Self::Tokio(timer) => timer.poll(cx, deadline),
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
