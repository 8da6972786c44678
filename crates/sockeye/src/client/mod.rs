//! Clients: from a URL to an open WebSocket. `Client::connect` and `Client::request` are in `request.rs`.

pub(crate) mod cookies;
pub(crate) mod dial;
pub(crate) mod proxy;
pub(crate) mod request;
pub(crate) mod request_parts;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod url;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use rand::random;
use sockeye_proto::deflate::{DeflateConfig, NegotiatedParams};
use sockeye_proto::handshake::{self, ClientProgress, ClientRequest, HandshakeError, HandshakeLimits, Origin, Uri};
use sockeye_proto::{Instant, Keepalive, MaskingKey, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::client::cookies::CookieStore;
use crate::client::dial::Dialer;
use crate::client::proxy::Proxy;
use crate::client::proxy::choice::ProxyChoice;
use crate::client::proxy::environment::Variables;
use crate::client::request_parts::{HeaderCredentials, RequestParts};
use crate::client::url::WebSocketUrl;
use crate::convert;
use crate::error::connect::TimeLimit;
use crate::error::redirect::Redirect;
use crate::error::{Error, Kind, Rejected};
use crate::observe::{self, RequestPath};
use crate::runtime::{Deadline, Runtime};
use crate::settings::{CommonOptions, ConnectionGroup, Limits, Timeouts};
use crate::transport::Io;
use crate::websocket::WebSocket;

/// Read size while waiting for the response.
const READ_LEN: usize = 4 * 1024;

/// How long a client waits for the rest of a rejection's body. A body without a length ends with the connection, which
/// the server may keep open.
pub(crate) const REJECTION_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a WebSocket to a URL, with the default settings of [`Client`].
///
/// # Errors
///
/// Invalid URL, unreachable host, TLS failure, or a server that rejects the request: see [`Client::connect`].
///
/// # Cancel safety
///
/// Dropping the future closes the socket.
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
pub async fn connect(url: &str) -> Result<WebSocket, Error> {
    Client::default().connect(url).await
}

/// Client that opens WebSockets. Create it once and use it for any number of connections; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    options: Arc<ClientOptions>,
    group: Arc<ConnectionGroup>,
}

/// Builder for [`Client`].
#[derive(Debug, Default)]
pub struct ClientBuilder {
    options: ClientOptions,
}

#[derive(Clone, Default)]
struct ClientOptions {
    common: CommonOptions,
    dialer: Dialer,
    parts: RequestParts,
    proxy: ProxyChoice,
    redirects_max: usize,
    cookies: Option<Arc<dyn CookieStore>>,
    #[cfg(feature = "tls")]
    tls: TlsOptions,
}

#[cfg(feature = "tls")]
#[derive(Clone, Default)]
struct TlsOptions {
    /// `None` means that of [`default_config`].
    config: Option<Arc<rustls::ClientConfig>>,
    /// Instead of the host of the URL.
    server_name: Option<rustls::pki_types::ServerName<'static>>,
    /// Why the settings are invalid.
    invalid: Option<Error>,
}

/// TLS 1.2 and 1.3 with the platform's root certificates. Created once.
// [6455-10.6-1, 6455-10.6-3]
#[cfg(feature = "tls")]
fn default_config() -> Result<Arc<rustls::ClientConfig>, Error> {
    static CONFIG: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    match CONFIG.get() {
        Some(config) => Ok(config.clone()),
        None => {
            let config = tls::ClientTls::new().into_config()?;
            Ok(CONFIG.get_or_init(|| config).clone())
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        ClientBuilder::default().into_client()
    }
}

impl Client {
    /// Creates a client with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a builder for a client with custom settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with the same settings except the timeouts.
    pub(crate) fn with_timeouts(&self, timeouts: Timeouts) -> Self {
        let mut options = ClientOptions::clone(&self.options);
        options.common.timeouts = timeouts;
        ClientBuilder { options }.into_client()
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.group.runtime
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.options.common.timeouts
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.options.dialer
    }

    pub(crate) fn handshake_limits(&self) -> HandshakeLimits {
        self.options.common.handshake_limits()
    }

    pub(crate) fn redirects_max(&self) -> usize {
        self.options.redirects_max
    }

    pub(crate) fn proxy_choice(&self) -> &ProxyChoice {
        &self.options.proxy
    }

    /// Stores the cookies of a response.
    pub(crate) fn keep_cookies(&self, uri: &Uri, headers: &HeaderMap) {
        let mut set_cookie = headers.get_all(http::header::SET_COOKIE).iter();
        if let Some(cookies) = &self.options.cookies
            && headers.contains_key(http::header::SET_COOKIE)
        {
            cookies.set_cookies(uri, &mut set_cookie);
        }
    }

    /// Builds the request to a URL from the parts of this client and those of the request.
    pub(crate) fn client_request(
        &self,
        url: &WebSocketUrl,
        parts: &RequestParts,
        credentials: HeaderCredentials,
    ) -> Result<ClientRequest, Error> {
        let ClientOptions {
            common: options,
            parts: common,
            ..
        } = &*self.options;
        for parts in [common, parts] {
            if let Some(invalid) = &parts.invalid {
                return Err(Error::invalid_input(invalid.clone()));
            }
        }
        let cookies = self.options.cookies.as_ref();
        let cookie = cookies.and_then(|cookies| cookies.cookies(url.uri()));
        RequestParts::merge(common, parts, url, options, credentials, cookie).map_err(Error::invalid_input)
    }

    pub(crate) async fn open<S>(
        &self,
        io: S,
        url: &WebSocketUrl,
        request: ClientRequest,
        open_deadline: Option<Instant>,
    ) -> Result<(WebSocket, Response<()>), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut deadline = OpenDeadline::new(self.runtime(), self.options.common.timeouts.handshake, open_deadline);
        // RFC 6455 §4.1 (5): TLS comes first, and all further data goes through it.
        // [6455-4.1-11, 6455-4.1-12, 6455-4.1-13]
        let io: Box<dyn Io> = if url.uri().is_secure() {
            let starting = self.start_tls(io, url.uri(), TlsPeer::Server);
            match deadline.inner.limit(starting).await {
                Ok(started) => started?,
                Err(_) => return Err(deadline.error("the TLS handshake")),
            }
        } else {
            Box::new(io)
        };
        let path = RequestPath::of(url.uri().resource());
        self.handshake(io, request, deadline, &path).await
    }

    /// Starts TLS with the host of a URI.
    #[cfg(feature = "tls")]
    pub(crate) async fn start_tls<S>(&self, io: S, uri: &Uri, peer: TlsPeer) -> Result<Box<dyn Io>, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (config, name) = self.tls_parameters(uri, peer)?;
        Ok(Box::new(crate::transport::tls::connect(config, name, io).await?))
    }

    /// The TLS configuration, and the name that the certificate of the peer must have.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_parameters(
        &self,
        uri: &Uri,
        peer: TlsPeer,
    ) -> Result<(Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>), Error> {
        let tls = &self.options.tls;
        let config = match (&tls.invalid, &tls.config) {
            (Some(error), _) => return Err(error.clone()),
            (None, Some(config)) => config.clone(),
            (None, None) => default_config()?,
        };
        let name = match (&tls.server_name, peer) {
            (Some(name), TlsPeer::Server) => name.clone(),
            _ => uri.host().to_owned().try_into().map_err(Error::invalid_url)?,
        };
        Ok((config, name))
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) async fn start_tls<S>(&self, _io: S, _uri: &Uri, _peer: TlsPeer) -> Result<Box<dyn Io>, Error> {
        Err(Error::invalid_url(
            "wss:// and https:// proxies need the feature `tls` of the crate sockeye",
        ))
    }

    async fn handshake(
        &self,
        mut io: Box<dyn Io>,
        request: ClientRequest,
        mut deadline: OpenDeadline,
        path: &RequestPath,
    ) -> Result<(WebSocket, Response<()>), Error> {
        // RFC 6455 §4.1: nothing is sent after the request until the response has arrived. [6455-4.1-1, 6455-4.1-28]
        let (bytes, mut awaiting) = request.start();
        let sending = async {
            io.write_all(&bytes).await?;
            io.flush().await
        };
        match deadline.inner.limit(sending).await {
            Ok(sent) => sent.map_err(Error::io)?,
            Err(_) => return Err(deadline.error("the opening handshake")),
        }

        let mut buffer = Vec::with_capacity(READ_LEN);
        let mut awaits_body = false;
        loop {
            buffer.clear();
            let step = match deadline.inner.limit(io.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => ClientProgress::Rejected(awaiting.handle_eof()?),
                Ok(read) => read.map(|_| awaiting.handle_bytes(&buffer)).map_err(Error::io)?,
                Err(_) => match awaiting.handle_timeout() {
                    Ok(response) => ClientProgress::Rejected(response),
                    Err(_) => return Err(deadline.error("the opening handshake")),
                },
            };
            match step {
                ClientProgress::Incomplete(next) => {
                    if next.is_rejected() && !awaits_body {
                        awaits_body = true;
                        deadline.inner.shorten_to(REJECTION_BODY_TIMEOUT);
                    }
                    awaiting = next;
                }
                ClientProgress::Connected(connected) => {
                    return self.connected(io, connected, self.group.clone(), path);
                }
                ClientProgress::Rejected(response) => return Err(Self::rejected(&response)),
                ClientProgress::Failed(error) => return Err(Error::from(error)),
            }
        }
    }

    /// The connection, after the server has accepted the request.
    pub(crate) fn connected(
        &self,
        io: Box<dyn Io>,
        connected: handshake::Connected,
        group: Arc<ConnectionGroup>,
        path: &RequestPath,
    ) -> Result<(WebSocket, Response<()>), Error> {
        let negotiated = self.options.negotiated_deflate(&connected.response)?;
        let subprotocol = connected.subprotocol.as_ref().map(|name| name.as_str());
        let role = Role::Client { mask: masking_key };
        let mut ws = WebSocket::new(io, role, group, connected.read_buf, subprotocol);
        if let Some((config, negotiated)) = negotiated {
            ws.enable_deflate(config, negotiated);
        }
        ws.observe(observe::Role::Client, path);
        let response = convert::response(&connected.response);
        Ok((ws, response.map(|_body| ())))
    }

    /// The error for a response other than 101.
    pub(crate) fn rejected(response: &handshake::Response) -> Error {
        let is_body_truncated = response.is_body_truncated();
        let response = convert::response(response);
        Error::new(Kind::Rejected(Rejected {
            redirect: Redirect::not_followed(&response),
            is_body_truncated,
            response,
        }))
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn blocking_group(&self) -> Arc<ConnectionGroup> {
        self.options
            .common
            .connection_group_for(crate::runtime::Runtime::Blocking)
    }
}

impl ClientBuilder {
    /// Adds a header to every request, such as `Authorization` or `Cookie`. Default: none. A [request](Client::request)
    /// can replace it with a header of the same name. [`build`](Self::build) reports an invalid one.
    pub fn header(mut self, name: impl TryInto<HeaderName> + AsRef<[u8]>, value: impl TryInto<HeaderValue>) -> Self {
        self.options.parts.header(name, value);
        self
    }

    /// Adds headers to every request, in addition to earlier ones. Default: none.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.options.parts.headers(headers);
        self
    }

    /// Sets the subprotocols to offer, in order of preference. Default: none. Those of a [request](Client::request)
    /// replace them. [`WebSocket::subprotocol`] returns the server's choice.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.parts.subprotocols(names);
        self
    }

    /// Sets the `Origin` header, which browsers send for the page of a script. Default: none.
    pub fn origin(mut self, origin: impl TryInto<Origin>) -> Self {
        self.options.parts.origin(origin);
        self
    }

    /// Sets the proxy for all connections but those that it [bypasses](Proxy::bypass). Default: none, also if the
    /// environment sets one. [`build`](Self::build) reports an invalid URL.
    ///
    /// The time of connecting to the proxy and of its answer is limited by [`Timeouts::connect`], and its response head
    /// by [`Limits::head_size_max`] and [`Limits::header_count_max`]. [`Error::proxy_error`] says why a proxy gave no
    /// connection.
    ///
    /// ```
    /// let client = sockeye::Client::builder().proxy("socks5h://127.0.0.1:9050").build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn proxy(mut self, proxy: impl TryInto<Proxy, Error: std::fmt::Display>) -> Self {
        if let Some(proxy) = self.options.parts.proxy(proxy) {
            self.options.proxy = ProxyChoice::Fixed(proxy);
        }
        self
    }

    /// Uses the proxy that the environment sets for each URL: see [`Proxy::from_env`]. The environment is read once, by
    /// this call.
    pub fn proxy_from_env(mut self) -> Self {
        self.options.proxy = ProxyChoice::Environment(Variables::read(|name| std::env::var(name).ok()));
        self
    }

    /// Sets the maximum number of redirects to follow (status 301, 302, 303, 307 and 308). Default: 0, so that a
    /// redirect is an error with the response.
    ///
    /// A redirect to another origin (scheme, host or port) no longer sends `Authorization`, `Cookie` and
    /// `Proxy-Authorization` headers of the client or request, nor the user name and password of the URL. All other
    /// headers, `Origin` and the subprotocols are sent: do not follow redirects with a token in one of them. A redirect
    /// from `wss` to `ws` is an error. A [cookie store](Self::cookie_store) decides for each URL.
    ///
    /// [`Timeouts::connect`] and [`Timeouts::handshake`] apply to each request; [`Timeouts::connect_total`] limits all
    /// of them together.
    pub fn redirects(mut self, max: usize) -> Self {
        self.options.redirects_max = max;
        self
    }

    /// Sets the store of cookies. Default: none. A request with a `Cookie` header of its own, or of the client, is sent
    /// without those of the store. Cookies are stored from every response of a server, also from those that reject.
    pub fn cookie_store(mut self, cookies: Arc<dyn CookieStore>) -> Self {
        self.options.cookies = Some(cookies);
        self
    }

    /// Sets the TLS settings for `wss://`. Default: those of [`ClientTls::new`](crate::ClientTls::new), with the
    /// platform's root certificates; if there are none, connecting fails with
    /// [`NoRootCertificates`](crate::NoRootCertificates).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, mut tls: tls::ClientTls) -> Self {
        let server_name = tls.take_server_name();
        let (config, invalid) = match tls.into_config() {
            Ok(config) => (Some(config), None),
            Err(error) => (None, Some(error)),
        };
        self.options.tls = TlsOptions {
            config,
            server_name,
            invalid,
        };
        self
    }

    /// Sets the TLS configuration for `wss://`, for what [`tls`](Self::tls) has no method for. It replaces those
    /// settings.
    ///
    /// The ALPN protocols of the configuration are replaced by `http/1.1`, so it may be shared with an HTTP client that
    /// offers `h2`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.options.tls = TlsOptions {
            config: Some(crate::transport::tls::client_config(config)),
            ..TlsOptions::default()
        };
        self
    }

    /// Sets the function that resolves host names. Default: the resolver of the operating system (`getaddrinfo`).
    ///
    /// It receives host and port, and returns addresses in order of preference; IPv6 and IPv4 are then interleaved. It
    /// is not called for literal addresses, nor for addresses with a zone such as `[fe80::1%25eth0]`, which the
    /// operating system resolves. Up to 64 addresses are tried, all within [`Timeouts::connect`].
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
        self.options.dialer.set_resolver(resolve);
        self
    }

    /// Sets the local address to connect from, which chooses the interface on a machine with several addresses. Port 0
    /// means any port. Default: chosen by the operating system.
    ///
    /// IPv4 and IPv6 have one address each; call this twice to set both. If only one is set, addresses of the other
    /// family are not tried.
    pub fn local_address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.options.dialer.set_local_address(address.into());
        self
    }

    /// Enables compression (permessage-deflate, RFC 7692), if the server supports it. Default: off.
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

    /// Sets the limits on the memory and work that a server can cause.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.common.limits = limits;
        self
    }

    /// Sets the runtime. Default: tokio. Connections must then be used inside a tokio runtime.
    ///
    /// With another one, open connections with [`connect_over`](crate::RequestBuilder::connect_over).
    /// [`Client::connect`], [`RequestBuilder::connect`](crate::RequestBuilder::connect) and
    /// [`Reconnecting`](crate::Reconnecting) use sockets and timers of tokio.
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

    /// Sets when to ping, and when to give up on a silent server. Default: a ping after 20 s of silence, failure 10 s
    /// later. `None` disables pings.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.options.common.keepalive = keepalive.into();
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// A header, subprotocol or origin is invalid: for example it contains a line break, or the handshake sets that
    /// header. The error names it but does not show the value of a header. Or a proxy or TLS setting is invalid, or
    /// there are no root certificates ([`Error::is_tls`]) for the TLS settings that were given.
    pub fn build(self) -> Result<Client, Error> {
        #[cfg(feature = "tls")]
        if let Some(error) = self.options.tls.invalid {
            return Err(error);
        }
        let client = self.into_client();
        let example = WebSocketUrl::parse("ws://localhost/").map_err(Error::invalid_url)?;
        client.client_request(&example, &RequestParts::default(), HeaderCredentials::Sent)?;
        Ok(client)
    }

    fn into_client(self) -> Client {
        let group = self.options.common.connection_group();
        let options = Arc::new(self.options);
        Client { options, group }
    }
}

impl ClientOptions {
    /// Applies the server's answer about compression.
    fn negotiated_deflate(
        &self,
        response: &handshake::Response,
    ) -> Result<Option<(&DeflateConfig, NegotiatedParams)>, HandshakeError> {
        let Some(config) = &self.common.deflate else {
            return Ok(None);
        };
        let negotiated = config.accept(response.headers().extensions())?;
        Ok(negotiated.map(|negotiated| (config, negotiated)))
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("common", &self.common)
            .field("dialer", &self.dialer)
            .field("parts", &self.parts)
            .field("proxy", &self.proxy)
            .field("redirects_max", &self.redirects_max)
            .finish_non_exhaustive()
    }
}

/// The peer of a TLS handshake of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsPeer {
    Server,
    Proxy,
}

/// The deadline of the handshakes, and the setting that it is from.
struct OpenDeadline {
    inner: Deadline,
    is_total: bool,
}

impl OpenDeadline {
    /// The earlier one of the deadline for the handshakes and that for the whole opening.
    fn new(runtime: Runtime, handshake_timeout: Duration, total: Option<Instant>) -> Self {
        let handshake = runtime.deadline_after(handshake_timeout);
        let (at, is_total) = match total {
            Some(at) if at < handshake => (at, true),
            _ => (handshake, false),
        };
        Self {
            inner: Deadline::at(runtime, at),
            is_total,
        }
    }

    fn error(&self, of: &'static str) -> Error {
        match self.is_total {
            true => Error::timeout_of(of, TimeLimit::TOTAL),
            false => Error::timeout(of),
        }
    }
}

/// RFC 6455 §10.3: a masking key from a cryptographically secure generator, seeded by the operating system.
// [6455-5.3-2, 6455-5.3-3, 6455-5.3-4, 6455-10.3-1]
fn masking_key() -> MaskingKey {
    MaskingKey(random())
}
