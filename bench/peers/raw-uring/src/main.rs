//! The echo on io_uring: one multishot accept, one multishot receive per connection into buffers that the kernel
//! selects, and sends from these buffers. A turn is one system call, which submits the sends and waits for completions;
//! no thread polls.
//!
//! Connections are entries in the ring's file table instead of descriptors of the process.
//!
//! Peers that do not read hold buffers, and if they hold all of them, every connection waits. `raw-epoll` would copy
//! instead.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use io_uring::squeue::Entry;
use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, opcode};
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::process::{Resource, getrlimit};

use crate::connection::Connection;
use crate::pool::{GROUP, Pool};

mod connection;
mod pool;

const SUBMISSIONS_MAX: u32 = 1024;
const COMPLETIONS_MAX: u32 = 16 * 1024;
const CONNECTIONS_MAX: u32 = 32 * 1024;

/// The kind of an operation; its user data also contains the connection's table index.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;
const KIND_BITS: u32 = 2;

struct Server<'a> {
    listener: TcpListener,
    is_accepting: bool,
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    pool: Pool,
    /// Connections by table index.
    connections: Vec<Option<Connection>>,
    /// Connections to handle at the end of the turn.
    listed: Vec<u32>,
    /// Connections that wait for a free buffer.
    starved: Vec<u32>,
}

fn main() -> ExitCode {
    bench_listen::exit(run(&Flags::parse(Can::default())))
}

fn run(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.listen)?;
    // Accepted sockets inherit this option.
    set_tcp_nodelay(&listener, true)?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS_MAX)
        .build(SUBMISSIONS_MAX)?;
    // The table must not be larger than the process's descriptor limit.
    let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections_max = u64::from(CONNECTIONS_MAX).min(files_max) as u32;
    ring.submitter().register_files_sparse(connections_max)?;
    let pool = Pool::register(&ring.submitter())?;
    bench_listen::announce(listener.local_addr()?);

    let (submitter, submissions, mut completions) = ring.split();
    let mut server = Server {
        listener,
        is_accepting: false,
        submitter,
        submissions,
        pool,
        connections: (0..connections_max).map(|_| None).collect(),
        listed: Vec::new(),
        starved: Vec::new(),
    };
    server.accept()?;
    loop {
        server.submissions.sync();
        match server.submitter.submit_and_wait(1) {
            // Interrupted by a signal, for example from a profiler.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            submitted => drop(submitted?),
        }
        server.submissions.sync();
        completions.sync();
        for completion in &mut completions {
            server.complete(completion.user_data(), completion.result(), completion.flags())?;
        }
        server.settle()?;
    }
}

impl Server<'_> {
    fn complete(&mut self, token: u64, result: i32, flags: u32) -> io::Result<()> {
        let slot = (token >> KIND_BITS) as u32;
        match token & ((1 << KIND_BITS) - 1) {
            ACCEPT => {
                self.is_accepting = cqueue::more(flags);
                if let Ok(slot) = u32::try_from(result) {
                    self.connections[slot as usize] = Some(Connection::default());
                    return self.receive(slot);
                }
                // The table is full; an entry becomes free when a connection closes.
                return match -result {
                    libc::ENFILE | libc::EMFILE => Ok(()),
                    _ => self.accept(),
                };
            }
            CLOSE => return self.accept(),
            kind => {
                let Some(connection) = &mut self.connections[slot as usize] else {
                    return Err(io::Error::other("something happened to a connection that was closed"));
                };
                if !connection.is_listed {
                    connection.is_listed = true;
                    self.listed.push(slot);
                }
                if kind == SEND {
                    connection.sent(&mut self.pool, result);
                    return Ok(());
                }
                connection.is_receiving = cqueue::more(flags);
                match (result, cqueue::buffer_select(flags)) {
                    (1.., Some(buffer)) => {
                        connection.received(&mut self.pool, buffer, result as u32, cqueue::buffer_more(flags));
                    }
                    (_, Some(_)) => return Err(io::Error::other("a buffer without bytes")),
                    (code, None) if code == -libc::ENOBUFS => {}
                    // End of the stream, or an error.
                    (_, None) => connection.is_over = true,
                }
            }
        }
        Ok(())
    }

    /// Ends a turn: sends what was received, closes finished connections, and restarts receives that lacked a buffer.
    fn settle(&mut self) -> io::Result<()> {
        while let Some(slot) = self.listed.pop() {
            let Some(connection) = &mut self.connections[slot as usize] else {
                continue;
            };
            connection.is_listed = false;
            if connection.is_sending() {
                continue;
            }
            if let Some(send) = connection.send(slot, &self.pool) {
                self.push(send, SEND, slot)?;
            } else if connection.is_receiving {
                continue;
            } else if connection.is_over {
                self.connections[slot as usize] = None;
                self.push(opcode::Close::new(Fixed(slot)).build(), CLOSE, slot)?;
            } else {
                self.starved.push(slot);
            }
        }
        if !self.starved.is_empty() && self.pool.has_room() {
            for slot in std::mem::take(&mut self.starved) {
                self.receive(slot)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        if self.is_accepting {
            return Ok(());
        }
        self.is_accepting = true;
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).allocate_file_index(true);
        self.push(accept.build(), ACCEPT, 0)
    }

    fn receive(&mut self, slot: u32) -> io::Result<()> {
        if let Some(connection) = &mut self.connections[slot as usize] {
            connection.is_receiving = true;
        }
        self.push(opcode::RecvMulti::new(Fixed(slot), GROUP).build(), RECEIVE, slot)
    }

    fn push(&mut self, entry: Entry, kind: u64, slot: u32) -> io::Result<()> {
        let entry = entry.user_data(u64::from(slot) << KIND_BITS | kind);
        if self.submissions.is_full() {
            self.submissions.sync();
            self.submitter.submit()?;
            self.submissions.sync();
        }
        // SAFETY: a send points to a piece of the pool, which is never freed and not returned to the kernel before the
        // send is complete, or to the `Gather` of a connection, which stays boxed until then; no other operation that
        // is pushed contains a pointer.
        unsafe { self.submissions.push(&entry) }.map_err(io::Error::other)
    }
}
