//! F1: `kill -9` during publications, with and without a log, and damage of the log.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Environment, Fault, Outcome,
    publisher::{Published, Stream, quantile},
    server::{Server, Spec},
    subscribers::{Audit, Member, SubscriberOptions, Subscribers},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "F1-kill",
        what: "`kill -9` and restart, log at `50ms`",
        rule: "0 lost, repeated, out of order; all recover; clients back p99 ≤ 3 s",
        run: |environment| killed(environment, "50ms", environment.rounds),
    },
    Fault {
        name: "F1-always",
        what: "the same with `--fsync always`",
        rule: "the same",
        run: |environment| killed(environment, "always", environment.rounds.div_ceil(3)),
    },
    Fault {
        name: "F1-never",
        what: "the same with `--fsync never`",
        rule: "the same",
        run: |environment| killed(environment, "never", environment.rounds.div_ceil(3)),
    },
    Fault {
        name: "F1-memory",
        what: "`kill -9` and restart without a log",
        rule: "every client learns that it cannot recover; nothing lost silently; p99 ≤ 3 s",
        run: without_log,
    },
    Fault {
        name: "F1-torn",
        what: "the log ends in the middle of a record",
        rule: "starts; 0 lost, repeated, out of order; all recover",
        run: torn_tail,
    },
    Fault {
        name: "F1-flipped",
        what: "a bit of the log is flipped",
        rule: "refuses to start, names file and offset; with the bit restored nothing is lost",
        run: flipped_bit,
    },
];

const CHANNELS: usize = 10;
const MEMBERS: usize = 100;

/// Pace of the publisher, below the limit of 250 commands per second of one client.
const PACE: Duration = Duration::from_millis(5);

/// How long a client may take to be back.
const BACK_MAX: Duration = Duration::from_secs(3);

/// A folder without a log.
fn folder(environment: &Environment) -> Result<PathBuf> {
    let folder = environment.work.join("log");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(folder)
}

/// Kills and restarts a server under load. `between` is called while it does not run.
fn rounds(
    spec: &Spec,
    rounds: u16,
    between: &mut dyn FnMut() -> Result<()>,
) -> Result<(Vec<Member>, Published, Vec<Duration>)> {
    let (mut server, _) = Server::start(spec)?;
    let subscribers = Subscribers::start(server.address, MEMBERS, CHANNELS, SubscriberOptions::default())?;
    let stream = Stream::start(server.address, CHANNELS, PACE, 100)?;
    let mut ready = Vec::new();
    for round in 0..rounds {
        // At another moment of the 50 ms in each round.
        thread::sleep(Duration::from_millis(300 + u64::from(round) * 37 % 200));
        server.kill()?;
        between()?;
        let (restarted, started) = Server::start(spec)?;
        ready.push(started + restarted.wait_until_ready()?);
        server = restarted;
        subscribers.wait_until_ready()?;
    }
    thread::sleep(Duration::from_millis(300));
    let published = stream.end()?;
    subscribers.wait_until_quiet(Duration::from_millis(500));
    Ok((subscribers.end()?, published, ready))
}

fn report(members: &[Member], published: &Published, ready: &[Duration]) -> (Outcome, Audit) {
    let audit = Audit::of(members, &published.acknowledged);
    let back: Vec<_> = members.iter().flat_map(|member| member.back.iter().copied()).collect();
    let (p50, p99) = (quantile(&back, 0.5), quantile(&back, 0.99));
    let mut outcome = Outcome {
        clients: format!(
            "{MEMBERS} clients, {} restarts; back after p50 {} ms, p99 {} ms; recovery refused {} times",
            ready.len(),
            p50.as_millis(),
            p99.as_millis(),
            audit.recovery_refused
        ),
        lost: format!(
            "{} of {} acknowledged; {} repeated, {} out of order",
            audit.lost,
            published.count(),
            audit.repeated,
            audit.reordered
        ),
        ready: format!(
            "p50 {} ms, max {} ms",
            quantile(ready, 0.5).as_millis(),
            quantile(ready, 1.0).as_millis()
        ),
        ..Outcome::default()
    };
    outcome.require(audit.is_clean(), format!("{audit:?}"));
    outcome.require(p99 <= BACK_MAX, format!("clients are back after {p99:?}"));
    outcome.require(
        back.len() == MEMBERS * ready.len(),
        format!("{} returns of {MEMBERS} clients", back.len()),
    );
    outcome.require(published.count() > 20 * ready.len(), "hardly anything was published");
    (outcome, audit)
}

fn with_log(environment: &Environment, folder: &Path, fsync: &str) -> Result<Spec> {
    let spec = Spec::new(&environment.binary, &environment.work)?;
    Ok(spec.arguments(&["--data", &folder.display().to_string(), "--fsync", fsync]))
}

fn killed(environment: &Environment, fsync: &str, count: u16) -> Result<Outcome> {
    let spec = with_log(environment, &folder(environment)?, fsync)?;
    let (members, published, ready) = rounds(&spec, count, &mut || Ok(()))?;
    let (mut outcome, audit) = report(&members, &published, &ready);
    outcome.require(
        audit.recovery_refused == 0,
        format!("recovery was refused {} times", audit.recovery_refused),
    );
    Ok(outcome)
}

fn without_log(environment: &Environment) -> Result<Outcome> {
    let spec = Spec::new(&environment.binary, &environment.work)?;
    let (members, published, ready) = rounds(&spec, environment.rounds.div_ceil(6), &mut || Ok(()))?;
    let (mut outcome, audit) = report(&members, &published, &ready);
    outcome.require(
        audit.recovery_refused == MEMBERS * ready.len(),
        format!(
            "recovery was refused {} times in {} restarts",
            audit.recovery_refused,
            ready.len()
        ),
    );
    Ok(outcome)
}

/// The newest segment of a log.
fn newest_segment(folder: &Path) -> Result<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    names.sort();
    names.pop().context("there is no segment")
}

fn torn_tail(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let spec = with_log(environment, &folder, "50ms")?;
    let mut tear = || {
        // The fields of a frame with 1,000 bytes, of which 20 were written.
        let file = newest_segment(&folder)?;
        let mut bytes = fs::read(&file)?;
        let magic = bytes[8..12].to_vec();
        bytes.extend(magic);
        bytes.extend(1000_u32.to_le_bytes());
        bytes.extend([7; 28]);
        Ok(fs::write(file, bytes)?)
    };
    let (members, published, ready) = rounds(&spec, environment.rounds.div_ceil(6), &mut tear)?;
    let (mut outcome, audit) = report(&members, &published, &ready);
    outcome.require(
        audit.recovery_refused == 0,
        format!("recovery was refused {} times", audit.recovery_refused),
    );
    Ok(outcome)
}

fn flipped_bit(environment: &Environment) -> Result<Outcome> {
    let folder = folder(environment)?;
    let spec = with_log(environment, &folder, "50ms")?;
    let mut refusals = Vec::new();
    let mut flip = || {
        let file = newest_segment(&folder)?;
        let original = fs::read(&file)?;
        let mut damaged = original.clone();
        let at = damaged.len() / 2;
        damaged[at] ^= 0x10;
        fs::write(&file, damaged)?;
        let (status, words, took) = spec.refused()?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        refusals.push((status, words, name.unwrap_or_default(), took));
        Ok(fs::write(&file, original)?)
    };
    let (members, published, ready) = rounds(&spec, 2, &mut flip)?;
    let (mut outcome, audit) = report(&members, &published, &ready);
    outcome.require(
        audit.recovery_refused == 0,
        format!("recovery was refused {} times", audit.recovery_refused),
    );
    for (status, words, name, took) in &refusals {
        outcome.require(!status.success(), format!("the server exited with {status}"));
        outcome.require(
            words.contains(name) && words.contains("offset"),
            format!("the message does not name {name} and an offset: {words}"),
        );
        outcome.clients = format!(
            "refused to start after {} ms; then: {}",
            took.as_millis(),
            outcome.clients
        );
    }
    Ok(outcome)
}
