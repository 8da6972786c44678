//! Listening, and saying so.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::Failure;

/// Connections that wait to be accepted; the kernel lowers it to what it allows.
const BACKLOG: i32 = 4096;

/// Listens `count` times on one address, for as many threads. The kernel spreads connections over them.
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
    // Sharing the port among our threads shares it with any program of the same user. Once alone, then, to see whether
    // it is free.
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
    // Without it the address stays taken for a minute after the connections of a server that has just ended.
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

/// Tells whoever started the program that it is ready, on standard output. A server is of use without that line too.
pub(crate) fn announce(url: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "listening on {url}").and_then(|()| stdout.flush()) {
        tracing::warn!(%error, url, "listening, but standard output does not take that line");
    }
}
