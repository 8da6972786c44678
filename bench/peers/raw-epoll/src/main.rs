//! Lower bound for an echo: level-triggered epoll, one buffer of 512 KiB for all connections, bytes are sent as
//! received.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

const BUFFER_SIZE: usize = 512 * 1024;
const EVENTS_MAX: usize = 1024;

/// The listener's token; connections count up from it.
const LISTENER: u64 = 0;

struct Connection {
    tcp: TcpStream,
    /// Bytes that the socket did not accept, and how many of them have been sent since. Nothing is received before all
    /// are sent, so it is at most one buffer.
    unsent: Vec<u8>,
    sent: usize,
}

fn main() -> ExitCode {
    bench_listen::exit(run(&Flags::parse(Can::default())))
}

fn run(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.listen)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    bench_listen::announce(listener.local_addr()?);

    let mut connections = HashMap::new();
    let mut token = LISTENER;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            // Interrupted by a signal, for example from a profiler.
            Err(Errno::INTR) => continue,
            waited => waited?,
        };
        for event in events.drain(..) {
            let data = event.data;
            if data.u64() == LISTENER {
                while let Ok((tcp, _)) = listener.accept() {
                    tcp.set_nodelay(true)?;
                    tcp.set_nonblocking(true)?;
                    token += 1;
                    epoll::add(&epoll, &tcp, EventData::new_u64(token), EventFlags::IN)?;
                    let connection = Connection {
                        tcp,
                        unsent: Vec::new(),
                        sent: 0,
                    };
                    connections.insert(token, connection);
                }
            } else if let Some(connection) = connections.get_mut(&data.u64()) {
                let was_blocked = !connection.unsent.is_empty();
                if connection.echo(&mut buffer).is_err() {
                    connections.remove(&data.u64());
                    continue;
                }
                let is_blocked = !connection.unsent.is_empty();
                if is_blocked != was_blocked {
                    let interest = if is_blocked { EventFlags::OUT } else { EventFlags::IN };
                    epoll::modify(&epoll, &connection.tcp, data, interest)?;
                }
            }
        }
    }
}

impl Connection {
    /// Sends queued bytes, or else receives and sends; fails when the connection is over.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.sent += send(&mut self.tcp, &self.unsent[self.sent..])?;
            if self.sent == self.unsent.len() {
                (self.unsent, self.sent) = (Vec::new(), 0);
            }
            return Ok(());
        }
        let received = match self.tcp.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let sent = send(&mut self.tcp, received)?;
        self.unsent.extend_from_slice(&received[sent..]);
        Ok(())
    }
}

/// Calls `send` once and returns how many bytes the socket accepted.
fn send(tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match tcp.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}
