//! From an address to an open WebSocket, each step with an end of its own.

use std::cell::Cell;
use std::sync::Arc;

use sockeye::handshake::Uri;
use sockeye::{Client, Keepalive, Response, WebSocket};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::escape::escape_bytes;
use crate::cli::{ConnectOptions, Failure, tls};
use crate::log;

/// A client as the flags want it.
pub(super) fn client(options: &ConnectOptions) -> Result<Client, Failure> {
    let mut timeouts = sockeye::Timeouts::default();
    // The end is set by `open`, for all steps together; this one is only to come later.
    timeouts.handshake = options.connect_timeout * 2;
    let keepalive = Keepalive {
        interval: options.ping_interval,
        ..Keepalive::default()
    };
    let mut client = Client::builder().timeouts(timeouts).keepalive(keepalive);
    for (name, value) in &options.headers {
        client = client.header(name, value.as_str());
    }
    for name in &options.subprotocols {
        client = client.subprotocol(name);
    }
    if let Some(origin) = &options.origin {
        client = client.origin(origin.clone());
    }
    if options.insecure {
        client = client.tls_config(Arc::new(tls::danger_client_config_trusting_anyone()?));
    } else if let Some(path) = &options.cacert {
        client = client.tls_config(Arc::new(tls::client_config_trusting(path)?));
    }
    client.build().map_err(|error| Failure::usage(&error))
}

/// Opens a WebSocket, all within the time that the flags allow.
pub(super) async fn open(client: &Client, uri: &Uri, options: &ConnectOptions) -> Result<WebSocket, Failure> {
    let step = Cell::new("the address of the host");
    let opening = async {
        let addresses: Vec<_> = lookup_host((uri.host(), uri.port()))
            .await
            .map_err(|error| Failure::unresolved(uri, error))?
            .collect();
        step.set("the connection");
        let tcp = TcpStream::connect(&*addresses)
            .await
            .map_err(|error| Failure::unreachable(uri, error))?;
        if options.verbose
            && let Ok(address) = tcp.peer_addr()
        {
            log::line(&format!("* connected to {address}"));
        }
        // A line is to leave when it is typed, not when the one before is acknowledged.
        tcp.set_nodelay(true)?;
        step.set("the answer of the server");
        let opened = client.connect_over(tcp, &uri.to_string()).await;
        opened.map_err(|error| {
            if let (true, Some(response)) = (options.verbose, error.refusal()) {
                show(response);
            }
            Failure::opening(uri, error)
        })
    };
    let opened = timeout(options.connect_timeout, opening).await;
    let (ws, response) = opened.map_err(|_| Failure::TooLate {
        step: step.get(),
        uri: uri.to_string(),
        timeout: options.connect_timeout,
    })??;
    if options.verbose {
        show(&response);
    }
    Ok(ws)
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
