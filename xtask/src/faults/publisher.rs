//! A publisher that numbers what it publishes and keeps account of what the server acknowledged.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    server::TIMEOUT,
    subscribers::channel,
    wire::{self, Frame},
};

/// One connection that waits for each reply.
pub(super) struct Publisher {
    address: SocketAddr,
    stream: TcpStream,
    input: Vec<u8>,
    next_id: u64,
}

/// What the server answered to a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Acknowledged,
    /// An error with its code.
    Error(u64),
}

impl Publisher {
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(wire::request(&address.to_string()).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101 "), "the handshake was refused");
        let mut publisher = Self {
            address,
            stream,
            input: Vec::new(),
            next_id: 10,
        };
        publisher.send(r#"{"id":1,"connect":{}}"#)?;
        publisher.reply(1)?;
        Ok(publisher)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(&wire::frame(text))?)
    }

    /// Waits for a reply and answers pings.
    fn reply(&mut self, id: u64) -> Result<Value> {
        loop {
            while let Some(frame) = wire::take_frame(&mut self.input) {
                let Frame::Text(text) = frame else {
                    bail!("the server closed the connection: {frame:?}");
                };
                for line in text.lines() {
                    if line == "{}" {
                        self.send("{}")?;
                        continue;
                    }
                    let value: Value = serde_json::from_str(line)?;
                    if value["id"] == id {
                        return Ok(value);
                    }
                }
            }
            let mut bytes = [0; 4096];
            let len = self.stream.read(&mut bytes)?;
            ensure!(len > 0, "the connection ended");
            self.input.extend_from_slice(&bytes[..len]);
        }
    }

    /// Publishes and waits for the answer.
    pub(super) fn publish(&mut self, channel: &str, number: u64, size: usize) -> Result<Answer> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&wire::publish(id, channel, number, size))?;
        let reply = self.reply(id)?;
        Ok(match reply["error"]["code"].as_u64() {
            Some(code) => Answer::Error(code),
            None => Answer::Acknowledged,
        })
    }

    /// Sends a command and waits for its reply.
    pub(super) fn call(&mut self, command: &str) -> Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&format!("{{\"id\":{id},{command}}}"))?;
        self.reply(id)
    }

    fn reconnect(&mut self) -> bool {
        match Self::connect(self.address) {
            Ok(new) => {
                *self = new;
                true
            }
            Err(_) => false,
        }
    }
}

/// A publisher on a thread, at a given pace, through restarts of the server.
pub(super) struct Stream {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Published>>,
}

/// What a [`Stream`] did.
#[derive(Debug)]
pub(super) struct Published {
    /// The acknowledged numbers of each channel.
    pub(super) acknowledged: Vec<BTreeSet<u64>>,
    /// Answers with an error.
    pub(super) errors: usize,
    /// Times from a command to its acknowledgement.
    pub(super) times: Vec<Duration>,
    /// The longest time from a command to its answer, or to the end of the connection.
    pub(super) slowest: Duration,
}

impl Stream {
    pub(super) fn start(address: SocketAddr, channels: usize, pace: Duration, size: usize) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut publisher = Publisher::connect(address)?;
        let thread = thread::Builder::new().name("publisher".into()).spawn({
            let is_over = is_over.clone();
            move || {
                let mut published = Published {
                    acknowledged: vec![BTreeSet::new(); channels],
                    errors: 0,
                    times: Vec::new(),
                    slowest: Duration::ZERO,
                };
                let mut number = 0;
                while !is_over.load(Ordering::Acquire) {
                    number += 1;
                    let idx = number as usize % channels;
                    let began_at = Instant::now();
                    let answer = publisher.publish(&channel(idx), number, size);
                    published.slowest = published.slowest.max(began_at.elapsed());
                    match answer {
                        Ok(Answer::Acknowledged) => {
                            published.acknowledged[idx].insert(number);
                            published.times.push(began_at.elapsed());
                        }
                        Ok(Answer::Error(_)) => published.errors += 1,
                        // It is not known whether the publication was made.
                        Err(_) => {
                            while !publisher.reconnect() && !is_over.load(Ordering::Acquire) {
                                thread::sleep(Duration::from_millis(10));
                            }
                        }
                    }
                    thread::sleep(pace);
                }
                Ok(published)
            }
        })?;
        Ok(Self { is_over, thread })
    }

    /// Stops and returns the account.
    pub(super) fn end(self) -> Result<Published> {
        self.is_over.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(published) => published.context("the publisher failed"),
            Err(_) => bail!("the thread of the publisher panicked"),
        }
    }
}

impl Published {
    pub(super) fn count(&self) -> usize {
        self.acknowledged.iter().map(BTreeSet::len).sum()
    }
}

/// A value that this share of the times does not exceed.
pub(super) fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let idx = (times.len().saturating_sub(1) as f64 * share) as usize;
    times.get(idx).copied().unwrap_or_default()
}
