//! From an address to an open WebSocket, each step with an end of its own.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use sockeye::handshake::Uri;
use sockeye::{Client, Keepalive, Response, WebSocket};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::escape::escape_bytes;
use crate::cli::{ConnectOptions, Failure, tls};
use crate::log;

/// What it takes to open a WebSocket as the flags want it, made before anything is waited for.
#[derive(Debug)]
pub(super) struct Opener<'a> {
    options: &'a ConnectOptions,
    tls: Option<Arc<ClientConfig>>,
}

impl<'a> Opener<'a> {
    /// Reads the files that the flags name, and finds what of them cannot be.
    pub(super) fn new(options: &'a ConnectOptions) -> Result<Self, Failure> {
        let tls = match &options.cacert {
            _ if options.insecure => Some(tls::danger_client_config_trusting_anyone()?),
            Some(path) => Some(tls::client_config_trusting(path)?),
            None => None,
        };
        let opener = Self {
            options,
            tls: tls.map(Arc::new),
        };
        // Tried here once, so that a mistake shows before anybody is bothered.
        opener.client(options.connect_timeout)?;
        Ok(opener)
    }

    /// Opens a WebSocket, all within the time that the flags allow.
    pub(super) async fn open(&self, uri: &Uri) -> Result<WebSocket, Failure> {
        let deadline = Instant::now() + self.options.connect_timeout;
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
        Ok(tcp)
    }

    fn client(&self, handshake_timeout: Duration) -> Result<Client, Failure> {
        let options = self.options;
        let mut timeouts = sockeye::Timeouts::default();
        timeouts.handshake = handshake_timeout;
        let mut limits = sockeye::Limits::default();
        limits.message_size_max = options.max_message_size;
        let keepalive = Keepalive {
            interval: options.ping_interval,
            ..Keepalive::default()
        };
        let mut client = Client::builder().timeouts(timeouts).limits(limits).keepalive(keepalive);
        for (name, value) in &options.headers {
            client = client.header(name, value.as_str());
        }
        for name in &options.subprotocols {
            client = client.subprotocol(name);
        }
        if let Some(origin) = &options.origin {
            client = client.origin(origin.clone());
        }
        if let Some(config) = options.compression.config() {
            client = client.compression(config);
        }
        if let Some(tls) = &self.tls {
            client = client.tls_config(tls.clone());
        }
        client.build().map_err(|error| Failure::usage(&error))
    }

    fn too_late(&self, uri: &Uri, step: &'static str) -> Failure {
        Failure::TooLate {
            step,
            uri: uri.to_string(),
            timeout: self.options.connect_timeout,
        }
    }
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
