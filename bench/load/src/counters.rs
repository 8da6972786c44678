//! Counters of the time between the end of the warm-up and the end of the measurement.

use std::{ops::Range, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::{
    account::{self, Used},
    ledger::Answer,
    report::{self, Latency, Server},
};

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Nanoseconds on the clock of the run.
    at: u64,
    /// Replies so far, and their bytes.
    replies: u64,
    bytes: u64,
    /// Time spent polling the clock.
    spun: u64,
    own: Used,
    server: Option<Used>,
}

#[derive(Debug)]
pub(crate) struct Counters {
    pid: Option<u32>,
    /// All replies, measured or not.
    pub(crate) replies: u64,
    /// Nanoseconds spent polling the clock.
    pub(crate) spun: u64,
    /// Messages that were due in this range are measured.
    window: Range<u64>,
    began: Option<Moment>,
    ended: Option<Moment>,
    /// Latency from the time when a message was due.
    intended: Histogram<u64>,
    /// Latency from the time when it was sent.
    actual: Histogram<u64>,
    /// Delay between the time when a message was due and the attempt to send it. It is caused by the generator alone.
    lateness: Histogram<u64>,
}

/// Usage between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) duration: Duration,
    pub(crate) replies: u64,
    pub(crate) bytes: u64,
    pub(crate) spun: Duration,
    pub(crate) own: Used,
    pub(crate) server: Option<Used>,
}

impl Counters {
    pub(crate) fn new(pid: Option<u32>) -> Result<Self> {
        // From a nanosecond to ten minutes, with three significant digits.
        let histogram = || Histogram::new_with_bounds(1, 600_000_000_000, 3);
        Ok(Self {
            pid,
            replies: 0,
            spun: 0,
            window: u64::MAX..u64::MAX,
            began: None,
            ended: None,
            intended: histogram()?,
            actual: histogram()?,
            lateness: histogram()?,
        })
    }

    /// Starts the measurement: messages that are due at `start` or later count.
    pub(crate) fn begin(&mut self, start: u64, now: u64, bytes: u64) -> Result<()> {
        self.window = start..u64::MAX;
        self.began = Some(self.moment(now, bytes)?);
        Ok(())
    }

    /// Ends the measurement: messages that were due before `end` count even if their replies arrive later.
    pub(crate) fn end(&mut self, end: u64, now: u64, bytes: u64) -> Result<()> {
        self.window.end = end;
        self.ended = Some(self.moment(now, bytes)?);
        Ok(())
    }

    pub(crate) fn answer(&mut self, answer: Answer, now: u64) {
        self.replies += answer.count;
        if self.window.contains(&answer.intended) {
            self.intended
                .saturating_record_n(now.saturating_sub(answer.intended).max(1), answer.count);
            self.actual
                .saturating_record_n(now.saturating_sub(answer.written).max(1), answer.count);
        }
    }

    /// Records messages that have no reply by now. Leaving them out would make the slowest server look like the
    /// fastest.
    pub(crate) fn give_up(&mut self, count: u64, intended: u64, now: u64) {
        if self.window.contains(&intended) {
            let waited = now.saturating_sub(intended).max(1);
            self.intended.saturating_record_n(waited, count);
            self.actual.saturating_record_n(waited, count);
        }
    }

    /// Records that the generator tried to send a message now.
    pub(crate) fn try_to_send(&mut self, intended: u64, now: u64) {
        if self.window.contains(&intended) {
            self.lateness.saturating_record(now.saturating_sub(intended).max(1));
        }
    }

    pub(crate) fn window(&self) -> Result<Window> {
        let (Some(began), Some(ended)) = (self.began, self.ended) else {
            anyhow::bail!("nothing was measured");
        };
        Ok(Window {
            duration: Duration::from_nanos(ended.at - began.at),
            replies: ended.replies - began.replies,
            bytes: ended.bytes - began.bytes,
            spun: Duration::from_nanos(ended.spun - began.spun),
            own: ended.own - began.own,
            server: ended.server.zip(began.server).map(|(ended, began)| ended - began),
        })
    }

    /// Latency from the due time, latency from the send time, and lateness.
    pub(crate) fn latencies(&self) -> [Latency; 3] {
        [&self.intended, &self.actual, &self.lateness].map(report::latency)
    }

    fn moment(&self, at: u64, bytes: u64) -> Result<Moment> {
        Ok(Moment {
            at,
            replies: self.replies,
            bytes,
            spun: self.spun,
            own: account::of_this_thread()?,
            server: self.pid.map(account::of_process).transpose()?,
        })
    }
}

impl Window {
    pub(crate) fn server(&self, messages: f64) -> Option<Server> {
        let used = self.server?;
        let share = |time: Duration| time.as_secs_f64() / self.duration.as_secs_f64();
        let each = |time: Duration| time.as_nanos() as f64 / messages.max(1e-9);
        Some(Server {
            cpu_ns: each(used.cpu),
            user_ns: each(used.user),
            system_ns: each(used.system),
            cpu: report::Cpu {
                share: share(used.cpu),
                waited: share(used.waited),
            },
        })
    }
}
