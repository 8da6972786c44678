//! Listening sockets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::Failure;

/// Length of the queue of connections that are not accepted yet. The kernel lowers it to its own maximum.
const BACKLOG: i32 = 4096;

/// Creates `count` listeners on one address, one for each thread. The kernel distributes connections among them.
pub(crate) fn bind(address: &str, count: usize) -> Result<Vec<TcpListener>, Failure> {
    bind_all(address, count).map_err(|error| Failure::Listen {
        address: address.to_owned(),
        error,
    })
}

fn bind_all(address: &str, count: usize) -> io::Result<Vec<TcpListener>> {
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    if count == 1 {
        return Ok(vec![listen(bind_one(address, false)?)?]);
    }
    // With SO_REUSEPORT, binding succeeds even if another program of the same user listens on the port. Bind once
    // without it, to check that the port is free.
    drop(bind_one(address, false)?);
    let first = listen(bind_one(address, true)?)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen(bind_one(address, true)?)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Otherwise binding fails for a minute after a previous server ended, because of connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Prints the URL on standard output when the server is ready. A failure is logged and does not stop the server.
pub(crate) fn announce(url: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "listening on {url}").and_then(|()| stdout.flush()) {
        tracing::warn!(%error, url, "listening, but cannot write the URL to standard output");
    }
}
