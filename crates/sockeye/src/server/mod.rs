//! Servers: from an accepted transport to an open WebSocket.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::handshake::{
    self, AcceptError, Acceptance, Accepted, HandshakeError, HostPolicy, OriginPolicy, Rejection, Request, Response,
    ServerHandshake, ServerProgress,
};
use sockeye_proto::{Keepalive, Role};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Error;
use crate::runtime::tokio::deadline_after;
use crate::settings::{Limits, Options, Settings, Timeouts};
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::WebSocket;

/// How much is read at once while the request is awaited: most requests are smaller.
const READ_LEN: usize = 2 * 1024;

/// How long, and how much, is read from a client that was refused, so that it gets to see why: closing a socket with
/// unread input makes TCP throw away what was sent last.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_LEN: usize = 64 * 1024;

/// Accepts a WebSocket over a transport, with the defaults of [`Server`]: any resource, pages of the same host.
///
/// # Errors
///
/// The request is not a valid opening handshake, its origin or host is not allowed, or the client is gone or too slow: see
/// [`Server::accept`].
///
/// # Cancel safety
///
/// The transport is closed.
pub async fn accept<S>(io: S) -> Result<WebSocket, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Server::default().accept(io).await?.accept().await
}

/// Accepts WebSockets. Made once and used for any number of connections; clones share everything.
#[derive(Clone, Debug)]
pub struct Server {
    policy: Arc<Policy>,
    settings: Arc<Settings>,
}

/// Builder for [`Server`].
#[derive(Debug, Default)]
pub struct ServerBuilder {
    policy: Policy,
}

#[derive(Debug, Default)]
struct Policy {
    options: Options,
    origins: OriginPolicy,
    hosts: HostPolicy,
    subprotocols: Vec<String>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A client's valid request that waits for the application's word.
///
/// Dropping it closes the transport without an answer.
pub struct Incoming {
    io: Box<dyn Io>,
    handshake: handshake::Incoming,
    server: Server,
}

impl Default for Server {
    fn default() -> Self {
        ServerBuilder::default().build()
    }
}

impl Server {
    /// A server with settings of your own.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Reads a client's request from a transport, TLS first if it is configured, and checks it: first step of two.
    ///
    /// A request that is not a valid opening handshake, or comes from a page that may not connect, is answered with
    /// the HTTP status that says so. On a TCP stream, and on a TLS stream of tokio-rustls over one, Nagle's algorithm is
    /// switched off; on another wrapper of a socket, call `set_nodelay` before.
    ///
    /// # Errors
    ///
    /// The request broke a rule ([`Error::is_protocol`]) or came from where it may not ([`Error::is_denied`]), did not
    /// come in time ([`Error::is_timeout`]) or at all ([`Error::is_closed`], [`Error::is_io`], [`Error::is_tls`]). The
    /// transport is closed.
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn accept<S>(&self, io: S) -> Result<Incoming, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        socket::prepare(&io)?;
        let deadline = deadline_after(self.policy.options.timeouts.handshake);
        // RFC 6455 §4.2.2 (1): TLS first, and everything through it. [6455-4.2.2-1, 6455-4.2.2-2]
        let io = timeout_at(deadline, self.start_tls(io))
            .await
            .map_err(|_| Error::timeout("the TLS handshake"))??;
        self.read_request(io, deadline).await
    }

    async fn start_tls<S>(&self, io: S) -> Result<Box<dyn Io>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        #[cfg(feature = "tls")]
        if let Some(config) = &self.policy.tls {
            return Ok(Box::new(crate::transport::tls::accept(config.clone(), io).await?));
        }
        Ok(Box::new(io))
    }

    async fn read_request(&self, mut io: Box<dyn Io>, deadline: Instant) -> Result<Incoming, Error> {
        let mut handshake = Some(ServerHandshake::new(self.policy.options.handshake_limits()));
        let refusal = loop {
            match timeout_at(deadline, poll_fn(|cx| poll_step(io.as_mut(), &mut handshake, cx))).await {
                Ok(Ok(ServerProgress::Incomplete(next))) => handshake = Some(next),
                Ok(Ok(ServerProgress::Invalid(refusal))) => break refusal,
                Ok(Ok(ServerProgress::Incoming(incoming))) => match self.check(incoming.request()) {
                    Err(fault) => break incoming.reject_with_error(fault),
                    Ok(()) => {
                        let server = self.clone();
                        return Ok(Incoming {
                            io,
                            handshake: incoming,
                            server,
                        });
                    }
                },
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if let Some(refusal) = handshake.and_then(ServerHandshake::handle_timeout) {
                        Box::pin(turn_away(io, &refusal.response)).await;
                    }
                    return Err(Error::timeout("the opening handshake"));
                }
            }
        };
        // In a box: it is needed by few, and would make the wait of all others as large.
        Box::pin(turn_away(io, &refusal.response)).await;
        Err(refusal.error.into())
    }

    /// Whether the request may come from where it comes from, and go where it goes.
    // [6455-10.2-1]
    pub(crate) fn check(&self, request: &Request) -> Result<(), HandshakeError> {
        self.policy.hosts.check(request)?;
        self.policy.origins.check(request)
    }

    /// Yes, with the first subprotocol of the server's that the client offered.
    pub(crate) fn acceptance(&self, request: &Request) -> Acceptance {
        Acceptance::new().subprotocol(request.choose_subprotocol(&self.policy.subprotocols))
    }

    /// Accepts the request, with compression if it is configured and offered.
    pub(crate) fn answer(&self, handshake: handshake::Incoming, acceptance: Acceptance) -> Result<Answer, AcceptError> {
        let (acceptance, agreement) = match &self.policy.options.deflate {
            None => (acceptance, None),
            Some(config) => acceptance.deflate(config, handshake.request()),
        };
        let accepted = handshake.accept(acceptance)?;
        Ok(Answer { accepted, agreement })
    }

    /// The connection, once the answer is sent.
    pub(crate) fn open(&self, io: Box<dyn Io>, answer: Answer) -> WebSocket {
        let accepted = answer.accepted;
        let subprotocol = accepted.subprotocol.as_ref().map(|name| name.as_str());
        let settings = self.settings.clone();
        let mut ws = WebSocket::new(io, Role::Server, settings, accepted.read_buf, subprotocol);
        if let (Some(config), Some(agreement)) = (&self.policy.options.deflate, answer.agreement) {
            ws.enable_deflate(config, agreement);
        }
        ws
    }
}

/// What a client is answered, and what was agreed on with it.
pub(crate) struct Answer {
    pub(crate) accepted: Accepted,
    agreement: Option<NegotiatedParams>,
}

impl ServerBuilder {
    /// Allowed origins. Default: same host; clients without an Origin header are always allowed. A refused origin is named
    /// in [`Error::denial`] and in the 403 body.
    pub fn origins(mut self, origins: OriginPolicy) -> Self {
        self.policy.origins = origins;
        self
    }

    /// Which hosts the server answers for. A refused host is named in the error ([`Error::denial`]) and in the body of the
    /// 421. Default: any.
    pub fn hosts(mut self, hosts: HostPolicy) -> Self {
        self.policy.hosts = hosts;
        self
    }

    /// The subprotocols that the server speaks, the best liked first. Default: none. A client that offers none of them
    /// gets a connection without one.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.policy.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Speaks TLS first. Default: plain.
    ///
    /// The protocols of the configuration (ALPN) are replaced by `http/1.1`, the only one that is spoken here, so a
    /// configuration may be shared with an HTTP server. A client that insists on another gets the alert
    /// `no_application_protocol`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.policy.tls = Some(crate::transport::tls::server_config(config));
        self
    }

    /// Compresses messages (permessage-deflate, RFC 7692), for clients that offer it. Default: off.
    ///
    /// Each message costs processor time; an idle connection holds 120 bytes more, and with
    /// [`DeflateConfig::takeover`] its windows. Secrets do not belong into messages that are compressed together with what
    /// others write (RFC 7692 §8): see [`Compress::Never`](crate::Compress::Never).
    pub fn compression(mut self, config: DeflateConfig) -> Self {
        self.policy.options.deflate = Some(config);
        self
    }

    /// What a client may ask of this server.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.options.limits = limits;
        self
    }

    /// How long things may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.policy.options.timeouts = timeouts;
        self
    }

    /// When to ping, and when a client is taken to be gone. Default: a ping after 20 s of silence, gone 10 s later;
    /// `None` never pings.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.policy.options.keepalive = keepalive.into();
        self
    }

    /// The server.
    pub fn build(self) -> Server {
        let settings = self.policy.options.settings();
        let policy = Arc::new(self.policy);
        Server { policy, settings }
    }
}

impl Incoming {
    /// The request: its resource, headers, origin, the subprotocols offered.
    pub fn request(&self) -> &Request {
        self.handshake.request()
    }

    /// Opens the WebSocket, with the first of the server's subprotocols that the client offered.
    ///
    /// # Errors
    ///
    /// The client is gone ([`Error::is_io`], [`Error::is_timeout`]).
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn accept(self) -> Result<WebSocket, Error> {
        let acceptance = self.acceptance();
        self.accept_with(acceptance).await
    }

    /// What [`accept`](Self::accept) says: the first of the server's subprotocols that the client offered. For
    /// [`accept_with`](Self::accept_with), to add headers to or to choose another subprotocol.
    pub fn acceptance(&self) -> Acceptance {
        self.server.acceptance(self.request())
    }

    /// Opens the WebSocket, with a subprotocol and headers of your choice; mostly made from
    /// [`acceptance`](Self::acceptance).
    ///
    /// Compression is agreed on here, if the server is built with it. An extension that you add is yours to speak.
    ///
    /// # Errors
    ///
    /// The client is gone, or the acceptance has what the client did not offer ([`Error::is_misuse`]; the client gets
    /// a 500).
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn accept_with(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        let Self {
            mut io,
            handshake,
            server,
        } = self;
        let answer = match server.answer(handshake, acceptance) {
            Ok(answer) => answer,
            Err(error) => {
                turn_away(io, &error.response).await;
                return Err(Error::misuse(error));
            }
        };
        let response = answer.accepted.response.to_bytes();
        timeout(server.policy.options.timeouts.handshake, async {
            io.write_all(&response).await?;
            io.flush().await
        })
        .await
        .map_err(|_| Error::timeout("the opening handshake"))??;
        Ok(server.open(io, answer))
    }

    /// Turns the request down, with a status, headers and a body of your choice.
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn reject(self, rejection: Rejection) {
        turn_away(self.io, &self.handshake.reject(rejection)).await;
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("request", self.request())
            .finish_non_exhaustive()
    }
}

/// Reads once, and takes `handshake` a step further. What is read into is gone at once: a client that keeps us waiting
/// costs what it has sent and no buffer.
fn poll_step(
    io: &mut dyn Io,
    handshake: &mut Option<ServerHandshake>,
    cx: &mut Context<'_>,
) -> Poll<Result<ServerProgress, Error>> {
    let mut scratch = [0; READ_LEN];
    let mut read = ReadBuf::new(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    Poll::Ready(match handshake.take() {
        Some(handshake) if !read.filled().is_empty() => Ok(handshake.handle_bytes(read.filled())),
        _ => Err(handshake::HandshakeError::ClosedEarly.into()),
    })
}

/// Answers a client that does not get its WebSocket, and closes. Whether it still listens is of no interest.
// [6455-7.2.2-1]
async fn turn_away(mut io: Box<dyn Io>, response: &Response) {
    let response = response.to_bytes();
    let farewell = async {
        io.write_all(&response).await?;
        io.shutdown().await?;
        let mut discarded = 0;
        while discarded < LINGER_LEN {
            match poll_fn(|cx| poll_discard(io.as_mut(), cx)).await? {
                0 => break,
                len => discarded += len,
            }
        }
        std::io::Result::Ok(())
    };
    let _ = timeout(LINGER, farewell).await;
}

/// Reads once and keeps nothing, not even the room for it.
fn poll_discard(io: &mut dyn Io, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
    let mut scratch = [0; 1024];
    let mut read = ReadBuf::new(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}
