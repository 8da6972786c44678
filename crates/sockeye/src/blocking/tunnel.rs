//! A tunnel through a proxy, opened by a thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sockeye_proto::handshake::Uri;

use super::dial::{connect_tcp, resolve, start_tls};
use super::saturating_deadline;
use crate::client::proxy::Proxy;
use crate::client::{Client, TlsPeer};
use crate::error::connect::TimeLimit;
use crate::error::proxy::ProxyFailure;
use crate::error::{ConnectError, Error, Kind};
use crate::transport::Io;
use crate::transport::blocking::{BlockingStream, Socket, block_on};

/// Connects to the proxy, and asks it for a connection to the host and port of `uri`, within `limit`.
pub(super) fn open(
    proxy: &Proxy,
    client: &Client,
    uri: &Uri,
    limit: TimeLimit,
) -> Result<(Box<dyn Io>, Arc<Socket>), Error> {
    let deadline = saturating_deadline(limit.duration);
    let opened = open_until(proxy, client, uri, limit, deadline);
    opened.map_err(|failure| proxy.error(uri, failure))
}

fn open_until(
    proxy: &Proxy,
    client: &Client,
    uri: &Uri,
    limit: TimeLimit,
    deadline: Instant,
) -> Result<(Box<dyn Io>, Arc<Socket>), ProxyFailure> {
    if uri.zone().is_some() {
        return Err(ProxyFailure::Zone);
    }
    let tcp = connect_tcp(client, proxy.endpoint(), limit).map_err(ProxyFailure::Connect)?;
    let socket = Arc::new(Socket::from(tcp));
    let stream = BlockingStream::new(socket.clone());
    let mut io: Box<dyn Io> = Box::new(stream.map_err(|error| ProxyFailure::Transport(Error::io(error)))?);
    if proxy.uses_tls() {
        let peer = (proxy.endpoint(), TlsPeer::Proxy);
        io = start_tls(client, io, &socket, peer, deadline, limit).map_err(ProxyFailure::Transport)?;
    }
    let address = match proxy.needs_address(uri) {
        true => Some(first_address(client, uri, limit).map_err(ProxyFailure::Transport)?),
        false => None,
    };
    let asking = proxy.ask(&mut io, uri, address, client.handshake_limits());
    match block_on(&socket, deadline, asking) {
        Some(asked) => asked?,
        None => return Err(ProxyFailure::TimedOut(limit)),
    }
    Ok((io, socket))
}

/// The first address of the host of a URI, for a proxy that does not resolve names.
fn first_address(client: &Client, uri: &Uri, limit: TimeLimit) -> Result<SocketAddr, Error> {
    match resolve(client, uri, limit) {
        Ok(addresses) => Ok(addresses[0]),
        Err(cause) => Err(Error::new(Kind::Connect(ConnectError {
            target: crate::client::dial::target(uri),
            cause,
            attempts: vec![],
        }))),
    }
}
