//! The opening handshake: clients against scripted servers, and servers against scripted clients.

mod common;

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use common::script::transport;
use common::wire::text;
use common::{Peer, REQUEST, answer, open_request, poll_once, text_of, within};
use sockeye::handshake::HandshakeError;
use sockeye::http::{HeaderMap, HeaderValue, Response, StatusCode};
use sockeye::{
    Acceptance, Client, CloseCode, Error, ErrorKind, HostPolicy, Incoming, Origin, OriginPolicy, Server, Timeouts,
    WebSocket,
};
use tokio::time::Instant;

/// The error of a client that gets this response and then the end of the connection.
async fn client_error(response: impl AsRef<[u8]>) -> Error {
    let (io, peer) = transport(false);
    peer.send_bytes(response);
    peer.end();
    let client = Client::default();
    let error = within(60, client.request("ws://localhost/").connect_over(io))
        .await
        .unwrap_err();
    assert!(peer.is_transport_closed());
    error
}

/// The server's result for a request, and the peer.
async fn server_result(server: &Server, request: impl AsRef<[u8]>) -> (Result<Incoming, Error>, Peer) {
    let (io, peer) = transport(true);
    peer.send_bytes(request);
    (within(60, server.accept(io)).await, peer)
}

/// The minimal request with these additional header lines.
fn request_with(lines: &str) -> String {
    format!("{}{lines}\r\n", REQUEST.strip_suffix("\r\n").unwrap())
}

#[track_caller]
fn response(peer: &Peer) -> String {
    String::from_utf8(peer.take_bytes()).unwrap()
}

#[track_caller]
fn handshake_error(error: &Error) -> &HandshakeError {
    error.handshake_error().expect("a handshake error")
}

#[tokio::test(start_paused = true)]
async fn client_gets_status_headers_and_body_of_a_rejection() {
    let error =
        client_error("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 8\r\n\r\nno token")
            .await;
    let rejection = error.response().unwrap();
    assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
    let challenge = rejection.headers().get("www-authenticate").unwrap();
    assert_eq!(challenge.as_bytes(), b"Bearer");
    assert_eq!(rejection.body()[..], b"no token"[..]);
    assert_eq!(error.to_string(), "the server answered with status 401 Unauthorized");
    assert!(!error.is_protocol() && !error.is_closed() && !error.is_timeout());
}

#[tokio::test(start_paused = true)]
async fn client_does_not_follow_redirects() {
    let error = client_error("HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n").await;
    let location = error.response().unwrap().headers().get("location").unwrap();
    assert_eq!(location.as_bytes(), b"ws://elsewhere/");
    assert_eq!(
        error.to_string(),
        "the server answered with status 302 Found: it redirects to ws://elsewhere/, and redirects are not followed \
         (ClientBuilder::redirects)"
    );
    let error = client_error("HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(
        error.to_string(),
        "the server answered with status 301 Moved Permanently without a valid Location header"
    );
    // 304 is no redirect.
    let error = client_error("HTTP/1.1 304 Not Modified\r\n\r\n").await;
    assert_eq!(error.to_string(), "the server answered with status 304 Not Modified");
}

#[tokio::test(start_paused = true)]
async fn client_truncates_the_body_of_a_rejection() {
    let body = "b".repeat(100_000);
    let error = client_error(format!("HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n{body}")).await;
    assert_eq!(error.response().unwrap().body().len(), 16 * 1024);
}

/// Regression: a 401 without a length on a connection that stays open was reported only after ten seconds.
#[tokio::test(start_paused = true)]
async fn client_reports_rejection_on_open_connection_within_a_second() {
    for (response, body, is_truncated) in [
        ("HTTP/1.1 401 Unauthorized\r\nConnection: keep-alive\r\n\r\n", "", true),
        ("HTTP/1.1 401 Unauthorized\r\n\r\nno tok", "no tok", true),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno", "no", true),
        (
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno",
            "no",
            true,
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "no", false),
        ("HTTP/1.1 204 No\r\n\r\n", "", false),
    ] {
        let (io, peer) = transport(false);
        peer.send_bytes(response);
        let start = Instant::now();
        let client = Client::default();
        let error = within(60, client.request("ws://localhost/").connect_over(io))
            .await
            .unwrap_err();
        let rejection = error.response().unwrap();
        assert_eq!(rejection.body(), body.as_bytes(), "{response}");
        assert_eq!(error.is_response_truncated(), is_truncated, "{response}");
        assert_eq!(start.elapsed().as_secs(), u64::from(is_truncated), "{response}");
        assert!(peer.is_transport_closed());
    }
}

/// The second for the body ends at the handshake timeout.
#[tokio::test(start_paused = true)]
async fn rejection_body_does_not_extend_the_handshake_timeout() {
    let (io, peer) = transport(false);
    let start = Instant::now();
    let client = Client::default();
    let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    tokio::time::advance(Duration::from_millis(9_500)).await;
    peer.send_bytes("HTTP/1.1 401 Unauthorized\r\n\r\n");
    let error = within(60, connecting).await.unwrap_err();
    assert!(error.response().is_some());
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn client_reports_partial_rejection_at_connect_total() {
    let (io, peer) = transport(false);
    peer.send_bytes("HTTP/1.1 401 Unauthorized\r\n\r\nno tok");
    let mut timeouts = Timeouts::default();
    timeouts.connect_total = Some(Duration::from_millis(300));
    let client = Client::builder().timeouts(timeouts).build().unwrap();
    let start = Instant::now();
    let error = within(60, client.request("ws://localhost/").connect_over(io))
        .await
        .unwrap_err();
    assert_eq!(error.response().unwrap().body()[..], b"no tok"[..]);
    assert_eq!(start.elapsed().as_millis(), 300);
}

/// The request that a client sends for this URL.
async fn request_of(client: &Client, url: &str) -> String {
    let (io, peer) = transport(false);
    let mut connecting = pin!(client.request(url).connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending(), "{url}");
    response(&peer)
}

#[tokio::test(start_paused = true)]
async fn client_sends_url_credentials_as_basic_authorization() {
    let plain = Client::default();
    let request = request_of(&plain, "http://Aladdin:open%20sesame@localhost/").await;
    assert!(
        request.starts_with("GET / HTTP/1.1\r\nHost: localhost\r\n"),
        "{request}"
    );
    let authorization = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    assert_eq!(request.matches("Authorization").count(), 1);
    assert!(request.contains(authorization), "{request}");
    assert!(!request_of(&plain, "ws://localhost/").await.contains("Authorization"));

    let own = Client::builder()
        .header("authorization", "Bearer s3cret")
        .build()
        .unwrap();
    let request = request_of(&own, "ws://Aladdin:sesame@localhost/").await;
    assert!(request.contains("Authorization: Bearer s3cret\r\n"), "{request}");
    assert!(!request.contains("Basic"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn client_never_displays_credentials() {
    let builder = Client::builder()
        .header("Authorization", "Bearer s3cret")
        .header("X-Api-Key", "s3cret");
    // As text, and as the decimal values of its bytes.
    let is_shown = |text: &str| {
        ["s3cret", "hunter2", "115, 51", "104, 117"]
            .iter()
            .any(|it| text.contains(it))
    };
    assert!(!is_shown(&format!("{builder:?}")), "{builder:?}");
    let client = builder.build().unwrap();
    assert!(!is_shown(&format!("{client:?} {client:#?}")), "{client:?}");
    for (url, response) in [
        ("ws://alice:hunter2@localhost/", "HTTP/1.1 401 Unauthorized\r\n\r\n"),
        (
            "ws://alice:hunter2@localhost/",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ),
        ("ws://alice:hunter2@localhost/", ""),
        ("ws://alice:hunter2@localhost:x/", ""),
        ("ws://alice:hunter2@localhost/#x", ""),
        ("alice:hunter2@localhost", ""),
    ] {
        let (io, peer) = transport(false);
        peer.send_bytes(response);
        peer.end();
        let error = within(60, client.request(url).connect_over(io)).await.unwrap_err();
        let mut shown = format!("{error} {error:?} {error:#?}");
        let mut cause = error.source();
        while let Some(error) = cause {
            shown += &format!(" {error} {error:?}");
            cause = error.source();
        }
        assert!(!is_shown(&shown) && !shown.contains("alice"), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_encodes_a_url_as_browsers_do() {
    for (url, target, host) in [
        (
            "ws://localhost/?filter={\"x\":1}",
            "/?filter=%7B%22x%22:1%7D",
            "localhost",
        ),
        ("http://localhost:8080/a b?s=a|b", "/a%20b?s=a%7Cb", "localhost:8080"),
        ("ws://localhost/\u{fc}?100%", "/%C3%BC?100%25", "localhost"),
        ("ws://b\u{fc}cher.example/", "/", "xn--bcher-kva.example"),
        ("ws://[fe80::1%25eth0]:81/", "/", "[fe80::1]:81"),
    ] {
        let request = request_of(&Client::default(), url).await;
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
        assert!(request.starts_with(&head), "{url}: {request}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_ignores_body_headers_of_a_101() {
    for line in [
        "Transfer-Encoding: chunked",
        "Content-Length: 3",
        "Sec-WebSocket-Protocol: ",
    ] {
        let (io, peer) = transport(false);
        let client = Client::default();
        let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        let response = answer(&peer.take_bytes()).replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        peer.send_bytes([response.as_bytes(), &text("hello").bytes(false)].concat());
        let (mut ws, _) = connecting.await.unwrap();
        assert_eq!(text_of(ws.recv().await), "hello");
    }
}

#[tokio::test(start_paused = true)]
async fn client_rejects_a_wrong_accept_key() {
    let mut other = answer(REQUEST.as_bytes());
    assert_eq!(
        *handshake_error(&client_error(&other).await),
        HandshakeError::AcceptMismatch
    );
    other = other.replace("Upgrade: websocket\r\n", "");
    assert!(client_error(&other).await.is_protocol());
    let left = client_error("").await;
    assert!(left.is_closed() && !left.is_protocol());
    assert_eq!(*handshake_error(&left), HandshakeError::ClosedEarly);
    assert!(client_error("SSH-2.0-OpenSSH_9.6\r\n\r\n").await.is_protocol());
}

#[tokio::test(start_paused = true)]
async fn client_times_out_after_ten_seconds_without_response() {
    let (io, peer) = transport(false);
    let start = Instant::now();
    let client = Client::default();
    let dribbling = async {
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n".iter().cycle() {
            peer.send_bytes([*byte]);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let error = tokio::select! {
        connected = client.request("ws://localhost/").connect_over(io) => connected.unwrap_err(),
        () = dribbling => unreachable!(),
    };
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn client_times_out_when_its_request_is_not_read() {
    let (io, peer) = transport(false);
    peer.change_rules(|rules| rules.room = 10);
    let start = Instant::now();
    let client = Client::default();
    let error = within(60, client.request("ws://localhost/").connect_over(io))
        .await
        .unwrap_err();
    assert!(error.is_timeout() && peer.is_transport_closed(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn client_receives_frames_behind_the_response_for_every_split() {
    for read_max in [usize::MAX, 1, 7] {
        let (io, peer) = transport(false);
        peer.change_rules(|rules| rules.read_max = read_max);
        let client = Client::default();
        let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        let response = answer(&peer.take_bytes());
        peer.send_bytes(
            [
                response.as_bytes(),
                &text("hello").bytes(false),
                &text("again").bytes(false),
            ]
            .concat(),
        );
        let (mut ws, _) = connecting.await.unwrap();
        assert_eq!(text_of(ws.recv().await), "hello");
        assert_eq!(text_of(ws.recv().await), "again");
    }
}

#[tokio::test(start_paused = true)]
async fn client_flushes_its_request() {
    let (io, peer) = transport(false);
    peer.change_rules(|rules| rules.buffers = true);
    let client = Client::default();
    let mut connecting = pin!(client.request("ws://localhost/").connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    peer.send_bytes(answer(&peer.take_bytes()));
    let (mut ws, _) = connecting.await.unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(peer.take_frames(), [text("hello")]);
}

#[tokio::test(start_paused = true)]
async fn client_sends_the_settings_of_its_builder() {
    let (io, peer) = transport(false);
    let client = Client::builder()
        .header("Authorization", "Bearer x")
        .subprotocols(["chat", "superchat"])
        .origin("https://example.com")
        .build()
        .unwrap();
    let mut connecting = pin!(client.request("ws://example.com:8080/chat?room=1").connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    let request = response(&peer);
    assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: example.com:8080\r\n"));
    for line in [
        "Authorization: Bearer x\r\n",
        "Sec-WebSocket-Protocol: chat, superchat\r\n",
        "Origin: https://example.com\r\n",
    ] {
        assert!(request.contains(line), "{request}");
    }
    let response =
        answer(request.as_bytes()).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: superchat\r\nX-Id: 7\r\n\r\n");
    peer.send_bytes(response);
    let (ws, response) = connecting.await.unwrap();
    assert_eq!(ws.subprotocol(), Some("superchat"));
    assert_eq!(response.headers().get("x-id").unwrap().as_bytes(), b"7");
}

#[test]
fn client_builder_reports_invalid_parts() {
    // checks [6455-4.1-26, 6455-4.1-27]
    let builder = Client::builder;
    for builder in [
        builder().header("X-Name", "value\r\nX-Injected: 1"),
        builder().header("X-Name", "nul\0"),
        builder().header("X Name", "value"),
        builder().header("X-Name:", "value"),
        builder().header("", "value"),
        builder().header("Host", "elsewhere"),
        builder().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        builder().subprotocols(["two words"]),
        builder().subprotocols([""]),
        builder().subprotocols(["same", "same"]),
        builder().origin("example.com/path"),
        // The first of several errors is reported.
        builder().header("X Name", "value").header("X-Name", "value"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().len() > "invalid input: ".len(), "{error}");
    }
    let error = builder().header("X-Token", "s3cret\n").build().unwrap_err();
    let shown = format!("{error:?}");
    assert!(
        shown.contains("header \"X-Token\": ") && !shown.contains("s3cret"),
        "{shown}"
    );
    let error = builder().subprotocols(["two words"]).build().unwrap_err();
    assert!(
        format!("{error:?}").contains("subprotocol \"two words\": "),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn request_settings_replace_client_defaults() {
    let (io, peer) = transport(false);
    let client = Client::builder()
        .header("Authorization", "Bearer old")
        .header("X-Kept", "1")
        .subprotocols(["old"])
        .origin("https://old.example")
        .build()
        .unwrap();
    let mut more = HeaderMap::new();
    more.append("x-more", HeaderValue::from_static("1"));
    more.append("x-more", HeaderValue::from_static("2"));
    let request = client
        .request("ws://localhost/")
        .header("authorization", String::from("Bearer new"))
        .headers(more)
        .subprotocols(["v2.feed", "v1.feed"])
        .origin("https://new.example");
    assert!(!format!("{request:?}").contains("new\""), "{request:?}");
    let mut connecting = pin!(request.connect_over(io));
    assert!(poll_once(&mut connecting).await.is_pending());
    let request = response(&peer);
    for line in [
        "Authorization: Bearer new\r\n",
        "X-Kept: 1\r\n",
        "X-More: 1\r\n",
        "X-More: 2\r\n",
        "Sec-WebSocket-Protocol: v2.feed, v1.feed\r\n",
        "Origin: https://new.example\r\n",
    ] {
        assert_eq!(request.matches(line).count(), 1, "{request}");
    }
    assert!(!request.contains("old"), "{request}");
    // The next request uses the client's defaults again.
    let request = request_of(&client, "ws://localhost/").await;
    assert!(
        request.contains("Authorization: Bearer old\r\n") && !request.contains("v2.feed"),
        "{request}"
    );
}

#[tokio::test(start_paused = true)]
async fn request_is_made_of_a_uri_or_an_http_request() {
    let client = Client::new();
    let uri: http::Uri = "ws://localhost/chat?room=1".parse().unwrap();
    let whole = http::Request::builder()
        .uri(&uri)
        .header("authorization", "Bearer new")
        .header("origin", "https://app.example")
        .header("sec-websocket-protocol", "v2.feed, v1.feed")
        .header("sec-websocket-protocol", "v0.feed")
        .body(())
        .unwrap();
    for (request, lines) in [
        (client.request(uri), &[][..]),
        (
            client.request(whole),
            &[
                "Authorization: Bearer new\r\n",
                "Origin: https://app.example\r\n",
                "Sec-WebSocket-Protocol: v2.feed, v1.feed, v0.feed\r\n",
            ],
        ),
    ] {
        let (io, peer) = transport(false);
        let mut connecting = pin!(request.connect_over(io));
        assert!(poll_once(&mut connecting).await.is_pending());
        let request = response(&peer);
        assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{request}");
        for line in lines {
            assert_eq!(request.matches(line).count(), 1, "{request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_reports_invalid_parts_without_sending() {
    let client = Client::new();
    let request = || client.request("ws://localhost/");
    for (request, says) in [
        (request().header("X-Token", "s3cret\r\n"), "header \"X-Token\": "),
        (request().header("X Name", "s3cret"), "header \"X Name\": header name"),
        (request().header(vec![b'('; 100], "s3cret"), "header \"((((("),
        (request().header("Host", "s3cret"), "header \"Host\": "),
        (request().subprotocols(["a b"]), "subprotocol \"a b\": "),
        (request().origin("s3cret"), "not an origin"),
        (client.request("s3cret"), "invalid URL: "),
        (
            client.request(http::Request::post("ws://localhost/").body(()).unwrap()),
            "the method of an opening handshake is GET",
        ),
        (
            client.request(
                http::Request::get("ws://localhost/")
                    .header("host", "s3cret")
                    .body(())
                    .unwrap(),
            ),
            "header \"Host\": ",
        ),
    ] {
        let (io, peer) = transport(false);
        let error = request.clone().connect_over(io).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let shown = format!("{error} {error:?} {request:?}");
        assert!(shown.contains(says) && !shown.contains("s3cret"), "{shown}");
        assert!(!error.is_retryable() && peer.take_bytes().is_empty() && peer.is_transport_closed());
        assert!(request.await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeout_limits_the_whole_opening() {
    let client = Client::builder()
        .timeouts(Timeouts::default().connect_total(Duration::from_secs(3)))
        .build()
        .unwrap();
    let request = client.request("ws://localhost/");
    let total = "Timeouts::connect_total or RequestBuilder::timeout";
    for (request, secs, setting) in [
        (request.clone(), 3, total),
        (request.clone().timeout(Duration::from_secs(1)), 1, total),
        // The timeout of the handshake still applies.
        (
            request.clone().timeout(Duration::from_secs(60)),
            10,
            "Timeouts::handshake",
        ),
        // Those of the request replace all of the client's.
        (
            request
                .clone()
                .timeouts(Timeouts::default().handshake(Duration::from_secs(5))),
            5,
            "Timeouts::handshake",
        ),
        (
            request
                .timeout(Duration::from_secs(2))
                .timeouts(Timeouts::default().connect_total(Duration::from_secs(4))),
            2,
            total,
        ),
    ] {
        let (io, peer) = transport(false);
        let start = Instant::now();
        let error = within(120, request.connect_over(io)).await.unwrap_err();
        assert_eq!(start.elapsed().as_secs(), secs);
        assert!(error.kind() == ErrorKind::Timeout && error.is_retryable(), "{error:?}");
        let expected = format!("the opening handshake timed out; the limit is {setting}");
        assert_eq!(error.to_string(), expected);
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn request_timeouts_apply_to_the_open_connection() {
    let timeouts = |secs| Timeouts::default().close(Duration::from_secs(secs));
    let client = Client::builder().timeouts(timeouts(30)).build().unwrap();
    for (request, secs) in [
        (client.request("ws://localhost/"), 30),
        (client.request("ws://localhost/").timeouts(timeouts(3)), 3),
    ] {
        let (mut ws, _peer) = open_request(request).await;
        let start = Instant::now();
        let error = within(120, ws.close(CloseCode::NORMAL, "")).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(start.elapsed().as_secs(), secs);
    }
}

#[tokio::test(start_paused = true)]
async fn status_determines_is_retryable() {
    for (status, is_retryable) in [(401, false), (404, false), (429, true), (500, true), (503, true)] {
        let error = client_error(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Rejected, is_retryable),
            "{status}"
        );
    }
    assert!(client_error("").await.is_retryable());
    assert!(!client_error("SSH-2.0-OpenSSH_9.6\r\n\r\n").await.is_retryable());
}

#[tokio::test]
async fn invalid_url_is_explained() {
    for (uri, says) in [
        ("ftp://example.com/", "ws://"),
        ("example.com", "ws://"),
        ("ws://example.com/#part", "#"),
        ("ws://user:p@ssword@example.com/", "user"),
        ("ws:///path", "host"),
        ("ws://example.com:99999/", "port"),
        ("ws://example.com/a\\b", "character"),
        ("ws://[fe80::1%25]/", "zone"),
    ] {
        let error = Client::default().connect(uri).await.unwrap_err();
        assert!(error.is_invalid_input(), "{uri}: {error:?}");
        assert!(error.to_string().contains(says), "{uri}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_rejects_a_foreign_origin_with_403() {
    // checks [6455-4.2.2-4, 6455-10.2-1, 6455-10.2-2]
    let (accepted, peer) = server_result(&Server::default(), request_with("Origin: http://evil.example\r\n")).await;
    let error = accepted.unwrap_err();
    assert!(error.is_denied() && !error.is_protocol());
    assert!(
        matches!(handshake_error(&error), HandshakeError::OriginDenied(_)),
        "{error:?}"
    );
    let denial = error.denial().unwrap();
    assert_eq!(
        (denial.origin(), denial.host()),
        (Some("http://evil.example"), "localhost")
    );
    assert!(
        format!("{error:?}").contains("evil.example"),
        "the log names it: {error:?}"
    );
    let response = response(&peer);
    assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    assert!(response.contains("Connection: close\r\n"), "{response}");
    assert!(
        response.ends_with("\r\n\r\norigin \"http://evil.example\" is not allowed\n"),
        "{response}"
    );
    assert!(peer.is_half_closed() && peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn server_rejects_and_names_an_unknown_host() {
    let server = Server::builder().hosts(HostPolicy::Loopback).build();
    let request = REQUEST.replace("localhost", "rebound.example:8080");
    let (accepted, peer) = server_result(&server, request).await;
    let error = accepted.unwrap_err();
    let denial = error.denial().unwrap();
    assert_eq!((denial.origin(), denial.host()), (None, "rebound.example:8080"));
    assert!(error.is_denied() && denial.allowed().contains("loopback"));
    let response = response(&peer);
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    assert!(
        response.ends_with("\r\n\r\nhost \"rebound.example:8080\" is not served here\n"),
        "{response}"
    );
}

/// The client's own input is returned as text without markup, and no configuration is revealed.
#[tokio::test(start_paused = true)]
async fn server_escapes_rejected_origin_and_hides_the_policy() {
    let listed = OriginPolicy::List(vec![Origin::parse("https://internal.example").unwrap()]);
    let server = Server::builder().origins(listed).build();
    let (accepted, peer) = server_result(&server, request_with("Origin: <script>alert(\"1\")</script>\x1b[0m")).await;
    assert!(accepted.unwrap_err().is_protocol(), "a control byte is refused before");
    drop(peer);
    let (accepted, peer) = server_result(&server, request_with("Origin: <script>\"x\"</script>\r\n")).await;
    let error = accepted.unwrap_err();
    assert_eq!(error.denial().unwrap().allowed(), "https://internal.example");
    let response = response(&peer);
    assert!(response.contains("\\x3cscript\\x3e"), "{response}");
    assert!(!response.contains('<') && !response.contains("internal"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn server_accepts_allowed_origins() {
    let listed = OriginPolicy::List(vec![Origin::parse("https://app.example").unwrap()]);
    let listed = Server::builder().origins(listed).build();
    let any = Server::builder().origins(OriginPolicy::Any).build();
    let apps = ["null", "file://", "chrome-extension://abcdef"].map(|text| Origin::parse(text).unwrap());
    let apps = Server::builder().origins(OriginPolicy::List(apps.to_vec())).build();
    for (server, origin, is_accepted) in [
        (&Server::default(), "http://localhost", true),
        (&Server::default(), "http://localhost:8080", false),
        (&Server::default(), "null", false),
        (&listed, "https://app.example", true),
        (&listed, "http://app.example", false),
        (&listed, "http://localhost", false),
        (&any, "null", true),
        (&apps, "null", true),
        (&apps, "file://", true),
        (&apps, "chrome-extension://abcdef", true),
        (&apps, "chrome-extension://abcdeg", false),
    ] {
        let (accepted, _) = server_result(server, request_with(&format!("Origin: {origin}\r\n"))).await;
        assert_eq!(accepted.is_ok(), is_accepted, "{origin}");
    }
    let (accepted, _) = server_result(&listed, REQUEST).await;
    assert!(accepted.is_ok(), "not from a page");
}

async fn subprotocol(offered: &str) -> (WebSocket, String) {
    let server = Server::builder().subprotocols(["superchat", "chat"]).build();
    let (accepted, peer) = server_result(&server, request_with(offered)).await;
    let ws = accepted.unwrap().accept().await.unwrap();
    (ws, response(&peer))
}

#[tokio::test(start_paused = true)]
async fn server_chooses_its_preferred_subprotocol() {
    // checks [6455-4.2.2-8]
    let (ws, response) = subprotocol("Sec-WebSocket-Protocol: chat, superchat\r\n").await;
    assert_eq!(ws.subprotocol(), Some("superchat"));
    assert!(response.contains("Sec-WebSocket-Protocol: superchat\r\n"), "{response}");
    for offered in ["Sec-WebSocket-Protocol: other\r\n", ""] {
        let (ws, response) = subprotocol(offered).await;
        assert_eq!(ws.subprotocol(), None);
        assert!(!response.contains("Sec-WebSocket-Protocol"), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_accepts_with_custom_headers() {
    let (accepted, peer) = server_result(&Server::default(), request_with("Sec-WebSocket-Protocol: v1, v2\r\n")).await;
    let pending = accepted.unwrap();
    assert_eq!(pending.request().uri().path(), "/");
    assert!(pending.subprotocols().eq(["v1", "v2"]));
    assert_eq!(pending.origin(), None);
    let acceptance = Acceptance::new().subprotocol("v2").header("Set-Cookie", "a=b");
    let ws = pending.accept_with(acceptance).await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v2"));
    assert!(response(&peer).contains("Set-Cookie: a=b\r\n"));
}

#[tokio::test(start_paused = true)]
async fn server_answers_500_for_an_invalid_acceptance() {
    let acceptance = Acceptance::new;
    for (acceptance, says) in [
        (
            acceptance().subprotocol("v2"),
            "subprotocol \"v2\": the client did not offer",
        ),
        (acceptance().subprotocol("two words"), "not an HTTP token"),
        (
            acceptance().header("X-Name", "v2\r\nX-Injected: 1"),
            "header \"X-Name\": ",
        ),
        (
            acceptance().header("X Name", "v2"),
            "header \"X Name\": header name is not an HTTP token",
        ),
        (acceptance().header("Upgrade", "v2"), "header \"Upgrade\": "),
        (
            acceptance().header("Sec-WebSocket-Accept", "v2"),
            "header \"Sec-Websocket-Accept\": ",
        ),
    ] {
        let (accepted, peer) = server_result(&Server::default(), REQUEST).await;
        let error = accepted.unwrap().accept_with(acceptance).await.unwrap_err();
        assert!(
            error.is_invalid_input() && error.to_string().contains(says),
            "{error:?}"
        );
        let response = response(&peer);
        assert!(
            response.starts_with("HTTP/1.1 500 ") && !response.contains("v2"),
            "{response}"
        );
        assert!(peer.is_transport_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn server_rejects_with_custom_response() {
    let (accepted, peer) = server_result(&Server::default(), REQUEST).await;
    let rejection = Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header("WWW-Authenticate", "Bearer")
        .body("log in first\n");
    within(60, accepted.unwrap().reject(rejection.unwrap())).await;
    let response = response(&peer);
    assert!(response.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{response}");
    assert!(response.contains("Www-Authenticate: Bearer\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nlog in first\n"), "{response}");
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn server_times_out_a_slow_request_after_ten_seconds() {
    let (io, peer) = transport(true);
    let start = Instant::now();
    let dribbling = async {
        for byte in REQUEST.bytes() {
            peer.send_bytes([byte]);
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    let server = Server::default();
    let error = tokio::select! {
        accepted = server.accept(io) => accepted.unwrap_err(),
        () = dribbling => unreachable!(),
    };
    assert!(error.is_timeout(), "{error:?}");
    // Ten seconds, and one for the response.
    assert!((10..=11).contains(&start.elapsed().as_secs()));
    let response = response(&peer);
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn server_sends_nothing_to_a_silent_client() {
    let start = Instant::now();
    let (accepted, peer) = server_result(&Server::default(), "").await;
    assert!(accepted.unwrap_err().is_timeout());
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn server_limits_the_time_for_sending_a_rejection() {
    // checks [6455-7.2.2-1]
    let (io, peer) = transport(true);
    peer.change_rules(|rules| rules.room = 0);
    peer.send_bytes("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let start = Instant::now();
    let server = Server::default();
    assert!(within(60, server.accept(io)).await.unwrap_err().is_protocol());
    assert!(start.elapsed().as_secs() <= 1);
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn server_rejects_with_the_matching_status() {
    // checks [6455-10.7-3]
    let many: String = (0..101).map(|number| format!("X-{number}: x\r\n")).collect();
    for (request, status) in [
        (REQUEST.replace("GET", "POST"), "405 Method Not Allowed\r\n"),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "426 Upgrade Required\r\n",
        ),
        (REQUEST.replace("Version: 13", "Version: 8"), "426 Upgrade Required\r\n"),
        (REQUEST.replace("Host: localhost\r\n", ""), "400 Bad Request\r\n"),
        (REQUEST.replace("ZQ==", ""), "400 Bad Request\r\n"),
        (
            request_with(&format!("X: {}\r\n", "x".repeat(16 * 1024))),
            "431 Request Header Fields Too Large\r\n",
        ),
        (request_with(&many), "431 Request Header Fields Too Large\r\n"),
    ] {
        let (accepted, peer) = server_result(&Server::default(), request).await;
        assert!(accepted.unwrap_err().is_protocol(), "{status}");
        let response = response(&peer);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}")),
            "{status}: {response}"
        );
    }
}

/// Closing a socket with unread input resets the connection, and the client would lose the response.
#[tokio::test(start_paused = true)]
async fn server_reads_remaining_input_of_a_rejected_client() {
    let mut request = request_with(&format!("X: {}\r\n", "x".repeat(16 * 1024))).into_bytes();
    request.extend([0; 30_000]);
    let (accepted, peer) = server_result(&Server::default(), request).await;
    assert!(accepted.is_err());
    assert!(response(&peer).starts_with("HTTP/1.1 431 "));
    assert_eq!(peer.unread_len(), 0);
    assert!(peer.is_half_closed());
}

#[tokio::test(start_paused = true)]
async fn server_limits_the_input_of_a_rejected_client() {
    let mut request = REQUEST.replace("GET", "POST").into_bytes();
    request.extend(vec![0; 1024 * 1024]);
    let (accepted, peer) = server_result(&Server::default(), request).await;
    assert!(accepted.is_err());
    assert!(peer.unread_len() > 900 * 1024);
}

#[tokio::test(start_paused = true)]
async fn server_receives_frames_behind_the_request_for_every_split() {
    for read_max in [usize::MAX, 1, 7] {
        let (io, peer) = transport(true);
        peer.change_rules(|rules| rules.read_max = read_max);
        peer.send_bytes(REQUEST);
        peer.send([text("hello"), text("again")]);
        let server = Server::default();
        let mut ws = server.accept(io).await.unwrap().accept().await.unwrap();
        assert_eq!(text_of(ws.recv().await), "hello");
        assert_eq!(text_of(ws.recv().await), "again");
    }
}

#[tokio::test(start_paused = true)]
async fn server_handles_disconnects_at_every_byte_of_the_handshake() {
    for len in 0..REQUEST.len() {
        let (io, peer) = transport(true);
        peer.send_bytes(&REQUEST[..len]);
        peer.reset();
        let error = Server::default().accept(io).await.unwrap_err();
        assert!(error.is_io(), "{len}: {error:?}");
        assert!(peer.is_transport_closed());
    }
    let (io, peer) = transport(true);
    peer.send_bytes(REQUEST);
    let pending = Server::default().accept(io).await.unwrap();
    peer.fail_after(0);
    assert!(pending.accept().await.unwrap_err().is_io());
    assert!(peer.is_transport_closed());
}

#[tokio::test(start_paused = true)]
async fn dropping_incoming_closes_the_transport() {
    let (accepted, peer) = server_result(&Server::default(), REQUEST).await;
    drop(accepted);
    assert!(peer.is_transport_closed());
    assert_eq!(response(&peer), "");
}
