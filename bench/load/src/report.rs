//! What came of it.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What came of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How long it counted.
    pub seconds: f64,
    /// Replies in that time, or deliveries where one message goes to many; parts of long ones count as parts.
    pub messages: f64,
    /// The same in a second.
    pub rate: f64,
    /// Bytes that came back in that time.
    pub bytes: u64,
    /// The same in a second.
    pub bytes_per_second: f64,
    /// Replies or deliveries over the whole run, for who counts something else over all of it.
    pub total: u64,
    /// Replies that were compared byte for byte, over the whole run; every one was right.
    pub verified: u64,
    /// Messages that had no reply ten seconds after the end. They are in the histograms, as having taken until then.
    pub unanswered: u64,
    /// From the time when a message was meant to leave: what users see.
    pub latency: Latency,
    /// From the time when it had left, and how late that was tried; in a closed loop these say nothing of their own.
    pub open_loop: Option<OpenLoop>,
    /// What the server used, where its process was told.
    pub server: Option<Server>,
    /// What this used itself.
    pub generator: Generator,
    /// Who was the limit.
    pub verdict: Verdict,
}

/// What only an open loop can tell apart.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoop {
    /// The rate that was asked for.
    pub rate: f64,
    /// From the time when the kernel had taken the last byte of a message.
    pub actual: Latency,
    /// How much later than meant a message was tried to be sent.
    pub lateness: Latency,
}

/// A distribution, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// On average.
    pub mean: f64,
    /// Half of them took no longer.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// 99 in 100.
    pub p99: u64,
    /// 999 in 1,000.
    pub p999: u64,
    /// 9,999 in 10,000.
    pub p9999: u64,
    /// The longest.
    pub max: u64,
    /// Pairs of a share in per cent and the time in which so many were done.
    pub curve: Vec<(f64, u64)>,
}

/// What a server used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    /// Nanoseconds of processor time for each message, from the scheduler's account.
    pub cpu_ns: f64,
    /// The part of it outside the kernel, by ticks: rough.
    pub user_ns: f64,
    /// The part of it in the kernel, by ticks: rough.
    pub system_ns: f64,
    /// Of one processor.
    pub cpu: Cpu,
}

/// Shares of one processor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cpu {
    /// Running.
    pub share: f64,
    /// Ready to run while another was running: what the machine did beside.
    pub waited: f64,
}

/// What the generator used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// Of one processor, without the time in which it did nothing but look at the clock.
    pub cpu: Cpu,
}

/// Who was the limit. A processor is busy from nine tenths on, running or kept from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The server was busy, and the generator was not.
    Server,
    /// Both were busy: processor time for each message holds, the rate is that of the pair.
    Both,
    /// The generator was busy and the server was not, or it was not told of one: the rate is the generator's.
    Generator,
    /// Neither was busy: the way between them was the limit, or in an open loop the rate asked for.
    Neither,
    /// In an open loop, messages were tried so late that it shows in the latency: measure again, or ask for less.
    Late,
}

/// A share from which on a processor is called busy.
const BUSY: f64 = 0.9;

/// Lateness below this is nobody's concern: it is about what a wake-up takes.
const LATENESS_NS: u64 = 50_000;

impl Verdict {
    pub(crate) fn of(generator: Cpu, server: Option<Cpu>, latency: &Latency, open_loop: Option<&OpenLoop>) -> Self {
        if let Some(open_loop) = open_loop {
            let late = open_loop.lateness.p99;
            if late > LATENESS_NS && late > latency.p99 / 10 {
                return Self::Late;
            }
        }
        let is_busy = |cpu: Cpu| cpu.share + cpu.waited >= BUSY;
        match (is_busy(generator), server.is_some_and(is_busy)) {
            (false, true) => Self::Server,
            (true, true) => Self::Both,
            (true, false) => Self::Generator,
            (false, false) => Self::Neither,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the server was the limit",
            Self::Both => "server and generator were both at their limit",
            Self::Generator => "THE GENERATOR WAS THE LIMIT: the rate is not the server's",
            Self::Neither => "neither was at its limit",
            Self::Late => "THE GENERATOR WAS LATE: the latency is not the server's",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.0} messages in {:.2} s: {:.0}/s, {:.1} MB/s back; {} compared, {} unanswered",
            self.messages,
            self.seconds,
            self.rate,
            self.bytes_per_second / 1e6,
            self.verified,
            self.unanswered
        )?;
        match &self.open_loop {
            None => writeln!(f, "latency, closed loop (not what users see)  {}", self.latency)?,
            Some(open_loop) => {
                writeln!(f, "latency from the intended time  {}", self.latency)?;
                writeln!(f, "latency from the actual time    {}", open_loop.actual)?;
                writeln!(f, "lateness of the generator       {}", open_loop.lateness)?;
            }
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server     {:.0} ns of CPU a message (by ticks {:.0} user, {:.0} system); {}",
                server.cpu_ns, server.user_ns, server.system_ns, server.cpu
            )?;
        }
        writeln!(f, "generator  {}", self.generator.cpu)?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} % of a core, {:.0} % kept from it",
            self.share * 100.0,
            self.waited * 100.0
        )
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(
            f,
            "p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  p99.99 {:.3}  max {:.3} ms",
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p999),
            ms(self.p9999),
            ms(self.max)
        )
    }
}

pub(crate) fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    let mut curve = Vec::new();
    // Five points to each halving of what is left, down to one in about 30,000.
    for idx in 0..=75 {
        let quantile = 1.0 - 0.5_f64.powf(f64::from(idx) / 5.0);
        // What no value stands behind is not told.
        if histogram.len() as f64 * (1.0 - quantile) >= 1.0 {
            curve.push((quantile * 100.0, at(quantile)));
        }
    }
    Latency {
        count: histogram.len(),
        mean: histogram.mean(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: histogram.max(),
        curve,
    }
}
