//! Upgrades with axum and hyper-util's server, over local sockets.
#![cfg(feature = "hyper")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::any;
use axum::serve::ListenerExt;
use common::{text_of, within};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use sockeye::http::StatusCode;
use sockeye::hyper::{HttpResponse, Upgrade, upgrade, upgrade_with};
use sockeye::{Acceptance, Client, Error, Server, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The body of a handler that has a WebSocket.
type Job = fn(WebSocket) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

fn answer(server: &Server, mut request: http::Request<Body>, job: Job, named: fn(Upgrade) -> Upgrade) -> HttpResponse {
    match upgrade(server, &mut request) {
        Err(rejection) => rejection.into_response(),
        Ok((response, upgrade)) => {
            tokio::spawn(async move { job(named(upgrade).await?).await });
            response
        }
    }
}

async fn handler(State((server, job)): State<(Server, Job)>, request: Request) -> HttpResponse {
    answer(&server, request, job, |upgrade| upgrade)
}

fn router(job: Job) -> Router {
    Router::new()
        .fallback(any(handler))
        .with_state((Server::default(), job))
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const INTERVAL: Duration = Duration::from_millis(5);
const TICKS: usize = 60;

fn tick(mut ws: WebSocket) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    Box::pin(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        for _ in 0..TICKS {
            ticks.tick().await;
            ws.send("tick").await?;
        }
        // Until the client has received all of them: dropping the connection earlier would lose the rest.
        while ws.recv().await?.is_some() {}
        Ok(())
    })
}

fn echo(mut ws: WebSocket) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    Box::pin(async move {
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    })
}

/// The longest time between two messages of a server that sends every 5 ms.
async fn longest_gap(address: SocketAddr) -> Duration {
    let mut ws = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
    let mut longest = Duration::ZERO;
    let mut last: Option<Instant> = None;
    for tick in 0..TICKS {
        assert_eq!(text_of(ws.recv().await), "tick");
        // The client sends too, because Linux delays acknowledgements only then.
        if tick % 8 == 0 {
            ws.send("heard").await.unwrap();
        }
        longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
        last = Some(Instant::now());
    }
    longest
}

/// helix#469: with Nagle's algorithm, each message waits until the previous one is acknowledged, which Linux delays by
/// 40 ms. On a busy machine a gap may have other causes, so the best of ten connections counts.
#[tokio::test(flavor = "multi_thread")]
async fn messages_every_5_ms_under_axum_are_not_delayed() {
    let (listener, address) = bind().await;
    tokio::spawn(async move { axum::serve(listener, router(tick)).await });
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        shortest = shortest.min(within(60, longest_gap(address)).await);
        if shortest < 5 * INTERVAL {
            return;
        }
    }
    panic!("a gap of at least {shortest:?} on each connection");
}

/// A duplicate of a server's socket, to read its options.
#[cfg(unix)]
fn copy_of(tcp: &TcpStream) -> std::net::TcpStream {
    use std::os::fd::AsFd;
    tcp.as_fd().try_clone_to_owned().unwrap().into()
}

/// Connects, exchanges messages, and checks that the server's socket has Nagle's algorithm disabled.
#[cfg(unix)]
async fn check_nodelay(client: &Client, url: &str, copies: &Mutex<Vec<std::net::TcpStream>>) {
    let mut ws = within(30, client.connect(url)).await.unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
    let copy = copies.lock().unwrap().pop().unwrap();
    assert!(copy.nodelay().unwrap(), "{url}");
}

#[cfg(unix)]
#[tokio::test]
async fn socket_under_axum_disables_nagle() {
    let (listener, address) = bind().await;
    let copies = Arc::new(Mutex::new(vec![]));
    let taken = copies.clone();
    let tapped = listener.tap_io(move |tcp| {
        let copy = copy_of(tcp);
        assert!(!copy.nodelay().unwrap());
        taken.lock().unwrap().push(copy);
    });
    tokio::spawn(async move { axum::serve(tapped, router(echo)).await });
    check_nodelay(&Client::default(), &format!("ws://{address}/"), &copies).await;
}

#[tokio::test]
async fn frames_behind_a_request_under_axum_are_received() {
    let (listener, address) = bind().await;
    tokio::spawn(async move { axum::serve(listener, router(echo)).await });
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let mut bytes = common::REQUEST.as_bytes().to_vec();
    bytes.extend(common::wire::text("early").bytes(true));
    tcp.write_all(&bytes).await.unwrap();
    let expected = common::wire::text("early").bytes(false);
    let mut received = vec![];
    within(30, async {
        while !received.ends_with(&expected) {
            assert_ne!(tcp.read_buf(&mut received).await.unwrap(), 0);
        }
    })
    .await;
}

/// A wrapper that only its owner knows.
struct Metered(TcpStream);

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves one connection with the server that axum uses.
async fn serve_one<T>(io: T, named: fn(Upgrade) -> Upgrade)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handler = move |request: Request| async move { answer(&Server::default(), request, echo, named) };
    let service = TowerToHyperService::new(Router::new().fallback(any(handler)));
    let builder = auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection_with_upgrades(TokioIo::new(io), service).await);
}

#[cfg(unix)]
#[tokio::test]
async fn named_wrapper_is_unwrapped() {
    for (named, is_nodelay) in [
        (
            (|upgrade| upgrade.transport(|io: Metered| io.0)) as fn(Upgrade) -> Upgrade,
            true,
        ),
        (
            |upgrade| {
                upgrade.transport(|io: Metered| {
                    io.0.set_nodelay(true).unwrap();
                    io
                })
            },
            true,
        ),
        // With the name of another type, or without one, it works.
        (|upgrade| upgrade.transport(|io: tokio::io::DuplexStream| io), false),
        (|upgrade| upgrade, false),
    ] {
        let (listener, address) = bind().await;
        let copies = Arc::new(Mutex::new(vec![]));
        let taken = copies.clone();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            taken.lock().unwrap().push(copy_of(&tcp));
            serve_one(Metered(tcp), named).await;
        });
        let url = format!("ws://{address}/");
        if is_nodelay {
            check_nodelay(&Client::default(), &url, &copies).await;
        } else {
            let mut ws = within(30, sockeye::connect(&url)).await.unwrap();
            ws.send("hello").await.unwrap();
            assert_eq!(text_of(within(30, ws.recv()).await), "hello");
        }
    }
}

#[cfg(all(unix, feature = "tls"))]
#[tokio::test]
async fn socket_below_tls_disables_nagle() {
    let certified = common::tls::certified();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(common::tls::server_config(&certified)));
    let client = common::tls::client(&certified);
    for is_enum in [false, true] {
        let (listener, address) = bind().await;
        let copies = Arc::new(Mutex::new(vec![]));
        let (taken, acceptor) = (copies.clone(), acceptor.clone());
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            taken.lock().unwrap().push(copy_of(&tcp));
            let tls = acceptor.accept(tcp).await.unwrap();
            match is_enum {
                true => serve_one(tokio_rustls::TlsStream::Server(tls), |upgrade| upgrade).await,
                false => serve_one(tls, |upgrade| upgrade).await,
            }
        });
        check_nodelay(&client, &format!("wss://localhost:{}/", address.port()), &copies).await;
    }
}

fn request(lines: &[(&str, &str)]) -> http::Request<Body> {
    let mut request = http::Request::builder().uri("/");
    let smallest = [
        ("host", "localhost"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    for (name, value) in smallest.iter().chain(lines) {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[test]
fn rejection_has_reason_and_response() {
    let server = Server::default();
    let rejection = upgrade(&server, &mut request(&[("origin", "http://evil.example")])).unwrap_err();
    let denial = rejection.error().denial().unwrap();
    assert_eq!(
        (denial.origin(), denial.host()),
        (Some("http://evil.example"), "localhost")
    );
    assert!(rejection.error().is_denied());
    let shown = rejection.to_string();
    assert!(
        shown.starts_with("upgrade rejected with status 403 Forbidden: "),
        "{shown}"
    );
    assert!(shown.contains("evil.example"), "{shown}");
    assert_eq!(HttpResponse::from(rejection).status(), http::StatusCode::FORBIDDEN);

    let mut plain = http::Request::new(Body::empty());
    let rejection = upgrade(&server, &mut plain).unwrap_err();
    assert!(
        rejection.error().is_protocol() && !rejection.error().is_denied(),
        "{rejection:?}"
    );
    assert_eq!(rejection.response().status(), http::StatusCode::BAD_REQUEST);
}

#[test]
fn upgrade_with_uses_the_chosen_acceptance() {
    let server = Server::builder().subprotocols(["v1"]).build();
    let offer = [("sec-websocket-protocol", "v1, v2")];
    let (response, _) = upgrade(&server, &mut request(&offer)).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v1");
    let v2 = || Acceptance::new().subprotocol("v2").header("Set-Cookie", "a=b");
    let (response, _) = upgrade_with(&server, &mut request(&offer), v2()).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v2");
    assert_eq!(response.headers()["set-cookie"], "a=b");
    let none = Acceptance::new().without_subprotocol();
    let (response, _) = upgrade_with(&server, &mut request(&offer), none).unwrap();
    assert!(!response.headers().contains_key("sec-websocket-protocol"));
    let rejection = upgrade_with(&server, &mut request(&[]), v2()).unwrap_err();
    assert!(rejection.error().is_invalid_input(), "{rejection:?}");
    assert_eq!(rejection.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
}
