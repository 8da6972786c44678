//! Opening of a tunnel to a server through a proxy.

use std::net::IpAddr;
use std::net::SocketAddr;

use sockeye_proto::handshake::{HandshakeLimits, TunnelProgress, TunnelRequest, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::client::dial::target;
use crate::client::proxy::socks::{self, Target};
use crate::client::proxy::{Proxy, ProxyScheme};
use crate::client::{Client, TlsPeer};
use crate::convert;
use crate::error::connect::TimeLimit;
use crate::error::proxy::{ProxyError, ProxyFailure};
use crate::error::{Error, Kind};
use crate::runtime::tokio::deadline_after;
use crate::transport::Io;

/// Read size while waiting for the response to CONNECT.
const READ_LEN: usize = 4 * 1024;

/// A connection to a server through a proxy.
pub(crate) enum Tunnel {
    Tcp(TcpStream),
    /// TLS to the proxy.
    Tls(Box<dyn Io>),
}

impl Proxy {
    /// Connects to the proxy, and asks it for a connection to the host and port of `uri`, within `limit`.
    // RFC 6455 §4.1: a configured proxy is asked to open the connection. [6455-4.1-7]
    pub(crate) async fn open(&self, client: &Client, uri: &Uri, limit: TimeLimit) -> Result<Tunnel, Error> {
        let deadline = deadline_after(limit.duration);
        let opened = self.open_until(client, uri, limit, deadline).await;
        opened.map_err(|failure| self.error(uri, failure))
    }

    async fn open_until(
        &self,
        client: &Client,
        uri: &Uri,
        limit: TimeLimit,
        deadline: Instant,
    ) -> Result<Tunnel, ProxyFailure> {
        if uri.zone().is_some() {
            return Err(ProxyFailure::Zone);
        }
        let connecting = client.dialer().connect(&self.endpoint, limit);
        let mut tcp = connecting.await.map_err(ProxyFailure::Connect)?;
        let limits = client.handshake_limits();
        let asking = async {
            let address = match self.needs_address(uri) {
                true => {
                    let address = client.dialer().first_address(uri).await;
                    Some(address.map_err(ProxyFailure::Transport)?)
                }
                false => None,
            };
            if self.uses_tls() {
                let tls = client.start_tls(tcp, &self.endpoint, TlsPeer::Proxy).await;
                let mut tls = tls.map_err(ProxyFailure::Transport)?;
                self.ask(&mut tls, uri, address, limits).await?;
                return Ok(Tunnel::Tls(tls));
            }
            self.ask(&mut tcp, uri, address, limits).await?;
            Ok(Tunnel::Tcp(tcp))
        };
        timeout_at(deadline, asking)
            .await
            .unwrap_or(Err(ProxyFailure::TimedOut(limit)))
    }

    /// The host and port of the proxy.
    #[cfg(all(unix, feature = "blocking"))]
    pub(crate) fn endpoint(&self) -> &Uri {
        &self.endpoint
    }

    /// Whether the connection to the proxy uses TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        self.scheme == ProxyScheme::Https
    }

    /// Whether the client must resolve the host, because the proxy expects an address.
    pub(crate) fn needs_address(&self, uri: &Uri) -> bool {
        self.scheme == ProxyScheme::Socks5 && uri.host().parse::<IpAddr>().is_err()
    }

    pub(crate) fn error(&self, uri: &Uri, failure: ProxyFailure) -> Error {
        Error::new(Kind::Proxy(ProxyError {
            proxy: self.to_string(),
            target: target(uri),
            failure,
        }))
    }

    /// Asks the connected proxy for a connection to the host and port of `uri`. `address` is that of the host, if the
    /// client [resolves it](Self::needs_address).
    pub(crate) async fn ask<S>(
        &self,
        io: &mut S,
        uri: &Uri,
        address: Option<SocketAddr>,
        limits: HandshakeLimits,
    ) -> Result<(), ProxyFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.scheme {
            ProxyScheme::Http | ProxyScheme::Https => self.send_connect(io, uri, limits).await,
            ProxyScheme::Socks5 | ProxyScheme::Socks5h => {
                let ip = uri.host().parse::<IpAddr>();
                let target = match address.or(ip.ok().map(|ip| SocketAddr::new(ip, uri.port()))) {
                    Some(address) => Target::Address(address),
                    None => Target::Name(uri.host(), uri.port()),
                };
                socks::connect(io, self.credentials.as_ref(), target).await
            }
        }
    }

    /// Sends CONNECT, and reads the response.
    async fn send_connect<S>(&self, io: &mut S, uri: &Uri, limits: HandshakeLimits) -> Result<(), ProxyFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let transport = |error: std::io::Error| ProxyFailure::Transport(Error::io(error));
        let mut request = TunnelRequest::new(uri).limits(limits);
        if let Some(credentials) = &self.credentials {
            let authorized = request.header("Proxy-Authorization", credentials.basic());
            request = authorized.map_err(|error| ProxyFailure::Transport(Error::invalid_input(error)))?;
        }
        let (bytes, mut awaiting) = request.start();
        io.write_all(&bytes).await.map_err(transport)?;
        io.flush().await.map_err(transport)?;
        let mut buffer = Vec::with_capacity(READ_LEN);
        loop {
            buffer.clear();
            if io.read_buf(&mut buffer).await.map_err(transport)? == 0 {
                return Err(ProxyFailure::Closed);
            }
            match awaiting.handle_bytes(&buffer) {
                TunnelProgress::Incomplete(next) => awaiting = next,
                TunnelProgress::Open { read_buf } if read_buf.is_empty() => return Ok(()),
                TunnelProgress::Open { .. } => return Err(ProxyFailure::EarlyBytes),
                TunnelProgress::Refused(response) => {
                    return Err(ProxyFailure::Rejected {
                        response: convert::response(&response).map(|_body| ()),
                        has_credentials: self.credentials.is_some(),
                    });
                }
                TunnelProgress::Failed(error) => return Err(ProxyFailure::Invalid(error)),
            }
        }
    }
}
