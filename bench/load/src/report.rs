//! The result of a measurement.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The result of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Measured time.
    pub seconds: f64,
    /// Replies in that time; with fan-out, deliveries. A part of a long message counts as a fraction.
    pub messages: f64,
    /// The same per second.
    pub rate: f64,
    /// Bytes received in that time.
    pub bytes: u64,
    /// The same per second.
    pub bytes_per_second: f64,
    /// Replies or deliveries of the whole run, for counters that cover the whole run.
    pub total: u64,
    /// Replies of the whole run that were compared byte for byte. All were correct.
    pub verified: u64,
    /// Messages without a reply ten seconds after the end. The histograms contain them with the time until then.
    pub unanswered: u64,
    /// Latency from the time when a message was due, which is what users see.
    pub latency: Latency,
    /// Latency from the time when a message was sent, and lateness of the generator. Meaningless in a closed loop.
    pub open_loop: Option<OpenLoop>,
    /// Usage of the server, if its process id is known.
    pub server: Option<Server>,
    /// Usage of the generator itself.
    pub generator: Generator,
    /// What limited the throughput.
    pub verdict: Verdict,
}

/// Figures of an open loop.
#[derive(Clone, Debug, Serialize)]
pub struct OpenLoop {
    /// The requested rate.
    pub rate: f64,
    /// Latency from the time when the kernel had accepted the last byte of a message.
    pub actual: Latency,
    /// How much later than due the generator tried to send a message.
    pub lateness: Latency,
}

/// A distribution, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// 50th percentile.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// 99.99th percentile.
    pub p9999: u64,
    /// Maximum.
    pub max: u64,
    /// Pairs of a percentile and its value.
    pub curve: Vec<(f64, u64)>,
}

/// Usage of the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    /// Nanoseconds of processor time per message, from the scheduler's account.
    pub cpu_ns: f64,
    /// The user part, counted in ticks and therefore rough.
    pub user_ns: f64,
    /// The system part, counted in ticks and therefore rough.
    pub system_ns: f64,
    /// Share of one processor.
    pub cpu: Cpu,
}

/// Shares of one processor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cpu {
    /// Running.
    pub share: f64,
    /// Runnable while another thread was running, because of other load on the machine.
    pub waited: f64,
}

/// Usage of the generator.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// Share of one processor, without the time spent polling the clock.
    pub cpu: Cpu,
}

/// What limited the throughput. A processor counts as busy from nine tenths on, waiting time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The server was busy, the generator was not.
    Server,
    /// Both were busy: the processor time per message is valid, the rate is that of the pair.
    Both,
    /// The generator was busy and the server was not, or the process id of the server is unknown: the rate is the
    /// generator's.
    Generator,
    /// Neither was busy: the limit was the path between them, or in an open loop the requested rate.
    Neither,
    /// Open loop: messages were sent so late that it affects the latency. Measure again, or request a lower rate.
    Late,
}

/// Share of a processor from which it counts as busy.
const BUSY: f64 = 0.9;

/// Lateness below this is ignored: it is about the duration of a wake-up.
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
    // Five points per halving of the rest, down to about one in 30,000.
    for idx in 0..=75 {
        let quantile = 1.0 - 0.5_f64.powf(f64::from(idx) / 5.0);
        // Skips percentiles with fewer than one value.
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
