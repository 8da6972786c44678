//! Connecting from a thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use sockeye_proto::handshake::{ClientProgress, ClientRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::dial::{connect_tcp, start_tls};
use super::{Socket, WebSocket, saturating_deadline, tunnel};
use crate::client::request::RequestBuilder;
use crate::client::url::WebSocketUrl;
use crate::client::{Client, REJECTION_BODY_TIMEOUT, TlsPeer};
use crate::error::Error;
use crate::error::connect::TimeLimit;
use crate::observe::{Handshake, RequestPath, Role};
use crate::transport::Io;
use crate::transport::blocking::{BlockingStream, block_on};

const READ_LEN: usize = 4 * 1024;

/// A connection with the response that opened it.
type Opened = (WebSocket, Response<()>);

impl RequestBuilder {
    /// Opens the WebSocket from a thread, without a runtime: see [`blocking`](crate::blocking). The addresses of the
    /// host are tried one after the other. A [proxy](crate::ClientBuilder::proxy) is used and
    /// [redirects](crate::ClientBuilder::redirects) are followed as by [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect). With a [resolver](crate::ClientBuilder::resolver), which is asynchronous,
    /// it fails ([`Error::is_invalid_input`]): use [`connect_blocking_over`](Self::connect_blocking_over).
    pub fn connect_blocking(self) -> Result<WebSocket, Error> {
        let handshake = Handshake::begin(Role::Client, None, || None);
        handshake.report(self.connect_unreported(&handshake))
    }

    fn connect_unreported(&self, handshake: &Handshake) -> Result<WebSocket, Error> {
        if self.client().dialer().has_resolver() {
            return Err(Error::invalid_input(NeedsRuntime));
        }
        let start = Instant::now();
        let mut hop = self.first_hop()?;
        loop {
            handshake.record_path(hop.url.uri().resource());
            let request = self.request_to(&hop)?;
            let left = self.total_timeout().map(|total| total.saturating_sub(start.elapsed()));
            let opened = self.open_blocking(&hop.url, request, left);
            match self.next_hop(&hop, &opened)? {
                Some(next) => hop = next,
                None => return opened.map(|(ws, _)| ws),
            }
        }
    }

    /// Connects to the host of a URL, directly or through a proxy, and performs the handshakes.
    fn open_blocking(
        &self,
        url: &WebSocketUrl,
        request: ClientRequest,
        total: Option<Duration>,
    ) -> Result<Opened, Error> {
        let client = self.client();
        let start = Instant::now();
        let limit = TimeLimit::connect(client.timeouts().connect, total);
        let (io, socket) = match self.proxy_for(url.uri())? {
            None => stream(connect_tcp(client, url.uri(), limit)?.into())?,
            Some(proxy) => tunnel::open(&proxy, client, url.uri(), limit)?,
        };
        let left = total.map(|total| total.saturating_sub(start.elapsed()));
        open(client, io, socket, url, request, left)
    }

    /// Opens the WebSocket over a connected socket, from a thread: a [`TcpStream`](std::net::TcpStream) or a
    /// [`UnixStream`](std::os::unix::net::UnixStream). For `wss://`, TLS runs on top of it. No proxy is used, and no
    /// redirect is followed.
    ///
    /// # Errors
    ///
    /// Those of [`connect_over`](Self::connect_over).
    pub fn connect_blocking_over(self, socket: impl Into<Socket>) -> Result<WebSocket, Error> {
        let socket = socket.into();
        let handshake = Handshake::begin(Role::Client, None, || socket.peer_addr());
        handshake.report(self.open_over_unreported(socket, &handshake))
    }

    fn open_over_unreported(&self, socket: Socket, handshake: &Handshake) -> Result<WebSocket, Error> {
        let hop = self.first_hop()?;
        handshake.record_path(hop.url.uri().resource());
        let request = self.request_to(&hop)?;
        let (io, socket) = stream(socket)?;
        let opened = open(self.client(), io, socket, &hop.url, request, self.total_timeout());
        self.keep_cookies(&hop, &opened);
        opened.map(|(ws, _)| ws)
    }
}

fn stream(socket: Socket) -> Result<(Box<dyn Io>, Arc<Socket>), Error> {
    let socket = Arc::new(socket);
    let stream = BlockingStream::new(socket.clone()).map_err(Error::io)?;
    Ok((Box::new(stream), socket))
}

/// Performs the handshakes over a connection to the server, which may lead through a proxy.
fn open(
    client: &Client,
    mut io: Box<dyn Io>,
    socket: Arc<Socket>,
    url: &WebSocketUrl,
    request: ClientRequest,
    total: Option<Duration>,
) -> Result<Opened, Error> {
    let limit = TimeLimit::new(client.timeouts().handshake, "Timeouts::handshake", total);
    let mut deadline = saturating_deadline(limit.duration);
    if url.uri().is_secure() {
        io = start_tls(client, io, &socket, (url.uri(), TlsPeer::Server), deadline, limit)?;
    }
    let timeout = || Error::timeout_of("the opening handshake", limit.setting);
    let (bytes, mut awaiting) = request.start();
    let sending = async {
        io.write_all(&bytes).await?;
        io.flush().await
    };
    let sent = block_on(&socket, deadline, sending);
    sent.ok_or_else(timeout)?.map_err(Error::io)?;
    let mut buffer = [0; READ_LEN];
    let mut awaits_body = false;
    loop {
        let progress = match block_on(&socket, deadline, io.read(&mut buffer)) {
            Some(Ok(0)) => ClientProgress::Rejected(awaiting.handle_eof()?),
            Some(read) => awaiting.handle_bytes(&buffer[..read.map_err(Error::io)?]),
            None => ClientProgress::Rejected(awaiting.handle_timeout().map_err(|_| timeout())?),
        };
        awaiting = match progress {
            ClientProgress::Incomplete(next) => next,
            ClientProgress::Connected(connected) => {
                let group = client.blocking_group();
                let path = RequestPath::of(url.uri().resource());
                let (ws, response) = client.connected(io, connected, group, &path)?;
                return Ok((WebSocket::new(ws, socket), response));
            }
            ClientProgress::Rejected(response) => return Err(Client::rejected(&response)),
            ClientProgress::Failed(error) => return Err(Error::from(error)),
        };
        if awaiting.is_rejected() && !awaits_body {
            awaits_body = true;
            deadline = deadline.min(Instant::now() + REJECTION_BODY_TIMEOUT);
        }
    }
}

#[derive(Debug)]
struct NeedsRuntime;

impl std::fmt::Display for NeedsRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "connect_blocking cannot call the asynchronous resolver of the client: connect a socket, and pass it to \
             connect_blocking_over",
        )
    }
}

impl std::error::Error for NeedsRuntime {}
