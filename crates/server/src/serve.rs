//! The server as one call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::accept::accept_all;
use crate::config::Config;
use crate::http::{self, Site};
use crate::node::Node;

/// Serves on a bound listener until `shutdown` is ready, then sends all clients away with 3001, which makes them
/// connect again elsewhere or later, and returns once they are gone.
///
/// Under `/` there is a chat to try it with, under `/connection/websocket` the Centrifugo client protocol in JSON, and
/// `/health` answers 200 while the server serves and 503 once it shuts down. A page whose WebSocket was refused asks
/// `/connection/check` for the reason. Refusals are logged as warnings, up to twenty at once and then one per second.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
/// sockeye_server::serve(listener, sockeye_server::Config::default(), ctrl_c).await
/// # }
/// ```
///
/// # Errors
/// Fields of the configuration contradict each other: [`InvalidInput`](io::ErrorKind::InvalidInput) around a
/// [`ConfigError`](crate::ConfigError). Or the listener has no local address. Trouble with single connections is logged and never ends the server.
///
/// # Cancel safety
/// Dropping the future stops accepting; connected clients stay until the runtime ends.
pub async fn serve(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    config
        .check()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let is_loopback = listener.local_addr()?.ip().is_loopback();
    let connections_max = config
        .limits
        .connections_max
        .min(Semaphore::MAX_PERMITS)
        .min(u32::MAX as usize);
    let shutdown_timeout = config.timeouts.shutdown;
    let permits = Arc::new(Semaphore::new(connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let node = Node::new(config);
    let site = Arc::new(Site::new(node.clone(), is_loopback));

    tokio::select! {
        never = accept_all(
            |cx| listener.poll_accept(cx),
            |(stream, peer)| match permits.clone().try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(http::serve_connection(site.clone(), stream, peer, permit))),
                Err(_) => {
                    node.refusals().log(|| {
                        tracing::warn!(
                            %peer,
                            status = 503,
                            "refused a connection: limits.connections_max, {connections_max}, are open"
                        );
                    });
                    if let Ok(permit) = refusals.clone().try_acquire_owned() {
                        tokio::spawn(refuse(stream, permit));
                    }
                }
            },
        ) => match never {},
        () = node.keep_house() => {}
        () = shutdown => {}
    }

    drop(listener);
    node.drain();
    if timeout(shutdown_timeout, permits.acquire_many(connections_max as u32))
        .await
        .is_err()
    {
        let left = connections_max - permits.available_permits();
        tracing::warn!(left, "some connections did not end in time");
    }
    Ok(())
}

/// Connections beyond the limit that are told so at the same time. Those beyond this limit too are only closed.
const REFUSALS_MAX: usize = 64;

/// How long a refused client has to take its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole answer to a connection that is one too many.
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Retry-After: 5\r\nContent-Type: text/plain\r\nContent-Length: 48\r\nConnection: close\r\n\r\n\
    too many connections are open; try again later\r\n";

/// Answers a client that there is no room for. What it says is read and thrown away: closing a socket with unread
/// input would make TCP throw away the answer.
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let answer = async {
        let mut scratch = [0; 1024];
        let _request_len = stream.read(&mut scratch).await?;
        stream.write_all(TOO_MANY_CONNECTIONS).await?;
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the client still listens is of no interest.
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}

#[cfg(test)]
mod tests;
