//! Opening of the WebSocket.

use std::sync::Arc;
use std::time::Duration;

use sockeye::http::Response;
use sockeye::{Client, Keepalive, WebSocket};

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
        let opened = self.client.request(&self.target.url).connect_with_response().await;
        if self.options.verbose {
            match &opened {
                Ok((_, response)) => print_response(response, &[], false),
                Err(error) => {
                    if let Some(response) = error.response() {
                        print_response(response, response.body(), error.is_response_truncated());
                    }
                }
            }
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
    timeouts.connect_total = timeout;
    (timeouts.connect, timeouts.handshake) = (timeout.unwrap_or(Duration::MAX), timeout.unwrap_or(Duration::MAX));
    let mut limits = sockeye::Limits::default();
    limits.message_size_max = options.max_message_size;
    let interval = options.ping_interval.duration();
    let keepalive = interval.map(|interval| Keepalive::default().interval(interval));
    let mut client = Client::builder().timeouts(timeouts).limits(limits).keepalive(keepalive);
    if let Some(origin) = &options.origin {
        client = client.origin(origin.clone());
    }
    let mut subprotocols = options.subprotocols.clone();
    for header in &options.headers {
        client = match header {
            Header::Plain { name, value } => client.header(name, value.as_str()),
            Header::Subprotocols(names) => {
                subprotocols.extend(names.iter().cloned());
                client
            }
            Header::Origin(origin) => client.origin(origin.clone()),
        };
    }
    client = client.subprotocols(subprotocols);
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
fn print_response<B>(response: &Response<B>, body: &[u8], is_truncated: bool) {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    log::line(&format!("< HTTP/1.1 {} {reason}", status.as_u16()));
    for (name, value) in response.headers() {
        log::line(&format!("< {name}: {}", escape_bytes(value.as_bytes())));
    }
    log::line("<");
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        log::line(&escape_bytes(line));
    }
    if is_truncated {
        log::line("* the body was truncated");
    }
}
