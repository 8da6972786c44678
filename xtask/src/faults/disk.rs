//! F8: a full disk, folders that cannot be used, and log lines that cannot be written.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Environment, Fault, Outcome,
    publisher::{Answer, Publisher, Stream},
    server::{Server, Spec, TIMEOUT},
    subscribers::{Audit, SubscriberOptions, Subscribers, channel},
};
use crate::process::output;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "F8-full",
        what: "the disk of the log is full, then has room again",
        rule: "an error to the publisher, not ready, no disconnect; 0 lost; ready ≤ 5 s after there is room",
        run: full_disk,
    },
    Fault {
        name: "F8-readonly",
        what: "the folder cannot be written",
        rule: "refuses to start, names the folder",
        run: read_only,
    },
    Fault {
        name: "F8-two",
        what: "a second process on the same folder",
        rule: "the second refuses to start and names the folder; the first loses nothing",
        run: two_processes,
    },
    Fault {
        name: "F8-stderr",
        what: "log lines go to a full device, or standard error is closed",
        rule: "no exit, no disconnect, 0 lost",
        run: bad_sink,
    },
];

/// A small file system in memory; unmounted when dropped.
pub(super) struct Mount(pub(super) PathBuf);

impl Mount {
    pub(super) fn new(folder: PathBuf, options: &str) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        // Left by a run that was interrupted.
        let _ = output(Command::new("umount").arg("--lazy").arg(&folder));
        output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(&folder),
        )?;
        Ok(Self(folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn with_log(environment: &Environment, folder: &Path) -> Result<Spec> {
    let spec = Spec::new(&environment.binary, &environment.work)?;
    Ok(spec.arguments(&["--data", &folder.display().to_string()]))
}

fn full_disk(environment: &Environment) -> Result<Outcome> {
    let mount = match Mount::new(environment.work.join("small"), "size=12m") {
        Ok(mount) => mount,
        Err(error) => return Ok(Outcome::skipped(format!("no small disk can be mounted ({error:#})"))),
    };
    let filler = mount.0.join("filler");
    File::create(&filler)?.write_all(&vec![1; 8 << 20])?;
    let spec = with_log(environment, &mount.0.join("log"))?;
    let (mut server, _) = Server::start(&spec)?;
    server.wait_until_ready()?;
    let subscribers = Subscribers::start(server.address, 20, 1, SubscriberOptions::default())?;
    let mut publisher = Publisher::connect(server.address)?;
    let mut acknowledged = std::collections::BTreeSet::new();
    let mut outcome = Outcome::default();

    // Until the disk is full, and ten more.
    let (mut number, mut errors) = (0, Vec::new());
    let began_at = Instant::now();
    while errors.len() < 10 && began_at.elapsed() < TIMEOUT {
        number += 1;
        match publisher
            .publish(&channel(0), number, 30_000)
            .context("the publisher lost its connection")?
        {
            Answer::Acknowledged => drop(acknowledged.insert(number)),
            Answer::Error(code) => errors.push(code),
        }
        thread::sleep(Duration::from_millis(5));
    }
    outcome.require(errors.len() == 10, "the disk did not get full");
    outcome.require(
        errors.iter().all(|code| *code == 100),
        format!("the publisher got the errors {errors:?}"),
    );
    let (status, _) = server.get("/health/ready")?;
    outcome.require(
        status == 503,
        format!("/health/ready answered {status} with a full disk"),
    );
    let (live, _) = server.get("/health/live")?;
    outcome.require(live == 200, format!("/health/live answered {live}"));

    fs::remove_file(&filler)?;
    let ready = server.wait_until_ready()?;
    outcome.require(ready <= Duration::from_secs(5), format!("ready after {ready:?}"));
    for _ in 0..10 {
        number += 1;
        let answer = publisher.publish(&channel(0), number, 100)?;
        outcome.require(
            answer == Answer::Acknowledged,
            format!("{answer:?} although there is room"),
        );
        acknowledged.insert(number);
    }
    subscribers.wait_until_quiet(Duration::from_millis(300));
    outcome.require(server.is_alive()?, "the server exited");
    let members = subscribers.end()?;
    let audit = Audit::of(&members, std::slice::from_ref(&acknowledged));
    let ends: usize = members.iter().map(|member| member.ends.len()).sum();
    outcome.require(audit.is_clean() && audit.recovery_refused == 0, format!("{audit:?}"));
    outcome.require(ends == 0, format!("{ends} connections ended"));
    outcome.clients = format!("error 100 to the publisher, {ends} of 20 subscribers disconnected, not ready");
    outcome.lost = format!("{} of {} acknowledged", audit.lost, acknowledged.len());
    outcome.ready = format!("{} ms after there was room", ready.as_millis());
    drop(server);
    Ok(outcome)
}

fn read_only(environment: &Environment) -> Result<Outcome> {
    let mount = match Mount::new(environment.work.join("readonly"), "size=1m,ro") {
        Ok(mount) => mount,
        Err(error) => {
            return Ok(Outcome::skipped(format!(
                "no read-only disk can be mounted ({error:#})"
            )));
        }
    };
    let mut outcome = Outcome::default();
    let folder = mount.0.join("log");
    let (status, words, took) = with_log(environment, &folder)?.refused()?;
    outcome.require(!status.success(), format!("the server exited with {status}"));
    let name = folder.display().to_string();
    outcome.require(
        words.contains(&name),
        format!("the message does not name {name}: {words}"),
    );
    outcome.clients = format!(
        "the server exited after {} ms: `{}`",
        took.as_millis(),
        first_line(&words, &environment.work)
    );
    outcome.lost = "nothing".into();
    Ok(outcome)
}

/// The first line of a message, without the path of this machine.
fn first_line(words: &str, work: &Path) -> String {
    let line = words.lines().next().unwrap_or_default();
    line.replace(&work.display().to_string(), "…")
}

fn two_processes(environment: &Environment) -> Result<Outcome> {
    let folder = environment.work.join("log");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let (mut server, _) = Server::start(&with_log(environment, &folder)?)?;
    let subscribers = Subscribers::start(server.address, 20, 2, SubscriberOptions::default())?;
    let stream = Stream::start(server.address, 2, Duration::from_millis(5), 100)?;
    let mut outcome = Outcome::default();
    let mut second = with_log(environment, &folder)?;
    second.stderr = environment.work.join("stderr-second.txt");
    let (status, words, took) = second.refused()?;
    outcome.require(!status.success(), format!("the second exited with {status}"));
    let name = folder.display().to_string();
    outcome.require(
        words.contains(&name),
        format!("the message does not name {name}: {words}"),
    );
    thread::sleep(Duration::from_millis(300));
    let published = stream.end()?;
    subscribers.wait_until_quiet(Duration::from_millis(300));
    outcome.require(server.is_alive()?, "the first exited");
    let members = subscribers.end()?;
    let audit = Audit::of(&members, &published.acknowledged);
    let ends: usize = members.iter().map(|member| member.ends.len()).sum();
    outcome.require(
        audit.is_clean() && ends == 0,
        format!("{audit:?}, {ends} connections ended"),
    );
    outcome.clients = format!(
        "nothing; the second exited after {} ms: `{}`",
        took.as_millis(),
        first_line(&words, &environment.work)
    );
    outcome.lost = format!("{} of {} acknowledged", audit.lost, published.count());
    outcome.ready = "always".into();
    Ok(outcome)
}

fn bad_sink(environment: &Environment) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut counts = Vec::new();
    for wrapper in [
        &["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"][..],
        &["sh", "-c", "exec \"$@\" 2>&-", "sh"],
    ] {
        let spec = Spec::new(&environment.binary, &environment.work)?.wrapper(wrapper);
        let (mut server, _) = Server::start(&spec)?;
        let subscribers = Subscribers::start(server.address, 20, 2, SubscriberOptions::default())?;
        let stream = Stream::start(server.address, 2, Duration::from_millis(5), 100)?;
        // Each makes a log line: a host that is not allowed.
        for _ in 0..50 {
            let mut peer = std::net::TcpStream::connect(server.address)?;
            let request = super::wire::request("evil.example");
            peer.write_all(request.as_bytes())?;
            let mut answer = [0; 16];
            let _ = std::io::Read::read(&mut peer, &mut answer)?;
        }
        thread::sleep(Duration::from_millis(500));
        let published = stream.end()?;
        subscribers.wait_until_quiet(Duration::from_millis(300));
        outcome.require(server.is_alive()?, format!("the server exited with {wrapper:?}"));
        let members = subscribers.end()?;
        let audit = Audit::of(&members, &published.acknowledged);
        let ends: usize = members.iter().map(|member| member.ends.len()).sum();
        outcome.require(
            audit.is_clean() && ends == 0,
            format!("{audit:?}, {ends} connections ended"),
        );
        counts.push(format!("{} of {}", audit.lost, published.count()));
    }
    outcome.clients = "nothing, while 50 refused requests were to be logged".into();
    outcome.lost = format!("{} acknowledged", counts.join(" and "));
    outcome.ready = "always".into();
    Ok(outcome)
}
