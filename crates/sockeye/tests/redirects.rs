//! Redirects and cookies.

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::{answer, within};
use sockeye::handshake::Uri;
use sockeye::http::HeaderValue;
use sockeye::{Client, CookieStore, Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that answers each connection with the next response, and records the requests. `101` is an acceptance;
/// `ORIGIN` is replaced by the address of the server.
struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(responses: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(vec![]));
        let recorder = requests.clone();
        let responses: Vec<_> = responses.into_iter().collect();
        tokio::spawn(async move {
            for response in responses {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(tcp.read_u8().await.unwrap());
                }
                let response = match response.strip_prefix("101") {
                    Some(headers) => answer(&head).replacen("\r\n", &format!("\r\n{headers}"), 1),
                    None => response,
                };
                recorder.lock().unwrap().push(String::from_utf8(head).unwrap());
                let _ = tcp.write_all(response.as_bytes()).await;
                // Until the client has closed or the test ends.
                while !matches!(tcp.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            }
        });
        Self { address, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn client(redirects: usize) -> Client {
    let builder = Client::builder()
        .header("Authorization", "Bearer t")
        .header("Cookie", "a=b");
    builder.header("X-Key", "k").redirects(redirects).build().unwrap()
}

#[tokio::test]
async fn redirects_within_the_origin_keep_all_headers() {
    for status in [301, 302, 303, 307, 308] {
        let server = Scripted::start([redirect(status, "../b/./c?d=e#fragment"), "101".into()]).await;
        let ws = within(30, client(1).connect(&server.url("/x/y"))).await;
        drop(ws.unwrap());
        let requests = server.requests();
        assert!(requests[0].starts_with("GET /x/y HTTP/1.1\r\n"));
        assert!(requests[1].starts_with("GET /b/c?d=e HTTP/1.1\r\n"), "{}", requests[1]);
        for request in &requests {
            for header in ["Authorization: Bearer t\r\n", "Cookie: a=b\r\n", "X-Key: k\r\n"] {
                assert!(request.contains(header), "{status} {request}");
            }
        }
        let key = |request: &String| {
            request
                .lines()
                .find(|line| line.starts_with("Sec-WebSocket-Key"))
                .map(str::to_owned)
        };
        assert_ne!(key(&requests[0]), key(&requests[1]));
    }
}

#[tokio::test]
async fn credentials_are_not_sent_to_another_origin_nor_back_from_it() {
    let last = Scripted::start(["101".into()]).await;
    let other = Scripted::start([redirect(302, "/again"), redirect(302, &last.url("/"))]).await;
    let first = Scripted::start([redirect(307, &other.url("/"))]).await;
    let url = first.url("/").replace("ws://", "ws://user:s3cret@");
    let client = Client::builder()
        .header("Cookie", "a=b")
        .header("Proxy-Authorization", "c")
        .header("X-Key", "k")
        .redirects(3);
    let ws = within(30, client.build().unwrap().connect(&url)).await;
    drop(ws.unwrap());
    let request = &first.requests()[0];
    for header in [
        "Authorization: Basic dXNlcjpzM2NyZXQ=\r\n",
        "Cookie: a=b\r\n",
        "Proxy-Authorization: c\r\n",
    ] {
        assert!(request.contains(header), "{request}");
    }
    for request in other.requests().iter().chain(&last.requests()) {
        for header in ["uthorization", "Cookie"] {
            assert!(!request.contains(header), "{request}");
        }
        assert!(request.contains("X-Key: k\r\n"));
    }
    assert!(last.requests()[0].contains(&format!("Host: {}\r\n", last.address)));
}

async fn error(redirects: usize, responses: impl IntoIterator<Item = String>) -> (Error, String) {
    let server = Scripted::start(responses).await;
    let error = within(30, client(redirects).connect(&server.url("/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.response().unwrap().status().is_redirection() && !error.is_retryable());
    let text = error.to_string().replace(&server.address.to_string(), "SERVER");
    (error, text)
}

#[tokio::test]
async fn redirects_that_are_not_followed_are_explained() {
    let again = || redirect(302, "/again");
    for (redirects, responses, text) in [
        (
            2,
            vec![again(), again(), again()],
            "the server answered with status 302 Found: it redirects to ws://SERVER/again after 2 redirects, the maximum \
             (ClientBuilder::redirects)",
        ),
        (
            9,
            vec!["HTTP/1.1 301 X\r\nContent-Length: 0\r\n\r\n".into()],
            "the server answered with status 301 Moved Permanently without a valid Location header",
        ),
        (
            9,
            vec!["HTTP/1.1 301 X\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n".into()],
            "the server answered with status 301 Moved Permanently without a valid Location header",
        ),
        (
            9,
            vec![redirect(302, "ftp://a.example/")],
            "the server answered with status 302 Found with an invalid Location header: ",
        ),
        (
            9,
            vec![redirect(302, "http:\\\\a.example\\")],
            "the server answered with status 302 Found with an invalid Location header: ",
        ),
        (
            0,
            vec![redirect(302, "ws://u:p@a.example/")],
            "the server answered with status 302 Found: it redirects to ws://a.example/, and redirects are not followed \
             (ClientBuilder::redirects)",
        ),
    ] {
        let (_, found) = error(redirects, responses).await;
        assert!(found.starts_with(text), "{found}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn wss_is_not_redirected_to_ws() {
    let certified = common::tls::certified();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(common::tls::server_config(&certified)));
    let plain = Scripted::start(["101".into()]).await;
    let to_plain = redirect(301, &plain.url("/").replace("ws://", "http://"));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let _ = tls.read(&mut [0; 4096]).await;
        tls.write_all(to_plain.as_bytes()).await.unwrap();
        let _ = tls.read(&mut [0; 1]).await;
    });
    let config = Arc::new(common::tls::client_config(&certified));
    let client = Client::builder().tls_config(config).redirects(5).build().unwrap();
    let error = within(30, client.connect(&format!("wss://localhost:{port}/")))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the server answered with status 301 Moved Permanently: it redirects from wss to ws://{}/, which is not \
             followed",
            plain.address
        )
    );
    assert!(plain.requests().is_empty());
}

/// Records what it gets, and returns the path as a cookie.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl CookieStore for Recorder {
    fn cookies(&self, uri: &Uri) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("at={}", uri.resource())).ok()
    }

    fn set_cookies(&self, uri: &Uri, set_cookie: &mut dyn Iterator<Item = &HeaderValue>) {
        let values = set_cookie.map(|value| value.to_str().unwrap());
        let values: Vec<_> = values.collect();
        self.0
            .lock()
            .unwrap()
            .push(format!("{}: {}", uri.resource(), values.join(" | ")));
    }
}

#[tokio::test]
async fn cookie_store_is_asked_for_each_request_and_told_of_each_response() {
    let set = redirect(302, "/b").replacen("\r\n", "\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", 1);
    let server = Scripted::start([
        set,
        "101Set-Cookie: c=3\r\n".into(),
        "HTTP/1.1 403 X\r\nSet-Cookie: d=4\r\nContent-Length: 0\r\n\r\n".into(),
    ]);
    let server = server.await;
    let store = Arc::new(Recorder::default());
    let client = Client::builder()
        .cookie_store(store.clone())
        .redirects(1)
        .build()
        .unwrap();
    drop(within(30, client.connect(&server.url("/a"))).await.unwrap());
    let own = client.request(server.url("/c")).header("Cookie", "mine=1").connect();
    assert!(within(30, own).await.is_err());
    let cookies: Vec<_> = server
        .requests()
        .iter()
        .map(|request| {
            request
                .lines()
                .filter(|line| line.starts_with("Cookie"))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    assert_eq!(cookies, ["Cookie: at=/a", "Cookie: at=/b", "Cookie: mine=1"]);
    assert_eq!(store.0.lock().unwrap()[..], ["/a: a=1 | b=2", "/b: c=3", "/c: d=4"]);
}

#[cfg(feature = "cookie_store")]
#[tokio::test]
async fn cookie_jar_follows_the_rules_for_domains_paths_and_secure() {
    use sockeye::CookieJar;
    let jar = CookieJar::default();
    let uri = |text: &str| Uri::parse(text).unwrap();
    let values = [
        "a=1; Path=/",
        "b=2; Path=/x",
        "c=3; Secure",
        "d=4; Domain=other.example",
        "e=5; Max-Age=0",
        "==",
    ]
    .map(HeaderValue::from_static);
    jar.set_cookies(&uri("wss://h.example/x/y"), &mut values.iter());
    for (url, expected) in [
        ("ws://h.example/", &["a=1"][..]),
        ("ws://h.example/x", &["a=1", "b=2"]),
        ("wss://h.example/x/z", &["a=1", "b=2", "c=3"]),
        ("wss://other.example/", &[]),
    ] {
        let found = jar.cookies(&uri(url));
        let mut found: Vec<_> = found
            .iter()
            .flat_map(|value| value.to_str().unwrap().split("; "))
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{url}");
    }
    assert!(!format!("{jar:?}").contains('1'));
}

#[cfg(all(unix, feature = "blocking"))]
#[tokio::test]
async fn blocking_client_follows_redirects_and_stores_cookies() {
    let second = Scripted::start(["101Set-Cookie: seen=2\r\n".into()]).await;
    let elsewhere = redirect(307, &second.url("/there")).replacen("\r\n", "\r\nSet-Cookie: seen=1\r\n", 1);
    let first = Scripted::start([elsewhere, redirect(302, "/again")]).await;
    let cookies = Arc::new(Recorded::default());
    let builder = Client::builder().header("Authorization", "Bearer t").redirects(1);
    let client = builder.cookie_store(cookies.clone()).build().unwrap();
    let request = client.request(first.url("/here"));
    let opened = within(30, tokio::task::spawn_blocking(move || request.connect_blocking())).await;
    drop(opened.unwrap().unwrap());
    assert!(first.requests()[0].contains("Authorization: Bearer t\r\n"));
    let redirected = &second.requests()[0];
    assert!(redirected.starts_with("GET /there HTTP/1.1\r\n"), "{redirected}");
    assert!(!redirected.contains("Authorization"), "another origin: {redirected}");
    assert_eq!(*cookies.0.lock().unwrap(), ["seen=1", "seen=2"]);

    // None is followed by default; the error has the response.
    let request = client.request(first.url("/here")).redirects(0);
    let opened = within(30, tokio::task::spawn_blocking(move || request.connect_blocking())).await;
    let error = opened.unwrap().unwrap_err();
    assert_eq!(error.response().unwrap().status(), 302);
}

/// A cookie store that only records.
#[cfg(all(unix, feature = "blocking"))]
#[derive(Debug, Default)]
struct Recorded(Mutex<Vec<String>>);

#[cfg(all(unix, feature = "blocking"))]
impl CookieStore for Recorded {
    fn cookies(&self, _: &Uri) -> Option<HeaderValue> {
        None
    }

    fn set_cookies(&self, _: &Uri, set_cookie: &mut dyn Iterator<Item = &HeaderValue>) {
        let texts = set_cookie.map(|value| value.to_str().unwrap().to_owned());
        self.0.lock().unwrap().extend(texts);
    }
}
