//! Servers: from an accepted transport to an open WebSocket.

pub(crate) mod response;
pub(crate) mod serve;
mod tasks;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::handshake::{
    self, Accepted, HandshakeError, HostPolicy, HttpBinding, InvalidRequest, OriginPolicy, ServerHandshake,
    ServerProgress,
};
use sockeye_proto::{Keepalive, Role};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::convert;
use crate::error::Error;
use crate::runtime::tokio::deadline_after;
use crate::server::response::{Acceptance, Rejection, internal_error};
use crate::server::serve::{Listener, Serve};
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

/// A client's valid request for a WebSocket, which the application accepts or rejects.
///
/// Dropping it closes the transport without a response.
pub struct Incoming(Box<Opening>);

/// In a box, for it is moved from the task that reads it into the application's future, which would keep its room.
struct Opening {
    io: Box<dyn Io>,
    handshake: handshake::Incoming,
    request: Request<()>,
    server: Server,
}

/// What a client asked for.
pub(crate) enum Received {
    WebSocket(Incoming),
    Plain(PlainHttp),
}

/// An HTTP request that asks for no WebSocket, and the transport that the response goes to.
pub(crate) struct PlainHttp {
    io: Box<dyn Io>,
    pub(crate) request: Box<Request<()>>,
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

    /// Serves a listener: accepts its connections, and runs a task for each. See [`Serve`] for what can be set, and for
    /// [`Serve::run`], which begins.
    ///
    /// ```no_run
    /// # use sockeye::Server;
    /// # async fn example() -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:9001").await?;
    /// Server::default()
    ///     .serve(listener)
    ///     .run(|incoming| async move {
    ///         let mut ws = incoming.accept().await?;
    ///         while let Some(message) = ws.recv().await? {
    ///             ws.feed(message).await?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<L: Listener>(&self, listener: L) -> Serve<L> {
        Serve::new(self.clone(), listener)
    }

    /// Reads a client's request from a transport, after the TLS handshake if TLS is configured, and checks it. The
    /// application then accepts or rejects it.
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
        match self.receive(io, false).await? {
            Received::WebSocket(incoming) => Ok(incoming),
            Received::Plain(_) => unreachable!("not asked for"),
        }
    }

    /// Reads a client's request. One that asks for no WebSocket is a fault unless `takes_plain`.
    pub(crate) async fn receive<S>(&self, io: S, takes_plain: bool) -> Result<Received, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        socket::prepare(&io)?;
        let deadline = deadline_after(self.policy.options.timeouts.handshake);
        // RFC 6455 §4.2.2 (1): TLS first, and everything through it. [6455-4.2.2-1, 6455-4.2.2-2]
        let io = timeout_at(deadline, self.start_tls(io))
            .await
            .map_err(|_| Error::timeout("the TLS handshake"))??;
        self.read_request(io, deadline, takes_plain).await
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

    async fn read_request(&self, mut io: Box<dyn Io>, deadline: Instant, takes_plain: bool) -> Result<Received, Error> {
        let mut handshake = ServerHandshake::new(self.policy.options.handshake_limits());
        if takes_plain {
            handshake = handshake.keep_plain_requests();
        }
        let mut handshake = Some(handshake);
        let refusal = loop {
            match timeout_at(deadline, poll_fn(|cx| poll_step(io.as_mut(), &mut handshake, cx))).await {
                Ok(Ok(ServerProgress::Incomplete(next))) => handshake = Some(next),
                Ok(Ok(ServerProgress::Invalid(refusal))) => break refusal,
                Ok(Ok(ServerProgress::Incoming(incoming))) => match self
                    .check(incoming.request())
                    .and_then(|()| convert::request(incoming.request()))
                {
                    Err(error) => break incoming.reject_with_error(error),
                    Ok(request) => {
                        return Ok(Received::WebSocket(Incoming(Box::new(Opening {
                            io,
                            handshake: incoming,
                            request,
                            server: self.clone(),
                        }))));
                    }
                },
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if let Some(refusal) = handshake.and_then(ServerHandshake::handle_timeout) {
                        Box::pin(turn_away(io, refusal.response.to_bytes())).await;
                    }
                    return Err(Error::timeout("the opening handshake"));
                }
            }
        };
        let InvalidRequest {
            error, response, plain, ..
        } = refusal;
        if let Some(request) = plain.and_then(|plain| convert::plain_request(&plain)) {
            let request = Box::new(request);
            return Ok(Received::Plain(PlainHttp { io, request }));
        }
        // In a box: it is needed by few, and would make the wait of all others as large.
        Box::pin(turn_away(io, response.to_bytes())).await;
        Err(error.into())
    }

    /// Whether the request may come from where it comes from, and go where it goes.
    // [6455-10.2-1]
    pub(crate) fn check(&self, request: &handshake::Request) -> Result<(), HandshakeError> {
        self.policy.hosts.check(request)?;
        self.policy.origins.check(request)
    }

    /// Accepts the request, with compression if it is configured and offered.
    ///
    /// # Errors
    ///
    /// The acceptance cannot be sent; with the 500 for the client.
    pub(crate) fn answer(
        &self,
        handshake: handshake::Incoming,
        acceptance: Acceptance,
    ) -> Result<Answer, (Error, handshake::Response)> {
        let request = handshake.request();
        let acceptance = match acceptance.into_proto(request, &self.policy.subprotocols) {
            Ok(acceptance) => acceptance,
            Err(invalid) => return Err((Error::misuse(invalid), handshake.reject(internal_error()))),
        };
        let (acceptance, agreement) = match &self.policy.options.deflate {
            None => (acceptance, None),
            Some(config) => acceptance.deflate(config, request),
        };
        match handshake.accept(acceptance) {
            Ok(accepted) => Ok(Answer { accepted, agreement }),
            Err(error) => {
                let response = error.response.clone();
                Err((Error::misuse(error), response))
            }
        }
    }

    /// This server with settings of its own, whose connections can be told to go away together.
    pub(crate) fn with_own_settings(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            settings: self.policy.options.settings(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.policy.options.timeouts
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
    /// The request: its path and query, as [`uri`](Request::uri), and its headers.
    ///
    /// The URI may contain a token; think before writing it to a log. `{:?}` hides the values of headers that carry
    /// credentials. In the target, characters that a URI may not contain, but that browsers send, are percent-encoded.
    pub fn request(&self) -> &Request<()> {
        &self.0.request
    }

    /// The `Origin` header: the page that runs the script which connects. `None` if there is none, because the client is not
    /// a browser. The [origin policy](ServerBuilder::origins) has been applied already.
    pub fn origin(&self) -> Option<&str> {
        self.0.handshake.request().origin()?.as_str()
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.0.handshake.request().subprotocols()
    }

    /// The address of the client, or of the proxy that forwards it: see [`WebSocket::peer_addr`].
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        socket::peer_addr(&*self.0.io)
    }

    /// The local address that the client connected to: see [`WebSocket::local_addr`].
    pub fn local_addr(&self) -> Option<SocketAddr> {
        socket::local_addr(&*self.0.io)
    }

    /// The certificates that the client presented, its own first: see [`WebSocket::peer_certificates`].
    #[cfg(feature = "tls")]
    pub fn peer_certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        socket::peer_certificates(&*self.0.io)
    }

    /// Opens the WebSocket, with the first of the server's subprotocols that the client offered.
    ///
    /// # Errors
    ///
    /// The client is gone ([`Error::is_io`]), or did not take the response within
    /// [`Timeouts::handshake`](crate::Timeouts::handshake) ([`Error::is_timeout`]).
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn accept(self) -> Result<WebSocket, Error> {
        self.accept_with(Acceptance::new()).await
    }

    /// Opens the WebSocket, with a subprotocol and headers of your choice. Compression is agreed on if the server is built
    /// with it.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept); and if the acceptance chooses a subprotocol that the client did not offer, or has
    /// an invalid header, one of which [`Error::is_invalid_input`] is true. The client gets a 500 then.
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn accept_with(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        let Opening {
            mut io,
            handshake,
            server,
            ..
        } = *self.0;
        let answer = match server.answer(handshake, acceptance) {
            Ok(answer) => answer,
            Err((error, response)) => {
                Box::pin(turn_away(io, response.to_bytes())).await;
                return Err(error);
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

    /// Rejects the request, with a [`StatusCode`](http::StatusCode), or with a [`Response`](http::Response) that has headers
    /// and a body. Takes up to a second, for the client to read it.
    ///
    /// ```no_run
    /// # async fn example(incoming: sockeye::Incoming) {
    /// incoming.reject(sockeye::http::StatusCode::NOT_FOUND).await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn reject(self, rejection: impl Into<Rejection>) {
        let response = rejection.into().into_proto().into_response(HttpBinding::Upgrade);
        turn_away(self.0.io, response.to_bytes()).await;
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("request", self.request())
            .finish_non_exhaustive()
    }
}

impl PlainHttp {
    /// Sends the response within the time for a handshake, and closes.
    pub(crate) async fn respond(mut self, response: Vec<u8>, limit: Duration) {
        let sent = timeout(limit, self.io.write_all(&response)).await;
        if let Ok(Ok(())) = sent {
            turn_away(self.io, vec![]).await;
        }
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
async fn turn_away(mut io: Box<dyn Io>, response: Vec<u8>) {
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
