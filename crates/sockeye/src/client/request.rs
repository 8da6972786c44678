//! The opening request of a client: headers, subprotocols, origin and timeout of one connection.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use sockeye_proto::Instant;
use sockeye_proto::handshake::{ClientRequest, Origin, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::Client;
use crate::client::proxy::Proxy;
use crate::client::proxy::choice::ProxyChoice;
use crate::client::proxy::tunnel::Tunnel;
use crate::client::request_parts::{HeaderCredentials, RequestParts};
use crate::client::url::WebSocketUrl;
use crate::error::Error;
use crate::error::connect::TimeLimit;
use crate::error::redirect::{self, Redirect};
use crate::observe::{Handshake, Role};
use crate::settings::Timeouts;
use crate::transport::socket;
use crate::websocket::WebSocket;

/// Request to open a WebSocket, created by [`Client::request`]. Sent by [`connect`](Self::connect), or by `.await`.
///
/// `connect` reports an invalid header, subprotocol or origin. The error names it but does not show the value of a
/// header.
#[must_use = "nothing is sent before `connect`"]
#[derive(Clone)]
pub struct RequestBuilder {
    client: Client,
    url: String,
    parts: RequestParts,
    timeout: Option<Duration>,
    /// Instead of those of the client.
    proxy: Option<ProxyChoice>,
    redirects_max: Option<usize>,
}

/// What [`Client::request`] takes: a URL as [`&str`](str), [`String`] or [`http::Uri`], or an [`http::Request`].
///
/// Of an `http::Request`, the headers `Origin` and `Sec-WebSocket-Protocol` are used as if they were passed to
/// [`RequestBuilder::origin`] and [`RequestBuilder::subprotocols`], and the others as if passed to
/// [`RequestBuilder::headers`]. A method other than GET is an error of [`RequestBuilder::connect`] (RFC 6455 §4.1).
/// The version and the extensions are ignored.
pub trait IntoRequest: sealed::IntoRequest {}

impl<T: sealed::IntoRequest> IntoRequest for T {}

mod sealed {
    use crate::client::Client;
    use crate::client::request::RequestBuilder;

    pub trait IntoRequest {
        fn into_request(self, client: &Client) -> RequestBuilder;
    }
}

impl sealed::IntoRequest for String {
    fn into_request(self, client: &Client) -> RequestBuilder {
        RequestBuilder::new(client.clone(), self)
    }
}

macro_rules! into_request_by_to_string {
    ($($url:ty),*) => {$(
        impl sealed::IntoRequest for $url {
            fn into_request(self, client: &Client) -> RequestBuilder {
                self.to_string().into_request(client)
            }
        }
    )*};
}

into_request_by_to_string!(&str, &String, http::Uri, &http::Uri);

impl sealed::IntoRequest for http::Request<()> {
    fn into_request(self, client: &Client) -> RequestBuilder {
        let (head, ()) = self.into_parts();
        let mut request = head.uri.into_request(client);
        if head.method != http::Method::GET {
            let reason = "the method of an opening handshake is GET";
            request.parts.fail("method", None, reason);
        }
        let mut headers = head.headers;
        if let Some(origin) = headers.remove(header::ORIGIN) {
            request = request.origin(origin.to_str().unwrap_or_default());
        }
        let offers: Vec<_> = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .cloned()
            .collect();
        if !offers.is_empty() {
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
            // Bytes that are not ASCII make an invalid name, which `connect` reports.
            let offers: Vec<_> = offers
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            let names = offers.iter().flat_map(|names| names.split(',')).map(str::trim);
            request = request.subprotocols(names);
        }
        request.headers(headers)
    }
}

/// Where a request is sent: the URL of the caller, or one that a response redirected to.
pub(crate) struct Hop {
    pub(crate) url: WebSocketUrl,
    credentials: HeaderCredentials,
    /// How many redirects led here.
    redirects: usize,
}

impl Client {
    /// Opens a WebSocket to a `ws://` or `wss://` URL; `http://` and `https://` mean the same. To set headers or
    /// subprotocols for one connection, use [`request`](Self::request).
    ///
    /// The URL is parsed as browsers do: see [`WebSocketUrl`]. In addition, `user:password@` becomes an
    /// `Authorization: Basic` header, unless the client already has an `Authorization` header.
    ///
    /// The addresses of the host are tried as RFC 8305 (Happy Eyeballs) describes: IPv6 and IPv4 alternate, and the
    /// next attempt starts after 250 ms or as soon as one fails. [`Timeouts::connect`] limits all of them, and
    /// [`Timeouts::connect_total`] the whole operation.
    ///
    /// # Errors
    ///
    /// By [`Error::kind`]:
    ///
    /// | kind | cause |
    /// |---|---|
    /// | `InvalidInput` | the URL or a header is invalid |
    /// | `Resolve`, `Connect` | the host has no address, or none accepts: [`Error::connect_error`] lists the attempts |
    /// | `Proxy` | the [proxy](crate::ClientBuilder::proxy) cannot be reached or rejects the request: [`Error::proxy_error`] says why |
    /// | `Tls` | invalid certificate, wrong host name, no common version |
    /// | `Rejected` | the server answered with another status: [`Error::response`] has its headers and body |
    /// | `Handshake` | the server violated the protocol or closed the connection |
    /// | `Timeout`, `Io` | a deadline passed; the connection was lost |
    ///
    /// [`Error::is_retryable`] says whether to try again. The client waits at most one second for the body of a
    /// rejection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(&self, url: &str) -> Result<WebSocket, Error> {
        self.request(url).connect().await
    }

    /// Creates a request to a URL, to which headers, subprotocols and a timeout can be added. Nothing is sent until
    /// [`RequestBuilder::connect`] is awaited.
    ///
    /// ```no_run
    /// # async fn example(token: &str) -> Result<(), sockeye::Error> {
    /// # use std::time::Duration;
    /// let client = sockeye::Client::new();
    /// let mut ws = client
    ///     .request("wss://feed.example/v2")
    ///     .header("authorization", format!("Bearer {token}"))
    ///     .subprotocols(["v2.feed", "v1.feed"])
    ///     .timeout(Duration::from_secs(5))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Takes a URL, or an [`http::Request`] whose headers are added as by [`RequestBuilder::headers`]: see
    /// [`IntoRequest`].
    pub fn request(&self, request: impl IntoRequest) -> RequestBuilder {
        request.into_request(self)
    }
}

impl RequestBuilder {
    pub(crate) fn new(client: Client, url: String) -> Self {
        Self {
            client,
            url,
            parts: RequestParts::default(),
            timeout: None,
            proxy: None,
            redirects_max: None,
        }
    }

    /// Adds a header, in addition to those of the same name on this request. It replaces those of the same name on the
    /// [client](crate::ClientBuilder::header).
    ///
    /// The handshake itself sets `Host`, `Origin`, `Connection`, `Upgrade` and all headers that begin with
    /// `Sec-WebSocket-`.
    pub fn header(mut self, name: impl TryInto<HeaderName> + AsRef<[u8]>, value: impl TryInto<HeaderValue>) -> Self {
        self.parts.header(name, value);
        self
    }

    /// Adds headers, each as [`header`](Self::header) does.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.parts.headers(headers);
        self
    }

    /// Sets the subprotocols to offer, in order of preference, instead of those of the client.
    /// [`WebSocket::subprotocol`] returns the server's choice, which may be none.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.parts.subprotocols(names);
        self
    }

    /// Sets the `Origin` header, which browsers send for the page of a script: `"https://app.example"`.
    pub fn origin(mut self, origin: impl TryInto<Origin>) -> Self {
        self.parts.origin(origin);
        self
    }

    /// Limits opening the connection as a whole: name resolution, TCP, proxy, TLS, the opening handshake and redirects.
    /// Default: [`Timeouts::connect_total`] of the client. The timeouts of each phase,
    /// 10 s by default, still apply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Replaces the [client's timeouts](crate::ClientBuilder::timeouts) for this connection, both while opening and
    /// afterwards. [`timeout`](Self::timeout) takes precedence over [`Timeouts::connect_total`].
    ///
    /// Costs a copy of the client's settings. For many connections with the same timeouts, build a client.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.client = self.client.with_timeouts(timeouts);
        self
    }

    /// Sets the proxy for this connection, instead of that of the [client](crate::ClientBuilder::proxy).
    /// [`connect`](Self::connect) reports an invalid URL.
    pub fn proxy(mut self, proxy: impl TryInto<Proxy, Error: fmt::Display>) -> Self {
        if let Some(proxy) = self.parts.proxy(proxy) {
            self.proxy = Some(ProxyChoice::Fixed(proxy));
        }
        self
    }

    /// Connects without the proxy of the [client](crate::ClientBuilder::proxy).
    pub fn no_proxy(mut self) -> Self {
        self.proxy = Some(ProxyChoice::Direct);
        self
    }

    /// Sets the maximum number of redirects to follow, instead of that of the
    /// [client](crate::ClientBuilder::redirects).
    pub fn redirects(mut self, max: usize) -> Self {
        self.redirects_max = Some(max);
        self
    }

    /// Opens the WebSocket.
    ///
    /// # Errors
    ///
    /// The URL, a header, a subprotocol or the origin is invalid ([`Error::is_invalid_input`]), or the WebSocket could
    /// not be opened: see [`Client::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(self) -> Result<WebSocket, Error> {
        Ok(self.connect_with_response().await?.0)
    }

    /// Opens the WebSocket and returns it with the server's response, for its headers.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect_with_response(self) -> Result<(WebSocket, Response<()>), Error> {
        let handshake = Handshake::begin(Role::Client, None, || None);
        handshake.observe(self.open_url(&handshake)).await
    }

    /// Connects to the URL, and to those that it redirects to.
    async fn open_url(&self, handshake: &Handshake) -> Result<(WebSocket, Response<()>), Error> {
        self.check_runtime()?;
        let deadline = self.open_deadline();
        let mut hop = self.first_hop()?;
        loop {
            handshake.record_path(hop.url.uri().resource());
            let request = self.request_to(&hop)?;
            let opened = self.open(&hop.url, request, deadline).await;
            match self.next_hop(&hop, &opened)? {
                Some(next) => hop = next,
                None => return opened,
            }
        }
    }

    pub(crate) fn first_hop(&self) -> Result<Hop, Error> {
        Ok(Hop {
            url: WebSocketUrl::parse(&self.url).map_err(Error::invalid_url)?,
            credentials: HeaderCredentials::Sent,
            redirects: 0,
        })
    }

    pub(crate) fn request_to(&self, hop: &Hop) -> Result<ClientRequest, Error> {
        self.client.client_request(&hop.url, &self.parts, hop.credentials)
    }

    /// Stores the cookies of the response. Returns where it redirects to, if redirects are followed.
    pub(crate) fn next_hop<T>(
        &self,
        hop: &Hop,
        opened: &Result<(T, Response<()>), Error>,
    ) -> Result<Option<Hop>, Error> {
        self.keep_cookies(hop, opened);
        let redirects_max = self.redirects_max.unwrap_or(self.client.redirects_max());
        match opened {
            Err(error) if redirects_max > 0 => {
                let next = error
                    .response()
                    .and_then(|response| redirected(hop, response, redirects_max));
                next.transpose().map_err(|reason| error.clone().with_redirect(reason))
            }
            _ => Ok(None),
        }
    }

    /// Stores the cookies of the response, including a rejection.
    pub(crate) fn keep_cookies<T>(&self, hop: &Hop, opened: &Result<(T, Response<()>), Error>) {
        let headers = match opened {
            Ok((_, response)) => Some(response.headers()),
            Err(error) => error.response().map(Response::headers),
        };
        if let Some(headers) = headers {
            self.client.keep_cookies(hop.url.uri(), headers);
        }
    }

    /// The proxy for a URI. `None` means a direct connection.
    pub(crate) fn proxy_for(&self, uri: &Uri) -> Result<Option<Proxy>, Error> {
        let proxies = self.proxy.as_ref().unwrap_or(self.client.proxy_choice());
        proxies.proxy(uri).map_err(Error::invalid_input)
    }

    /// Connects to the host of a URL, directly or through a proxy, and performs the handshakes.
    async fn open(
        &self,
        url: &WebSocketUrl,
        request: ClientRequest,
        deadline: Option<Instant>,
    ) -> Result<(WebSocket, Response<()>), Error> {
        let client = &self.client;
        let left = deadline.map(|deadline| deadline - client.runtime().now());
        let limit = TimeLimit::connect(client.timeouts().connect, left);
        // Boxed so that these futures do not enlarge the handshake future.
        match self.proxy_for(url.uri())? {
            None => {
                let tcp = Box::pin(client.dialer().connect(url.uri(), limit)).await?;
                client.open(tcp, url, request, deadline).await
            }
            Some(proxy) => match Box::pin(proxy.open(client, url.uri(), limit)).await? {
                Tunnel::Tcp(tcp) => client.open(tcp, url, request, deadline).await,
                Tunnel::Tls(tls) => client.open(tls, url, request, deadline).await,
            },
        }
    }

    /// Opens the WebSocket over an established transport, such as a Unix socket, a pipe or a tunnel. Returns it with
    /// the server's response. For `wss://`, TLS runs on top of the transport. No proxy is used, and no redirect is
    /// followed.
    ///
    /// The URL is not resolved: it provides the Host header, the TLS server name, the resource and the credentials.
    /// Nagle's algorithm is disabled on a TCP stream, and on a TLS stream of tokio-rustls over one. For another wrapper
    /// of a socket, call `set_nodelay` before.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), except name resolution and connecting.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the transport.
    pub async fn connect_over<S>(self, io: S) -> Result<(WebSocket, Response<()>), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = Handshake::begin(Role::Client, None, || socket::peer_addr(&io));
        handshake.observe(self.open_over(io, &handshake)).await
    }

    async fn open_over<S>(&self, io: S, handshake: &Handshake) -> Result<(WebSocket, Response<()>), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let hop = self.first_hop()?;
        let request = self.request_to(&hop)?;
        handshake.record_path(hop.url.uri().resource());
        socket::prepare(&io)?;
        let deadline = self.open_deadline();
        let opened = self.client.open(io, &hop.url, request, deadline).await;
        self.keep_cookies(&hop, &opened);
        opened
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn open_deadline(&self) -> Option<Instant> {
        let runtime = self.client.runtime();
        self.total_timeout().map(|total| runtime.deadline_after(total))
    }

    /// Connecting and resolving use tokio, and panic outside of its runtimes.
    fn check_runtime(&self) -> Result<(), Error> {
        #[cfg(feature = "futures-io")]
        if let crate::runtime::Runtime::Custom(_) = self.client.runtime()
            && tokio::runtime::Handle::try_current().is_err()
        {
            return Err(Error::invalid_input(NeedsTokio));
        }
        Ok(())
    }

    pub(crate) fn total_timeout(&self) -> Option<Duration> {
        self.timeout.or(self.client.timeouts().connect_total)
    }
}

/// The request that a response redirects to. `None` if the response is no redirect; an error if the redirect must not
/// be followed.
fn redirected<B>(hop: &Hop, response: &Response<B>, redirects_max: usize) -> Option<Result<Hop, Redirect>> {
    if !redirect::is_redirect(response.status()) {
        return None;
    }
    let Some(location) = redirect::location(response.headers()) else {
        return Some(Err(Redirect::NoLocation));
    };
    let url = match hop.url.redirected(location) {
        Ok(url) => url,
        Err(error) => return Some(Err(Redirect::Invalid(error))),
    };
    if hop.redirects == redirects_max {
        return Some(Err(Redirect::TooMany(redirects_max, url.to_string())));
    }
    if hop.url.uri().is_secure() && !url.uri().is_secure() {
        return Some(Err(Redirect::Downgrade(url.to_string())));
    }
    // Once dropped, credentials stay dropped, because the other origin has chosen the URL.
    let credentials = match url.is_same_origin(&hop.url) {
        true => hop.credentials,
        false => HeaderCredentials::Dropped,
    };
    Some(Ok(Hop {
        url,
        credentials,
        redirects: hop.redirects + 1,
    }))
}

/// Equivalent to [`RequestBuilder::connect`].
impl IntoFuture for RequestBuilder {
    type Output = Result<WebSocket, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

/// Omits the URL and the values of headers, which may be credentials.
impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("parts", &self.parts)
            .field("timeout", &self.timeout)
            .field("proxy", &self.proxy)
            .field("redirects_max", &self.redirects_max)
            .finish_non_exhaustive()
    }
}

/// Error of connecting outside of a tokio runtime.
#[cfg(feature = "futures-io")]
#[derive(Debug)]
struct NeedsTokio;

#[cfg(feature = "futures-io")]
impl fmt::Display for NeedsTokio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connect needs a tokio runtime: connect a socket of your runtime, and pass it to connect_over")
    }
}

#[cfg(feature = "futures-io")]
impl std::error::Error for NeedsTokio {}
