//! Clients: from an address to an open WebSocket.

use std::sync::Arc;

use rand::random;
use sockeye_proto::deflate::{Agreement, DeflateConfig};
use sockeye_proto::handshake::HandshakeFault;
use sockeye_proto::handshake::{ClientRequest, ClientStep, HandshakeMisuse, Key, Origin, Response, Uri};
use sockeye_proto::{Keepalive, MaskingKey, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::{self, Io};
use crate::error::{Error, Kind};
use crate::settings::{Limits, Options, Settings, Timeouts};
use crate::websocket::WebSocket;

/// How much is read at once while the response is awaited.
const READ_LEN: usize = 4 * 1024;

/// Opens a WebSocket to a `ws://` or `wss://` URI, with the defaults of [`Client`].
///
/// # Errors
///
/// As [`Client::connect`].
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

/// Collects what a [`Client`] is to do; each method says its default.
#[derive(Debug, Default)]
pub struct ClientBuilder {
    template: Template,
}

#[derive(Debug, Default)]
struct Template {
    options: Options,
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

    /// Opens a WebSocket to a `ws://` or `wss://` URI.
    ///
    /// # Errors
    ///
    /// The URI is not one ([`Error::is_misuse`]), nothing can be connected to ([`Error::is_io`],
    /// [`Error::is_timeout`]), TLS fails ([`Error::is_tls`]), the server answers with another status than 101
    /// ([`Error::refusal`] has it, with headers and body) or breaks the protocol ([`Error::is_protocol`]).
    ///
    /// # Cancel safety
    ///
    /// The socket is closed.
    pub async fn connect(&self, uri: &str) -> Result<WebSocket, Error> {
        Ok(self.connect_with_response(uri).await?.0)
    }

    /// As [`connect`](Self::connect), and gives the server's response too, for its headers.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// The socket is closed.
    pub async fn connect_with_response(&self, uri: &str) -> Result<(WebSocket, Response), Error> {
        let uri = Uri::parse(uri).map_err(Error::address)?;
        // RFC 6455 §4.1: without a proxy, straight to host and port; a failure is the end of it.
        // [6455-4.1-8, 6455-4.1-10]
        let connecting = TcpStream::connect((uri.host(), uri.port()));
        let tcp = timeout(self.template.options.timeouts.connect, connecting)
            .await
            .map_err(|_| Error::timeout("connecting"))??;
        // A message is to leave when it is sent, not when the peer has acknowledged the one before.
        tcp.set_nodelay(true)?;
        self.open(tcp, &uri).await
    }

    /// Opens a WebSocket over a transport that is connected already: a proxy's tunnel, a Unix socket, a pipe. TLS goes
    /// on top of it for `wss://`. Nothing is resolved; the URI gives the Host header, the TLS name and the resource. Of a
    /// `TcpStream`, Nagle's algorithm is left as it is: `set_nodelay` has messages leave at once.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// The transport is closed.
    pub async fn connect_over<S>(&self, io: S, uri: &str) -> Result<(WebSocket, Response), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let uri = Uri::parse(uri).map_err(Error::address)?;
        self.open(io, &uri).await
    }

    async fn open<S>(&self, io: S, uri: &Uri) -> Result<(WebSocket, Response), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = connection::deadline(self.template.options.timeouts.handshake);
        // RFC 6455 §4.1 (5): TLS first, and everything through it. [6455-4.1-11, 6455-4.1-12, 6455-4.1-13]
        let io: Box<dyn Io> = if uri.is_secure() {
            timeout_at(deadline, self.start_tls(io, uri))
                .await
                .map_err(|_| Error::timeout("the TLS handshake"))??
        } else {
            Box::new(io)
        };
        self.handshake(io, uri, deadline).await
    }

    #[cfg(feature = "tls")]
    async fn start_tls<S>(&self, io: S, uri: &Uri) -> Result<Box<dyn Io>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = match &self.template.tls {
            Some(config) => config.clone(),
            None => crate::tls::default_client_config()?,
        };
        Ok(Box::new(crate::tls::connect(config, uri.host(), io).await?))
    }

    #[cfg(not(feature = "tls"))]
    async fn start_tls<S>(&self, _io: S, _uri: &Uri) -> Result<Box<dyn Io>, Error> {
        Err(Error::address("wss:// needs the feature `tls` of the crate sockeye"))
    }

    async fn handshake(
        &self,
        mut io: Box<dyn Io>,
        uri: &Uri,
        deadline: Instant,
    ) -> Result<(WebSocket, Response), Error> {
        let request = self.template.request(uri).map_err(Error::misuse)?;
        // RFC 6455 §4.1: one request, and nothing more before its response. [6455-4.1-1, 6455-4.1-28]
        let (bytes, mut awaiting) = request.start();
        timeout_at(deadline, async {
            io.write_all(&bytes).await?;
            io.flush().await
        })
        .await
        .map_err(|_| Error::timeout("the opening handshake"))??;

        let mut buffer = Vec::with_capacity(READ_LEN);
        loop {
            buffer.clear();
            let step = match timeout_at(deadline, io.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => ClientStep::Refused(awaiting.handle_eof()?),
                Ok(read) => read.map(|_| awaiting.handle_bytes(&buffer))?,
                Err(_) => match awaiting.handle_timeout() {
                    Ok(response) => ClientStep::Refused(response),
                    Err(_) => return Err(Error::timeout("the opening handshake")),
                },
            };
            match step {
                ClientStep::Incomplete(next) => awaiting = next,
                ClientStep::Connected(connected) => {
                    let agreed = self.template.agree(&connected.response)?;
                    let subprotocol = connected.subprotocol.as_ref().map(|name| name.as_str());
                    let role = Role::Client { mask: masking_key };
                    let settings = self.settings.clone();
                    let mut ws = WebSocket::new(io, role, settings, connected.leftover, subprotocol);
                    if let Some((config, agreement)) = agreed {
                        ws.enable_deflate(config, agreement);
                    }
                    return Ok((ws, connected.response));
                }
                ClientStep::Refused(response) => return Err(Error::new(Kind::Refused(response))),
                ClientStep::Failed(fault) => return Err(fault.into()),
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

    /// How TLS is done for `wss://`. Default: the platform's roots of trust. The protocol `http/1.1` is added (ALPN) where
    /// the configuration names none.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, mut config: Arc<rustls::ClientConfig>) -> Self {
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = vec![crate::tls::ALPN.to_vec()];
        }
        self.template.tls = Some(config);
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
    /// A header or subprotocol cannot be sent: it has a line break in it, say, or the handshake owns the header.
    pub fn build(self) -> Result<Client, Error> {
        // Tried here once, so that a mistake shows when it is made.
        let example = Uri::parse("ws://localhost/").map_err(Error::address)?;
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
    /// Whether and how messages are compressed, by the server's answer.
    fn agree(&self, response: &Response) -> Result<Option<(&DeflateConfig, Agreement)>, HandshakeFault> {
        let Some(config) = &self.options.deflate else {
            return Ok(None);
        };
        let agreement = config.accept(response.headers().extensions())?;
        Ok(agreement.map(|agreement| (config, agreement)))
    }

    fn request(&self, uri: &Uri) -> Result<ClientRequest, HandshakeMisuse> {
        // RFC 6455 §4.1: the nonce is chosen at random for each connection. [6455-4.1-22]
        let mut request = ClientRequest::new(uri, Key::from_bytes(random())).limits(self.options.handshake_limits());
        for (name, value) in &self.headers {
            request = request.header(name, value)?;
        }
        for name in &self.subprotocols {
            request = request.subprotocol(name)?;
        }
        if let Some(origin) = &self.origin {
            request = request.origin(origin.clone());
        }
        if let Some(deflate) = &self.options.deflate {
            for offer in deflate.offers() {
                request = request.extension(&offer)?;
            }
        }
        Ok(request)
    }
}

/// RFC 6455 §10.3: from a generator that nobody can predict, seeded by the operating system.
// [6455-5.3-2, 6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
fn masking_key() -> MaskingKey {
    MaskingKey(random())
}
