//! `Server::serve`: accepting, plain HTTP, errors and the graceful shutdown, over scripted transports with paused time.

mod common;

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use common::script::{ScriptedTransport, transport};
use common::wire::{close, text};
use common::{Peer, REQUEST, run_until_idle, within};
use sockeye::http::{Request, Response, StatusCode};
use sockeye::{Error, Incoming, Listener, Message, Serve, ServeError, Server};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

type Io = ScriptedTransport;

/// A listener with the connections and errors that a test sends.
struct Queue(UnboundedReceiver<io::Result<Io>>);

impl Listener for Queue {
    type Io = Io;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Io>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(accepted)) => Poll::Ready(accepted),
            // A listener never ends.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

type Connections = UnboundedSender<io::Result<Io>>;

fn queue() -> (Connections, Queue) {
    let (connections, queue) = unbounded_channel();
    (connections, Queue(queue))
}

/// Connects a client that has sent these bytes.
fn connect_raw(connections: &Connections, bytes: impl AsRef<[u8]>) -> Peer {
    let (io, peer) = transport(true);
    peer.send_bytes(bytes);
    connections.send(Ok(io)).map_err(drop).unwrap();
    peer
}

/// Connects a client and completes its opening handshake.
async fn open(connections: &Connections) -> Peer {
    let peer = connect_raw(connections, REQUEST);
    run_until_idle().await;
    let response = peer.take_bytes();
    assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", response.escape_ascii());
    peer
}

async fn echo(incoming: Incoming) -> Result<(), Error> {
    let mut ws = incoming.accept().await?;
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(8);

/// A running server, and the handles to stop it.
struct Running {
    connections: Connections,
    stop: oneshot::Sender<()>,
    run: JoinHandle<usize>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start<H, R>(configure: impl FnOnce(Serve<Queue>) -> Serve<Queue>, handler: H) -> Self
    where
        H: Fn(Incoming) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (connections, queue) = queue();
        let (stop, stopped) = oneshot::channel();
        let errors = Arc::new(Mutex::new(vec![]));
        let log = errors.clone();
        let serve = Server::default()
            .serve(queue)
            .graceful_shutdown(stopped, DEADLINE)
            .on_error(move |error| {
                let kind = error.error().map(Error::kind);
                log.lock().unwrap().push(format!("{error} | {kind:?} | {error:?}"));
            });
        let run = tokio::spawn(configure(serve).run(handler));
        Self {
            connections,
            stop,
            run,
            errors,
        }
    }

    /// Stops the server. Returns the number of aborted handlers, and the elapsed time.
    async fn stop(self) -> (usize, Duration) {
        let start = Instant::now();
        self.stop.send(()).unwrap();
        let aborted = within(60, self.run).await.unwrap();
        assert!(self.connections.is_closed(), "the listener is closed");
        (aborted, start.elapsed())
    }

    fn errors(&self) -> Vec<String> {
        std::mem::take(&mut self.errors.lock().unwrap())
    }
}

fn plain(serve: Serve<Queue>) -> Serve<Queue> {
    serve
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_every_connection_with_1001_and_waits_for_the_handlers() {
    let running = Running::start(plain, echo);
    let peers = [open(&running.connections).await, open(&running.connections).await];
    peers[0].send([text("hello")]);
    run_until_idle().await;
    assert_eq!(peers[0].take_frames(), [text("hello")]);
    running.stop.send(()).unwrap();
    run_until_idle().await;
    for peer in &peers {
        assert_eq!(peer.take_frames(), [close(1001, "")]);
    }
    assert!(running.connections.is_closed() && !running.run.is_finished());
    // Messages that a client sends before its close frame still arrive.
    peers[0].send([text("late"), close(1001, "")]);
    peers[0].end();
    sleep(Duration::from_secs(1)).await;
    assert!(!running.run.is_finished(), "the other is still open");
    peers[1].send([close(1001, "")]);
    peers[1].end();
    assert_eq!(within(60, running.run).await.unwrap(), 0);
    assert!(peers.iter().all(Peer::is_transport_closed));
}

#[tokio::test(start_paused = true)]
async fn shutdown_reaches_receivers_of_split_connections_and_those_in_select() {
    let running = Running::start(plain, |incoming| async move {
        let (sender, mut receiver) = incoming.accept().await?.split();
        let mut ticks = tokio::time::interval(Duration::from_secs(3600));
        loop {
            tokio::select! {
                message = receiver.recv() => match message? {
                    Some(message) => sender.send(message).await?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {}
            }
        }
    });
    let peer = open(&running.connections).await;
    running.stop.send(()).unwrap();
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [close(1001, "")]);
    peer.send([close(1001, "")]);
    peer.end();
    assert_eq!(within(60, running.run).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_times_out_clients_that_do_not_answer() {
    let running = Running::start(plain, echo);
    let peer = open(&running.connections).await;
    let (aborted, elapsed) = running.stop().await;
    assert_eq!((aborted, elapsed.as_secs()), (0, 5));
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_aborts_hanging_handlers_at_its_deadline() {
    let running = Running::start(plain, |incoming| async move {
        let path = incoming.request().uri().path().to_owned();
        let mut ws = incoming.accept().await?;
        match path.as_str() {
            "/hang" => pending().await,
            // To a client that does not read.
            "/send" => ws.send("m".repeat(1 << 20)).await?,
            _ => while ws.recv().await?.is_some() {},
        }
        Ok(())
    });
    let hanging = connect_raw(&running.connections, REQUEST.replace("GET /", "GET /hang"));
    let stuck = connect_raw(&running.connections, REQUEST.replace("GET /", "GET /send"));
    stuck.change_rules(|rules| rules.room = 200);
    let quick = open(&running.connections).await;
    quick.send([close(1000, "")]);
    quick.end();
    run_until_idle().await;
    assert!(!hanging.is_transport_closed() && !stuck.is_transport_closed());
    let (aborted, elapsed) = running.stop().await;
    assert_eq!((aborted, elapsed), (2, DEADLINE));
    assert!(hanging.is_transport_closed() && stuck.is_transport_closed() && quick.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_clients_in_the_opening_handshake() {
    let running = Running::start(plain, echo);
    let silent = connect_raw(&running.connections, "");
    let slow = connect_raw(&running.connections, &REQUEST[..30]);
    run_until_idle().await;
    let (aborted, elapsed) = running.stop().await;
    assert_eq!((aborted, elapsed.as_millis()), (0, 0));
    assert!(silent.is_transport_closed() && slow.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn connection_opened_during_shutdown_is_closed_with_1001() {
    let running = Running::start(plain, |incoming| async move {
        sleep(Duration::from_secs(2)).await;
        echo(incoming).await
    });
    let peer = connect_raw(&running.connections, REQUEST);
    run_until_idle().await;
    running.stop.send(()).unwrap();
    sleep(Duration::from_secs(3)).await;
    let bytes = peer.take_bytes();
    assert!(bytes.starts_with(b"HTTP/1.1 101 ") && bytes.ends_with(b"\x88\x02\x03\xe9"));
    peer.send([close(1001, "")]);
    peer.end();
    assert_eq!(within(60, running.run).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_run_future_closes_everything() {
    let running = Running::start(plain, echo);
    let open = open(&running.connections).await;
    let opening = connect_raw(&running.connections, "");
    run_until_idle().await;
    assert!(!open.is_transport_closed() && !opening.is_transport_closed());
    running.run.abort();
    run_until_idle().await;
    assert!(open.is_transport_closed() && opening.is_transport_closed() && running.connections.is_closed());
    assert!(open.take_frames().is_empty(), "no close frame");
}

#[tokio::test(start_paused = true)]
async fn panicking_handler_ends_only_its_own_connection() {
    let running = Running::start(plain, |incoming| {
        assert_ne!(incoming.request().uri().path(), "/at-once", "on purpose");
        async move {
            assert_ne!(incoming.request().uri().path(), "/later", "on purpose");
            echo(incoming).await
        }
    });
    for path in ["/at-once", "/later"] {
        let peer = connect_raw(&running.connections, REQUEST.replace("GET /", &format!("GET {path}")));
        run_until_idle().await;
        assert!(peer.is_transport_closed() && peer.take_bytes().is_empty(), "{path}");
    }
    let peer = open(&running.connections).await;
    peer.send([text("hello")]);
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("hello")]);
    peer.reset();
    run_until_idle().await;
    assert_eq!(running.stop().await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn failed_listener_is_retried_with_backoff() {
    let running = Running::start(plain, echo);
    // EMFILE.
    let start = Instant::now();
    for _ in 0..12 {
        running.connections.send(Err(io::Error::from_raw_os_error(24))).unwrap();
    }
    let peer = connect_raw(&running.connections, REQUEST);
    while peer.take_bytes().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    // 5 ms, doubled up to a second: 8 pauses of 5 * 2^n, then four seconds.
    assert!(
        (5000..5500).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    let errors = running.errors();
    // Of the failures after 0, 5, 15, ... 635 ms, only the first is reported; of the others, each.
    assert_eq!(errors.len(), 5);
    assert!(errors[0].starts_with("cannot accept connections: "), "{errors:?}");

    // A connection that was lost before it was accepted is not a failure of the listener.
    let start = Instant::now();
    for _ in 0..100 {
        let lost = io::ErrorKind::ConnectionAborted.into();
        running.connections.send(Err(lost)).unwrap();
    }
    let next = connect_raw(&running.connections, REQUEST);
    for _ in 0..10 {
        run_until_idle().await;
    }
    assert!(next.take_bytes().starts_with(b"HTTP/1.1 101 "));
    assert_eq!((start.elapsed().as_millis(), running.errors().len()), (0, 0));
    // A pause of the listener does not delay the shutdown.
    (0..12).for_each(|_| running.connections.send(Err(io::Error::from_raw_os_error(24))).unwrap());
    sleep(Duration::from_millis(100)).await;
    for peer in [peer, next] {
        peer.send([close(1000, "")]);
        peer.end();
    }
    assert_eq!(running.stop().await, (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn errors_are_reported_except_normal_closes() {
    let running = Running::start(plain, |incoming| async move {
        let mut ws = incoming.accept().await?;
        match ws.recv().await?.as_ref().and_then(Message::as_text) {
            Some("fail") => Err(Error::other("no such room")),
            // Fails with a normal close if the client has closed normally.
            _ => ws.send("bye").await,
        }
    });
    let peer = connect_raw(&running.connections, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until_idle().await;
    assert!(peer.take_bytes().starts_with(b"HTTP/1.1 426 "));
    sleep(Duration::from_secs(2)).await;
    let [error] = running.errors().try_into().unwrap();
    assert!(
        error.starts_with("opening handshake failed: ") && error.contains("Handshake {"),
        "{error}"
    );

    let peer = open(&running.connections).await;
    peer.send([text("fail")]);
    run_until_idle().await;
    let [error] = running.errors().try_into().unwrap();
    assert!(
        error.starts_with("no such room | Some(Other) | ") && error.contains("Handler {"),
        "{error}"
    );

    let peer = open(&running.connections).await;
    peer.send([close(1000, "")]);
    peer.end();
    run_until_idle().await;
    assert!(running.errors().is_empty());
    let peer = open(&running.connections).await;
    peer.send([close(1011, "")]);
    run_until_idle().await;
    assert_eq!(running.errors().len(), 1);
}

/// Health checks at `/healthz`, a hook that hangs, and a hook that panics.
fn healthz(serve: Serve<Queue>) -> Serve<Queue> {
    serve.on_http(|request: Request<()>| async move {
        match request.uri().path() {
            "/hang" => pending().await,
            "/panic" => panic!("on purpose"),
            "/healthz" => {
                let host = request
                    .headers()
                    .get("host")
                    .map_or("none", |host| host.to_str().unwrap());
                Response::new(format!("{} {host}\n", request.method()))
            }
            _ => {
                let mut response = Response::new(String::new());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn plain_http_is_answered_by_the_hook() {
    let running = Running::start(healthz, echo);
    for (request, status, body) in [
        ("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "GET h\n"),
        ("HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", ""),
        ("OPTIONS /healthz HTTP/1.0\r\n\r\n", "200 OK", "OPTIONS none\n"),
        ("GET http://h/healthz HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK", "GET h\n"),
        ("GET /{x}?`<> HTTP/1.1\r\nHost: h\r\n\r\n", "404 Not Found", ""),
        (
            "GET /healthz HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "200 OK",
            "GET h\n",
        ),
        (
            "POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            "200 OK",
            "POST h\n",
        ),
        // Not HTTP, or an invalid WebSocket request: not passed to the hook.
        ("GET /healthz HTTP/1.1\r\n\r\n", "400 Bad Request", "no Host header\n"),
        (
            "GET /healthz HTTP/2.0\r\nHost: h\r\n\r\n",
            "505 HTTP Version Not Supported",
            "",
        ),
        ("GET /healthz\r\n\r\n", "400 Bad Request", ""),
        (
            "GET /healthz HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "426 Upgrade Required",
            "",
        ),
    ] {
        let peer = connect_raw(&running.connections, request);
        run_until_idle().await;
        let response = String::from_utf8(peer.take_bytes()).unwrap();
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {response}"
        );
        assert!(response.contains("Connection: close"), "{request}: {response}");
        if status == "200 OK" {
            assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{request}: {response}");
        }
        assert!(peer.is_half_closed(), "{request}");
    }
    let peer = open(&running.connections).await;
    peer.send([text("hello")]);
    run_until_idle().await;
    assert_eq!(peer.take_frames(), [text("hello")]);
}

#[tokio::test(start_paused = true)]
async fn plain_http_with_endless_body_is_answered_and_closed() {
    let running = Running::start(healthz, echo);
    let head = "POST /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for endless in [vec![], vec![b'x'; 10_000]] {
        let peer = connect_raw(&running.connections, head);
        peer.change_rules(|rules| rules.endless = endless);
        run_until_idle().await;
        assert!(peer.take_bytes().starts_with(b"HTTP/1.1 200 OK\r\n"));
        sleep(Duration::from_millis(1001)).await;
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_has_deadlines_and_isolates_panics() {
    let running = Running::start(healthz, echo);
    let hanging = connect_raw(&running.connections, "GET /hang HTTP/1.1\r\nHost: h\r\n\r\n");
    let panicking = connect_raw(&running.connections, "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n");
    // Does not read the response.
    let stuck = connect_raw(&running.connections, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    stuck.change_rules(|rules| rules.room = 0);
    run_until_idle().await;
    assert!(panicking.is_transport_closed() && panicking.take_bytes().is_empty());
    sleep(Duration::from_millis(9_900)).await;
    assert!(!hanging.is_transport_closed() && !stuck.is_transport_closed());
    sleep(Duration::from_millis(200)).await;
    assert!(
        hanging
            .take_bytes()
            .starts_with(b"HTTP/1.1 503 Service Unavailable\r\n")
    );
    assert!(stuck.is_transport_closed());
    open(&running.connections).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_plain_http_no_longer_than_its_deadline() {
    let running = Running::start(healthz, echo);
    let hanging = connect_raw(&running.connections, "GET /hang HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until_idle().await;
    assert_eq!(running.stop().await, (1, DEADLINE));
    assert!(hanging.is_transport_closed() && hanging.take_bytes().is_empty());
}

#[tokio::test]
async fn tcp_and_unix_sockets_are_served_with_addresses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (errors, mut reported) = unbounded_channel();
    let serve = Server::default()
        .serve(listener)
        .graceful_shutdown(stopped, Duration::from_secs(10))
        .on_error(move |error| errors.send(error).unwrap());
    let run = tokio::spawn(serve.run(|incoming| async move {
        let addresses = (incoming.peer_addr(), incoming.local_addr());
        let mut ws = incoming.accept().await?;
        assert_eq!((ws.peer_addr(), ws.local_addr()), addresses);
        ws.send(format!("{:?}", addresses.0.unwrap())).await?;
        ws.recv().await?;
        Err(Error::other("on purpose"))
    }));
    let mut ws = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
    assert_eq!(ws.peer_addr(), Some(address));
    let own = ws.local_addr().unwrap();
    assert_eq!(common::text_of(ws.recv().await), format!("{own:?}"));
    assert_eq!(ws.negotiated_deflate(), None);
    stop.send(()).unwrap();
    assert_eq!(within(30, ws.recv()).await.unwrap(), None);
    assert_eq!(u16::from(ws.close_info().unwrap().received().unwrap().code), 1001);
    drop(ws);
    assert_eq!(within(30, run).await.unwrap(), 0);
    let error = reported.recv().await.unwrap();
    assert!(
        matches!(&error, ServeError::Handler { peer_addr, .. } if *peer_addr == Some(own)),
        "{error:?}"
    );
    assert_eq!(error.to_string(), format!("{own}: on purpose"));
}
