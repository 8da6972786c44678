//! Many clients on one epoll loop.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
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

use super::{
    ChannelsPlan,
    client::{Client, Line, Refused},
};

/// Pause after a refusal that does not say when to try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Maximum number of connections that are being opened: the backlog of a listener is limited, by default to 4,096.
const OPENING_MAX: usize = 512;

/// Maximum number of events per wait.
const EVENTS: usize = 512;

/// A server that sends nothing for this long while something is expected has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Size of the read buffer that all clients share.
const ROOM_LEN: usize = 256 << 10;

/// Clients by index. A closed one leaves a gap.
pub(super) struct Crowd {
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    /// The nodes, over which clients are spread evenly.
    addresses: Vec<SocketAddr>,
    sources: u8,
    room: Vec<u8>,
    events: Vec<Event>,
    /// When something arrived last.
    heard_at: Instant,
}

impl Crowd {
    pub(super) fn new(plan: &ChannelsPlan) -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            addresses: plan.nodes.iter().map(|node| node.address).collect(),
            sources: plan.sources.max(1),
            room: vec![0; ROOM_LEN],
            events: Vec::with_capacity(EVENTS),
            heard_at: Instant::now(),
        })
    }

    /// Starts to open the client with this index, on the node with the index modulo the number of nodes.
    pub(super) fn connect(&mut self, idx: usize) -> Result<()> {
        self.connect_to(idx, idx % self.addresses.len())
    }

    /// Starts to open the client with this index on this node.
    pub(super) fn connect_to(&mut self, idx: usize, node: usize) -> Result<()> {
        let source = (idx % usize::from(self.sources)) as u8 + 1;
        let client = Client::connect(self.addresses[node], source)?;
        epoll::add(
            &self.epoll,
            &client,
            EventData::new_u64(idx as u64),
            EventFlags::IN | EventFlags::OUT | EventFlags::ET,
        )?;
        if self.clients.len() <= idx {
            self.clients.resize_with(idx + 1, || None);
        }
        self.clients[idx] = Some(client);
        Ok(())
    }

    /// Opens all these clients, so many at a time, and returns when `each`, which handles every line of every client,
    /// has returned true for each. A client whose handshake is refused for now connects again when the response says.
    pub(super) fn open(
        &mut self,
        wanted: std::ops::Range<usize>,
        mut each: impl FnMut(usize, &mut Client, Line<'_>) -> Result<bool>,
    ) -> Result<()> {
        let (mut next, mut ready) = (wanted.start, 0);
        let mut refused = BinaryHeap::new();
        self.heard_at = Instant::now();
        while ready < wanted.len() {
            while next < wanted.end && next - wanted.start - ready < OPENING_MAX {
                self.connect(next).with_context(|| format!("client {next}"))?;
                next += 1;
            }
            while let Some(&Reverse((at, idx))) = refused.peek()
                && at <= Instant::now()
            {
                refused.pop();
                self.connect(idx)?;
            }
            self.turn_with_losses(
                Duration::from_millis(100),
                |idx, client, line| {
                    ready += usize::from(each(idx, client, line)?);
                    Ok(())
                },
                |idx, error| match error.downcast_ref::<Refused>() {
                    Some(now) if now.is_temporary() => {
                        let pause = now.retry_after().unwrap_or(RETRY_AFTER);
                        refused.push(Reverse((Instant::now() + pause, idx)));
                        Ok(())
                    }
                    _ => Err(error.context(format!("client {idx}"))),
                },
            )?;
            self.check_patience()?;
        }
        Ok(())
    }

    /// Handles what arrives within this time, and returns after the first batch of events. Fails if a connection ends.
    pub(super) fn turn(
        &mut self,
        within: Duration,
        each: impl FnMut(usize, &mut Client, Line<'_>) -> Result<()>,
    ) -> Result<()> {
        self.turn_with_losses(within, each, |idx, error| Err(error.context(format!("client {idx}"))))
    }

    /// Like [`turn`](Self::turn), and passes the clients whose connections end to `lose`.
    pub(super) fn turn_with_losses(
        &mut self,
        within: Duration,
        mut each: impl FnMut(usize, &mut Client, Line<'_>) -> Result<()>,
        mut lose: impl FnMut(usize, anyhow::Error) -> Result<()>,
    ) -> Result<()> {
        let timeout = Timespec {
            tv_sec: within.as_secs() as i64,
            tv_nsec: i64::from(within.subsec_nanos()),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let (idx, flags) = (event.data.u64() as usize, event.flags);
            let Some(client) = self.clients.get_mut(idx).and_then(Option::as_mut) else {
                continue;
            };
            let mut handle = || {
                if flags.contains(EventFlags::OUT) {
                    client.handle_writable()?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.heard_at = Instant::now();
                    while client.receive(&mut self.room, |client, line| each(idx, client, line))? {}
                }
                Ok::<_, anyhow::Error>(())
            };
            if let Err(error) = handle() {
                self.clients[idx] = None;
                lose(idx, error)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Handles what arrives until this moment.
    pub(super) fn run_until(
        &mut self,
        end: Instant,
        mut each: impl FnMut(usize, &mut Client, Line<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left.min(Duration::from_millis(100)), &mut each)?;
        }
    }

    /// Fails if nothing has arrived for too long.
    pub(super) fn check_patience(&self) -> Result<()> {
        ensure!(
            self.heard_at.elapsed() < PATIENCE,
            "the server sent nothing for {PATIENCE:?}"
        );
        Ok(())
    }

    pub(super) fn client(&mut self, idx: usize) -> Result<&mut Client> {
        let client = self.clients.get_mut(idx).and_then(Option::as_mut);
        client.with_context(|| format!("client {idx} is not open"))
    }

    /// Closes these clients with a TCP reset.
    pub(super) fn reset(&mut self, wanted: std::ops::Range<usize>) -> Result<()> {
        for client in &mut self.clients[wanted] {
            if let Some(client) = client.take() {
                client.reset()?;
            }
        }
        Ok(())
    }
}
