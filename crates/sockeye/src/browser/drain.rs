//! Waiting for the browser to send. It has no event for that, so its `bufferedAmount` is read in growing intervals.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::browser::connection::Connection;
use crate::browser::timer::{self, Sleep};
use crate::error::Error;

/// The first interval. Browsers do not run nested timers more often.
const INTERVAL_MIN: Duration = Duration::from_millis(4);

/// The longest interval, reached while the browser sends nothing.
const INTERVAL_MAX: Duration = Duration::from_millis(32);

/// Waits until the browser has sent enough. Fails if the connection ends or the browser sends too slowly.
#[derive(Debug)]
pub(crate) struct Drain {
    connection: Rc<Connection>,
    until: Until,
    interval: Duration,
    sleep: Option<Sleep>,
    /// Start of the period in which the rate is measured: the time and the number of bytes sent before.
    period: Option<(Duration, f64)>,
    /// When the drain was last polled.
    polled_at: Option<Duration>,
    /// The number of bytes sent at the last poll.
    sent: f64,
}

/// The condition that a [`Drain`] waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Capacity for a message of this length.
    Capacity(usize),
    /// Everything is sent.
    Empty,
}

impl Drain {
    pub(crate) fn new(connection: Rc<Connection>, until: Until) -> Self {
        Self {
            connection,
            until,
            interval: INTERVAL_MIN,
            sleep: None,
            period: None,
            polled_at: None,
            sent: 0.0,
        }
    }

    fn is_done(&self) -> bool {
        match self.until {
            Until::Capacity(len) => self.connection.takes_messages() && self.connection.has_room_for(len),
            Until::Empty => self.connection.queued_bytes() == 0,
        }
    }

    /// Whether the browser has sent less than it must in the period that ends now. Begins a new period.
    fn is_stalled(&mut self) -> bool {
        let (limits, limit) = (self.connection.limits(), self.connection.timeouts().write);
        let (now, sent) = (timer::now(), self.connection.sent_bytes());
        // Not polled for a whole period: the caller awaited something else, or the page was frozen. Do not count it as
        // a stall.
        let is_resumed = self
            .polled_at
            .is_some_and(|at| now.saturating_sub(at) >= limit + 2 * INTERVAL_MAX);
        self.polled_at = Some(now);
        // While the connection closes, the browser sends nothing more, and limits the time itself.
        if is_resumed || !self.connection.takes_messages() {
            self.period = None;
        }
        let (start, sent_before) = *self.period.get_or_insert((now, sent));
        let lasted = now.saturating_sub(start);
        if lasted < limit {
            return false;
        }
        self.period = Some((now, sent));
        let sent_min = f64::from(limits.write_rate_min) * lasted.as_secs_f64();
        sent - sent_before < sent_min.max(1.0)
    }
}

impl Future for Drain {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(error) = self.connection.state().send_error() {
                return Poll::Ready(Err(error));
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            if self.is_stalled() {
                return Poll::Ready(Err(self.connection.stall()));
            }
            let interval = self.interval;
            let sleep = self.sleep.get_or_insert_with(|| Sleep::new(interval));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
            let sent = self.connection.sent_bytes();
            self.interval = match sent > self.sent {
                true => INTERVAL_MIN,
                false => (interval * 2).min(INTERVAL_MAX),
            };
            self.sent = sent;
        }
    }
}
