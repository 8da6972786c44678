//! Subscribers on one thread. They connect again after a lost connection and recover, as SDKs do, and keep account of
//! every publication.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{
    server::TIMEOUT,
    wire::{self, Frame},
};

/// Delay before a client connects again.
const RETRY: Duration = Duration::from_millis(20);

/// Delay before a client subscribes again after a temporary error.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(200);

/// What subscribers do.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubscriberOptions {
    /// Connect again after a lost connection.
    pub(super) reconnects: bool,
    /// Stop reading after the subscription.
    pub(super) reads: bool,
    /// Answer pings.
    pub(super) answers_pings: bool,
    /// The address to connect from.
    pub(super) source: Option<[u8; 4]>,
    /// The other node: a client switches nodes after each lost connection.
    pub(super) other_node: Option<SocketAddr>,
}

impl Default for SubscriberOptions {
    fn default() -> Self {
        Self {
            reconnects: true,
            reads: true,
            answers_pings: true,
            source: None,
            other_node: None,
        }
    }
}

/// Subscribers that run until [`Subscribers::end`].
pub(super) struct Subscribers {
    shared: Arc<Shared>,
    count: usize,
    thread: Option<thread::JoinHandle<Vec<Member>>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Members with a subscription.
    ready: AtomicUsize,
    /// Publications that members have received.
    received: AtomicUsize,
}

/// What one subscriber has seen.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) channel: usize,
    /// The numbers of the publications, in the order of their arrival.
    pub(super) numbers: Vec<u64>,
    /// How often the server refused to recover its position.
    pub(super) recovery_refused: usize,
    /// How often its connection ended, with the close code if there was one.
    pub(super) ends: Vec<(Instant, Option<u16>)>,
    /// Times from a lost connection to the next subscription.
    pub(super) back: Vec<Duration>,
    /// How often the server ended its subscription, while the connection went on.
    pub(super) unsubscribed: usize,
    /// How often connecting or subscribing failed with an error.
    pub(super) errors: usize,
    position: Option<(String, u64)>,
    stream: Option<TcpStream>,
    input: Vec<u8>,
    is_open: bool,
    is_subscribed: bool,
    retry_at: Option<Instant>,
    /// When to subscribe again on the same connection.
    subscribe_at: Option<Instant>,
}

impl Subscribers {
    /// Starts members, spread evenly over channels named `fault0` and so on, and waits for their subscriptions.
    pub(super) fn start(
        address: SocketAddr,
        count: usize,
        channels: usize,
        options: SubscriberOptions,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let members = (0..count).map(|idx| Member {
            channel: idx % channels,
            ..Member::default()
        });
        let members: Vec<_> = members.collect();
        let thread = thread::Builder::new().name("subscribers".into()).spawn({
            let shared = shared.clone();
            move || run(members, address, options, &shared)
        })?;
        let subscribers = Self {
            shared,
            count,
            thread: Some(thread),
        };
        subscribers.wait_until_ready()?;
        Ok(subscribers)
    }

    /// Members with a subscription.
    pub(super) fn ready(&self) -> usize {
        self.shared.ready.load(Ordering::Acquire)
    }

    pub(super) fn received(&self) -> usize {
        self.shared.received.load(Ordering::Acquire)
    }

    /// Waits until every member is subscribed.
    pub(super) fn wait_until_ready(&self) -> Result<()> {
        let began_at = Instant::now();
        while self.ready() < self.count {
            if began_at.elapsed() > TIMEOUT {
                bail!(
                    "{} of {} subscribers are there after {TIMEOUT:?}",
                    self.ready(),
                    self.count
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until nothing has arrived for this long.
    pub(super) fn wait_until_quiet(&self, time: Duration) {
        let mut last = (self.received(), Instant::now());
        while last.1.elapsed() < time {
            thread::sleep(time / 10);
            if self.received() != last.0 {
                last = (self.received(), Instant::now());
            }
        }
    }

    /// Ends all members and returns what they have seen.
    pub(super) fn end(mut self) -> Result<Vec<Member>> {
        self.shared.is_over.store(true, Ordering::Release);
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(members)) => Ok(members),
            _ => bail!("the thread of the subscribers panicked"),
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
    }
}

fn run(mut members: Vec<Member>, address: SocketAddr, options: SubscriberOptions, shared: &Shared) -> Vec<Member> {
    while !shared.is_over.load(Ordering::Acquire) {
        let now = Instant::now();
        for member in &mut members {
            let is_due = member.retry_at.is_none_or(|at| now >= at);
            if member.stream.is_none() && is_due && (options.reconnects || member.ends.is_empty()) {
                member.connect(address, options);
            }
            if member.subscribe_at.is_some_and(|at| now >= at) {
                member.subscribe_at = None;
                let text = wire::subscribe(&channel(member.channel), member.position());
                member.send(&text);
            }
        }
        let open: Vec<_> = (0..members.len())
            .filter(|&idx| members[idx].stream.is_some() && (options.reads || !members[idx].is_subscribed))
            .collect();
        let readable: Vec<_> = {
            let mut fds: Vec<_> = open
                .iter()
                .filter_map(|&idx| Some(PollFd::new(members[idx].stream.as_ref()?, PollFlags::IN)))
                .collect();
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 5_000_000,
            };
            let _ = poll(&mut fds, Some(&timeout));
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for (idx, _) in open.into_iter().zip(readable).filter(|(_, is_readable)| *is_readable) {
            members[idx].receive(options, shared);
        }
    }
    members
}

impl Member {
    fn connect(&mut self, address: SocketAddr, options: SubscriberOptions) {
        let address = match options.other_node {
            Some(other) if self.ends.len() % 2 == 1 => other,
            _ => address,
        };
        let open = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if !options.reads {
                socket.set_tcp_mss(1448)?;
                socket.set_recv_buffer_size(4096)?;
            }
            if let Some(source) = options.source {
                socket.bind(&SocketAddr::from((source, 0)).into())?;
            }
            socket.connect_timeout(&address.into(), TIMEOUT)?;
            socket.set_tcp_nodelay(true)?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(wire::request(&address.to_string()).as_bytes())?;
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match open() {
            Ok(stream) => self.stream = Some(stream),
            Err(_) => self.retry_at = Some(Instant::now() + RETRY),
        }
    }

    fn receive(&mut self, options: SubscriberOptions, shared: &Shared) {
        let mut bytes = [0; 64 << 10];
        let Some(stream) = &mut self.stream else { return };
        match stream.read(&mut bytes) {
            Ok(len) if len > 0 => self.input.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => return self.lose(None, shared),
        }
        if !self.is_open {
            let Some(end) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return;
            };
            if !self.input.starts_with(b"HTTP/1.1 101 ") {
                return self.lose(None, shared);
            }
            self.input.drain(..end + 4);
            self.is_open = true;
            let text = wire::connect_and_subscribe(&channel(self.channel), self.position());
            self.send(&text);
        }
        while let Some(frame) = wire::take_frame(&mut self.input) {
            match frame {
                Frame::Close(code) => return self.lose(Some(code), shared),
                Frame::Text(text) => text.lines().for_each(|line| self.line(line, options, shared)),
            }
        }
    }

    fn line(&mut self, line: &str, options: SubscriberOptions, shared: &Shared) {
        if line == "{}" {
            if options.answers_pings {
                self.send("{}");
            }
            return;
        }
        // Most lines are pushes of publications, which need not be parsed completely.
        if line.starts_with("{\"push\":") {
            if let Some((number, offset)) = digits_after(line, "\"n\":").zip(digits_after(line, "\"offset\":")) {
                self.take(number, offset, shared);
            } else if line.contains("\"unsubscribe\":") {
                self.unsubscribed += 1;
                if std::mem::take(&mut self.is_subscribed) {
                    shared.ready.fetch_sub(1, Ordering::Release);
                }
                self.subscribe_at = Some(Instant::now());
            }
            return;
        }
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(reply) = value.get("subscribe") {
            let is_again = self.position.is_some();
            let offset = reply["offset"].as_u64().unwrap_or(0);
            let epoch = reply["epoch"].as_str().unwrap_or_default().to_owned();
            self.position = Some((epoch, offset));
            if is_again && reply["recovered"] != true {
                self.recovery_refused += 1;
            }
            for publication in reply["publications"].as_array().into_iter().flatten() {
                if let Some((number, offset)) = wire::number(publication).zip(publication["offset"].as_u64()) {
                    self.take(number, offset, shared);
                }
            }
            if let (Some((at, _)), true) = (self.ends.last(), is_again) {
                self.back.push(at.elapsed());
            }
            self.is_subscribed = true;
            shared.ready.fetch_add(1, Ordering::Release);
        } else if !value["error"].is_null() {
            self.errors += 1;
            if value["id"] == 2 {
                self.subscribe_at = Some(Instant::now() + SUBSCRIBE_RETRY);
            }
        }
    }

    /// The epoch and the offset up to which publications have arrived.
    fn position(&self) -> Option<(&str, u64)> {
        let position = self.position.as_ref();
        position.map(|(epoch, offset)| (epoch.as_str(), *offset))
    }

    fn take(&mut self, number: u64, offset: u64, shared: &Shared) {
        if let Some((_, position)) = &mut self.position {
            *position = offset;
        }
        self.numbers.push(number);
        shared.received.fetch_add(1, Ordering::Release);
    }

    fn send(&mut self, text: &str) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(&wire::frame(text));
        }
    }

    fn lose(&mut self, code: Option<u16>, shared: &Shared) {
        self.ends.push((Instant::now(), code));
        if std::mem::take(&mut self.is_subscribed) {
            shared.ready.fetch_sub(1, Ordering::Release);
        }
        self.stream = None;
        self.subscribe_at = None;
        self.input.clear();
        self.is_open = false;
        self.retry_at = Some(Instant::now() + RETRY);
    }
}

/// The number behind the last occurrence of a mark: the text of a publication comes before its offset.
fn digits_after(line: &str, mark: &str) -> Option<u64> {
    let rest = &line[line.rfind(mark)? + mark.len()..];
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The name of a channel.
pub(super) fn channel(idx: usize) -> String {
    format!("fault{idx}")
}

/// The result of comparing what was acknowledged with what subscribers have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Audit {
    /// Acknowledged publications that a subscriber did not get although its recovery was not refused.
    pub(super) lost: usize,
    pub(super) repeated: usize,
    pub(super) reordered: usize,
    /// How often the server refused recovery.
    pub(super) recovery_refused: usize,
}

impl Audit {
    /// `acknowledged` has the numbers for each channel.
    pub(super) fn of(members: &[Member], acknowledged: &[BTreeSet<u64>]) -> Self {
        let mut audit = Self::default();
        for member in members {
            let seen: BTreeSet<_> = member.numbers.iter().copied().collect();
            audit.repeated += member.numbers.len() - seen.len();
            audit.reordered += member.numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
            audit.recovery_refused += member.recovery_refused;
            if member.recovery_refused == 0 {
                let acknowledged = acknowledged[member.channel].iter();
                audit.lost += acknowledged.filter(|number| !seen.contains(number)).count();
            }
        }
        audit
    }

    pub(super) fn is_clean(self) -> bool {
        (self.lost, self.repeated, self.reordered) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Audit, BTreeSet, Member};

    #[test]
    fn an_audit_finds_what_is_lost_repeated_or_out_of_order() {
        let member = |numbers: &[u64], recovery_refused| Member {
            numbers: numbers.to_vec(),
            recovery_refused,
            ..Member::default()
        };
        let acknowledged = [BTreeSet::from([1, 2, 3])];
        let audit = |members: &[Member]| Audit::of(members, &acknowledged);
        assert!(audit(&[member(&[1, 2, 3], 0), member(&[1, 2, 3, 4], 0)]).is_clean());
        assert_eq!(audit(&[member(&[1, 3], 0)]).lost, 1);
        assert_eq!(audit(&[member(&[1, 3], 1)]).lost, 0);
        assert_eq!(audit(&[member(&[1, 2, 2, 3], 0)]).repeated, 1);
        assert_eq!(audit(&[member(&[1, 3, 2], 0)]).reordered, 1);
    }
}
