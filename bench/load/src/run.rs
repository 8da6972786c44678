//! The event loop over all connections.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

use crate::{
    connection::Connection,
    counters::Counters,
    fanout::Fanout,
    inbound::Reader,
    ledger::Answer,
    opening,
    pace::Pace,
    plan::{Drive, Plan},
    report::{Generator, OpenLoop, Report, Verdict},
    script::{Replies, Script},
};

/// How long the run waits for any reply while some are outstanding, and for the last replies at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that is this many messages behind cannot keep up with the rate, and the run ends.
const BACKLOG_MAX: u64 = 1_000_000;

/// How long before a message is due the loop polls the clock instead of sleeping in the kernel: a halted virtual
/// processor wakes up about a millisecond late.
const SPIN: u64 = 2_000_000;

/// How long overdue messages are sent before the loop looks at replies.
const CATCH_UP_MAX: u64 = 60_000;

/// The longest wait in the kernel.
const NAP: u64 = 50_000_000;

/// Maximum number of events per wait.
const EVENTS: usize = 512;

/// Runs a measurement.
///
/// # Errors
/// If a connection cannot be opened or ends, a reply is wrong or unexpected, or no reply arrives for ten seconds.
pub fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let script = Script::new(plan)?;
    let mut load = Load::open(plan, &script)?;
    load.start(load.clock.now())?;
    load.run_to_the_end()?;
    load.report()
}

/// Nanoseconds since the start.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

struct Load<'a> {
    plan: &'a Plan,
    script: &'a Script,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    reader: Reader,
    counters: Counters,
    clock: Clock,
    mode: Mode,
    phase: Phase,
    /// Replies or deliveries still to come.
    outstanding: u64,
    /// Time of the last reply.
    progress_at: u64,
    unanswered: u64,
}

enum Mode {
    Closed { in_flight: u64 },
    Open(Pace),
    Fanout { state: Fanout, in_flight: u64 },
}

/// The end of each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp { until: u64 },
    Measure { until: u64 },
    Drain { until: u64 },
    Done,
}

impl<'a> Load<'a> {
    /// Opens all connections one after the other. The publisher comes last, so that no subscriber misses a message.
    fn open(plan: &'a Plan, script: &'a Script) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let is_fanout = matches!(plan.drive, Drive::Fanout { .. });
        let count = plan.connections + usize::from(is_fanout);
        let mut connections = Vec::with_capacity(count);
        for idx in 0..count {
            let transport = opening::open(&plan.target, idx).with_context(|| format!("connection {idx} of {count}"))?;
            // Edge-triggered, so that no event has to be registered again.
            epoll::add(
                &epoll,
                &transport,
                EventData::new_u64(idx as u64),
                EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
            )?;
            let first = if is_fanout {
                0
            } else {
                idx as u64 % script.requests.variants()
            };
            connections.push(Connection::new(transport, script, first));
        }
        let mode = match plan.drive {
            Drive::Closed { in_flight } => Mode::Closed {
                in_flight: in_flight as u64,
            },
            Drive::Open { rate } => Mode::Open(Pace::new(rate)),
            Drive::Fanout { in_flight } => Mode::Fanout {
                state: Fanout::new(plan.connections as u64),
                in_flight: in_flight as u64,
            },
        };
        Ok(Self {
            plan,
            script,
            epoll,
            connections,
            reader: Reader::new(plan.verify),
            counters: Counters::new(plan.pid)?,
            clock: Clock(Instant::now()),
            mode,
            phase: Phase::WarmUp {
                until: plan.warm_up.as_nanos() as u64,
            },
            outstanding: 0,
            progress_at: 0,
            unanswered: 0,
        })
    }

    /// Sends the first messages, where replies trigger the next ones.
    fn start(&mut self, now: u64) -> Result<()> {
        match self.mode {
            Mode::Closed { in_flight } => {
                for idx in 0..self.connections.len() {
                    self.ask(idx, in_flight, now)?;
                }
                Ok(())
            }
            Mode::Fanout { in_flight, .. } => self.publish(in_flight, now),
            Mode::Open(_) => Ok(()),
        }
    }

    fn run_to_the_end(&mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut now = self.clock.now();
        while self.phase != Phase::Done {
            let due = self.send_due(now)?;
            let pause = due.saturating_sub(now);
            let timeout = if pause <= SPIN { 0 } else { (pause - SPIN).min(NAP) };
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: timeout as i64,
            };
            self.wait(&mut events, &timeout)?;
            let was_idle = events.is_empty() && timeout.tv_nsec == 0;
            for event in events.drain(..) {
                let (idx, flags) = (event.data.u64() as usize, event.flags);
                self.visit(idx, flags)
                    .with_context(|| format!("connection {idx} of {}", self.connections.len()))?;
            }
            let before = now;
            now = self.clock.now();
            if was_idle {
                self.counters.spun += now - before;
            }
            self.turn(now)?;
        }
        self.look_once_more(&mut events)
    }

    /// Waits for events or a timeout.
    fn wait(&self, events: &mut Vec<Event>, timeout: &Timespec) -> Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(events), Some(timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Open loop: sends what is due. Returns the time of the next action that needs no event.
    fn send_due(&mut self, now: u64) -> Result<u64> {
        let (Phase::WarmUp { until } | Phase::Measure { until } | Phase::Drain { until }) = self.phase else {
            return Ok(now);
        };
        let Mode::Open(mut pace) = self.mode else {
            return Ok(until);
        };
        while let Some((message, intended)) = pace.take(now) {
            let idx = (message % self.connections.len() as u64) as usize;
            // Read again for each message, because sending the previous ones took time.
            let tried = self.clock.now();
            self.counters.try_to_send(intended, tried);
            self.outstanding += 1;
            let connection = &mut self.connections[idx];
            connection.ask(1, intended);
            connection.flush(self.script, tried)?;
            // Catching up must not delay replies for longer than necessary.
            if tried - now > CATCH_UP_MAX {
                break;
            }
        }
        self.mode = Mode::Open(pace);
        ensure!(
            self.outstanding <= BACKLOG_MAX,
            "the server does not keep up with this rate: it is {} messages behind",
            self.outstanding
        );
        Ok(if pace.is_over() { until } else { pace.due().min(until) })
    }

    /// Handles an event of a connection.
    fn visit(&mut self, idx: usize, flags: EventFlags) -> Result<()> {
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.receive(idx)?;
        }
        if flags.contains(EventFlags::OUT) && self.connections[idx].wants_to_send(self.script) {
            let now = self.clock.now();
            self.connections[idx].flush(self.script, now)?;
        }
        Ok(())
    }

    fn receive(&mut self, idx: usize) -> Result<()> {
        let bytes = self.reader.bytes;
        if matches!(self.mode, Mode::Fanout { .. }) {
            return self.receive_delivery(idx);
        }
        let (counters, clock) = (&mut self.counters, self.clock);
        let mut now = None;
        let connection = &mut self.connections[idx];
        let count = connection.receive(self.script, &mut self.reader, |answer| {
            counters.answer(answer, *now.get_or_insert_with(|| clock.now()));
        })?;
        self.outstanding -= count;
        let Some(now) = now else {
            if self.reader.bytes > bytes {
                self.progress_at = self.clock.now();
            }
            return Ok(());
        };
        self.progress_at = now;
        if matches!(self.mode, Mode::Closed { .. }) && self.is_sending() {
            self.ask(idx, count, now)?;
        }
        Ok(())
    }

    fn receive_delivery(&mut self, idx: usize) -> Result<()> {
        let publisher = self.connections.len() - 1;
        let published = self.connections[publisher].asked();
        // A publisher receives nothing.
        let end = if idx == publisher { 0 } else { published };
        let connection = &mut self.connections[idx];
        let from = connection.answered();
        let count = connection.receive_before(end, self.script, &mut self.reader)?;
        if count == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        self.progress_at = now;
        self.outstanding -= count;
        let Mode::Fanout { state, .. } = &mut self.mode else {
            return Ok(());
        };
        let counters = &mut self.counters;
        let done = state.deliver(from, from + count, |published| {
            let answer = Answer {
                count: 1,
                intended: published,
                written: published,
            };
            counters.answer(answer, now);
        });
        if done > 0 && self.is_sending() {
            self.publish(done, now)?;
        }
        Ok(())
    }

    fn publish(&mut self, count: u64, now: u64) -> Result<()> {
        let publisher = self.connections.len() - 1;
        if let Mode::Fanout { state, .. } = &mut self.mode {
            state.publish(count, now);
        }
        self.outstanding += count * publisher as u64;
        let connection = &mut self.connections[publisher];
        connection.ask_without_reply(count);
        connection.flush(self.script, now)
    }

    fn ask(&mut self, idx: usize, count: u64, now: u64) -> Result<()> {
        self.outstanding += count;
        let connection = &mut self.connections[idx];
        connection.ask(count, now);
        connection.flush(self.script, now)
    }

    fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::WarmUp { .. } | Phase::Measure { .. })
    }

    /// Enters the next phase when it is due.
    fn turn(&mut self, now: u64) -> Result<()> {
        ensure!(
            self.outstanding == 0 || now - self.progress_at < PATIENCE.as_nanos() as u64,
            "no reply for {} s; {} are outstanding",
            PATIENCE.as_secs(),
            self.outstanding
        );
        match self.phase {
            Phase::WarmUp { until } if now >= until => {
                let start = if self.is_open() { until } else { now };
                self.counters.begin(start, now, self.reader.bytes)?;
                let until = start + self.plan.duration.as_nanos() as u64;
                if let Mode::Open(pace) = &mut self.mode {
                    pace.end_at(until);
                }
                self.phase = Phase::Measure { until };
            }
            Phase::Measure { until } if now >= until => {
                // Messages that were due before the end are still sent. Skipping them would make a late generator look
                // like a fast server.
                let end = if self.is_open() { until } else { now };
                self.counters.end(end, now, self.reader.bytes)?;
                self.phase = Phase::Drain {
                    until: now + PATIENCE.as_nanos() as u64,
                };
            }
            Phase::Drain { until } if self.is_all_done() || now >= until => {
                self.give_up(now);
                self.phase = Phase::Done;
            }
            _ => {}
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        matches!(self.mode, Mode::Open(_))
    }

    /// Whether all messages are sent and answered.
    fn is_all_done(&self) -> bool {
        let has_left = match &self.mode {
            Mode::Open(pace) => pace.is_over(),
            _ => true,
        };
        has_left && self.outstanding == 0
    }

    fn give_up(&mut self, now: u64) {
        self.unanswered = self.outstanding;
        if let Mode::Open(pace) = &mut self.mode {
            while let Some((_, intended)) = pace.take(now) {
                self.unanswered += 1;
                self.counters.give_up(1, intended, now);
            }
        }
        for connection in &self.connections {
            for (count, intended) in connection.ledger.unanswered() {
                self.counters.give_up(count, intended, now);
            }
        }
    }

    /// All messages are answered, so anything that arrives now is an error.
    fn look_once_more(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if self.unanswered > 0 {
            return Ok(());
        }
        let a_moment = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        self.wait(events, &a_moment)?;
        for event in events.drain(..) {
            self.receive(event.data.u64() as usize)?;
        }
        Ok(())
    }

    fn report(&self) -> Result<Report> {
        let window = self.counters.window()?;
        let seconds = window.duration.as_secs_f64();
        let messages = match &self.script.replies {
            // Few long messages fit into a short time, so the received part of one counts as a fraction.
            Replies::Bytes(cycle) => window.bytes as f64 / cycle.message_len(),
            Replies::Compressed { .. } => window.replies as f64,
        };
        let [latency, actual, lateness] = self.counters.latencies();
        let open_loop = match self.plan.drive {
            Drive::Open { rate } => Some(OpenLoop { rate, actual, lateness }),
            _ => None,
        };
        let server = window.server(messages);
        let generator = Generator {
            cpu: crate::report::Cpu {
                share: (window.own.cpu.as_secs_f64() - window.spun.as_secs_f64()).max(0.0) / seconds,
                waited: window.own.waited.as_secs_f64() / seconds,
            },
        };
        Ok(Report {
            seconds,
            messages,
            rate: messages / seconds,
            bytes: window.bytes,
            bytes_per_second: window.bytes as f64 / seconds,
            total: self.counters.replies,
            verified: self.reader.verified,
            unanswered: self.unanswered,
            verdict: Verdict::of(
                generator.cpu,
                server.map(|server| server.cpu),
                &latency,
                open_loop.as_ref(),
            ),
            latency,
            open_loop,
            server,
            generator,
        })
    }
}
