//! Name resolution, TCP and TLS on the calling thread.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};
use sockeye_proto::handshake::Uri;

use super::{Socket, saturating_deadline};
use crate::client::dial::target;
use crate::client::{Client, TlsPeer};
use crate::error::connect::{Attempt, ConnectFailure, TimeLimit};
use crate::error::{ConnectError, Error, Kind};
use crate::transport::Io;
#[cfg(feature = "tls")]
use crate::transport::blocking::{BlockingStream, block_on};

/// Minimum time per address if there are several.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

/// Starts TLS with a server or proxy. The outermost session runs inside the [`BlockingStream`]; a session within it, to
/// a server behind an `https://` proxy, is a tokio-rustls stream around it.
#[cfg(feature = "tls")]
pub(super) fn start_tls(
    client: &Client,
    io: Box<dyn Io>,
    socket: &Socket,
    (uri, peer): (&Uri, TlsPeer),
    deadline: Instant,
    limit: TimeLimit,
) -> Result<Box<dyn Io>, Error> {
    use crate::transport::{downcast, tls};

    let (config, name) = client.tls_parameters(uri, peer)?;
    let inner: Box<dyn Io> = match downcast::<BlockingStream>(io) {
        Ok(mut stream) if stream.tls().is_none() => {
            let session = tls::client_session(config, name)?;
            super::server::finish_tls(&mut stream, session.into(), deadline, limit.setting)?;
            return Ok(stream);
        }
        Ok(stream) => stream,
        Err(io) => io,
    };
    match block_on(socket, deadline, tls::connect(config, name, inner)) {
        Some(started) => Ok(Box::new(started?)),
        None => Err(Error::timeout_of("the TLS handshake", limit.setting)),
    }
}

#[cfg(not(feature = "tls"))]
pub(super) fn start_tls(
    _: &Client,
    _: Box<dyn Io>,
    _: &Socket,
    _: (&Uri, TlsPeer),
    _: Instant,
    _: TimeLimit,
) -> Result<Box<dyn Io>, Error> {
    Err(Error::invalid_url(
        "wss:// and https:// proxies need the feature `tls` of the crate sockeye",
    ))
}

/// Resolves the host and tries its addresses one after the other, within `limit`.
pub(super) fn connect_tcp(client: &Client, uri: &Uri, limit: TimeLimit) -> Result<TcpStream, Error> {
    let deadline = saturating_deadline(limit.duration);
    let mut attempts = vec![];
    let cause = match resolve(client, uri, limit) {
        Err(cause) => cause,
        Ok(addresses) => {
            let count = addresses.len();
            for (number, address) in addresses.into_iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                let share = (left / (count - number) as u32).max(ATTEMPT_MIN).min(left);
                if share.is_zero() {
                    break;
                }
                match connect_address(address, client.dialer().local_for(address), share) {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => attempts.push(Attempt {
                        address,
                        error: Some(error),
                    }),
                }
            }
            match Instant::now() >= deadline {
                true => ConnectFailure::TimedOut(limit),
                false => ConnectFailure::Failed,
            }
        }
    };
    Err(Error::new(Kind::Connect(ConnectError {
        target: target(uri),
        cause,
        attempts,
    })))
}

fn connect_address(address: SocketAddr, local: Option<SocketAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let Some(local) = local else {
        return TcpStream::connect_timeout(&address, timeout);
    };
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&local.into())?;
    socket.connect_timeout(&address.into(), timeout)?;
    Ok(socket.into())
}

/// The addresses of the host of a URI, at least one. A name is resolved in a thread of its own, because the system's
/// resolver has no timeout.
pub(super) fn resolve(client: &Client, uri: &Uri, limit: TimeLimit) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let (host, port) = (uri.host(), uri.port());
    let addresses = match (uri.zone(), host.parse::<IpAddr>()) {
        (None, Ok(ip)) => vec![SocketAddr::new(ip, port)],
        // The system resolves the interface name to its index.
        (Some(zone), _) => system_addresses(format!("{host}%{zone}"), port, limit)?,
        (None, Err(_)) => system_addresses(host.to_owned(), port, limit)?,
    };
    client.dialer().in_order(addresses)
}

fn system_addresses(host: String, port: u16, limit: TimeLimit) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let (sender, receiver) = mpsc::channel();
    let resolving = std::thread::Builder::new().name("resolver".into()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        let _ = sender.send(addresses.map(Vec::from_iter));
    });
    resolving.map_err(ConnectFailure::Unresolved)?;
    match receiver.recv_timeout(limit.duration) {
        Ok(resolved) => resolved.map_err(ConnectFailure::Unresolved),
        Err(_) => Err(ConnectFailure::TimedOut(limit)),
    }
}
