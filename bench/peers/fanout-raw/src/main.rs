//! Lower bound for fan-out: epoll, each frame encoded once, one send per subscriber for all messages of one read.
//!
//! Implements only what a well-behaved client needs: handshake, whole messages, ping and close. No fragments, no UTF-8
//! check, no deadlines.

mod connection;
mod frame;

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use connection::Connection;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

const BUFFER_SIZE: usize = 512 * 1024;
const EVENTS_MAX: usize = 1024;

/// The listener's token; connections count up from it.
const LISTENER: u64 = 0;

struct Hub {
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    /// Read buffer of all connections.
    buffer: Vec<u8>,
    /// The messages of one read, encoded for the subscribers.
    batch: Vec<u8>,
}

fn main() -> ExitCode {
    bench_listen::exit(run(&Flags::parse(Can::default())))
}

fn run(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.listen)?;
    listener.set_nonblocking(true)?;
    let mut hub = Hub {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        connections: HashMap::new(),
        buffer: vec![0; BUFFER_SIZE],
        batch: Vec::new(),
    };
    epoll::add(&hub.epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    bench_listen::announce(listener.local_addr()?);

    let mut token = LISTENER;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        match epoll::wait(&hub.epoll, spare_capacity(&mut events), None) {
            // Interrupted by a signal, for example from a profiler.
            Err(Errno::INTR) => continue,
            waited => waited?,
        };
        for event in events.drain(..) {
            let data = event.data;
            if data.u64() != LISTENER {
                hub.handle(data.u64())?;
                continue;
            }
            while let Ok((tcp, _)) = listener.accept() {
                tcp.set_nodelay(true)?;
                tcp.set_nonblocking(true)?;
                token += 1;
                epoll::add(&hub.epoll, &tcp, EventData::new_u64(token), EventFlags::IN)?;
                hub.connections.insert(token, Connection::new(tcp));
            }
        }
    }
}

impl Hub {
    /// Handles a connection that is readable or writable again.
    fn handle(&mut self, token: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&token) else {
            return Ok(());
        };
        let was_blocked = connection.is_blocked();
        self.batch.clear();
        let handled = connection.handle(&mut self.buffer, &mut self.batch);
        // Messages before the end of the connection are published all the same.
        self.publish(token)?;
        self.settle(token, was_blocked, handled)
    }

    /// Sends the batch to all connections but one.
    fn publish(&mut self, from: u64) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut changed = Vec::new();
        for (&token, connection) in &mut self.connections {
            if token != from && connection.is_open() {
                let was_blocked = connection.is_blocked();
                let sent = connection.send(&self.batch);
                if sent.is_err() || connection.is_blocked() != was_blocked {
                    changed.push((token, was_blocked, sent));
                }
            }
        }
        for (token, was_blocked, sent) in changed {
            self.settle(token, was_blocked, sent)?;
        }
        Ok(())
    }

    /// After handling a connection: removes it if it is over, or registers the events that it needs now.
    fn settle(&mut self, token: u64, was_blocked: bool, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            self.connections.remove(&token);
            return Ok(());
        }
        let Some(connection) = self.connections.get(&token) else {
            return Ok(());
        };
        if connection.is_blocked() != was_blocked {
            let interest = match connection.is_blocked() {
                true => EventFlags::IN | EventFlags::OUT,
                false => EventFlags::IN,
            };
            epoll::modify(&self.epoll, connection.tcp(), EventData::new_u64(token), interest)?;
        }
        Ok(())
    }
}
