//! F7, F9, F11 and F15: file descriptors, clocks, draining and panics.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{
    Environment, Fault, Outcome,
    publisher::{Publisher, Stream, quantile},
    server::{Server, Spec},
    subscribers::{Audit, SubscriberOptions, Subscribers},
};
use crate::tools;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "F7-files",
        what: "256 file descriptors, 1,000 connections beside 50 clients",
        rule: "≤ 5 % of a core; ≤ 1 log line per second; clients lose nothing and stay; new clients ≤ 1.5 s after room",
        run: no_descriptors,
    },
    Fault {
        name: "F9-stop",
        what: "the process is stopped for 10 s; pings each 4 s, pongs within 2 s",
        rule: "no disconnect, 0 lost; first acknowledgement ≤ 1 s after it goes on",
        run: stopped,
    },
    Fault {
        name: "F9-jump",
        what: "the wall clock jumps by a day, back, and another day back",
        rule: "no disconnect, 0 lost, 0 out of order; ready",
        run: clock_jumps,
    },
    Fault {
        name: "F9-boot",
        what: "a start 100,000 s after boot by the monotonic clock",
        rule: "starts; no disconnect, 0 lost",
        run: late_boot,
    },
    Fault {
        name: "F11-drain",
        what: "SIGTERM with 500 clients and `--drain 5s`",
        rule: "not ready ≤ 100 ms, live; all closed with 3001, spread over ≥ 2 s; 0 lost; exit 0 ≤ 5.5 s",
        run: drain,
    },
    Fault {
        name: "F11-twice",
        what: "a second SIGTERM 300 ms after the first, `--drain 10s`",
        rule: "exit ≤ 200 ms after it",
        run: second_signal,
    },
    Fault {
        name: "F15-panic",
        what: "three clients make their task panic",
        rule: "only their connections end; counted; clients lose nothing and stay connected",
        run: panics,
    },
];

/// A configuration as open as the default, with short pings.
const SHORT_PINGS: &str = r#"anonymous = true

[channels]
history_size = 100
presence = true
allow_subscribe = "anyone"
allow_publish = "anyone"
allow_presence = "anyone"

[timeouts]
ping_interval = "4s"
pong = "2s"
"#;

/// Clients and a publisher, with the account of both.
struct Users {
    subscribers: Subscribers,
    stream: Stream,
}

impl Users {
    fn start(server: &Server, count: usize, pace: Duration) -> Result<Self> {
        Ok(Self {
            subscribers: Subscribers::start(server.address, count, 2, SubscriberOptions::default())?,
            stream: Stream::start(server.address, 2, pace, 100)?,
        })
    }

    /// Requires that nothing was lost and nobody was disconnected.
    fn end(self, outcome: &mut Outcome) -> Result<Vec<Duration>> {
        let published = self.stream.end()?;
        self.subscribers.wait_until_quiet(Duration::from_millis(300));
        let members = self.subscribers.end()?;
        let audit = Audit::of(&members, &published.acknowledged);
        let ends: Vec<_> = members
            .iter()
            .flat_map(|member| &member.ends)
            .map(|(_, code)| code)
            .collect();
        outcome.require(audit.is_clean() && audit.recovery_refused == 0, format!("{audit:?}"));
        outcome.require(ends.is_empty(), format!("{} connections ended: {ends:?}", ends.len()));
        outcome.require(
            published.errors == 0,
            format!("{} publications failed", published.errors),
        );
        outcome.require(published.count() > 10, "hardly anything was published");
        outcome.lost = format!("{} of {} acknowledged", audit.lost, published.count());
        Ok(published.times)
    }
}

fn no_descriptors(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?.wrapper(&["prlimit", "--nofile=256"]);
    let _ = fs::remove_file(&spec.stderr);
    let (mut server, _) = Server::start(&spec)?;
    let users = Users::start(&server, 50, Duration::from_millis(50))?;
    let mut outcome = Outcome::default();
    let subscribers: Vec<_> = (0..1000)
        .map(|_| TcpStream::connect(server.address))
        .collect::<Result<_, _>>()
        .context("the backlog of the listener is full")?;
    thread::sleep(Duration::from_millis(500));
    let (before, lines) = (server.usage()?, server.log_lines());
    outcome.require(
        before.descriptors >= 250,
        format!("{} descriptors in use", before.descriptors),
    );
    let period = Duration::from_secs(4);
    thread::sleep(period);
    let (after, lines) = (server.usage()?, server.log_lines() - lines);
    let share = (after.cpu - before.cpu).as_secs_f64() / period.as_secs_f64();
    outcome.require(share <= 0.05, format!("{:.1} % of a core", share * 100.0));
    outcome.require(lines >= 1, "no log line says that connections cannot be accepted");
    outcome.require(lines <= 5, format!("{lines} log lines in {period:?}"));
    drop(subscribers);
    let began_at = Instant::now();
    // Waits in the backlog until it is accepted.
    Publisher::connect(server.address)?;
    let accepted = began_at.elapsed();
    outcome.require(
        accepted <= Duration::from_millis(1500),
        format!("a new client waited for {accepted:?}"),
    );
    outcome.require(server.is_alive()?, "the server exited");
    let times = users.end(&mut outcome)?;
    outcome.clients = format!(
        "publisher p99 {} ms; {:.1} % of a core, {lines} log lines in {} s",
        quantile(&times, 0.99).as_millis(),
        share * 100.0,
        period.as_secs()
    );
    outcome.ready = format!("a new client {} ms after there was room", accepted.as_millis());
    Ok(outcome)
}

fn stopped(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?.config(&environment.work, SHORT_PINGS)?;
    let (mut server, _) = Server::start(&spec)?;
    let users = Users::start(&server, 50, Duration::from_millis(10))?;
    let mut outcome = Outcome::default();
    thread::sleep(Duration::from_secs(1));
    server.signal(Signal::STOP)?;
    thread::sleep(Duration::from_secs(10));
    let began_at = Instant::now();
    server.signal(Signal::CONT)?;
    Publisher::connect(server.address)?;
    let answered = began_at.elapsed();
    outcome.require(
        answered <= Duration::from_secs(1),
        format!("a new client waited for {answered:?}"),
    );
    // Longer than a ping and its pong.
    thread::sleep(Duration::from_secs(7));
    outcome.require(server.is_alive()?, "the server exited");
    users.end(&mut outcome)?;
    outcome.clients = "a pause of 10 s, no disconnect".into();
    outcome.ready = format!("{} ms after SIGCONT", answered.as_millis());
    Ok(outcome)
}

fn clock_jumps(environment: &Environment) -> Result<Outcome> {
    let library = match tools::faketime() {
        Ok(library) => library,
        Err(error) => return Ok(Outcome::skipped(format!("no libfaketime ({error:#})"))),
    };
    let clock = environment.work.join("clock");
    fs::write(&clock, "+0")?;
    let mut spec = Spec::new(&environment.binary, &environment.work)?.config(&environment.work, SHORT_PINGS)?;
    for (name, value) in [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ] {
        spec.variables.push((name.into(), value));
    }
    let (mut server, _) = Server::start(&spec)?;
    let users = Users::start(&server, 50, Duration::from_millis(10))?;
    let mut outcome = Outcome::default();
    let mut dates = vec![date(&server)?];
    for jump in ["+1d", "+0", "-1d"] {
        thread::sleep(Duration::from_secs(2));
        fs::write(&clock, jump)?;
        // The server writes the date into responses once per second.
        thread::sleep(Duration::from_millis(1200));
        dates.push(date(&server)?);
        let (status, _) = server.get("/health/ready")?;
        outcome.require(status == 200, format!("/health/ready answered {status} after {jump}"));
    }
    // Longer than a ping and its pong.
    thread::sleep(Duration::from_secs(7));
    // Only the jump ahead shows: the HTTP library keeps the later date after a jump back.
    outcome.require(dates[0] != dates[1], format!("the clock did not jump: {dates:?}"));
    outcome.require(server.is_alive()?, "the server exited");
    users.end(&mut outcome)?;
    outcome.clients = "nothing".into();
    outcome.ready = "always".into();
    Ok(outcome)
}

/// The day in the header `date` of a response.
fn date(server: &Server) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(server.address)?;
    let host = server.address;
    write!(
        stream,
        "GET /health/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("date: ").map(str::to_owned));
    Ok(line.context("no date in a response")?.chars().take(16).collect())
}

fn late_boot(environment: &Environment) -> Result<Outcome> {
    let unshare = ["unshare", "-T", "--fork", "--monotonic", "100000"];
    if let Err(error) = crate::process::output(std::process::Command::new("unshare").args(&unshare[1..]).arg("true")) {
        return Ok(Outcome::skipped(format!("no time namespaces ({error:#})")));
    }
    let spec = Spec::new(&environment.binary, &environment.work)?.config(&environment.work, SHORT_PINGS)?;
    let (mut server, started) = Server::start(&spec.wrapper(&unshare))?;
    let ready = started + server.wait_until_ready()?;
    let users = Users::start(&server, 50, Duration::from_millis(10))?;
    let mut outcome = Outcome::default();
    thread::sleep(Duration::from_secs(7));
    outcome.require(server.is_alive()?, "the server exited");
    users.end(&mut outcome)?;
    outcome.clients = "nothing".into();
    outcome.ready = format!("{} ms after the start", ready.as_millis());
    Ok(outcome)
}

fn drain(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?.arguments(&["--drain", "5s"]);
    let (mut server, _) = Server::start(&spec)?;
    let once = SubscriberOptions {
        reconnects: false,
        ..SubscriberOptions::default()
    };
    let count = 500 * environment.scale;
    let subscribers = Subscribers::start(server.address, count, 2, once)?;
    let stream = Stream::start(server.address, 2, Duration::from_millis(5), 100)?;
    thread::sleep(Duration::from_secs(1));
    let published = stream.end()?;
    let mut outcome = Outcome::default();
    server.signal(Signal::TERM)?;
    let began_at = Instant::now();
    while server.get("/health/ready")?.0 == 200 && began_at.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(2));
    }
    let not_ready = began_at.elapsed();
    let live = server.get("/health/live")?.0;
    let (status, took) = server.wait()?;
    let took = took + not_ready;
    thread::sleep(Duration::from_millis(200));
    let members = subscribers.end()?;
    let audit = Audit::of(&members, &published.acknowledged);
    let ends: Vec<_> = members.iter().flat_map(|member| &member.ends).collect();
    let others: Vec<_> = ends
        .iter()
        .filter(|(_, code)| *code != Some(3001))
        .map(|(_, code)| code)
        .collect();
    let times: Vec<_> = ends
        .iter()
        .map(|(at, _)| at.saturating_duration_since(began_at))
        .collect();
    let (first, half, last) = (quantile(&times, 0.0), quantile(&times, 0.5), quantile(&times, 1.0));
    outcome.require(
        not_ready <= Duration::from_millis(100),
        format!("not ready after {not_ready:?}"),
    );
    outcome.require(live == 200, format!("/health/live answered {live}"));
    outcome.require(
        ends.len() == count && others.is_empty(),
        format!(
            "{} of {count} were closed, {} otherwise than with 3001: {others:?}",
            ends.len(),
            others.len()
        ),
    );
    outcome.require(
        last - first >= Duration::from_secs(2),
        format!("all within {:?}", last - first),
    );
    outcome.require(audit.is_clean(), format!("{audit:?}"));
    outcome.require(status.success(), format!("exit with {status}"));
    outcome.require(took <= Duration::from_millis(5500), format!("exit after {took:?}"));
    outcome.clients = format!(
        "3001 after {:.1} to {:.1} s, median {:.1} s",
        first.as_secs_f64(),
        last.as_secs_f64(),
        half.as_secs_f64()
    );
    outcome.lost = format!("{} of {} acknowledged", audit.lost, published.count());
    outcome.ready = format!(
        "not ready after {} ms, exit after {:.1} s",
        not_ready.as_millis(),
        took.as_secs_f64()
    );
    Ok(outcome)
}

fn second_signal(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?.arguments(&["--drain", "10s"]);
    let (mut server, _) = Server::start(&spec)?;
    let once = SubscriberOptions {
        reconnects: false,
        ..SubscriberOptions::default()
    };
    let subscribers = Subscribers::start(server.address, 50, 2, once)?;
    let mut outcome = Outcome::default();
    server.signal(Signal::TERM)?;
    thread::sleep(Duration::from_millis(300));
    outcome.require(server.is_alive()?, "the server did not wait for its clients");
    server.signal(Signal::TERM)?;
    let (status, took) = server.wait()?;
    outcome.require(took <= Duration::from_millis(200), format!("exit after {took:?}"));
    drop(subscribers);
    outcome.clients = "lost connections".into();
    outcome.lost = "–".into();
    outcome.ready = format!("{status} after {} ms", took.as_millis());
    Ok(outcome)
}

fn panics(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&(environment.panicking)()?, &environment.work)?;
    let (mut server, _) = Server::start(&spec)?;
    let users = Users::start(&server, 20, Duration::from_millis(10))?;
    let mut outcome = Outcome::default();
    for _ in 0..3 {
        let mut victim = Publisher::connect(server.address)?;
        let answer = victim.publish("__panic", 1, 10);
        outcome.require(
            answer.is_err(),
            format!("the task answered {answer:?} instead of a panic"),
        );
    }
    thread::sleep(Duration::from_millis(300));
    let counted = server.metric("sockeye_panics_total")?;
    outcome.require(counted == 3.0, format!("{counted} panics were counted"));
    outcome.require(server.is_alive()?, "the server exited");
    let (status, _) = server.get("/health/ready")?;
    outcome.require(status == 200, format!("/health/ready answered {status}"));
    users.end(&mut outcome)?;
    outcome.clients = format!("3 connections ended, {counted} panics counted; the others nothing");
    outcome.ready = "always".into();
    Ok(outcome)
}
