//! Opening of the WebSocket.

use std::sync::Arc;
use std::time::Duration;

use sockeye::{Client, Keepalive, Response, WebSocket};

use super::address::Target;
use super::proxy;
use crate::cli::{ConnectOptions, Failure, Header, tls};
use crate::escape::escape_bytes;
use crate::log;

/// A client that is configured by the flags.
#[derive(Debug)]
pub(super) struct Opener<'a> {
    options: &'a ConnectOptions,
    target: &'a Target,
    client: Client,
}

impl<'a> Opener<'a> {
    /// Reads the files named by the flags, and validates the request.
    pub(super) fn new(options: &'a ConnectOptions, target: &'a Target) -> Result<Self, Failure> {
        let client = client(options)?;
        Ok(Self {
            options,
            target,
            client,
        })
    }

    /// Opens the WebSocket within the time limit.
    pub(super) async fn open(&self) -> Result<WebSocket, Failure> {
        let uri = self.target.uri();
        if let Some(name) = proxy::ignored_variable(uri, |name| std::env::var(name).ok())
            && !self.options.quiet
        {
            log::line(&format!(
                "sockeye: {name} is set, but proxies are not supported; connecting directly"
            ));
        }
        let opened = self.client.connect_with_response(&self.target.url).await;
        let response = match &opened {
            Ok((_, response)) => Some(response),
            Err(error) => error.refusal(),
        };
        if let (true, Some(response)) = (self.options.verbose, response) {
            print_response(response);
        }
        match opened {
            Ok((ws, _)) => Ok(ws),
            Err(error) => Err(Failure::opening(uri, error, self.options)),
        }
    }
}

fn client(options: &ConnectOptions) -> Result<Client, Failure> {
    let timeout = options.connect_timeout.duration();
    let mut timeouts = sockeye::Timeouts::default();
    timeouts.open = timeout;
    (timeouts.connect, timeouts.handshake) = (timeout.unwrap_or(Duration::MAX), timeout.unwrap_or(Duration::MAX));
    let mut limits = sockeye::Limits::default();
    limits.message_size_max = options.max_message_size;
    let keepalive = options.ping_interval.duration().map(|interval| Keepalive {
        interval,
        ..Keepalive::default()
    });
    let mut client = Client::builder().timeouts(timeouts).limits(limits).keepalive(keepalive);
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
    client = match &options.cacert {
        _ if options.insecure => client.tls_config(Arc::new(tls::danger_client_config_trusting_anyone()?)),
        Some(path) => client.tls_config(Arc::new(tls::client_config_trusting(path)?)),
        None => client,
    };
    client.build().map_err(|error| Failure::usage(&error))
}

/// Prints a response in the format of `curl -v`.
fn print_response(response: &Response) {
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
        log::line("* the body was truncated");
    }
}
