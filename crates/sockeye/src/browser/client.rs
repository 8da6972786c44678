//! Opening a WebSocket.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sockeye_proto::handshake::{HandshakeBuildError, Subprotocol};

use crate::browser::connection::Connection;
use crate::browser::settings::{Limits, Timeouts};
use crate::browser::timer::Sleep;
use crate::browser::websocket::WebSocket;
use crate::convert::InvalidPart;
use crate::error::connect::{ConnectError, ConnectFailure};
use crate::error::{Error, Kind};

/// Opens a WebSocket to a URL, with the default settings of [`Client`].
///
/// # Errors
///
/// Invalid URL, or no connection: see [`Client::connect`].
///
/// # Cancel safety
///
/// Dropping the future closes the socket.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), sockeye::Error> {
/// let mut ws = sockeye::connect("wss://feed.example/chat").await?;
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

/// Client that opens WebSockets of the browser. Create it once and use it for any number of connections; clones share
/// everything.
#[derive(Clone, Debug, Default)]
pub struct Client {
    options: Arc<ClientOptions>,
}

/// Builder for [`Client`].
#[derive(Debug, Default)]
pub struct ClientBuilder {
    options: ClientOptions,
}

#[derive(Debug, Default)]
struct ClientOptions {
    subprotocols: Vec<String>,
    limits: Limits,
    timeouts: Timeouts,
}

/// Request to open a WebSocket, created by [`Client::request`]. Sent by [`connect`](Self::connect), or by `.await`.
#[must_use = "nothing is sent before `connect`"]
#[derive(Clone)]
pub struct RequestBuilder {
    client: Client,
    url: String,
    subprotocols: Option<Vec<String>>,
    timeout: Option<Duration>,
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

    /// Opens a WebSocket to a `ws://` or `wss://` URL; `http://` and `https://` mean the same. To offer subprotocols for
    /// one connection, use [`request`](Self::request).
    ///
    /// The browser sends the origin of the page and the cookies of the server. A page that was loaded over `https://` can
    /// only connect to `wss://`.
    ///
    /// # Errors
    ///
    /// By [`Error::kind`]:
    ///
    /// | kind | cause |
    /// |---|---|
    /// | `InvalidInput` | the URL or a subprotocol is invalid |
    /// | `Connect` | everything else: an unknown host, an invalid certificate, a server that rejects the request. The browser does not tell programs which |
    /// | `Timeout` | [`Timeouts::connect_total`] passed |
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(&self, url: &str) -> Result<WebSocket, Error> {
        self.request(url).connect().await
    }

    /// Creates a request to a URL, to which subprotocols and a timeout can be added. Nothing is sent until
    /// [`RequestBuilder::connect`] is awaited.
    pub fn request(&self, url: impl Into<String>) -> RequestBuilder {
        RequestBuilder {
            client: self.clone(),
            url: url.into(),
            subprotocols: None,
            timeout: None,
        }
    }
}

impl ClientBuilder {
    /// Sets the subprotocols to offer, in order of preference. Default: none. Those of a [request](Client::request)
    /// replace them. [`WebSocket::subprotocol`] returns the server's choice.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.options.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the limits on the memory that a server can cause.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Sets the timeouts.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.options.timeouts = timeouts;
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// A subprotocol is invalid or occurs twice.
    pub fn build(self) -> Result<Client, Error> {
        check_subprotocols(&self.options.subprotocols)?;
        Ok(Client {
            options: Arc::new(self.options),
        })
    }
}

impl RequestBuilder {
    /// Sets the subprotocols to offer, in order of preference, instead of those of the client.
    /// [`WebSocket::subprotocol`] returns the server's choice. Some browsers, Chromium among them, fail to connect if the
    /// server chooses none.
    pub fn subprotocols<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.subprotocols = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Limits opening the connection as a whole. Default: [`Timeouts::connect_total`] of the client.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens the WebSocket.
    ///
    /// # Errors
    ///
    /// The URL or a subprotocol is invalid ([`Error::is_invalid_input`]), or the WebSocket could not be opened: see
    /// [`Client::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(self) -> Result<WebSocket, Error> {
        let options = &*self.client.options;
        let subprotocols = self.subprotocols.as_ref().unwrap_or(&options.subprotocols);
        check_subprotocols(subprotocols)?;
        let owner = Connection::open(
            &websocket_url(&self.url),
            subprotocols,
            &options.limits,
            &options.timeouts,
        )?;
        let connection = owner.connection().clone();
        let mut deadline = pin!(Sleep::new(self.timeout.unwrap_or(options.timeouts.connect_total)));
        let opened = poll_fn(|cx| match connection.state().poll_open(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Error::new(Kind::Connect(ConnectError {
                target: connection.host(),
                cause: ConnectFailure::Unexplained,
                attempts: Vec::new(),
            })))),
            Poll::Pending => deadline.as_mut().poll(cx).map(|()| {
                let setting = match self.timeout {
                    Some(_) => "RequestBuilder::timeout",
                    None => "Timeouts::connect_total",
                };
                Err(Error::timeout_of("opening the WebSocket", setting))
            }),
        });
        opened.await.map(|()| WebSocket::new(owner))
    }
}

/// Equivalent to [`RequestBuilder::connect`].
impl IntoFuture for RequestBuilder {
    type Output = Result<WebSocket, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

/// Omits the URL and the subprotocols, which may be credentials.
impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Replaces the schemes of HTTP, which older browsers do not accept.
fn websocket_url(url: &str) -> String {
    match url.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("ws:{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("wss:{rest}"),
        _ => url.to_owned(),
    }
}

fn check_subprotocols(names: &[String]) -> Result<(), Error> {
    for (idx, name) in names.iter().enumerate() {
        let repeated = names[..idx].contains(name);
        let checked = match repeated {
            true => Err(HandshakeBuildError::RepeatedSubprotocol),
            false => Subprotocol::new(name).map(drop),
        };
        checked.map_err(|reason| Error::invalid_input(InvalidPart::new("subprotocol", Some(name.clone()), reason)))?;
    }
    Ok(())
}
