//! Over real sockets of this machine: TCP, TLS, and hyper.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::{text_of, within};
use sockeye::{Client, CloseCode, Error, Server, Timeouts};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Accepts one connection and echoes until it is closed.
async fn echo_once(server: Server, ip: IpAddr) -> (SocketAddr, JoinHandle<Result<(), Error>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut ws = server.accept(tcp).await?.accept().await?;
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    });
    (address, echoing)
}

async fn speak(client: &Client, uri: &str) {
    let mut ws = client.connect(uri).await.unwrap();
    let large = "l".repeat(1024 * 1024);
    for message in ["hello", &large] {
        ws.send(message).await.unwrap();
        assert_eq!(text_of(ws.recv().await), message);
    }
    ws.close(CloseCode::NORMAL, "done").await.unwrap();
    assert!(ws.closure().unwrap().is_clean());
}

#[tokio::test]
async fn a_client_and_a_server_over_tcp() {
    // checks [6455-4.1-1, 6455-4.1-8]
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let (address, echoing) = echo_once(Server::default(), ip).await;
        within(30, speak(&Client::default(), &format!("ws://{address}/"))).await;
        echoing.await.unwrap().unwrap();
    }
}

/// What the other side sees of `TCP_NODELAY` is nothing; so the socket itself is asked, through a copy of it.
#[cfg(unix)]
#[tokio::test]
async fn an_accepted_socket_does_not_wait_for_acknowledgements() {
    use std::os::fd::AsFd;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = tokio::spawn(async move { sockeye::connect(&format!("ws://{address}/")).await });
    let (tcp, _) = listener.accept().await.unwrap();
    let copy = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned().unwrap());
    assert!(!copy.nodelay().unwrap());
    let ws = sockeye::accept(tcp).await.unwrap();
    assert!(copy.nodelay().unwrap());
    connecting.await.unwrap().unwrap();
    drop(ws);
}

#[tokio::test]
async fn nobody_listens() {
    // checks [6455-4.1-10]
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = sockeye::connect(&format!("ws://{address}/")).await.unwrap_err();
    assert!(error.is_io() && !error.is_timeout(), "{error:?}");
}

/// A listener with a full queue drops whoever knocks, so connecting goes on until somebody gives up.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connecting_has_a_deadline() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let knock = || tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
    let mut queued = vec![];
    while let Ok(connected) = knock().await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue has no end");
    }
    let mut timeouts = Timeouts::default();
    timeouts.connect = Duration::from_millis(50);
    let client = Client::builder().timeouts(timeouts).build().unwrap();
    let error = within(30, client.connect(&format!("ws://{address}/")))
        .await
        .unwrap_err();
    assert!(error.is_timeout() && !error.is_closed(), "{error:?}");
}

/// An end without a close frame, by the operating system's own means.
#[tokio::test]
async fn a_reset_is_an_error() {
    let (address, echoing) = echo_once(Server::default(), Ipv4Addr::LOCALHOST.into()).await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let std = tcp.into_std().unwrap();
    let copy = TcpStream::from_std(std.try_clone().unwrap()).unwrap();
    let (mut ws, _) = Client::default()
        .connect_over(TcpStream::from_std(std).unwrap(), "ws://localhost/")
        .await
        .unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(ws.recv().await), "hello");
    copy.set_zero_linger().unwrap();
    drop((ws, copy));
    let error = within(30, echoing).await.unwrap().unwrap_err();
    assert!(error.is_closed(), "{error:?}");
}

#[cfg(feature = "tls")]
mod tls {
    use common::tls::{certified, client, server};
    use rcgen::{CertifiedKey, KeyPair};

    use super::*;

    async fn tls_echo(certified: &CertifiedKey<KeyPair>) -> (SocketAddr, JoinHandle<Result<(), Error>>) {
        echo_once(server(certified), Ipv4Addr::LOCALHOST.into()).await
    }

    #[tokio::test]
    async fn a_client_and_a_server_over_tls() {
        // checks [6455-4.1-11, 6455-4.1-13, 6455-4.2.2-2, 6455-5.1-1, 6455-10.6-1]
        let certified = certified();
        let (address, echoing) = tls_echo(&certified).await;
        within(
            30,
            speak(&client(&certified), &format!("wss://localhost:{}/", address.port())),
        )
        .await;
        echoing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted() {
        // checks [6455-4.1-12, 6455-4.2.2-1]
        let (address, echoing) = tls_echo(&certified()).await;
        let client = client(&certified());
        let error = client
            .connect(&format!("wss://localhost:{}/", address.port()))
            .await
            .unwrap_err();
        assert!(error.is_tls() && !error.is_io(), "{error:?}");
        assert!(echoing.await.unwrap().unwrap_err().is_tls());
    }

    #[tokio::test]
    async fn a_name_that_is_not_the_certificates() {
        // checks [6455-4.1-12]
        let certified = certified();
        let (address, _echoing) = tls_echo(&certified).await;
        let error = client(&certified)
            .connect(&format!("wss://{address}/"))
            .await
            .unwrap_err();
        assert!(error.is_tls(), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls() {
        let (address, _echoing) = echo_once(Server::default(), Ipv4Addr::LOCALHOST.into()).await;
        let error = client(&certified())
            .connect(&format!("wss://{address}/"))
            .await
            .unwrap_err();
        assert!(error.is_tls(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_speaks_is_given_ten_seconds_for_all() {
        let (io, peer) = common::script::transport(true);
        let start = tokio::time::Instant::now();
        let error = within(60, server(&certified()).accept(io)).await.unwrap_err();
        assert!(error.is_timeout() && peer.sees_end(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_speaks_is_given_ten_seconds_for_all() {
        let (io, peer) = common::script::transport(false);
        let start = tokio::time::Instant::now();
        let error = within(60, client(&certified()).connect_over(io, "wss://localhost/"))
            .await
            .unwrap_err();
        assert!(error.is_timeout() && peer.sees_end(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}

#[cfg(feature = "hyper")]
mod hyper {
    use std::convert::Infallible;

    use ::hyper::body::Incoming;
    use ::hyper::server::conn::http1;
    use ::hyper::service::service_fn;
    use http_body_util::Full;
    use hyper_util::rt::TokioIo;
    use sockeye::hyper::{HttpResponse, upgrade};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn handle(server: Server, mut request: http::Request<Incoming>) -> Result<HttpResponse, Infallible> {
        if request.uri().path() != "/chat" {
            return Ok(http::Response::new(Full::from("plain")));
        }
        let (response, upgrade) = match upgrade(&server, &mut request) {
            Ok(upgraded) => upgraded,
            Err(refusal) => return Ok(*refusal),
        };
        tokio::spawn(async move {
            let mut ws = upgrade.await?;
            while let Some(message) = ws.recv().await? {
                ws.feed(message).await?;
            }
            Ok::<(), Error>(())
        });
        Ok(response)
    }

    async fn serve() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().subprotocols(["chat"]).build();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await?;
                let server = server.clone();
                let service = service_fn(move |request| handle(server.clone(), request));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                tokio::spawn(serving.with_upgrades());
            }
            #[expect(unreachable_code, reason = "says the type")]
            std::io::Result::Ok(())
        });
        address
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_websocket_beside_other_requests() {
        let address = serve().await;
        let client = Client::builder().subprotocol("chat").build().unwrap();
        within(30, speak(&client, &format!("ws://{address}/chat"))).await;
        let ws = client.connect(&format!("ws://{address}/chat")).await.unwrap();
        assert_eq!(ws.subprotocol(), Some("chat"));

        let error = client.connect(&format!("ws://{address}/")).await.unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status().as_u16(), refusal.body()), (200, &b"plain"[..]));
    }

    #[tokio::test]
    async fn a_page_of_another_host_is_refused() {
        let address = serve().await;
        let request = common::REQUEST.replace("GET /", "GET /chat");
        let lines = "Origin: http://evil.example\r\nConnection: close\r\n\r\n";
        let request = request.strip_suffix("\r\n").unwrap().to_owned() + lines;
        let response = within(30, ask(address, &request)).await;
        assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    }

    #[tokio::test]
    async fn a_request_that_is_none_is_told_what_it_lacks() {
        let address = serve().await;
        let request = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = within(30, ask(address, request)).await;
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
    }

    #[tokio::test]
    async fn frames_glued_to_the_request_are_received() {
        let address = serve().await;
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let mut bytes = common::REQUEST.replace("GET /", "GET /chat").into_bytes();
        bytes.extend(common::wire::text("glued").bytes(true));
        tcp.write_all(&bytes).await.unwrap();
        let expected = common::wire::text("glued").bytes(false);
        let mut received = vec![];
        within(30, async {
            while !received.ends_with(&expected) {
                assert_ne!(tcp.read_buf(&mut received).await.unwrap(), 0);
            }
        })
        .await;
    }
}
