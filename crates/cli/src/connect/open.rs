//! Opening of the WebSocket.

use std::time::Duration;

use sockeye::http::Response;
use sockeye::{Backoff, Client, ClientBuilder, Keepalive, Proxy, Reconnecting, WebSocket};

use super::address::Target;
use crate::cli::{ConnectOptions, Failure, Header, ProxyOption, tls};
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
        let client = client(options, target)?;
        Ok(Self {
            options,
            target,
            client,
        })
    }

    /// A WebSocket that is opened again when it is lost.
    pub(super) fn reconnecting(&self, delay_max: Duration) -> Reconnecting {
        let request = self.client.request(&self.target.url);
        request.reconnecting().backoff(Backoff::default().max(delay_max))
    }

    /// Opens the WebSocket within the time limit.
    pub(super) async fn open(&self) -> Result<WebSocket, Failure> {
        let uri = self.target.uri();
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

/// Maximum number of redirects with `--location`.
const REDIRECTS_MAX: usize = 10;

fn client(options: &ConnectOptions, target: &Target) -> Result<Client, Failure> {
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
    client = with_proxy(client, options, target)?;
    if options.location {
        client = client.redirects(REDIRECTS_MAX);
    }
    if let Some(config) = options.compression.config() {
        client = client.compression(config);
    }
    let has_tls_flags = options.insecure || options.cacert.is_some() || options.cert.is_some();
    if has_tls_flags {
        client = client.tls(tls::client_tls(options)?);
    }
    client.build().map_err(|error| match error.is_tls() {
        // There are no root certificates.
        true => Failure::opening(target.uri(), error, options),
        false => Failure::usage(&error),
    })
}

/// Sets the proxy of `--proxy`, or else that of the environment.
fn with_proxy(client: ClientBuilder, options: &ConnectOptions, target: &Target) -> Result<ClientBuilder, Failure> {
    let invalid = |error: sockeye::InvalidProxy| Failure::Usage(error.to_string());
    let (client, proxy) = match &options.proxy {
        Some(ProxyOption::None) => return Ok(client),
        Some(ProxyOption::Proxy(proxy)) => {
            // As curl does: the exceptions of the environment apply to the flag too.
            let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
            let bypass = variable("no_proxy")
                .or_else(|| variable("NO_PROXY"))
                .unwrap_or_default();
            let proxy = proxy.clone().bypass(&bypass);
            (client.proxy(proxy.clone()), Some(proxy))
        }
        // Read here too, because an invalid variable is no error of the URL.
        None => (client.proxy_from_env(), Proxy::from_env(target.uri()).map_err(invalid)?),
    };
    if let Some(proxy) = proxy.filter(|proxy| options.verbose && !proxy.is_bypassed(target.uri())) {
        log::line(&format!("* through proxy {proxy}"));
    }
    Ok(client)
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
