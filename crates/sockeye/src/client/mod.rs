//! Clients: from an address to an open WebSocket.

pub(crate) mod address;
pub(crate) mod dial;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::random;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::handshake::HandshakeError;
use sockeye_proto::handshake::{ClientProgress, ClientRequest, HandshakeBuildError, Key, Origin, Response};
use sockeye_proto::{Keepalive, MaskingKey, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::client::address::Address;
use crate::client::dial::Dialer;
use crate::error::{Error, Kind};
use crate::runtime::tokio::deadline_after;
use crate::settings::{Limits, Options, Settings, Timeouts};
use crate::transport::Io;
use crate::transport::socket;
use crate::websocket::WebSocket;

/// How much is read at once while the response is awaited.
const READ_LEN: usize = 4 * 1024;

/// How long a client waits for the rest of a refusal's body, once it knows that it was refused: a body without a length
/// ends with the connection, which the server may keep open.
const REFUSAL_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a WebSocket to a URL, with the defaults of [`Client`].
///
/// # Errors
///
/// Invalid URL, unreachable host, TLS failure, or a server that refuses: [`Client::connect`] lists how to tell them apart.
///
/// # Cancel safety
///
/// The transport is closed.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), sockeye::Error> {
/// let mut ws = sockeye::connect("ws://127.0.0.1:9001/chat").await?;
/// ws.send("hello").await?;
/// while let Some(message) = ws.recv().await? {
///     println!("{message:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub async fn connect(uri: &str) -> Result<WebSocket, Error> {
    Client::default().connect(uri).await
}

/// Opens WebSockets. Made once and used for any number of connections; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    template: Arc<Template>,
    settings: Arc<Settings>,
}

/// Builder for [`Client`].
#[derive(Debug, Default)]
pub struct ClientBuilder {
    template: Template,
}

#[derive(Default)]
struct Template {
    options: Options,
    dialer: Dialer,
    headers: Vec<(String, Vec<u8>)>,
    subprotocols: Vec<String>,
    origin: Option<Origin>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Client {
    fn default() -> Self {
        ClientBuilder::default().into_client()
    }
}

impl Client {
    /// A client with settings of your own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Opens a WebSocket to a URL: `ws://` or `wss://`, or `http://` or `https://` for the same.
    ///
    /// The URL is read as browsers do ([`Address`] says what that means), with one addition: `user:password@` becomes an
    /// `Authorization: Basic` header, unless the client has an `Authorization` header of its own.
    ///
    /// The addresses of the host are tried as RFC 8305 (Happy Eyeballs) describes: IPv6 and IPv4 in turns, the next 250 ms
    /// after the last or as soon as one fails, all within [`Timeouts::connect`]. [`Timeouts::open`] limits everything
    /// together.
    ///
    /// # Errors
    ///
    /// Invalid URL ([`Error::is_misuse`]), nothing can be connected to ([`Error::is_io`], [`Error::is_timeout`];
    /// [`Error::connect_error`] has each address and its error), TLS fails ([`Error::is_tls`]), the server answers with
    /// another status than 101 ([`Error::refusal`] has it, with headers and body) or breaks the protocol
    /// ([`Error::is_protocol`]). For the body of a refusal the client waits one second at most.
    ///
    /// # Cancel safety
    ///
    /// The socket is closed.
    pub async fn connect(&self, url: &str) -> Result<WebSocket, Error> {
        Ok(self.connect_with_response(url).await?.0)
    }

    /// Opens a WebSocket to a URL as [`connect`](Self::connect) does, and returns the server's response with it, for its
    /// headers.
    ///
    /// # Errors
    ///
    /// Invalid URL, TLS failure, or a server that refuses or breaks the protocol: see [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// The socket is closed.
    pub async fn connect_with_response(&self, url: &str) -> Result<(WebSocket, Response), Error> {
        let address = Address::parse(url).map_err(Error::address)?;
        let timeouts = &self.template.options.timeouts;
        let open_deadline = timeouts.open.map(deadline_after);
        let limit = timeouts
            .open
            .map_or(timeouts.connect, |open| open.min(timeouts.connect));
        // Boxed so that the dial future does not enlarge the handshake future.
        let tcp = Box::pin(self.template.dialer.connect(address.uri(), limit)).await?;
        self.open(tcp, &address, open_deadline).await
    }

    /// Opens a WebSocket over a transport that is connected already: a proxy's tunnel, a Unix socket, a pipe. TLS goes
    /// on top of it for `wss://`. Nothing is resolved; the URL, read as by [`connect`](Self::connect), gives the Host header,
    /// the TLS name, the resource and the credentials. On a TCP stream, and on a TLS stream of tokio-rustls over one,
    /// Nagle's algorithm is switched off; on another wrapper of a socket, call `set_nodelay` before.
    ///
    /// # Errors
    ///
    /// Invalid URL, TLS failure, or a server that refuses or breaks the protocol: see [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn connect_over<S>(&self, io: S, url: &str) -> Result<(WebSocket, Response), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let address = Address::parse(url).map_err(Error::address)?;
        socket::prepare(&io)?;
        let open_deadline = self.template.options.timeouts.open.map(deadline_after);
        self.open(io, &address, open_deadline).await
    }

    async fn open<S>(
        &self,
        io: S,
        address: &Address,
        open_deadline: Option<Instant>,
    ) -> Result<(WebSocket, Response), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = deadline_after(self.template.options.timeouts.handshake);
        let deadline = open_deadline.map_or(deadline, |open_deadline| open_deadline.min(deadline));
        // RFC 6455 §4.1 (5): TLS first, and everything through it. [6455-4.1-11, 6455-4.1-12, 6455-4.1-13]
        let io: Box<dyn Io> = if address.uri().is_secure() {
            timeout_at(deadline, self.start_tls(io, address))
                .await
                .map_err(|_| Error::timeout("the TLS handshake"))??
        } else {
            Box::new(io)
        };
        self.handshake(io, address, deadline).await
    }

    #[cfg(feature = "tls")]
    async fn start_tls<S>(&self, io: S, address: &Address) -> Result<Box<dyn Io>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = match &self.template.tls {
            Some(config) => config.clone(),
            None => crate::transport::tls::default_client_config()?,
        };
        Ok(Box::new(
            crate::transport::tls::connect(config, address.uri().host(), io).await?,
        ))
    }

    #[cfg(not(feature = "tls"))]
    async fn start_tls<S>(&self, _io: S, _address: &Address) -> Result<Box<dyn Io>, Error> {
        Err(Error::address("wss:// needs the feature `tls` of the crate sockeye"))
    }

    async fn handshake(
        &self,
        mut io: Box<dyn Io>,
        address: &Address,
        mut deadline: Instant,
    ) -> Result<(WebSocket, Response), Error> {
        let request = self.template.request(address).map_err(Error::misuse)?;
        // RFC 6455 §4.1: one request, and nothing more before its response. [6455-4.1-1, 6455-4.1-28]
        let (bytes, mut awaiting) = request.start();
        timeout_at(deadline, async {
            io.write_all(&bytes).await?;
            io.flush().await
        })
        .await
        .map_err(|_| Error::timeout("the opening handshake"))??;

        let mut buffer = Vec::with_capacity(READ_LEN);
        let mut awaits_body = false;
        loop {
            buffer.clear();
            let step = match timeout_at(deadline, io.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => ClientProgress::Rejected(awaiting.handle_eof()?),
                Ok(read) => read.map(|_| awaiting.handle_bytes(&buffer))?,
                Err(_) => match awaiting.handle_timeout() {
                    Ok(response) => ClientProgress::Rejected(response),
                    Err(_) => return Err(Error::timeout("the opening handshake")),
                },
            };
            match step {
                ClientProgress::Incomplete(next) => {
                    if next.is_rejected() && !awaits_body {
                        awaits_body = true;
                        deadline = deadline.min(deadline_after(REFUSAL_BODY_TIMEOUT));
                    }
                    awaiting = next;
                }
                ClientProgress::Connected(connected) => {
                    let agreed = self.template.agree(&connected.response)?;
                    let subprotocol = connected.subprotocol.as_ref().map(|name| name.as_str());
                    let role = Role::Client { mask: masking_key };
                    let settings = self.settings.clone();
                    let mut ws = WebSocket::new(io, role, settings, connected.read_buf, subprotocol);
                    if let Some((config, agreement)) = agreed {
                        ws.enable_deflate(config, agreement);
                    }
                    return Ok((ws, connected.response));
                }
                ClientProgress::Rejected(response) => return Err(Error::new(Kind::Refused(response))),
                ClientProgress::Failed(fault) => return Err(fault.into()),
            }
        }
    }
}

impl ClientBuilder {
    /// Adds a header to the request, such as `Authorization` or `Cookie`. Default: none.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.template.headers.push((name.into(), value.into()));
        self
    }

    /// Offers a subprotocol, liked less than those offered before. Default: none. What the server chose is in
    /// [`WebSocket::subprotocol`].
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.template.subprotocols.push(name.into());
        self
    }

    /// Says which page the client runs for, as browsers do. Default: no `Origin` header.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.template.origin = Some(origin);
        self
    }

    /// How TLS is done for `wss://`. Default: the platform's roots of trust; where there are none, connecting fails with
    /// [`NoRootCertificates`](crate::NoRootCertificates).
    ///
    /// The protocols of the configuration (ALPN) are replaced by `http/1.1`, the only one that is spoken here, so a
    /// configuration may be shared with an HTTP client that offers `h2`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.template.tls = Some(crate::transport::tls::client_config(config));
        self
    }

    /// How host names become addresses. Default: the resolver of the operating system (`getaddrinfo`).
    ///
    /// The function is given host and port, and returns the addresses in the order in which they are to be tried; IPv6 and
    /// IPv4 are made to take turns. It is not asked for literal addresses. A name with a zone, such as
    /// `[fe80::1%25eth0]`, is for the operating system. Up to 64 addresses are tried, all within [`Timeouts::connect`].
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// let client = sockeye::Client::builder()
    ///     .resolver(|host, port| async move {
    ///         match host.as_str() {
    ///             "service.internal" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
    ///             _ => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn resolver<R, F>(mut self, resolve: R) -> Self
    where
        R: Fn(String, u16) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.template.dialer.set_resolver(resolve);
        self
    }

    /// The local address that connections come from, with port 0 for any port: on a machine with several addresses, this
    /// chooses the interface. Default: the operating system chooses.
    ///
    /// There is one for IPv4 and one for IPv6; call this twice to set both. With only one of them, addresses of the other
    /// family are not tried.
    pub fn local_address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.template.dialer.set_local_address(address.into());
        self
    }

    /// Compresses messages (permessage-deflate, RFC 7692), if the server can. Default: off.
    ///
    /// Each message costs processor time; an idle connection holds 120 bytes more, and with
    /// [`DeflateConfig::takeover`] its windows. Secrets do not belong into messages that are compressed together with what
    /// others write (RFC 7692 §8): see [`Compress::Never`](crate::Compress::Never).
    pub fn compression(mut self, config: DeflateConfig) -> Self {
        self.template.options.deflate = Some(config);
        self
    }

    /// What a server may ask of this client.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.template.options.limits = limits;
        self
    }

    /// How long things may take.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.template.options.timeouts = timeouts;
        self
    }

    /// When to ping, and when the server is taken to be gone. Default: a ping after 20 s of silence, gone 10 s later;
    /// `None` never pings.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.template.options.keepalive = keepalive.into();
        self
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// A header or subprotocol cannot be sent: it has a line break in it, say, or the handshake owns the header. The
    /// [`source`](std::error::Error::source) names it; the value of a header is not shown.
    pub fn build(self) -> Result<Client, Error> {
        // Tried here once, so that a mistake shows when it is made.
        let example = Address::parse("ws://localhost/").map_err(Error::address)?;
        self.template.request(&example).map_err(Error::misuse)?;
        Ok(self.into_client())
    }

    fn into_client(self) -> Client {
        let settings = self.template.options.settings();
        let template = Arc::new(self.template);
        Client { template, settings }
    }
}

impl Template {
    fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    }

    /// Whether and how messages are compressed, by the server's answer.
    fn agree(&self, response: &Response) -> Result<Option<(&DeflateConfig, NegotiatedParams)>, HandshakeError> {
        let Some(config) = &self.options.deflate else {
            return Ok(None);
        };
        let agreement = config.accept(response.headers().extensions())?;
        Ok(agreement.map(|agreement| (config, agreement)))
    }

    fn request(&self, address: &Address) -> Result<ClientRequest, RequestMisuse> {
        // RFC 6455 §4.1: the nonce is chosen at random for each connection. [6455-4.1-22]
        let key = Key::from_bytes(random());
        let mut request = ClientRequest::new(address.uri(), key).limits(self.options.handshake_limits());
        if let Some(authorization) = address.authorization()
            && !self.has_header("Authorization")
        {
            let header = request.header("Authorization", authorization);
            request = header.map_err(|misuse| RequestMisuse::new("header", "Authorization", misuse))?;
        }
        for (name, value) in &self.headers {
            let header = request.header(name, value);
            request = header.map_err(|misuse| RequestMisuse::new("header", name, misuse))?;
        }
        for name in &self.subprotocols {
            let offer = request.subprotocol(name);
            request = offer.map_err(|misuse| RequestMisuse::new("subprotocol", name, misuse))?;
        }
        if let Some(origin) = &self.origin {
            request = request.origin(origin.clone());
        }
        if let Some(deflate) = &self.options.deflate {
            for offer in deflate.offers() {
                let extension = request.extension(&offer);
                request = extension.map_err(|misuse| RequestMisuse::new("extension", &offer, misuse))?;
            }
        }
        Ok(request)
    }
}

/// A part of the request that cannot be sent, by its name.
#[derive(Debug)]
struct RequestMisuse {
    part: &'static str,
    name: String,
    misuse: HandshakeBuildError,
}

impl RequestMisuse {
    fn new(part: &'static str, name: &str, misuse: HandshakeBuildError) -> Self {
        let name = name.to_owned();
        Self { part, name, misuse }
    }
}

impl fmt::Display for RequestMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.part, self.name, self.misuse)
    }
}

impl std::error::Error for RequestMisuse {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.misuse)
    }
}

/// Hides the values of headers: they may be credentials.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Template")
            .field("options", &self.options)
            .field("dialer", &self.dialer)
            .field("headers", &names)
            .field("subprotocol_count", &self.subprotocols.len())
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// RFC 6455 §10.3: from a generator that nobody can predict, seeded by the operating system.
// [6455-5.3-2, 6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
fn masking_key() -> MaskingKey {
    MaskingKey(random())
}
