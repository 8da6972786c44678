//! Servers: from an accepted transport to an open WebSocket. `Server::serve` is in `serve.rs`.

pub(crate) mod handler;
pub(crate) mod response;
pub(crate) mod serve;
pub(crate) mod serve_error;
pub(crate) mod tasks;

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

use crate::convert;
use crate::error::Error;
use crate::observe::{self, Handshake, RequestPath};
use crate::runtime::{Deadline, Runtime};
use crate::server::response::{Acceptance, Rejection, internal_error};
use crate::settings::{CommonOptions, ConnectionGroup, Limits, Timeouts};
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::WebSocket;

/// Read size while waiting for the request: most requests are smaller.
pub(crate) const READ_LEN: usize = 2 * 1024;

/// How long, and how many bytes, a server reads from a client that it rejected. Closing a socket with unread input
/// resets the connection, and the client would lose the response.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
pub(crate) const LINGER_LEN: usize = 64 * 1024;

/// Accepts a WebSocket over a transport, with the default settings of [`Server`]: any resource, and only pages of the
/// same host.
///
/// # Errors
///
/// The request is not a valid opening handshake, its origin or host is not allowed, or the client is too slow or
/// disconnected: see [`Server::accept`].
///
/// # Cancel safety
///
/// Dropping the future closes the transport.
pub async fn accept<S>(io: S) -> Result<WebSocket, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Server::default().accept(io).await?.accept().await
}

/// Server that accepts WebSockets. Create it once and use it for any number of connections; clones share everything.
#[derive(Clone, Debug)]
pub struct Server {
    options: Arc<ServerOptions>,
    group: Arc<ConnectionGroup>,
}

/// Builder for [`Server`].
#[derive(Debug, Default)]
pub struct ServerBuilder {
    options: ServerOptions,
}

#[derive(Debug, Default)]
struct ServerOptions {
    common: CommonOptions,
    origins: OriginPolicy,
    hosts: HostPolicy,
    subprotocols: Vec<String>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A client's valid request to open a WebSocket, which the application accepts or rejects.
///
/// Dropping it closes the transport without a response.
pub struct Incoming(Box<IncomingState>);

/// Boxed, because it is moved from the task that reads it into the application's future and would enlarge both.
struct IncomingState {
    io: Box<dyn Io>,
    handshake: handshake::Incoming,
    request: Request<()>,
    server: Server,
    observed: Handshake,
}

/// The kind of request that a client sent.
pub(crate) enum ReceivedRequest {
    WebSocket(Incoming),
    Plain(PlainHttp),
}

/// A plain HTTP request, and the transport for its response.
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
    /// Creates a builder for a server with custom settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Performs the TLS handshake if TLS is configured, then reads and checks a client's opening request. The
    /// application then accepts or rejects it.
    ///
    /// An invalid opening handshake, or one from an origin or host that is not allowed, is answered with the matching
    /// HTTP status. Nagle's algorithm is disabled on a TCP stream, and on a TLS stream of tokio-rustls over one. For
    /// another wrapper of a socket, call `set_nodelay` before.
    ///
    /// # Errors
    ///
    /// The request violated the protocol ([`Error::is_protocol`]), its origin or host is not allowed
    /// ([`Error::is_denied`]), it did not arrive in time ([`Error::is_timeout`]), or the transport failed
    /// ([`Error::is_closed`], [`Error::is_io`], [`Error::is_tls`]). The transport is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the transport.
    pub async fn accept<S>(&self, io: S) -> Result<Incoming, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.receive(io, false).await? {
            ReceivedRequest::WebSocket(incoming) => Ok(incoming),
            ReceivedRequest::Plain(_) => unreachable!("plain requests are rejected"),
        }
    }

    /// Reads a client's request. A plain HTTP request is an error unless `accepts_plain` is set.
    pub(crate) async fn receive<S>(&self, io: S, accepts_plain: bool) -> Result<ReceivedRequest, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let observed = Handshake::begin(observe::Role::Server, None, || socket::peer_addr(&io));
        observed.observe(self.receive_from(io, &observed, accepts_plain)).await
    }

    async fn receive_from<S>(&self, io: S, observed: &Handshake, accepts_plain: bool) -> Result<ReceivedRequest, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        socket::prepare(&io)?;
        let mut deadline = Deadline::after(self.runtime(), self.options.common.timeouts.handshake);
        // RFC 6455 §4.2.2 (1): TLS comes first, and all further data goes through it. [6455-4.2.2-1, 6455-4.2.2-2]
        let io = deadline
            .limit(self.start_tls(io))
            .await
            .map_err(|_| Error::timeout("the TLS handshake"))??;
        self.read_request(io, observed, deadline, accepts_plain).await
    }

    async fn start_tls<S>(&self, io: S) -> Result<Box<dyn Io>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        #[cfg(feature = "tls")]
        if let Some(config) = &self.options.tls {
            return Ok(Box::new(crate::transport::tls::accept(config.clone(), io).await?));
        }
        Ok(Box::new(io))
    }

    async fn read_request(
        &self,
        mut io: Box<dyn Io>,
        observed: &Handshake,
        mut deadline: Deadline,
        accepts_plain: bool,
    ) -> Result<ReceivedRequest, Error> {
        let mut handshake = ServerHandshake::new(self.options.common.handshake_limits());
        if accepts_plain {
            handshake = handshake.keep_plain_requests();
        }
        let mut handshake = Some(handshake);
        let invalid = loop {
            let step = poll_fn(|cx| poll_step(io.as_mut(), &mut handshake, cx));
            match deadline.limit(step).await {
                Ok(Ok(ServerProgress::Incomplete(next))) => handshake = Some(next),
                Ok(Ok(ServerProgress::Invalid(invalid))) => break invalid,
                Ok(Ok(ServerProgress::Incoming(incoming))) => match self
                    .check(incoming.request())
                    .and_then(|()| convert::request(incoming.request()))
                {
                    Err(error) => break incoming.reject_with_error(error),
                    Ok(request) => {
                        observed.record_path(request.uri().path());
                        return Ok(ReceivedRequest::WebSocket(Incoming(Box::new(IncomingState {
                            io,
                            handshake: incoming,
                            request,
                            server: self.clone(),
                            observed: observed.clone(),
                        }))));
                    }
                },
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if let Some(invalid) = handshake.and_then(ServerHandshake::handle_timeout) {
                        Box::pin(send_rejection(self.runtime(), io, invalid.response.to_bytes())).await;
                    }
                    return Err(Error::timeout("the opening handshake"));
                }
            }
        };
        let InvalidRequest {
            error, response, plain, ..
        } = invalid;
        if let Some(request) = plain.and_then(|plain| convert::plain_request(&plain)) {
            let request = Box::new(request);
            return Ok(ReceivedRequest::Plain(PlainHttp { io, request }));
        }
        // Boxed: it is rarely needed, and would enlarge the future for all clients.
        Box::pin(send_rejection(self.runtime(), io, response.to_bytes())).await;
        Err(Error::from(error))
    }

    /// Checks origin and host of the request.
    // [6455-10.2-1]
    pub(crate) fn check(&self, request: &handshake::Request) -> Result<(), HandshakeError> {
        self.options.hosts.check(request)?;
        self.options.origins.check(request)
    }

    /// Accepts the request, with compression if that is configured and offered.
    ///
    /// # Errors
    ///
    /// The acceptance is invalid. The error includes the 500 response for the client.
    pub(crate) fn accept_handshake(
        &self,
        handshake: handshake::Incoming,
        acceptance: Acceptance,
    ) -> Result<AcceptedHandshake, (Error, handshake::Response)> {
        let request = handshake.request();
        let path = RequestPath::of(request.path());
        let acceptance = match acceptance.into_proto(request, &self.options.subprotocols) {
            Ok(acceptance) => acceptance,
            Err(invalid) => return Err((Error::invalid_input(invalid), handshake.reject(internal_error()))),
        };
        let (acceptance, negotiated) = match &self.options.common.deflate {
            None => (acceptance, None),
            Some(config) => acceptance.deflate(config, request),
        };
        match handshake.accept(acceptance) {
            Ok(accepted) => Ok(AcceptedHandshake {
                accepted,
                negotiated,
                path,
            }),
            Err(error) => {
                let response = error.response.clone();
                Err((Error::invalid_input(error), response))
            }
        }
    }

    /// A copy of this server with its own connection group, whose connections can be closed together.
    pub(crate) fn with_own_group(&self) -> Self {
        Self {
            options: self.options.clone(),
            group: self.options.common.connection_group(),
        }
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn blocking_group(&self) -> Arc<ConnectionGroup> {
        self.options
            .common
            .connection_group_for(crate::runtime::Runtime::Blocking)
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn handshake_limits(&self) -> handshake::HandshakeLimits {
        self.options.common.handshake_limits()
    }

    #[cfg(all(unix, feature = "blocking", feature = "tls"))]
    pub(crate) fn tls_config(&self) -> Option<&Arc<rustls::ServerConfig>> {
        self.options.tls.as_ref()
    }

    pub(crate) fn group(&self) -> &Arc<ConnectionGroup> {
        &self.group
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.group.runtime
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.options.common.timeouts
    }

    /// The connection, after the response has been sent.
    pub(crate) fn open(&self, io: Box<dyn Io>, accepted_handshake: AcceptedHandshake) -> WebSocket {
        self.open_with(io, accepted_handshake, self.group.clone())
    }

    /// The connection in its own group, after the response has been sent.
    pub(crate) fn open_with(
        &self,
        io: Box<dyn Io>,
        accepted_handshake: AcceptedHandshake,
        group: Arc<ConnectionGroup>,
    ) -> WebSocket {
        let accepted = accepted_handshake.accepted;
        let subprotocol = accepted.subprotocol.as_ref().map(|name| name.as_str());
        let mut ws = WebSocket::new(io, Role::Server, group, accepted.read_buf, subprotocol);
        if let (Some(config), Some(negotiated)) = (&self.options.common.deflate, accepted_handshake.negotiated) {
            ws.enable_deflate(config, negotiated);
        }
        ws.observe(observe::Role::Server, &accepted_handshake.path);
        ws
    }
}

/// The response to a client, and the parameters negotiated with it.
pub(crate) struct AcceptedHandshake {
    pub(crate) accepted: Accepted,
    negotiated: Option<NegotiatedParams>,
    path: RequestPath,
}

impl ServerBuilder {
    /// Sets the allowed origins. Default: the same host. Clients without an Origin header are always allowed.
    /// [`Error::denial`] and the body of the 403 name a rejected origin.
    pub fn origins(mut self, origins: OriginPolicy) -> Self {
        self.options.origins = origins;
        self
    }

    /// Sets the hosts that the server answers for. Default: any. [`Error::denial`] and the body of the 421 name a
    /// rejected host.
    pub fn hosts(mut self, hosts: HostPolicy) -> Self {
        self.options.hosts = hosts;
        self
    }

    /// Sets the supported subprotocols, in order of preference. Default: none. A client that offers none of them is
    /// accepted without a subprotocol. A name that is not a token (RFC 9110 §5.6.2) is never chosen, because no valid
    /// request offers it.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Enables TLS with a certificate chain, own certificate first, and its private key, both in PEM format. The key is
    /// in PKCS#8, PKCS#1 (RSA) or SEC1 (EC) format, and not encrypted. For client certificates or several host names,
    /// use [`tls_config`](Self::tls_config).
    ///
    /// ```no_run
    /// # use sockeye::Server;
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let chain = std::fs::read("server.pem")?;
    /// let key = std::fs::read("server.key")?;
    /// let server = Server::builder().tls_pem(chain, key)?.build();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid_input`]: a certificate or the key cannot be read, or they do not belong together.
    #[cfg(feature = "tls")]
    pub fn tls_pem(self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let config = crate::transport::tls::server_config_pem(chain.as_ref(), key.as_ref())?;
        Ok(self.tls_config(Arc::new(config)))
    }

    /// Enables TLS. Default: plain TCP.
    ///
    /// The ALPN protocols of the configuration are replaced by `http/1.1`, so it may be shared with an HTTP server. A
    /// client that offers only other protocols gets the alert `no_application_protocol`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.options.tls = Some(crate::transport::tls::server_config(config));
        self
    }

    /// Enables compression (permessage-deflate, RFC 7692) for clients that offer it. Default: off.
    ///
    /// Compression costs processor time for each message. An idle connection holds 168 bytes more, plus its windows
    /// with [`DeflateConfig::takeover`]. Do not compress secrets together with data that others control (RFC 7692 §8):
    /// send them with [`Compress::Never`](crate::Compress::Never).
    pub fn compression(mut self, config: DeflateConfig) -> Self {
        self.options.common.deflate = Some(config);
        self
    }

    /// Measures round trips and how long messages wait to be written: see
    /// [`ConnectionStats::round_trip`](crate::ConnectionStats::round_trip) and
    /// [`queue_wait`](crate::ConnectionStats::queue_wait). Default: off.
    ///
    /// A connection then holds about 600 bytes more and does not use the fast path for small messages. One message is
    /// measured at a time, with two readings of the clock.
    pub fn latency_histograms(mut self) -> Self {
        self.options.common.measures_latency = true;
        self
    }

    /// Sets the limits on the memory and work that a client can cause.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.common.limits = limits;
        self
    }

    /// Sets the runtime. Default: tokio. Connections must then be used inside a tokio runtime.
    ///
    /// With another one, accept connections with [`Server::accept`]. [`Server::serve`] and the integrations with HTTP
    /// servers spawn tasks on tokio.
    #[cfg(feature = "futures-io")]
    pub fn runtime<R: crate::runtime::custom::Runtime>(mut self) -> Self {
        self.options.common.runtime = Runtime::Custom(crate::runtime::custom::Services::of::<R>());
        self
    }

    /// Sets the timeouts.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.common.timeouts = timeouts;
        self
    }

    /// Sets when to ping, and when to give up on a silent client. Default: a ping after 20 s of silence, failure 10 s
    /// later. `None` disables pings.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.options.common.keepalive = keepalive.into();
        self
    }

    /// Builds the server.
    pub fn build(self) -> Server {
        let group = self.options.common.connection_group();
        let options = Arc::new(self.options);
        Server { options, group }
    }
}

impl Incoming {
    /// The request: path and query as [`uri`](Request::uri), and the headers.
    ///
    /// The URI may contain a token: consider that before logging it. `{:?}` hides the values of headers that carry
    /// credentials. Characters in the target that are invalid in a URI but that browsers send are percent-encoded.
    pub fn request(&self) -> &Request<()> {
        &self.0.request
    }

    /// The `Origin` header: the origin of the page whose script connects. `None` if the header is missing, because the
    /// client is not a browser. The [origin policy](ServerBuilder::origins) has already been checked.
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

    /// The certificates that the client presented, beginning with its own: see [`WebSocket::peer_certificates`].
    #[cfg(feature = "tls")]
    pub fn peer_certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        socket::peer_certificates(&*self.0.io)
    }

    /// Accepts the request with the first of the server's subprotocols that the client offered, and opens the
    /// WebSocket.
    ///
    /// # Errors
    ///
    /// The connection failed ([`Error::is_io`]), or the client did not read the response within
    /// [`Timeouts::handshake`](crate::Timeouts::handshake) ([`Error::is_timeout`]).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the transport.
    pub async fn accept(self) -> Result<WebSocket, Error> {
        let observed = self.0.observed.clone();
        observed.observe(Box::pin(self.0.accept(Acceptance::new()))).await
    }

    /// Accepts the request with a chosen subprotocol and headers, and opens the WebSocket. Compression is negotiated if
    /// the server enables it.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept). If the acceptance has an invalid header, or a subprotocol that the client did
    /// not offer, the client gets a 500 and [`Error::is_invalid_input`] is true.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the transport.
    pub async fn accept_with(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        // Boxed, so that its memory is freed before the application's future continues with the WebSocket.
        let observed = self.0.observed.clone();
        observed.observe(Box::pin(self.0.accept(acceptance))).await
    }

    /// Rejects the request with a [`StatusCode`](http::StatusCode), or with a [`Response`](http::Response) that has
    /// headers and a body. Takes up to one second, until the client has read the response.
    ///
    /// ```no_run
    /// # async fn example(incoming: sockeye::Incoming) {
    /// incoming.reject(sockeye::http::StatusCode::NOT_FOUND).await;
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the transport.
    pub async fn reject(self, rejection: impl Into<Rejection>) {
        let response = rejection.into().into_proto().into_response(HttpBinding::Upgrade);
        send_rejection(self.0.server.runtime(), self.0.io, response.to_bytes()).await;
    }
}

impl IncomingState {
    async fn accept(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        let Self {
            mut io,
            handshake,
            server,
            ..
        } = self;
        let accepted_handshake = match server.accept_handshake(handshake, acceptance) {
            Ok(accepted_handshake) => accepted_handshake,
            Err((error, response)) => {
                send_rejection(server.runtime(), io, response.to_bytes()).await;
                return Err(error);
            }
        };
        let response = accepted_handshake.accepted.response.to_bytes();
        let sending = async {
            io.write_all(&response).await?;
            io.flush().await
        };
        Deadline::after(server.runtime(), server.options.common.timeouts.handshake)
            .limit(sending)
            .await
            .map_err(|_| Error::timeout("the opening handshake"))?
            .map_err(Error::io)?;
        Ok(server.open(io, accepted_handshake))
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
    /// Sends the response within `limit`, and closes the transport.
    pub(crate) async fn respond(mut self, runtime: Runtime, response: Vec<u8>, limit: Duration) {
        let sent = Deadline::after(runtime, limit)
            .limit(self.io.write_all(&response))
            .await;
        if let Ok(Ok(())) = sent {
            send_rejection(runtime, self.io, vec![]).await;
        }
    }
}

/// Reads once and advances `handshake`. The read buffer is on the stack: a waiting client costs only the bytes that it
/// has sent.
fn poll_step(
    io: &mut dyn Io,
    handshake: &mut Option<ServerHandshake>,
    cx: &mut Context<'_>,
) -> Poll<Result<ServerProgress, Error>> {
    let mut scratch = [0; READ_LEN];
    let mut read = ReadBuf::new(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read)).map_err(Error::io)?;
    Poll::Ready(match handshake.take() {
        Some(handshake) if !read.filled().is_empty() => Ok(handshake.handle_bytes(read.filled())),
        _ => Err(Error::from(handshake::HandshakeError::ClosedEarly)),
    })
}

/// Sends a rejection, then reads until the client closes, for at most [`LINGER`]. Ignores failures.
// [6455-7.2.2-1]
async fn send_rejection(runtime: Runtime, mut io: Box<dyn Io>, response: Vec<u8>) {
    let exchange = async {
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
    let _ = Deadline::after(runtime, LINGER).limit(exchange).await;
}

/// Reads once and discards the bytes. The buffer is on the stack.
fn poll_discard(io: &mut dyn Io, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
    let mut scratch = [0; 1024];
    let mut read = ReadBuf::new(&mut scratch);
    ready!(Pin::new(io).poll_read(cx, &mut read)).map_err(Error::io)?;
    Poll::Ready(Ok(read.filled().len()))
}
