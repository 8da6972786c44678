//! The timer of a connection, on any runtime.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ::tokio::time::Sleep;
use sockeye_proto::Instant;

#[cfg(all(unix, feature = "blocking"))]
use super::blocking;
#[cfg(feature = "futures-io")]
use super::custom;
use super::{Runtime, tokio};

/// The timer of one connection. It is always polled with the same runtime.
///
/// Two words, because every task that owns a connection contains it, and tokio rounds the size of a task up to 128
/// bytes. The waker is not in the box, which has at most 104 bytes then: glibc fits it into the gap that the alignment
/// of tokio's task leaves beside each task, so that a connection costs 180 bytes less.
#[derive(Default)]
pub(crate) struct Timer {
    armed: Option<Pin<Box<Armed>>>,
    /// The waker that is registered with tokio's timer. Boxed for the size of this struct.
    registered: Option<Box<Waker>>,
}

#[cfg(not(feature = "futures-io"))]
type Armed = Sleep;

#[cfg(feature = "futures-io")]
pin_project_lite::pin_project! {
    // Not larger than tokio's, which has room for the tag.
    #[project = ArmedProjection]
    enum Armed {
        Tokio {
            #[pin]
            sleep: Sleep,
        },
        Custom {
            timer: custom::Timer,
        },
    }
}

impl Timer {
    /// Ready once the deadline has passed. The deadline may change between calls.
    #[inline]
    pub(crate) fn poll(&mut self, runtime: Runtime, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match runtime {
            Runtime::Tokio => self.poll_tokio(cx, deadline),
            #[cfg(feature = "futures-io")]
            Runtime::Custom(services) => self.poll_custom(services, cx, deadline),
            // The thread calls again when the deadline has passed.
            #[cfg(all(unix, feature = "blocking"))]
            Runtime::Blocking => match blocking::now() >= deadline {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
        }
    }

    #[cfg(not(feature = "futures-io"))]
    fn poll_tokio(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.armed.get_or_insert_with(|| Box::pin(tokio::sleep_until(deadline)));
        tokio::poll_sleep(sleep.as_mut(), &mut self.registered, cx, deadline)
    }

    #[cfg(feature = "futures-io")]
    fn poll_tokio(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let armed = self.armed.get_or_insert_with(|| {
            let sleep = tokio::sleep_until(deadline);
            Box::pin(Armed::Tokio { sleep })
        });
        match armed.as_mut().project() {
            ArmedProjection::Tokio { sleep } => tokio::poll_sleep(sleep, &mut self.registered, cx, deadline),
            ArmedProjection::Custom { .. } => unreachable!("the runtime of a connection does not change"),
        }
    }

    #[cfg(feature = "futures-io")]
    fn poll_custom(&mut self, services: &custom::Services, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let armed = self.armed.get_or_insert_with(|| {
            let timer = custom::Timer::new(services, deadline);
            Box::pin(Armed::Custom { timer })
        });
        match armed.as_mut().project() {
            ArmedProjection::Custom { timer } => timer.poll(services, cx, deadline),
            ArmedProjection::Tokio { .. } => unreachable!("the runtime of a connection does not change"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_of_other_runtimes_does_not_enlarge_the_timer() {
        assert_eq!(size_of::<Armed>(), size_of::<Sleep>());
        assert_eq!(size_of::<Timer>(), 2 * size_of::<usize>());
    }
}
