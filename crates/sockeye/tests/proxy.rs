//! Clients behind HTTP and SOCKS5 proxies. The proxies are scripted here; `tests/` runs real ones.

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{text_of, within};
use sockeye::{Client, ClientBuilder, Error, ErrorKind, Limits, Proxy, Server, Timeouts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// An echo server. Returns its address.
async fn echo(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut ws = server.accept(tcp).await.unwrap().accept().await.unwrap();
                while let Ok(Some(message)) = ws.recv().await {
                    ws.send(message).await.unwrap();
                }
            });
        }
    });
    address
}

/// What a proxy received before the tunnel.
type Heard = Arc<Mutex<Vec<u8>>>;

#[track_caller]
fn heard_text(heard: &Heard) -> String {
    String::from_utf8(heard.lock().unwrap().clone()).unwrap()
}

/// An HTTP proxy that connects every CONNECT to `target`, whatever it asks for.
async fn tunnel_http<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, target: SocketAddr, heard: Heard) {
    while !heard.lock().unwrap().ends_with(b"\r\n\r\n") {
        let byte = io.read_u8().await.unwrap();
        heard.lock().unwrap().push(byte);
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .unwrap();
    let _ = copy_bidirectional(&mut io, &mut server).await;
}

async fn http_proxy(target: SocketAddr) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let recorder = heard.clone();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tunnel_http(tcp, target, recorder).await;
    });
    (address, heard)
}

/// A SOCKS5 proxy that connects every request to `target`. Accepts user `u` with password `p`, or if `is_open` anyone.
async fn socks_proxy(target: SocketAddr, is_open: bool) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let recorder = heard.clone();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let [version, len] = read(&mut tcp).await;
        let mut methods = vec![0; len.into()];
        tcp.read_exact(&mut methods).await.unwrap();
        assert_eq!(version, 5);
        if is_open {
            tcp.write_all(&[5, 0]).await.unwrap();
        } else {
            assert!(methods.contains(&2));
            tcp.write_all(&[5, 2]).await.unwrap();
            assert_eq!(read(&mut tcp).await, [1, 1, b'u', 1, b'p']);
            tcp.write_all(&[1, 0]).await.unwrap();
        }
        let [5, 1, 0, kind] = read(&mut tcp).await else {
            panic!("no CONNECT")
        };
        let address_len = match kind {
            1 => 4,
            4 => 16,
            _ => read::<1>(&mut tcp).await[0].into(),
        };
        let mut asked = vec![0; address_len + 2];
        tcp.read_exact(&mut asked).await.unwrap();
        recorder.lock().unwrap().extend([&[kind], &asked[..]].concat());
        let mut server = TcpStream::connect(target).await.unwrap();
        // A domain name as the bound address, of which nothing may be taken for data of the server.
        tcp.write_all(b"\x05\0\0\x03\x04name\0\x01").await.unwrap();
        let _ = copy_bidirectional(&mut tcp, &mut server).await;
    });
    (address, heard)
}

async fn read<const LEN: usize>(io: &mut (impl AsyncRead + Unpin)) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    io.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[track_caller]
fn client(builder: ClientBuilder) -> Client {
    builder.build().unwrap()
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Async,
    #[cfg(all(unix, feature = "blocking"))]
    Blocking,
}

const APIS: &[Api] = &[
    Api::Async,
    #[cfg(all(unix, feature = "blocking"))]
    Api::Blocking,
];

/// Opens a WebSocket and echoes a message.
async fn check_echo(api: Api, client: &Client, url: &str) {
    within(30, echo_once(api, client, url)).await.unwrap();
}

async fn echo_once(api: Api, client: &Client, url: &str) -> Result<(), Error> {
    const TEXT: &str = "through the proxy";
    match api {
        Api::Async => {
            let mut ws = client.connect(url).await?;
            ws.send(TEXT).await?;
            assert_eq!(text_of(ws.recv().await), TEXT);
            Ok(())
        }
        #[cfg(all(unix, feature = "blocking"))]
        Api::Blocking => {
            let request = client.request(url);
            let echoing = tokio::task::spawn_blocking(move || {
                let mut ws = request.connect_blocking()?;
                ws.send(TEXT)?;
                assert_eq!(text_of(ws.recv()), TEXT);
                // In two threads, as well.
                let (sender, mut receiver) = ws.split();
                let receiving = std::thread::spawn(move || receiver.recv());
                sender.send(TEXT)?;
                assert_eq!(text_of(receiving.join().unwrap()), TEXT);
                Ok(())
            });
            echoing.await.unwrap()
        }
    }
}

#[tokio::test]
async fn ws_uses_connect_with_credentials() {
    // checks [6455-4.1-7]
    for api in APIS {
        let (proxy, heard) = http_proxy(echo(Server::default()).await).await;
        let client = client(Client::builder().proxy(format!("http://bob:sec%40ret@{proxy}")));
        // The name is not resolved by the client.
        check_echo(*api, &client, "ws://server.invalid:8080/path?query").await;
        assert_eq!(
            heard_text(&heard),
            "CONNECT server.invalid:8080 HTTP/1.1\r\nHost: server.invalid:8080\r\n\
             Proxy-Authorization: Basic Ym9iOnNlY0ByZXQ=\r\n\r\n"
        );
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn wss_is_encrypted_from_end_to_end() {
    let certified = common::tls::certified();
    let target = echo(common::tls::server(&certified)).await;
    for api in APIS {
        let (proxy, heard) = http_proxy(target).await;
        let config = Arc::new(common::tls::client_config(&certified));
        let client = client(Client::builder().tls_config(config).proxy(format!("{proxy}")));
        check_echo(*api, &client, "wss://localhost/").await;
        assert_eq!(
            heard_text(&heard),
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"
        );
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn proxy_may_use_tls_itself() {
    let certified = common::tls::certified();
    let secure = echo(common::tls::server(&certified)).await;
    let plain = echo(Server::default()).await;
    let config = Arc::new(common::tls::client_config(&certified));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(common::tls::server_config(&certified)));
    for api in APIS {
        for (scheme, target) in [("ws", plain), ("wss", secure)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let heard = Heard::default();
            let (recorder, acceptor) = (heard.clone(), acceptor.clone());
            tokio::spawn(async move {
                let (tcp, _) = listener.accept().await.unwrap();
                tunnel_http(acceptor.accept(tcp).await.unwrap(), target, recorder).await;
            });
            let builder = Client::builder().tls_config(config.clone());
            let client = client(builder.proxy(format!("https://localhost:{}", address.port())));
            check_echo(*api, &client, &format!("{scheme}://localhost:9443/")).await;
            assert!(heard_text(&heard).starts_with("CONNECT localhost:9443 HTTP/1.1\r\n"));
        }
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn proxy_that_does_not_speak_tls_is_an_error() {
    for api in APIS {
        let (proxy, _heard) = http_proxy(echo(Server::default()).await).await;
        let config = Arc::new(common::tls::client_config(&common::tls::certified()));
        let timeouts = Timeouts::default().connect(Duration::from_millis(300));
        let builder = Client::builder().tls_config(config).timeouts(timeouts);
        let client = client(builder.proxy(format!("https://localhost:{}", proxy.port())));
        let error = within(30, echo_once(*api, &client, "ws://server.invalid/")).await;
        // The proxy waits for more of what it takes for a request.
        let error = error.unwrap_err();
        assert!(error.is_timeout(), "{api:?} {error}");
        assert!(error.proxy_error().is_some(), "{api:?} {error}");
    }
}

#[tokio::test]
async fn socks5h_sends_the_name_and_socks5_an_address() {
    let target = echo(Server::default()).await;
    let resolve = async |host: String, port| {
        assert_eq!(host, "server.invalid");
        io::Result::Ok(vec![SocketAddr::from(([192, 0, 2, 7], port))])
    };
    for (scheme, url, is_open, asked) in [
        (
            "socks5h",
            "ws://server.invalid:80/",
            true,
            &b"\x03server.invalid\0\x50"[..],
        ),
        (
            "socks5h",
            "ws://server.invalid:258/",
            false,
            b"\x03server.invalid\x01\x02",
        ),
        (
            "socks5",
            "ws://server.invalid:258/",
            false,
            b"\x01\xc0\0\x02\x07\x01\x02",
        ),
        ("socks5h", "ws://192.0.2.8:258/", true, b"\x01\xc0\0\x02\x08\x01\x02"),
        (
            "socks5",
            "ws://[::2]:258/",
            true,
            b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x01\x02",
        ),
    ] {
        for api in APIS {
            let (proxy, heard) = socks_proxy(target, is_open).await;
            let mut builder = Client::builder().proxy(format!("{scheme}://u:p@{proxy}"));
            if *api == Api::Async {
                builder = builder.resolver(resolve);
            } else if scheme == "socks5" && url.contains("server.invalid") {
                // A thread cannot call the resolver.
                continue;
            }
            check_echo(*api, &client(builder), url).await;
            assert_eq!(&heard.lock().unwrap()[..], asked, "{scheme} {url}");
        }
    }
}

#[tokio::test]
async fn socks5_sends_an_address_of_the_systems_resolver() {
    let target = echo(Server::default()).await;
    for api in APIS {
        let (proxy, heard) = socks_proxy(target, true).await;
        let client = client(Client::builder().proxy(format!("socks5://{proxy}")));
        check_echo(*api, &client, "ws://localhost:258/").await;
        let asked = heard.lock().unwrap().clone();
        let (v4, v6) = (
            b"\x01\x7f\0\0\x01\x01\x02",
            b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02",
        );
        assert!(asked == v4 || asked == v6, "{asked:?}");
    }
}

/// The error with a proxy that sends `answer` after each read, and then closes unless it `stays`.
async fn error(api: Api, url: &str, answers: &[&[u8]], stays: bool) -> (Error, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = url.replace("PROXY", &address.to_string());
    let timeouts = Timeouts::default().connect(Duration::from_millis(300));
    let limits = Limits::default().head_size_max(1024);
    let client = client(Client::builder().timeouts(timeouts).limits(limits).proxy(url));
    let proxy = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        for answer in answers {
            let _ = tcp.read(&mut buffer).await.unwrap();
            let _ = tcp.write_all(answer).await;
        }
        if !stays {
            let _ = tcp.shutdown().await;
        }
        // Until the client has closed.
        while !matches!(tcp.read(&mut buffer).await, Ok(0) | Err(_)) {}
    };
    let connecting = echo_once(api, &client, "ws://server.invalid:8080/");
    let (opened, ()) = within(30, async { tokio::join!(connecting, proxy) }).await;
    let error = opened.unwrap_err();
    assert!(!format!("{error} {error:?} {client:?}").contains("s3cret"), "{error:?}");
    let text = error.to_string().replace(&address.to_string(), "PROXY");
    (error, text)
}

#[tokio::test]
async fn http_proxy_that_refuses_is_named_with_its_status() {
    let http = "http://PROXY";
    for (url, response, text, is_retryable) in [
        (
            http,
            &b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 4\r\n\r\nbody"[..],
            "proxy http://PROXY refused CONNECT server.invalid:8080 with status 403 Forbidden",
            false,
        ),
        (
            http,
            b"HTTP/1.0 503 No\r\n\r\n",
            "proxy http://PROXY refused CONNECT server.invalid:8080 with status 503 Service Unavailable",
            true,
        ),
        (
            http,
            b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\r\n",
            "proxy http://PROXY refused CONNECT server.invalid:8080 with status 407 Proxy Authentication Required: it \
             requires a user name and password, in its URL: http://user:password@host",
            false,
        ),
        // As tinyproxy does.
        (
            "http://bob:s3cret@PROXY",
            b"HTTP/1.1 401 Unauthorized\r\n\r\n",
            "proxy http://PROXY refused CONNECT server.invalid:8080 with status 401 Unauthorized: it did not accept the user \
             name and password",
            false,
        ),
        (
            "http://bob:s3cret@PROXY",
            b"HTTP/1.1 407 Auth\r\n\r\n",
            "proxy http://PROXY refused CONNECT server.invalid:8080 with status 407 Proxy Authentication Required: it \
             did not accept the user name and password",
            false,
        ),
    ] {
        for api in APIS {
            let (error, found) = error(*api, url, &[response], true).await;
            assert_eq!(found, text);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (ErrorKind::Proxy, is_retryable),
                "{text}"
            );
            let proxy = error.proxy_error().unwrap();
            assert_eq!(proxy.target(), "server.invalid:8080");
            let status = proxy.response().unwrap().status();
            assert_eq!(proxy.is_authentication(), status == 401 || status == 407);
        }
    }
}

#[tokio::test]
async fn http_proxy_that_misbehaves_is_an_error() {
    let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &b"x".repeat(100_000)].concat();
    for (response, stays, text) in [
        (
            &b""[..],
            false,
            "proxy http://PROXY closed the connection before it answered for server.invalid:8080",
        ),
        (
            b"HTTP/1.1 2",
            false,
            "proxy http://PROXY closed the connection before it answered for server.invalid:8080",
        ),
        (
            b"SSH-2.0-OpenSSH\r\n",
            true,
            "proxy http://PROXY answered CONNECT server.invalid:8080 with invalid HTTP: invalid status line",
        ),
        (
            &endless,
            true,
            "proxy http://PROXY answered CONNECT server.invalid:8080 with invalid HTTP: head is larger than 1024 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n",
            true,
            "proxy http://PROXY sent unexpected data after opening the tunnel to server.invalid:8080",
        ),
        (
            b"HTTP/1.1 200 OK\r\n",
            true,
            "proxy http://PROXY did not answer for server.invalid:8080 within 300ms; the limit is Timeouts::connect",
        ),
    ] {
        for api in APIS {
            let (error, found) = error(*api, "http://PROXY", &[response], stays).await;
            assert_eq!(found, text);
            assert_eq!(error.is_timeout(), text.contains("300ms"));
        }
    }
}

#[tokio::test]
async fn socks_proxy_that_refuses_is_named_with_its_reply() {
    let anonymous = "socks5h://PROXY";
    let user = "socks5h://u:s3cret@PROXY";
    for (url, answers, text, is_retryable, is_authentication) in [
        (
            anonymous,
            &[&b"\x05\xff"[..]][..],
            "proxy socks5h://PROXY does not accept clients without authentication; give it a user name and password, in \
             its URL: socks5h://user:password@host",
            false,
            true,
        ),
        (
            user,
            &[b"\x05\x02", b"\x01\x01"],
            "proxy socks5h://PROXY did not accept the user name and password",
            false,
            true,
        ),
        // A method that was not offered.
        (
            user,
            &[b"\x05\x01"],
            "proxy socks5h://PROXY supports neither authentication by user name and password nor anonymous access",
            false,
            true,
        ),
        (
            anonymous,
            &[b"\x05\0", b"\x05\x05\0\x01\0\0\0\0\0\0"],
            "proxy socks5h://PROXY refused server.invalid:8080 with SOCKS reply 5: connection refused",
            true,
            false,
        ),
        (
            anonymous,
            &[b"\x05\0", b"\x05\x02\0\x01\0\0\0\0\0\0"],
            "proxy socks5h://PROXY refused server.invalid:8080 with SOCKS reply 2: not allowed by its rules",
            false,
            false,
        ),
        (
            anonymous,
            &[b"HTTP/1.1 400 Bad Request\r\n"],
            "proxy socks5h://PROXY answered with SOCKS version 72: it is no SOCKS5 proxy",
            false,
            false,
        ),
        (
            anonymous,
            &[b"\x05\0", b"\x05\0\0\x09"],
            "proxy socks5h://PROXY answered for server.invalid:8080 with the unknown SOCKS address type 9",
            false,
            false,
        ),
        (
            anonymous,
            &[b"\x05\0", b"\x05\0\0\x03\xff"],
            "proxy socks5h://PROXY did not answer for server.invalid:8080 within 300ms; the limit is Timeouts::connect",
            true,
            false,
        ),
    ] {
        for api in APIS {
            let (error, found) = error(*api, url, answers, true).await;
            assert_eq!(found, text);
            assert_eq!(error.is_retryable(), is_retryable, "{text}");
            assert_eq!(
                error.proxy_error().unwrap().is_authentication(),
                is_authentication,
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn proxy_that_does_not_listen_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(Client::builder().proxy(format!("socks5://{address}")));
    for api in APIS {
        let connecting = echo_once(*api, &client, "ws://server.invalid/");
        let error = within(30, connecting).await.unwrap_err();
        let text = error.to_string();
        let expected = format!("proxy socks5://{address}: cannot connect to {address}: ");
        assert!(text.starts_with(&expected), "{text}");
        assert!(error.is_io() && error.is_retryable() && error.is_closed());
        assert_eq!(error.kind(), ErrorKind::Proxy);
        assert_eq!(error.connect_error().unwrap().attempts().count(), 1);
    }
}

#[tokio::test]
async fn bypassed_hosts_and_single_requests_connect_directly() {
    let target = echo(Server::default()).await;
    let unused = "http://127.0.0.1:1";
    let bypassing = Proxy::parse(unused).unwrap().bypass("127.0.0.0/8");
    for api in APIS {
        let client = client(Client::builder().proxy(bypassing.clone()));
        check_echo(*api, &client, &format!("ws://{target}/")).await;
    }
    let proxied = client(Client::builder().proxy(unused));
    let request = proxied.request(format!("ws://{target}/"));
    assert!(within(30, request.clone().connect()).await.is_err());
    assert!(within(30, request.clone().no_proxy().connect()).await.is_ok());
    let (proxy, heard) = http_proxy(target).await;
    assert!(
        within(30, request.proxy(format!("http://{proxy}")).connect())
            .await
            .is_ok()
    );
    assert!(heard_text(&heard).starts_with(&format!("CONNECT {target} ")));
}

#[tokio::test]
async fn invalid_proxy_is_reported_without_its_password() {
    let error = Client::builder().proxy("socks4://u:s3cret@p").build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid input: the URL of the proxy has an unsupported scheme; use http, https, socks5 or socks5h"
    );
    let error = Client::new()
        .request("ws://h/")
        .proxy("http://u:s3cret@")
        .await
        .unwrap_err();
    assert!(
        error.is_invalid_input() && !error.to_string().contains("s3cret"),
        "{error}"
    );
    // A zone has no meaning for the proxy.
    let client = client(Client::builder().proxy("http://127.0.0.1:1"));
    for api in APIS {
        let error = echo_once(*api, &client, "ws://[fe80::1%eth0]/").await.unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
    }
}
