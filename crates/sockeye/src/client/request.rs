//! The opening request of a client: headers, subprotocols, origin and timeout of one connection.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use rand::random;
use sockeye_proto::handshake::{ClientRequest, HandshakeBuildError, Key, Origin, OriginError};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::Client;
use crate::client::address::Address;
use crate::convert::{InvalidPart, wire_name};
use crate::error::Error;
use crate::runtime::tokio::deadline_after;
use crate::settings::CommonOptions;
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
}

impl RequestBuilder {
    pub(crate) fn new(client: Client, url: String) -> Self {
        Self {
            client,
            url,
            parts: RequestParts::default(),
            timeout: None,
        }
    }

    /// Adds a header, in addition to those of the same name on this request. It replaces those of the same name on the
    /// [client](crate::ClientBuilder::header).
    ///
    /// The handshake itself sets `Host`, `Origin`, `Connection`, `Upgrade` and all headers that begin with
    /// `Sec-WebSocket-`.
    pub fn header(mut self, name: impl TryInto<HeaderName>, value: impl TryInto<HeaderValue>) -> Self {
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

    /// Limits opening the connection as a whole: name resolution, TCP, TLS and the opening handshake. Default:
    /// [`Timeouts::connect_total`](crate::Timeouts::connect_total) of the client. The timeouts of each phase, 10 s by
    /// default, still apply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
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
        let (address, request) = self.build()?;
        let connect_timeout = self.client.timeouts().connect;
        let total = self.total_timeout();
        let deadline = total.map(deadline_after);
        let limit = total.map_or(connect_timeout, |total| total.min(connect_timeout));
        // Boxed so that the dial future does not enlarge the handshake future.
        let tcp = Box::pin(self.client.dialer().connect(address.uri(), limit)).await?;
        self.client.open(tcp, &address, request, deadline).await
    }

    /// Opens the WebSocket over an established transport, such as a proxy tunnel, a Unix socket or a pipe. Returns it
    /// with the server's response. For `wss://`, TLS runs on top of the transport.
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
        let (address, request) = self.build()?;
        socket::prepare(&io)?;
        let deadline = self.total_timeout().map(deadline_after);
        self.client.open(io, &address, request, deadline).await
    }

    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn build(&self) -> Result<(Address, ClientRequest), Error> {
        let address = Address::parse(&self.url).map_err(Error::invalid_url)?;
        let request = self.client.client_request(&address, &self.parts)?;
        Ok((address, request))
    }

    pub(crate) fn total_timeout(&self) -> Option<Duration> {
        self.timeout.or(self.client.timeouts().connect_total)
    }
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
            .finish_non_exhaustive()
    }
}

/// The parts that a caller adds to a request. Keeps the first invalid part until the request is built.
#[derive(Clone, Default)]
pub(crate) struct RequestParts {
    headers: HeaderMap,
    subprotocols: Option<Vec<String>>,
    origin: Option<Origin>,
    pub(crate) invalid: Option<InvalidPart>,
}

impl RequestParts {
    pub(crate) fn header(&mut self, name: impl TryInto<HeaderName>, value: impl TryInto<HeaderValue>) {
        let Ok(name) = name.try_into() else {
            self.fail("header", None, HandshakeBuildError::InvalidHeaderName);
            return;
        };
        match value.try_into() {
            Ok(value) => {
                if self.headers.try_append(&name, value).is_err() {
                    self.fail(
                        "header",
                        Some(wire_name(&name)),
                        HandshakeBuildError::InvalidHeaderValue,
                    );
                }
            }
            Err(_) => self.fail(
                "header",
                Some(wire_name(&name)),
                HandshakeBuildError::InvalidHeaderValue,
            ),
        }
    }

    pub(crate) fn headers(&mut self, headers: HeaderMap) {
        let mut last = None;
        for (name, value) in headers {
            // The map's iterator returns the name only with the first of its values.
            last = name.or(last);
            if let Some(name) = &last {
                self.header(name, value);
            }
        }
    }

    pub(crate) fn subprotocols<N: Into<String>>(&mut self, names: impl IntoIterator<Item = N>) {
        self.subprotocols = Some(names.into_iter().map(Into::into).collect());
    }

    pub(crate) fn origin(&mut self, origin: impl TryInto<Origin>) {
        match origin.try_into() {
            Ok(origin) => self.origin = Some(origin),
            Err(_) => {
                self.invalid
                    .get_or_insert(InvalidPart::new("origin", None, OriginError));
            }
        }
    }

    fn fail(&mut self, part: &'static str, name: Option<String>, reason: HandshakeBuildError) {
        self.invalid.get_or_insert(InvalidPart::new(part, name, reason));
    }

    /// Builds the request to an address from the `common` parts of a client and the `own` parts of the request. `own`
    /// replaces common headers of the same name.
    pub(crate) fn merge(
        common: &Self,
        own: &Self,
        address: &Address,
        options: &CommonOptions,
    ) -> Result<ClientRequest, InvalidPart> {
        // RFC 6455 §4.1: the nonce is chosen at random for each connection. [6455-4.1-22]
        let key = Key::from_bytes(random());
        let mut request = ClientRequest::new(address.uri(), key).limits(options.handshake_limits());
        let has_authorization = |parts: &Self| parts.headers.contains_key(http::header::AUTHORIZATION);
        if let Some(authorization) = address.authorization()
            && !has_authorization(common)
            && !has_authorization(own)
        {
            request = add_header(request, "Authorization".to_owned(), authorization.as_bytes())?;
        }
        let common_headers = common
            .headers
            .iter()
            .filter(|(name, _)| !own.headers.contains_key(*name));
        for (name, value) in common_headers.chain(&own.headers) {
            request = add_header(request, wire_name(name), value.as_bytes())?;
        }
        for name in own
            .subprotocols
            .as_ref()
            .or(common.subprotocols.as_ref())
            .into_iter()
            .flatten()
        {
            let offer = request.subprotocol(name);
            request = offer.map_err(|reason| InvalidPart::new("subprotocol", Some(name.clone()), reason))?;
        }
        if let Some(origin) = own.origin.as_ref().or(common.origin.as_ref()) {
            request = request.origin(origin.clone());
        }
        if let Some(deflate) = &options.deflate {
            for offer in deflate.offers() {
                let extension = request.extension(&offer);
                request = extension.map_err(|reason| InvalidPart::new("extension", Some(offer), reason))?;
            }
        }
        Ok(request)
    }
}

fn add_header(request: ClientRequest, name: String, value: &[u8]) -> Result<ClientRequest, InvalidPart> {
    let header = request.header(&name, value);
    header.map_err(|reason| InvalidPart::new("header", Some(name), reason))
}

/// Omits the values of headers, which may be credentials.
impl fmt::Debug for RequestParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestParts")
            .field(
                "headers",
                &self.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            )
            .field("subprotocols", &self.subprotocols)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
