//! Real sockets on this machine: TCP, TLS, and hyper.

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
        let (tcp, _) = listener.accept().await.map_err(Error::io)?;
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
    assert!(ws.close_info().unwrap().is_clean());
}

#[tokio::test]
async fn client_and_server_communicate_over_tcp() {
    // checks [6455-4.1-1, 6455-4.1-8]
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let (address, echoing) = echo_once(Server::default(), ip).await;
        within(30, speak(&Client::default(), &format!("ws://{address}/"))).await;
        echoing.await.unwrap().unwrap();
    }
}

/// Accepts a WebSocket by hand, sends messages and a close frame, and drops the socket while it has unread input, which
/// resets the connection.
fn close_and_reset(listener: std::net::TcpListener, messages: u8) {
    use std::io::{Read, Write};
    let (mut tcp, _) = listener.accept().unwrap();
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    tcp.write_all(common::answer(&request).as_bytes()).unwrap();
    // Input from the client has arrived, and is not read.
    tcp.peek(&mut [0]).unwrap();
    let mut frames: Vec<u8> = (0..messages).flat_map(|number| [0x82, 1, number]).collect();
    frames.extend([0x88, 2, 0x03, 0xe8]);
    tcp.write_all(&frames).unwrap();
}

#[tokio::test]
async fn reset_after_close_frame_is_a_normal_end_without_loss() {
    for round in 0..40 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || close_and_reset(listener, 20));
        let mut ws = sockeye::connect(&format!("ws://{address}/")).await.unwrap();
        let error = loop {
            if let Err(error) = within(30, ws.send("tick")).await {
                break error;
            }
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
        };
        peer.join().unwrap();
        assert!(error.is_normal_close(), "{error:?}");
        for number in 0..20 {
            assert_eq!(ws.recv().await.unwrap().unwrap().as_bytes(), [number]);
        }
        assert!(ws.recv().await.unwrap().is_none());
    }
}

/// `TCP_NODELAY` is not visible to the peer, so this reads the option from a duplicate of the socket.
#[cfg(unix)]
#[tokio::test]
async fn accepted_socket_disables_nagle() {
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
async fn connect_refused_reports_io_error() {
    // checks [6455-4.1-10]
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = sockeye::connect(&format!("ws://{address}/")).await.unwrap_err();
    assert!(error.is_io() && !error.is_timeout(), "{error:?}");
    let shown = error.to_string();
    assert!(
        shown.starts_with(&format!("cannot connect to {address}: Connection refused")),
        "{shown}"
    );
    assert_eq!(shown.matches("refused").count(), 1, "{shown}");
    assert!(error.kind() == sockeye::ErrorKind::Connect && error.is_retryable());
    let (tried, refused) = error.connect_error().unwrap().attempts().next().unwrap();
    assert_eq!(tried, address);
    assert_eq!(refused.unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
}

/// A listener with a full accept queue drops packets of new connections, so that connecting never ends. Returns it with
/// the connections in its queue.
#[cfg(target_os = "linux")]
async fn full_listener(ip: Ipv4Addr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let knock = || tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
    let mut queued = vec![];
    while let Ok(connected) = knock().await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue has no end");
    }
    (listener, queued)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connecting_times_out() {
    let (listener, _queued) = full_listener(Ipv4Addr::LOCALHOST).await;
    let address = listener.local_addr().unwrap();
    let mut timeouts = Timeouts::default();
    timeouts.connect = Duration::from_millis(50);
    let client = Client::builder().timeouts(timeouts).build().unwrap();
    let error = within(30, client.connect(&format!("ws://{address}/")))
        .await
        .unwrap_err();
    assert!(error.is_timeout() && !error.is_closed(), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot connect to {address}: no connection within 50ms: {address}: no answer; the limit is Timeouts::connect"
        )
    );
    let attempts: Vec<_> = error.connect_error().unwrap().attempts().collect();
    assert!(matches!(attempts[..], [(tried, None)] if tried == address), "{error:?}");
}

/// libdatachannel#1556: of a name with two addresses, the second was never tried.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn unresponsive_address_costs_250_ms() {
    // Another program may use the same port of the second address.
    let (full, _queued, listener) = loop {
        let (full, queued) = full_listener(Ipv4Addr::new(127, 0, 0, 2)).await;
        let port = full.local_addr().unwrap().port();
        match TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).await {
            Ok(listener) => break (full, queued, listener),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
    };
    let swallowing = full.local_addr().unwrap();
    let working = listener.local_addr().unwrap();
    tokio::spawn(async move { sockeye::accept(listener.accept().await.unwrap().0).await });
    let client = Client::builder()
        .resolver(move |host, port| async move {
            assert_eq!((host.as_str(), port), ("two.example", swallowing.port()));
            Ok(vec![swallowing, working])
        })
        .build()
        .unwrap();
    let start = std::time::Instant::now();
    let url = format!("ws://two.example:{}/", swallowing.port());
    within(30, client.connect(&url)).await.unwrap();
    // The first packet is retransmitted after a second.
    assert!(
        (250..1000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connect_error_lists_every_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let addresses = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)].map(|ip| SocketAddr::from((ip, port)));
    let client = Client::builder()
        .resolver(move |_, _| async move { Ok(addresses.to_vec()) })
        .build()
        .unwrap();
    let error = within(30, client.connect(&format!("ws://two.example:{port}/")))
        .await
        .unwrap_err();
    assert!(error.is_io(), "{error:?}");
    let shown = format!("{error:?}");
    assert!(
        shown.starts_with(&format!("cannot connect to two.example:{port}: 127.0.0.2:{port}: ")),
        "{shown}"
    );
    assert!(shown.contains(&format!("; 127.0.0.3:{port}: ")), "{shown}");
}

/// On Linux, a local socket connects immediately, so the paused clock does not run ahead of it.
#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn connect_total_limits_resolver_connection_and_handshake_together() {
    use tokio::time::{Instant, sleep};
    // The kernel accepts the connection, but nothing answers.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut timeouts = Timeouts::default();
    timeouts.connect_total = Some(Duration::from_secs(9));
    for (resolving_secs, is_connected) in [(8, true), (600, false)] {
        let client = Client::builder()
            .timeouts(timeouts.clone())
            .resolver(move |_, _| async move {
                sleep(Duration::from_secs(resolving_secs)).await;
                Ok(vec![address])
            })
            .build()
            .unwrap();
        let start = Instant::now();
        let error = within(60, client.connect("ws://slow.example/")).await.unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 9, "{error:?}");
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(error.connect_error().is_none(), is_connected, "{error:?}");
        let names_setting = error.to_string().contains("Timeouts::connect_total");
        assert!(names_setting, "{error}");
    }
    // The other timeouts still apply.
    timeouts.connect_total = Some(Duration::MAX);
    let client = Client::builder().timeouts(timeouts).build().unwrap();
    let start = Instant::now();
    let error = within(60, client.connect(&format!("ws://{address}/")))
        .await
        .unwrap_err();
    assert!(error.is_timeout() && error.connect_error().is_none(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// On Linux, all of 127.0.0.0/8 is local.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connection_uses_the_local_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let (tcp, peer) = listener.accept().await.unwrap();
        sockeye::accept(tcp).await.unwrap();
        peer
    });
    let local = Ipv4Addr::new(127, 0, 0, 2);
    let client = Client::builder().local_address((local, 0)).build().unwrap();
    within(30, client.connect(&format!("ws://{address}/"))).await.unwrap();
    assert_eq!(accepting.await.unwrap().ip(), local);
    let elsewhere = Client::builder().local_address(([192, 0, 2, 1], 0)).build().unwrap();
    let error = elsewhere.connect(&format!("ws://{address}/")).await.unwrap_err();
    assert!(error.is_io(), "an address that is not this machine's: {error:?}");
}

/// An end without a close frame, by a reset.
#[tokio::test]
async fn reset_is_an_error() {
    let (address, echoing) = echo_once(Server::default(), Ipv4Addr::LOCALHOST.into()).await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let std = tcp.into_std().unwrap();
    let copy = TcpStream::from_std(std.try_clone().unwrap()).unwrap();
    let (mut ws, _) = Client::default()
        .request("ws://localhost/")
        .connect_over(TcpStream::from_std(std).unwrap())
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
    use std::sync::Arc;

    use common::tls::{certified, client, client_config, server, server_config};
    use rcgen::{CertifiedKey, KeyPair};
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    async fn tls_echo(certified: &CertifiedKey<KeyPair>) -> (SocketAddr, JoinHandle<Result<(), Error>>) {
        echo_once(server(certified), Ipv4Addr::LOCALHOST.into()).await
    }

    #[tokio::test]
    async fn client_and_server_communicate_over_tls() {
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
    async fn errors_name_wss_where_only_one_side_speaks_tls() {
        let certified = certified();
        let (address, accepting) = echo_once(Server::default(), Ipv4Addr::LOCALHOST.into()).await;
        let url = format!("wss://localhost:{}/", address.port());
        let error = within(30, client(&certified).connect(&url)).await.unwrap_err();
        assert!(
            error.is_tls() && error.to_string().contains("use ws instead of wss"),
            "{error}"
        );
        let error = within(30, accepting).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("wss instead of ws"), "{error}");
    }

    fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    /// A configuration for an HTTP client: it prefers `h2`, which the server would select.
    #[tokio::test]
    async fn client_offers_only_http_1_1() {
        let certified = certified();
        for offered in [&["h2", "http/1.1"][..], &["h2"], &[], &["http/1.1"]] {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let mut server_tls = server_config(&certified);
            server_tls.alpn_protocols = protocols(&["h2", "http/1.1"]);
            let accepting = tokio::spawn(async move {
                let tls = TlsAcceptor::from(Arc::new(server_tls)).accept(far).await.unwrap();
                let alpn = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                (sockeye::accept(tls).await, alpn)
            });
            let mut client_tls = client_config(&certified);
            client_tls.alpn_protocols = protocols(offered);
            let client = Client::builder().tls_config(Arc::new(client_tls)).build().unwrap();
            within(30, client.request("wss://localhost/").connect_over(near))
                .await
                .unwrap();
            let (accepted, alpn) = accepting.await.unwrap();
            accepted.unwrap();
            assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]), "{offered:?}");
        }
    }

    #[tokio::test]
    async fn server_accepts_only_http_1_1() {
        let certified = certified();
        for supported in [&["h2", "http/1.1"][..], &["h2"], &[]] {
            for (offered, is_accepted) in [(&["h2", "http/1.1"][..], true), (&["h2"], false), (&[], true)] {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let mut config = server_config(&certified);
                config.alpn_protocols = protocols(supported);
                let server = Server::builder().tls_config(Arc::new(config)).build();
                let accepting = tokio::spawn(async move { server.accept(far).await });
                let mut client_tls = client_config(&certified);
                client_tls.alpn_protocols = protocols(offered);
                let name = ServerName::try_from("localhost").unwrap();
                let connected = within(30, TlsConnector::from(Arc::new(client_tls)).connect(name, near)).await;
                assert_eq!(connected.is_ok(), is_accepted, "{supported:?} {offered:?}");
                if let Ok(mut tls) = connected {
                    tokio::io::AsyncWriteExt::write_all(&mut tls, common::REQUEST.as_bytes())
                        .await
                        .unwrap();
                    accepting.await.unwrap().unwrap();
                } else {
                    let error = accepting.await.unwrap().unwrap_err();
                    assert!(error.is_tls() && format!("{error:?}").contains("http/1.1"), "{error:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn http_2_only_server_is_explained() {
        let certified = certified();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut server_tls = server_config(&certified);
        server_tls.alpn_protocols = protocols(&["h2"]);
        tokio::spawn(async move { TlsAcceptor::from(Arc::new(server_tls)).accept(far).await.map(drop) });
        let error = within(30, client(&certified).request("wss://localhost/").connect_over(near))
            .await
            .unwrap_err();
        assert!(error.is_tls(), "{error:?}");
        assert!(format!("{error:?}").contains("does not speak HTTP/1.1"), "{error:?}");
    }

    /// The ALPN protocol of the caller's own TLS stream is checked too.
    #[tokio::test]
    async fn connect_over_tls_with_http_2_fails() {
        let certified = certified();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut server_tls, mut client_tls) = (server_config(&certified), client_config(&certified));
        server_tls.alpn_protocols = protocols(&["h2"]);
        client_tls.alpn_protocols = protocols(&["h2"]);
        let accepting = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = TlsAcceptor::from(Arc::new(server_tls)).accept(tcp).await.unwrap();
            sockeye::accept(tls).await
        });
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(client_tls))
            .connect(name, tcp)
            .await
            .unwrap();
        let connected = within(30, Client::default().request("ws://localhost/").connect_over(tls)).await;
        for error in [
            connected.map(drop).unwrap_err(),
            accepting.await.unwrap().map(drop).unwrap_err(),
        ] {
            assert!(
                error.is_tls() && format!("{error:?}").contains("protocol h2"),
                "{error:?}"
            );
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn socket_below_tls_disables_nagle() {
        use std::os::fd::AsFd;
        let certified = certified();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let copy_of = |tcp: &TcpStream| std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&certified)));
        let accepting = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let copy = copy_of(&tcp);
            let tls = acceptor.accept(tcp).await.unwrap();
            assert!(!copy.nodelay().unwrap());
            (sockeye::accept(tls).await.unwrap(), copy)
        });
        let tcp = TcpStream::connect(address).await.unwrap();
        let copy = copy_of(&tcp);
        let connector = TlsConnector::from(Arc::new(client_config(&certified)));
        let tls = connector
            .connect(ServerName::try_from("localhost").unwrap(), tcp)
            .await
            .unwrap();
        assert!(!copy.nodelay().unwrap());
        let client = Client::default();
        let _ws = within(30, client.request("ws://localhost/").connect_over(tls))
            .await
            .unwrap();
        assert!(copy.nodelay().unwrap());
        assert!(accepting.await.unwrap().1.nodelay().unwrap());
    }

    /// In a separate process, because the store is located through the environment, once per process.
    #[cfg(target_os = "linux")]
    #[test]
    fn missing_root_certificates_are_explained() {
        const NAME: &str = "tls::missing_root_certificates_are_explained";
        if std::env::var_os("SSL_CERT_FILE").is_none_or(|file| file != "/nonexistent") {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", NAME, "--nocapture"])
                .env("SSL_CERT_FILE", "/nonexistent")
                .env("SSL_CERT_DIR", "/nonexistent")
                .output()
                .unwrap();
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && stdout.contains("1 passed"), "{output:?}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (io, _peer) = tokio::io::duplex(1024);
        let client = Client::default();
        let error = runtime
            .block_on(client.request("wss://localhost/").connect_over(io))
            .unwrap_err();
        assert!(error.is_tls(), "{error:?}");
        let io_error = error.io_error().unwrap();
        assert!(
            io_error.get_ref().unwrap().is::<sockeye::NoRootCertificates>(),
            "{io_error:?}"
        );
        let shown = format!("{error:?}");
        for help in ["ca-certificates", "SSL_CERT_FILE", "SSL_CERT_DIR", "webpki_roots"] {
            assert!(shown.contains(help), "{shown}");
        }
    }

    #[tokio::test]
    async fn untrusted_certificate_is_an_error() {
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
    async fn wrong_host_name_in_certificate_is_an_error() {
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
    async fn server_without_tls_is_an_error() {
        let (address, _echoing) = echo_once(Server::default(), Ipv4Addr::LOCALHOST.into()).await;
        let error = client(&certified())
            .connect(&format!("wss://{address}/"))
            .await
            .unwrap_err();
        assert!(error.is_tls(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_tls_client_times_out_after_ten_seconds() {
        let (io, peer) = common::script::transport(true);
        let start = tokio::time::Instant::now();
        let error = within(60, server(&certified()).accept(io)).await.unwrap_err();
        assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_tls_server_times_out_after_ten_seconds() {
        let (io, peer) = common::script::transport(false);
        let start = tokio::time::Instant::now();
        let error = within(60, client(&certified()).request("wss://localhost/").connect_over(io))
            .await
            .unwrap_err();
        assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
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
            Err(rejection) => return Ok(rejection.into_response()),
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
                let (tcp, _) = listener.accept().await.map_err(Error::io)?;
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
    async fn hyper_serves_websocket_beside_other_requests() {
        let address = serve().await;
        let client = Client::builder().subprotocols(["chat"]).build().unwrap();
        within(30, speak(&client, &format!("ws://{address}/chat"))).await;
        let ws = client.connect(&format!("ws://{address}/chat")).await.unwrap();
        assert_eq!(ws.subprotocol(), Some("chat"));

        let error = client.connect(&format!("ws://{address}/")).await.unwrap_err();
        let rejection = error.response().unwrap();
        assert_eq!(
            (rejection.status().as_u16(), &rejection.body()[..]),
            (200, &b"plain"[..])
        );
    }

    #[tokio::test]
    async fn hyper_rejects_a_foreign_origin() {
        let address = serve().await;
        let request = common::REQUEST.replace("GET /", "GET /chat");
        let lines = "Origin: http://evil.example\r\nConnection: close\r\n\r\n";
        let request = request.strip_suffix("\r\n").unwrap().to_owned() + lines;
        let response = within(30, ask(address, &request)).await;
        assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    }

    #[tokio::test]
    async fn hyper_explains_an_invalid_request() {
        let address = serve().await;
        let request = "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = within(30, ask(address, request)).await;
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
    }

    #[tokio::test]
    async fn hyper_receives_frames_behind_the_request() {
        let address = serve().await;
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let mut bytes = common::REQUEST.replace("GET /", "GET /chat").into_bytes();
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
}

/// Reads 2 KiB five times a second until the close frame, with a small receive buffer.
#[cfg(target_os = "linux")]
fn read_slowly_until_close(address: SocketAddr) -> usize {
    use std::io::{Read as _, Write as _};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut tcp = std::net::TcpStream::from(socket);
    tcp.write_all(common::REQUEST.as_bytes()).unwrap();
    let (mut read, mut buffer) = (0, [0; 2048]);
    loop {
        let len = tcp.read(&mut buffer).unwrap();
        read += len;
        if len == 0 || buffer[..len].ends_with(&[0x88, 2, 0x03, 0xe8]) {
            return read;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// All of it fits into the kernels' buffers, so the server's own writes show no progress.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn slow_peer_stays_connected_while_kernels_buffer_everything() {
    let mut keepalive = sockeye::Keepalive::default();
    (keepalive.interval, keepalive.timeout) = (Duration::from_millis(500), Duration::from_secs(1));
    let server = Server::builder().keepalive(Some(keepalive)).build();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || read_slowly_until_close(address));
    let (tcp, _) = listener.accept().await.unwrap();
    let mut ws = server.accept(tcp).await.unwrap().accept().await.unwrap();
    const LEN: usize = 50_000;
    ws.send(vec![0; LEN]).await.unwrap();
    let sent_at = std::time::Instant::now();
    let watched = tokio::time::timeout(Duration::from_secs(4), ws.recv()).await;
    assert!(watched.is_err(), "after {:?}: {watched:?}", sent_at.elapsed());
    ws.start_close(sockeye::CloseCode::NORMAL, "").unwrap();
    let _ = ws.flush().await;
    assert!(tokio::task::spawn_blocking(|| peer.join().unwrap()).await.unwrap() > LEN);
}
