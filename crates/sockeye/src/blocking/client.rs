//! Connecting from a thread.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http::Response;
use socket2::{Domain, Type};
use sockeye_proto::handshake::{ClientProgress, ClientRequest, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Socket, WebSocket, saturating_deadline, tunnel};
use crate::client::dial::target;
use crate::client::request::RequestBuilder;
use crate::client::url::WebSocketUrl;
use crate::client::{Client, REJECTION_BODY_TIMEOUT, TlsPeer};
use crate::error::connect::{Attempt, ConnectFailure, TimeLimit};
use crate::error::{ConnectError, Error, Kind};
use crate::observe::{Handshake, RequestPath, Role};
use crate::transport::Io;
use crate::transport::blocking::{BlockingStream, block_on};

/// The least time for one address, if there are several.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

const READ_LEN: usize = 4 * 1024;

/// A connection with the response that opened it.
type Opened = (WebSocket, Response<()>);

impl RequestBuilder {
    /// Opens the WebSocket from a thread, without a runtime: see [`blocking`](crate::blocking). The addresses of the
    /// host are tried one after the other. A [proxy](crate::ClientBuilder::proxy) is used and
    /// [redirects](crate::ClientBuilder::redirects) are followed as by [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect). With a [resolver](crate::ClientBuilder::resolver), which is asynchronous,
    /// it fails ([`Error::is_invalid_input`]): use [`connect_blocking_over`](Self::connect_blocking_over).
    pub fn connect_blocking(self) -> Result<WebSocket, Error> {
        let handshake = Handshake::begin(Role::Client, None, || None);
        handshake.report(self.connect_unreported(&handshake))
    }

    fn connect_unreported(&self, handshake: &Handshake) -> Result<WebSocket, Error> {
        if self.client().dialer().has_resolver() {
            return Err(Error::invalid_input(NeedsRuntime));
        }
        let start = Instant::now();
        let mut hop = self.first_hop()?;
        loop {
            handshake.record_path(hop.url.uri().resource());
            let request = self.request_to(&hop)?;
            let left = self.total_timeout().map(|total| total.saturating_sub(start.elapsed()));
            let opened = self.open_blocking(&hop.url, request, left);
            match self.next_hop(&hop, &opened)? {
                Some(next) => hop = next,
                None => return opened.map(|(ws, _)| ws),
            }
        }
    }

    /// Connects to the host of a URL, directly or through a proxy, and performs the handshakes.
    fn open_blocking(
        &self,
        url: &WebSocketUrl,
        request: ClientRequest,
        total: Option<Duration>,
    ) -> Result<Opened, Error> {
        let client = self.client();
        let start = Instant::now();
        let limit = TimeLimit::connect(client.timeouts().connect, total);
        let (io, socket) = match self.proxy_for(url.uri())? {
            None => stream(connect_tcp(client, url.uri(), limit)?.into())?,
            Some(proxy) => tunnel::open(&proxy, client, url.uri(), limit)?,
        };
        let left = total.map(|total| total.saturating_sub(start.elapsed()));
        open(client, io, socket, url, request, left)
    }

    /// Opens the WebSocket over a connected socket, from a thread: a [`TcpStream`] or a
    /// [`UnixStream`](std::os::unix::net::UnixStream). For `wss://`, TLS runs on top of it. No proxy is used, and no
    /// redirect is followed.
    ///
    /// # Errors
    ///
    /// Those of [`connect_over`](Self::connect_over).
    pub fn connect_blocking_over(self, socket: impl Into<Socket>) -> Result<WebSocket, Error> {
        let socket = socket.into();
        let handshake = Handshake::begin(Role::Client, None, || socket.peer_addr());
        handshake.report(self.open_over_unreported(socket, &handshake))
    }

    fn open_over_unreported(&self, socket: Socket, handshake: &Handshake) -> Result<WebSocket, Error> {
        let hop = self.first_hop()?;
        handshake.record_path(hop.url.uri().resource());
        let request = self.request_to(&hop)?;
        let (io, socket) = stream(socket)?;
        let opened = open(self.client(), io, socket, &hop.url, request, self.total_timeout());
        self.keep_cookies(&hop, &opened);
        opened.map(|(ws, _)| ws)
    }
}

fn stream(socket: Socket) -> Result<(Box<dyn Io>, Arc<Socket>), Error> {
    let socket = Arc::new(socket);
    let stream = BlockingStream::new(socket.clone()).map_err(Error::io)?;
    Ok((Box::new(stream), socket))
}

/// Performs the handshakes over a connection to the server, which may lead through a proxy.
fn open(
    client: &Client,
    mut io: Box<dyn Io>,
    socket: Arc<Socket>,
    url: &WebSocketUrl,
    request: ClientRequest,
    total: Option<Duration>,
) -> Result<Opened, Error> {
    let limit = TimeLimit::new(client.timeouts().handshake, "Timeouts::handshake", total);
    let mut deadline = saturating_deadline(limit.duration);
    if url.uri().is_secure() {
        io = start_tls(client, io, &socket, (url.uri(), TlsPeer::Server), deadline, limit)?;
    }
    let timeout = || Error::timeout_of("the opening handshake", limit.setting);
    let (bytes, mut awaiting) = request.start();
    let sending = async {
        io.write_all(&bytes).await?;
        io.flush().await
    };
    let sent = block_on(&socket, deadline, sending);
    sent.ok_or_else(timeout)?.map_err(Error::io)?;
    let mut buffer = [0; READ_LEN];
    let mut awaits_body = false;
    loop {
        let progress = match block_on(&socket, deadline, io.read(&mut buffer)) {
            Some(Ok(0)) => ClientProgress::Rejected(awaiting.handle_eof()?),
            Some(read) => awaiting.handle_bytes(&buffer[..read.map_err(Error::io)?]),
            None => ClientProgress::Rejected(awaiting.handle_timeout().map_err(|_| timeout())?),
        };
        awaiting = match progress {
            ClientProgress::Incomplete(next) => next,
            ClientProgress::Connected(connected) => {
                let group = client.blocking_group();
                let path = RequestPath::of(url.uri().resource());
                let (ws, response) = client.connected(io, connected, group, &path)?;
                return Ok((WebSocket::new(ws, socket), response));
            }
            ClientProgress::Rejected(response) => return Err(Client::rejected(&response)),
            ClientProgress::Failed(error) => return Err(Error::from(error)),
        };
        if awaiting.is_rejected() && !awaits_body {
            awaits_body = true;
            deadline = deadline.min(Instant::now() + REJECTION_BODY_TIMEOUT);
        }
    }
}

/// Starts TLS with a server or proxy. A session of rustls directly over the socket is part of the [`BlockingStream`];
/// one inside another, with a server behind an `https://` proxy, is a stream of tokio-rustls around it.
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

/// Resolves the host and tries its addresses one after the other, within a time.
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

#[derive(Debug)]
struct NeedsRuntime;

impl std::fmt::Display for NeedsRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "connect_blocking cannot call the asynchronous resolver of the client: connect a socket, and pass it to \
             connect_blocking_over",
        )
    }
}

impl std::error::Error for NeedsRuntime {}
