//! `sockeye echo`: a server that sends every message back.
//!
//! It uses only the public API of `sockeye`. Each thread has its own listener, runtime and connections; threads share
//! nothing but the signal to stop.

use std::thread;
use std::time::Duration;

use sockeye::{CloseCode, Denial, Error, Incoming, Limits, Origin, OriginPolicy, ServeError, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{self, AllowedOrigin, EchoOptions, Failure};
use crate::escape::escape;
use crate::platform::Signals;

/// How long connections may take to close when the server stops; equal to the timeout of the closing handshake.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Size limit of a request head. With it, and the 2 to 3 KiB of the task that performs the handshake, a connection that
/// is not open yet costs less than 16 KiB of memory. An echo server needs no larger requests.
const HEAD_SIZE_MAX: usize = 12 * 1024;

/// Echoes until a signal arrives.
pub(crate) fn run(options: &EchoOptions) -> Result<(), Failure> {
    let server = server(options)?;
    let listeners = cli::bind(&options.listen, usize::from(options.threads.get()))?;
    let url = url(options, &listeners[0])?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let (shutdown, serving) = (CancellationToken::new(), TaskTracker::new());

    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| start_thread(listener, server.clone(), shutdown.child_token(), &serving))
        .collect::<Result<_, _>>()?;
    serving.close();
    cli::announce(&url);

    runtime.block_on(async {
        signals.next().await;
        shutdown.cancel();
        tokio::select! {
            () = serving.wait() => Ok(()),
            signal = signals.next() => Err(Failure::Signal(signal)),
        }
    })?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn server(options: &EchoOptions) -> Result<Server, Failure> {
    let limits = Limits::default()
        .message_size_max(options.max_message_size)
        .head_size_max(HEAD_SIZE_MAX)
        // Stop reading from a client that does not read its echoes, so that TCP flow control stops it.
        .read_ahead_max(0);
    let mut server = Server::builder()
        .subprotocols(options.subprotocols.iter().cloned())
        .limits(limits)
        // An echo discloses nothing, so pages of any origin may connect by default.
        .origins(AllowedOrigin::policy(&options.origins).unwrap_or(OriginPolicy::Any));
    if let Some(config) = options.compression.config() {
        server = server.compression(config);
    }
    if let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) {
        server = server.tls_config(cli::tls::server_config(cert, key)?);
    }
    Ok(server.build())
}

fn url(options: &EchoOptions, listener: &std::net::TcpListener) -> Result<String, Failure> {
    let scheme = if options.tls_cert.is_some() { "wss" } else { "ws" };
    Ok(format!("{scheme}://{}/", listener.local_addr()?))
}

/// Starts a thread that serves one listener.
fn start_thread(
    listener: std::net::TcpListener,
    server: Server,
    shutdown: CancellationToken,
    serving: &TaskTracker,
) -> Result<thread::JoinHandle<()>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serve = serving.track_future(serve(listener, server, shutdown));
    Ok(thread::Builder::new()
        .name("echo".into())
        .spawn(move || runtime.block_on(serve))?)
}

/// Echoes to the clients of one listener until the server stops.
async fn serve(listener: TcpListener, server: Server, shutdown: CancellationToken) {
    server
        .serve(listener)
        .on_error(log_error)
        .graceful_shutdown(shutdown.cancelled_owned(), STOP_TIMEOUT)
        .run(echo)
        .await;
}

/// Sends every message back until the peer closes or the server stops. The replies to a burst leave in one write,
/// because `recv` flushes what `feed` has queued before it waits.
async fn echo(incoming: Incoming) -> Result<(), Error> {
    let mut ws = incoming.accept().await?;
    let error = loop {
        let Some(message) = ws.recv().await? else { return Ok(()) };
        if let Err(error) = ws.feed(message).await {
            break error;
        }
    };
    // Boxed, because it is needed at most once: the memory of each connection would include it.
    Box::pin(finish(ws, error)).await
}

/// The server stops while the client still sends. Finishes the closing handshake, because the end of the process would
/// cut it off.
async fn finish(mut ws: WebSocket, error: Error) -> Result<(), Error> {
    let _ = ws.close(CloseCode::GOING_AWAY, "").await;
    Err(error)
}

/// Logs the origin and host of a rejected web page, which ones are allowed, and the option that changes it. The browser
/// does not show the author of the page why it was rejected.
fn log_denial(denial: &Denial) {
    let (host, allowed) = (denial.host(), denial.allowed());
    let origin = denial.origin().unwrap_or("none");
    // An invalid origin may contain anything, so do not suggest pasting it into a shell.
    let advice = match Origin::parse(origin) {
        Ok(origin) => format!("--allow-origin={origin} allows this one"),
        Err(_) => "--allow-origin=ORIGIN allows other origins".into(),
    };
    tracing::warn!(
        "refused a WebSocket from a web page of origin {} to host {}; allowed: {allowed}; {advice}",
        escape(origin),
        escape(host),
    );
}

fn log_error(error: ServeError) {
    match error {
        ServeError::Accept(error) => tracing::error!(%error, "cannot accept connections; retrying"),
        ServeError::Handshake { error, .. } | ServeError::Handler { error, .. } => match error.denial() {
            Some(denial) => log_denial(denial),
            // RFC 6455 §7.1.7. [6455-7.1.7-3]
            None => tracing::debug!(%error, "connection failed"),
        },
        error => tracing::debug!(%error, "connection failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library's test `echo_handler_fits_its_task` is about this handler.
    async fn shortest_echo(incoming: Incoming) -> Result<(), Error> {
        let mut ws = incoming.accept().await?;
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    }

    #[test]
    fn echo_takes_no_more_memory_than_the_shortest_one() {
        /// The library adds a pointer. tokio adds 112 bytes and rounds up to a multiple of 128.
        fn size_of_task<R>(_: impl Fn(Incoming) -> R) -> usize {
            (size_of::<R>() + 8 + 112).next_multiple_of(128)
        }
        assert_eq!(size_of_task(echo), size_of_task(shortest_echo));
    }
}
