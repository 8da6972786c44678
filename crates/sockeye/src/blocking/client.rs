//! Connecting from a thread.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sockeye_proto::handshake::{ClientProgress, ClientRequest, Uri};

use super::{WebSocket, saturating_deadline};
use crate::client::Client;
use crate::client::dial::{interleave, target};
use crate::client::request::RequestBuilder;
use crate::client::url::WebSocketUrl;
use crate::error::connect::{Attempt, ConnectFailure, TimeLimit};
use crate::error::{ConnectError, Error, Kind};
use crate::observe::{Handshake, RequestPath, Role};
use crate::transport::blocking::BlockingStream;

/// The least time for one address, if there are several.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

const READ_LEN: usize = 4 * 1024;

impl RequestBuilder {
    /// Opens the WebSocket from a thread, without a runtime: see [`blocking`](crate::blocking). The addresses of the
    /// host are tried one after the other.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect). With a [proxy](crate::ClientBuilder::proxy) for the URL,
    /// [redirects](crate::ClientBuilder::redirects), a [resolver](crate::ClientBuilder::resolver) or a [local
    /// address](crate::ClientBuilder::local_address) it fails ([`Error::is_invalid_input`]): use
    /// [`connect_blocking_over`](Self::connect_blocking_over).
    pub fn connect_blocking(self) -> Result<WebSocket, Error> {
        let (url, request) = self.build()?;
        if !self.is_direct(url.uri()) || !self.client().dialer().is_default() {
            return Err(Error::invalid_input(NeedsRuntime));
        }
        let timeouts = self.client().timeouts();
        let total = self.total_timeout();
        let limit = TimeLimit::connect(timeouts.connect, total);
        let start = Instant::now();
        let handshake = Handshake::begin(Role::Client, Some(url.uri().resource()), || None);
        let tcp = handshake.report(connect_tcp(url.uri(), limit))?;
        let left = total.map(|total| total.saturating_sub(start.elapsed()));
        open(self.client(), tcp, &url, request, left)
    }

    /// Opens the WebSocket over a connected socket, from a thread. For `wss://`, TLS runs on top of it.
    ///
    /// # Errors
    ///
    /// Those of [`connect_over`](Self::connect_over).
    pub fn connect_blocking_over(self, tcp: TcpStream) -> Result<WebSocket, Error> {
        let (url, request) = self.build()?;
        open(self.client(), tcp, &url, request, self.total_timeout())
    }
}

fn open(
    client: &Client,
    tcp: TcpStream,
    url: &WebSocketUrl,
    request: ClientRequest,
    total: Option<Duration>,
) -> Result<WebSocket, Error> {
    let handshake = Handshake::begin(Role::Client, Some(url.uri().resource()), || tcp.peer_addr().ok());
    handshake.report(open_unreported(client, tcp, url, request, total))
}

fn open_unreported(
    client: &Client,
    tcp: TcpStream,
    url: &WebSocketUrl,
    request: ClientRequest,
    total: Option<Duration>,
) -> Result<WebSocket, Error> {
    let limit = TimeLimit::new(client.timeouts().handshake, "Timeouts::handshake", total);
    let deadline = saturating_deadline(limit.duration);
    let tcp = Arc::new(tcp);
    let mut io = BlockingStream::new(tcp.clone()).map_err(Error::io)?;
    if url.uri().is_secure() {
        start_tls(client, &mut io, url, deadline, limit)?;
    }
    let timeout = || Error::timeout_of("the opening handshake", limit.setting);
    let timed_out = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => timeout(),
        _ => Error::io(error),
    };
    let (bytes, mut awaiting) = request.start();
    io.write_all_until(&bytes, deadline).map_err(timed_out)?;
    let mut buffer = [0; READ_LEN];
    loop {
        let progress = match io.read_until(&mut buffer, deadline) {
            Ok(0) => ClientProgress::Rejected(awaiting.handle_eof()?),
            Ok(len) => awaiting.handle_bytes(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => match awaiting.handle_timeout() {
                Ok(response) => ClientProgress::Rejected(response),
                Err(_) => return Err(timeout()),
            },
            Err(error) => return Err(Error::io(error)),
        };
        awaiting = match progress {
            ClientProgress::Incomplete(next) => next,
            ClientProgress::Connected(connected) => {
                let group = client.blocking_group();
                let path = RequestPath::of(url.uri().resource());
                let (ws, response) = client.connected(Box::new(io), connected, group, &path)?;
                client.keep_cookies(url.uri(), response.headers());
                return Ok(WebSocket::new(ws, tcp));
            }
            ClientProgress::Rejected(response) => return Err(Client::rejected(&response)),
            ClientProgress::Failed(error) => return Err(Error::from(error)),
        };
    }
}

#[cfg(feature = "tls")]
fn start_tls(
    client: &Client,
    io: &mut BlockingStream,
    url: &WebSocketUrl,
    deadline: Instant,
    limit: TimeLimit,
) -> Result<(), Error> {
    use crate::client::TlsPeer;
    use crate::transport::tls;

    let (config, name) = client.tls_parameters(url.uri(), TlsPeer::Server)?;
    let session = tls::client_session(config, name)?;
    super::server::finish_tls(io, session.into(), deadline, limit.setting)
}

#[cfg(not(feature = "tls"))]
fn start_tls(_: &Client, _: &mut BlockingStream, _: &WebSocketUrl, _: Instant, _: TimeLimit) -> Result<(), Error> {
    Err(Error::invalid_url(
        "wss:// needs the feature `tls` of the crate sockeye",
    ))
}

/// Resolves the host and tries its addresses one after the other, within a time.
fn connect_tcp(uri: &Uri, limit: TimeLimit) -> Result<TcpStream, Error> {
    let deadline = saturating_deadline(limit.duration);
    let mut attempts = vec![];
    let cause = match resolve(uri, limit) {
        Err(cause) => cause,
        Ok(addresses) => {
            let count = addresses.len();
            for (number, address) in addresses.into_iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                let share = (left / (count - number) as u32).max(ATTEMPT_MIN).min(left);
                if share.is_zero() {
                    break;
                }
                match TcpStream::connect_timeout(&address, share) {
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

/// Resolves a host name in a thread of its own, because the system's resolver has no timeout.
fn resolve(uri: &Uri, limit: TimeLimit) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let (host, port) = (uri.host().trim_matches(['[', ']']).to_owned(), uri.port());
    let (sender, receiver) = mpsc::channel();
    let resolving = std::thread::Builder::new().name("resolver".into()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        let _ = sender.send(addresses.map(Vec::from_iter));
    });
    resolving.map_err(ConnectFailure::Unresolved)?;
    match receiver.recv_timeout(limit.duration) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(ConnectFailure::NoAddress),
        Ok(Ok(addresses)) => Ok(interleave(addresses)),
        Ok(Err(error)) => Err(ConnectFailure::Unresolved(error)),
        Err(_) => Err(ConnectFailure::TimedOut(limit)),
    }
}

#[derive(Debug)]
struct NeedsRuntime;

impl std::fmt::Display for NeedsRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "connect_blocking supports no proxy, no redirects, no resolver and no local address: use connect_blocking_over",
        )
    }
}

impl std::error::Error for NeedsRuntime {}
