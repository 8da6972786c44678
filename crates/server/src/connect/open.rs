//! From an address to an open WebSocket, each step with an end of its own.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use sockeye::handshake::Uri;
use sockeye::{Client, Keepalive, Response, WebSocket};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::escape::escape_bytes;
use super::proxy;
use crate::cli::{ConnectOptions, Failure, Header, tls};
use crate::log;

/// The limit when `--connect-timeout` is off.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What it takes to open a WebSocket as the flags want it, made before anything is waited for.
#[derive(Debug)]
pub(super) struct Opener<'a> {
    options: &'a ConnectOptions,
    address: &'a Address,
    tls: Option<Arc<ClientConfig>>,
}

impl<'a> Opener<'a> {
    /// Reads the files that the flags name, and finds what of them cannot be.
    pub(super) fn new(options: &'a ConnectOptions, address: &'a Address) -> Result<Self, Failure> {
        let tls = match &options.cacert {
            _ if options.insecure => Some(tls::danger_client_config_trusting_anyone()?),
            Some(path) => Some(tls::client_config_trusting(path)?),
            None => None,
        };
        let opener = Self {
            options,
            address,
            tls: tls.map(Arc::new),
        };
        // Tried here once, so that a mistake shows before anybody is bothered.
        opener.client(UNLIMITED)?;
        Ok(opener)
    }

    /// Opens a WebSocket, all within the time that the flags allow.
    pub(super) async fn open(&self) -> Result<WebSocket, Failure> {
        let uri = &self.address.uri;
        if let Some(name) = proxy::ignored_variable(uri, |name| std::env::var(name).ok())
            && !self.options.quiet
        {
            log::line(&format!(
                "sockeye: {name} is set, but proxies are not supported yet; connecting directly"
            ));
        }
        let deadline = Instant::now() + self.timeout();
        let tcp = self.connect(uri, deadline).await?;
        // The library ends the handshake itself, for it alone has what a slow server has said until then: a refusal
        // whose body never ends is still a refusal.
        let client = self.client(deadline.saturating_duration_since(Instant::now()))?;
        let opened = client.connect_over(tcp, &uri.to_string()).await;
        let response = match &opened {
            Ok((_, response)) => Some(response),
            Err(error) => error.refusal(),
        };
        if let (true, Some(response)) = (self.options.verbose, response) {
            show(response);
        }
        match opened {
            Ok((ws, _)) => Ok(ws),
            Err(error) if error.is_timeout() => Err(self.too_late(uri, "the answer of the server")),
            Err(error) => Err(Failure::opening(uri, error, self.options.verbose)),
        }
    }

    /// Finds the host and connects to it.
    async fn connect(&self, uri: &Uri, deadline: Instant) -> Result<TcpStream, Failure> {
        let step = Cell::new("the address of the host");
        let connecting = async {
            let addresses: Vec<_> = lookup_host((uri.host(), uri.port()))
                .await
                .map_err(|error| Failure::unresolved(uri, error))?
                .collect();
            step.set("the connection");
            TcpStream::connect(&*addresses)
                .await
                .map_err(|error| Failure::unreachable(uri, error))
        };
        let connected = timeout_at(deadline, connecting).await;
        let tcp = connected.map_err(|_| self.too_late(uri, step.get()))??;
        if self.options.verbose
            && let Ok(address) = tcp.peer_addr()
        {
            log::line(&format!("* connected to {address}"));
        }
        // A line is to leave when it is typed, not when the one before is acknowledged.
        tcp.set_nodelay(true)?;
        limit_unsent(&tcp)?;
        Ok(tcp)
    }

    fn client(&self, handshake_timeout: Duration) -> Result<Client, Failure> {
        let options = self.options;
        let mut timeouts = sockeye::Timeouts::default();
        timeouts.handshake = handshake_timeout;
        let mut limits = sockeye::Limits::default();
        limits.message_size_max = options.max_message_size;
        let keepalive = options.ping_interval.duration().map(|interval| Keepalive {
            interval,
            ..Keepalive::default()
        });
        let mut client = Client::builder().timeouts(timeouts).limits(limits).keepalive(keepalive);
        if let Some(authorization) = &self.address.authorization
            && !options.headers.iter().any(is_authorization)
        {
            client = client.header("Authorization", authorization.as_str());
        }
        if let Some(origin) = &options.origin {
            client = client.origin(origin.clone());
        }
        for name in &options.subprotocols {
            client = client.subprotocol(name);
        }
        for header in &options.headers {
            client = match header {
                Header::Plain { name, value } => client.header(name, value.as_str()),
                Header::Subprotocols(names) => names.iter().fold(client, |client, name| client.subprotocol(name)),
                Header::Origin(origin) => client.origin(origin.clone()),
            };
        }
        if let Some(config) = options.compression.config() {
            client = client.compression(config);
        }
        if let Some(tls) = &self.tls {
            client = client.tls_config(tls.clone());
        }
        client.build().map_err(|error| Failure::usage(&error))
    }

    fn timeout(&self) -> Duration {
        self.options.connect_timeout.duration().unwrap_or(UNLIMITED)
    }

    fn too_late(&self, uri: &Uri, step: &'static str) -> Failure {
        Failure::TooLate {
            step,
            uri: uri.to_string(),
            timeout: self.timeout(),
        }
    }
}

/// Limits what the kernel holds that it has not sent yet. Without a limit that is megabytes: on a slow line, pings, the
/// close frame and what was typed last wait behind them for longer than the peer is given to answer.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn limit_unsent(tcp: &TcpStream) -> io::Result<()> {
    /// Enough for the next system call to come before the line is idle. What is on its way does not count.
    const UNSENT_BYTES_MAX: u32 = 128 << 10;
    socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn limit_unsent(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

fn is_authorization(header: &Header) -> bool {
    matches!(header, Header::Plain { name, .. } if name.eq_ignore_ascii_case("Authorization"))
}

/// Shows a server's answer as curl does.
fn show(response: &Response) {
    let status = response.status();
    log::line(&format!("< HTTP/1.1 {status} {}", status.reason()));
    for (name, value) in response.headers().iter() {
        log::line(&format!("< {name}: {}", escape_bytes(value.as_bytes())));
    }
    log::line("<");
    for line in response
        .body()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        log::line(&escape_bytes(line));
    }
    if response.is_body_truncated() {
        log::line("* the rest of the body is not shown");
    }
}
