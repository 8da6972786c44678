//! `sockeye echo`: a server that sends every message back.
//!
//! Nothing of the protocol here is private: a server by anyone else can be made of the same calls. Each thread has a listener, a
//! runtime and connections of its own, and shares nothing with the others but the moment when all of them stop.

mod roll;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use sockeye::{CloseCode, Denial, Error, Message, Origin, OriginPolicy, Server, WebSocket};
use sockeye_server::accept::accept_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cli::{self, AllowedOrigin, EchoOptions, Failure, Signals};
use crate::connect::escape;
use roll::{Member, Roll};

/// How long connections may take to close when the server stops; as long as the close handshake may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest request head. With it, and the 2 to 3 KiB of the task that waits for it, a connection that is not open
/// yet costs less than 16 KiB of memory; an echo has no use for larger ones.
const HEAD_SIZE_MAX: usize = 12 * 1024;

/// Echoes until a signal.
pub(crate) fn run(options: &EchoOptions) -> Result<(), Failure> {
    let server = server(options)?;
    let listeners = cli::bind(&options.listen, usize::from(options.threads.get()))?;
    let url = url(options, &listeners[0])?;
    let (stop, _) = watch::channel(false);
    let waiter = Builder::new_current_thread().enable_all().build()?;
    let mut signals = waiter.block_on(async { Signals::new() })?;

    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| start_thread(listener, server.clone(), stop.subscribe()))
        .collect::<Result<_, _>>()?;
    cli::announce(&url);

    waiter.block_on(async {
        signals.next().await;
        // Ready when the last thread has let go of its end.
        stop.send_replace(true);
        tokio::select! {
            () = stop.closed() => Ok(()),
            signal = signals.next() => Err(Failure::Signal(signal)),
        }
    })?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn server(options: &EchoOptions) -> Result<Server, Failure> {
    let mut limits = sockeye::Limits::default();
    limits.message_size_max = options.max_message_size;
    limits.head_size_max = HEAD_SIZE_MAX;
    // A client that does not read its echoes is not read from either: TCP holds it back, and costs no memory here.
    limits.read_ahead_max = 0;
    let mut server = Server::builder()
        .subprotocols(options.subprotocols.iter().cloned())
        .limits(limits)
        // An echo gives nobody anything that was not theirs, so pages of any origin may have it.
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

/// Serves one listener on a thread of its own, from now on.
fn start_thread(
    listener: std::net::TcpListener,
    server: Server,
    stop: watch::Receiver<bool>,
) -> Result<thread::JoinHandle<()>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serve = move || runtime.block_on(serve(listener, server, stop));
    Ok(thread::Builder::new().name("echo".into()).spawn(serve)?)
}

/// Accepts connections until the server stops, then has them closed.
async fn serve(listener: TcpListener, server: Server, mut stop: watch::Receiver<bool>) {
    let roll = Roll::default();
    tokio::select! {
        never = accept_all(
            |cx| listener.poll_accept(cx),
            |(tcp, _)| drop(tokio::spawn(open(server.clone(), tcp, roll.join()))),
        ) => match never {},
        _ = stop.wait_for(|is_stopped| *is_stopped) => {}
    }
    drop(listener);
    roll.dismiss();
    let _ = timeout(STOP_TIMEOUT, roll.empty()).await;
}

/// Opens a connection and leaves it to a task of its own, a quarter of the size of this one: the room for the handshake
/// is needed once, and is gone when this ends.
async fn open(server: Server, tcp: TcpStream, member: Member) {
    let opening = async { server.accept(tcp).await?.accept().await };
    let opened = tokio::select! {
        opened = opening => opened,
        () = member.dismissed() => return,
    };
    match opened {
        Ok(mut ws) => drop(tokio::spawn(async move { report(echo(&mut ws, &member).await) })),
        Err(error) => match error.denial() {
            Some(denial) => log_denial(denial),
            None => report(Err(error)),
        },
    }
}

/// Logs the origin and the host of a web page that was refused, what is allowed, and the option that changes it. The author
/// of the page sees only that it does not work.
fn log_denial(denial: &Denial) {
    let (host, allowed) = (denial.host(), denial.allowed());
    let origin = denial.origin().unwrap_or("none");
    // An origin that is none is not to be pasted into a shell.
    let advice = match Origin::parse(origin) {
        Ok(origin) => format!("--allow-origin={origin} allows this one"),
        Err(_) => "--allow-origin=ORIGIN allows another".into(),
    };
    tracing::warn!(
        "refused a WebSocket to a web page of the origin {}, which came for the host {}; allowed: {allowed}; {advice}",
        escape(origin),
        escape(host),
    );
}

/// Sends every message back. What arrived in one burst leaves in one write: `try_recv` and `recv` send what `feed` has queued
/// before they find or wait for more.
async fn echo(ws: &mut WebSocket, member: &Member) -> Result<(), Error> {
    loop {
        // Looking at the server's end costs as much as a small message, so that is done once for each burst.
        let message = match ws.try_recv() {
            Ok(message) => message,
            Err(_) => match next(ws, member).await? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        ws.feed(message).await?;
    }
}

/// The next message; `None` after the end, which comes from here when the server stops.
async fn next(ws: &mut WebSocket, member: &Member) -> Result<Option<Message>, Error> {
    if let Some(received) = recv_unless_dismissed(ws, member).await {
        return received;
    }
    // In a box, for it happens once at most.
    Box::pin(ws.close(CloseCode::GOING_AWAY, "")).await?;
    Ok(None)
}

/// Receives, or gives `None` when the server stops. By hand: the future of `select!` is larger, and each idle connection has
/// one.
fn recv_unless_dismissed(
    ws: &mut WebSocket,
    member: &Member,
) -> impl Future<Output = Option<Result<Option<Message>, Error>>> {
    poll_fn(move |cx| {
        // The server's end is looked at only when there is nothing to do but wait.
        match pin!(ws.recv()).poll(cx) {
            Poll::Ready(received) => Poll::Ready(Some(received)),
            Poll::Pending => member.poll_dismissed(cx).map(|()| None),
        }
    })
}

fn report(ended: Result<(), Error>) {
    if let Err(error) = ended {
        // RFC 6455 §7.1.7. [6455-7.1.7-3]
        tracing::debug!(%error, "a connection ended badly");
    }
}
