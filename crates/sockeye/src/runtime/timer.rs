//! The timer of a connection, on any runtime.

use std::pin::Pin;
use std::task::{Context, Poll};

use sockeye_proto::Instant;

#[cfg(all(unix, feature = "blocking"))]
use super::blocking;
#[cfg(feature = "futures-io")]
use super::custom;
use super::{Runtime, tokio};

/// The timer of one connection. It is always polled with the same runtime.
///
/// One word, because every task that owns a connection contains it, and tokio rounds the size of a task up to 128
/// bytes.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Armed>>>);

#[cfg(not(feature = "futures-io"))]
type Armed = tokio::Timer;

#[cfg(feature = "futures-io")]
pin_project_lite::pin_project! {
    // Not larger than tokio's, which has room for the tag.
    #[project = ArmedProjection]
    enum Armed {
        Tokio {
            #[pin]
            timer: tokio::Timer,
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
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::Timer::new(deadline)));
        timer.as_mut().poll(cx, deadline)
    }

    #[cfg(feature = "futures-io")]
    fn poll_tokio(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let armed = self.0.get_or_insert_with(|| {
            let timer = tokio::Timer::new(deadline);
            Box::pin(Armed::Tokio { timer })
        });
        match armed.as_mut().project() {
            ArmedProjection::Tokio { timer } => timer.poll(cx, deadline),
            ArmedProjection::Custom { .. } => unreachable!("the runtime of a connection does not change"),
        }
    }

    #[cfg(feature = "futures-io")]
    fn poll_custom(&mut self, services: &custom::Services, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let armed = self.0.get_or_insert_with(|| {
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
        assert_eq!(size_of::<Armed>(), size_of::<tokio::Timer>());
        assert_eq!(size_of::<Timer>(), size_of::<usize>());
    }
}
