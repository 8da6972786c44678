//! Memory of idle connections: when they are open, and after each has echoed one message.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    account::{self, Memory},
    opening,
    payload::payload,
    plan::{Kind, Protocol, Target},
    transport::Transport,
    wire::{self, BINARY, COMPRESSED, Inflater, PING, PONG},
};

/// Parameters of a measurement of idle connections.
#[derive(Clone, Debug)]
pub struct IdlePlan {
    /// The server, and how to connect to it.
    pub target: Target,
    /// Number of connections open at the same time.
    pub connections: usize,
    /// Payload bytes of the message that each connection echoes. It is JSON where compression is on.
    pub size: usize,
    /// Process id of the server.
    pub pid: u32,
}

/// Growth of the server's user memory divided by the number of connections. Socket buffers belong to the kernel and are
/// not included.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct IdleReport {
    /// Number of connections open at the same time.
    pub connections: usize,
    /// Bytes of anonymous memory per open connection.
    pub open: f64,
    /// The same after each connection has echoed its message.
    pub after: f64,
    /// The same after all connections are closed: memory that the allocator keeps.
    pub gone: f64,
    /// Like `open`, for all resident pages.
    pub open_resident: f64,
    /// Like `after`, for all resident pages.
    pub after_resident: f64,
}

/// Opens the connections and measures their memory from outside the server.
///
/// # Errors
/// If a connection cannot be opened, ends early, or does not echo its message.
pub fn idle(plan: &IdlePlan) -> Result<IdleReport> {
    ensure!(
        (1..=60_000).contains(&plan.connections),
        "the number of connections must be between 1 and 60,000"
    );
    ensure!(
        (1..=1 << 20).contains(&plan.size),
        "the message size must be between 1 byte and 1 MiB"
    );
    let exchange = Exchange::new(plan)?;
    // The first connection makes the server allocate what all connections share.
    let mut first = opening::open_waiting(&plan.target, 0)?;
    exchange.run(&mut first)?;
    let before = account::memory(plan.pid)?;

    let count = plan.connections;
    let mut connections = Vec::with_capacity(count);
    for idx in 0..count {
        let opened = opening::open_waiting(&plan.target, idx);
        connections.push(opened.with_context(|| format!("connection {idx} of {count}"))?);
    }
    // Once the server has answered the last connection, it has handled all before it.
    exchange.run(&mut first)?;
    let open = account::memory(plan.pid)?;

    for (idx, connection) in connections.iter_mut().enumerate() {
        exchange
            .run(connection)
            .with_context(|| format!("connection {idx} of {count}"))?;
    }
    exchange.run(&mut first)?;
    let after = account::memory(plan.pid)?;

    drop(connections);
    exchange.run(&mut first)?;
    let gone = account::memory(plan.pid)?;

    let each = |now: Memory, of: fn(Memory) -> u64| (of(now) as f64 - of(before) as f64) / count as f64;
    Ok(IdleReport {
        connections: count,
        open: each(open, |memory| memory.anonymous),
        after: each(after, |memory| memory.anonymous),
        gone: each(gone, |memory| memory.anonymous),
        open_resident: each(open, |memory| memory.resident),
        after_resident: each(after, |memory| memory.resident),
    })
}

/// One message and its reply.
struct Exchange {
    request: Vec<u8>,
    payload: Vec<u8>,
    is_framed: bool,
    key: [u8; 4],
}

impl Exchange {
    fn new(plan: &IdlePlan) -> Result<Self> {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let protocol = plan.target.protocol;
        let kind = if protocol == Protocol::Deflate {
            Kind::Json
        } else {
            Kind::Binary
        };
        let payload = payload(kind, plan.size, 0);
        let request = match protocol {
            Protocol::Raw => payload.clone(),
            Protocol::WebSocket | Protocol::Fragments => wire::client_frame(BINARY, &payload, key),
            Protocol::Deflate => wire::client_frame(BINARY | COMPRESSED, &wire::deflate(&payload)?, key),
        };
        Ok(Self {
            request,
            payload,
            is_framed: protocol != Protocol::Raw,
            key,
        })
    }

    fn run(&self, transport: &mut Transport) -> Result<()> {
        transport.write_waiting(&self.request)?;
        let mut reply = vec![0; self.payload.len()];
        if !self.is_framed {
            read_exact(transport, &mut reply)?;
            ensure!(reply == self.payload, "a reply is not what was sent");
            return Ok(());
        }
        loop {
            let mut header = [0; 2];
            read_exact(transport, &mut header)?;
            let len = match header[1] {
                126 => {
                    let mut len = [0; 2];
                    read_exact(transport, &mut len)?;
                    u64::from(u16::from_be_bytes(len))
                }
                127 => {
                    let mut len = [0; 8];
                    read_exact(transport, &mut len)?;
                    u64::from_be_bytes(len)
                }
                len => u64::from(len),
            };
            ensure!(len <= 2 << 20, "a frame of {len} bytes");
            reply.resize(len as usize, 0);
            read_exact(transport, &mut reply)?;
            if header[0] == PING {
                // A ping: the connection was idle for longer than the server's keepalive interval.
                transport.write_waiting(&wire::client_frame(PONG, &reply, self.key))?;
                continue;
            }
            ensure!(
                header[0] & !COMPRESSED == BINARY,
                "a reply of another kind: its first byte is {:#04x}",
                header[0]
            );
            let mut inflater = Inflater::new();
            let found = if header[0] & COMPRESSED == 0 {
                &reply
            } else {
                inflater.inflate(&reply, self.payload.len())?
            };
            ensure!(found == self.payload, "a reply is not what was sent");
            return Ok(());
        }
    }
}

fn read_exact(transport: &mut Transport, mut bytes: &mut [u8]) -> Result<()> {
    while !bytes.is_empty() {
        let len = transport.read_waiting(bytes)?;
        ensure!(len > 0, "the connection ended");
        bytes = &mut bytes[len..];
    }
    Ok(())
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections: {:.0} B each when open, {:.0} B after an echo each, {:.0} B when gone \
             (all resident pages: {:.0} B, {:.0} B)",
            self.connections, self.open, self.after, self.gone, self.open_resident, self.after_resident
        )
    }
}
