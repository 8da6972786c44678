//! What is under which path, and one HTTP connection from its first byte to its last, or to its upgrade.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{Method, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sockeye::handshake::HostPolicy;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::config::Config;
use crate::connection::{self, Permit};
use crate::node::Node;
use crate::page;

type Request = hyper::Request<Incoming>;
type Response = hyper::Response<Full<Bytes>>;

/// What all HTTP connections share.
#[derive(Debug)]
pub(crate) struct Site {
    node: Arc<Node>,
    server: sockeye::Server,
}

/// The one subprotocol spoken; clients that offer none speak it too.
const SUBPROTOCOL: &str = "centrifuge-json";

const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;

/// Sent with every answer: the page runs its own script and style and talks to its own server, and nothing else.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

impl Site {
    pub(crate) fn new(node: Arc<Node>, is_loopback: bool) -> Self {
        let server = websocket_server(node.config(), is_loopback);
        Self { node, server }
    }

    /// Answers one request. The permit goes with the connection when it becomes a WebSocket.
    fn answer(&self, mut request: Request, permit: &Permit) -> Response {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = match request.uri().path() {
            // The handshake has its own answer to other methods: HEAD is none of its.
            "/connection/websocket" => self.upgrade(&mut request, permit),
            path => match (self.file(path), is_read) {
                (None, _) => text(StatusCode::NOT_FOUND, "not found\n"),
                (Some(response), true) => response,
                (Some(_), false) => only_reading(),
            },
        };
        if !is_read {
            // There may be a body, which nobody is going to read.
            let connection = response.headers_mut().entry(header::CONNECTION);
            connection.or_insert(HeaderValue::from_static("close"));
        }
        response
    }

    /// What is to be read under a path.
    fn file(&self, path: &str) -> Option<Response> {
        if path == "/health" {
            return Some(match self.node.is_draining() {
                true => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
                false => text(StatusCode::OK, "ok\n"),
            });
        }
        page::asset(path).map(|asset| content(StatusCode::OK, asset.content_type, asset.body))
    }

    fn upgrade(&self, request: &mut Request, permit: &Permit) -> Response {
        if self.node.is_draining() {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        match sockeye::hyper::upgrade(&self.server, request) {
            Err(refusal) => refusal.into_response(),
            Ok((response, upgrade)) => {
                let (node, permit) = (self.node.clone(), permit.clone());
                tokio::spawn(async move {
                    // The client may be gone before it has its answer, which concerns nobody.
                    if let Ok(ws) = upgrade.await {
                        // A task of its own, so that it holds no room for what was needed to get here.
                        tokio::spawn(connection::run(ws, node, permit));
                    }
                });
                response
            }
        }
    }
}

/// Serves the requests of one connection.
pub(crate) async fn serve_connection(site: Arc<Site>, stream: TcpStream, permit: OwnedSemaphorePermit) {
    let timeouts = site.node.config().timeouts.clone();
    let node = site.node.clone();
    let permit = Arc::new(permit);
    let service = service_fn(move |request| {
        let mut response = site.answer(request, &permit);
        for (name, value) in SECURITY_HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.request_head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // An error here is the client's doing, or its network's: there is nothing to do about it but to close.
    let _ = timeout(timeouts.http_connection, async {
        tokio::select! {
            result = connection.as_mut() => return result,
            () = node.draining() => {}
        }
        connection.as_mut().graceful_shutdown();
        timeout(timeouts.close, connection).await.unwrap_or(Ok(()))
    })
    .await;
}

fn websocket_server(config: &Config, is_loopback: bool) -> sockeye::Server {
    let mut limits = sockeye::Limits::default();
    limits.message_size_max = config.limits.message_size_max as u64;
    limits.write_buffer_max = connection::WRITE_BUFFER_BYTES_MAX;
    let mut timeouts = sockeye::Timeouts::default();
    timeouts.close = config.timeouts.close;
    let hosts = config.hosts.clone().unwrap_or(if is_loopback {
        HostPolicy::Loopback
    } else {
        HostPolicy::Any
    });
    let mut server = sockeye::Server::builder()
        .origins(config.origins.clone())
        .hosts(hosts)
        .subprotocols([SUBPROTOCOL])
        .limits(limits)
        .timeouts(timeouts)
        // The client protocol has pings of its own, which reach the application on the other side.
        .keepalive(None);
    if let Some(config) = &config.compression {
        server = server.compression(config.clone());
    }
    server.build()
}

fn only_reading() -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    // RFC 9110 §10.2.1: a 405 says what is allowed.
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response {
    content(status, "text/plain; charset=utf-8", body)
}

fn content(status: StatusCode, content_type: &'static str, body: &'static str) -> Response {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The page changes with the server, which says so by nothing else.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    /// The whole answer to a request that may leave the connection open, which is then ended from this side.
    async fn answer(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let site = Arc::new(Site::new(Node::new(Config::default()), true));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let serving = tokio::spawn(serve_connection(site, stream, permit));
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(20), client.read_to_string(&mut answer))
            .await
            .expect("the server did not close")
            .unwrap();
        serving.await.unwrap();
        answer
    }

    /// Sends a request without a body; asserts the status, the methods allowed, and how the answer ends.
    async fn check(request_line: &str, headers: &str, status: &str, allow: Option<&str>, end: &str) {
        let answer = answer(&format!("{request_line}\r\nHost: localhost\r\n{headers}\r\n")).await;
        let of = format!("{request_line}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{of}");
        let allowed = answer
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("allow: ").map(str::to_owned));
        assert_eq!(allowed, allow.map(str::to_ascii_lowercase), "{of}");
        assert!(answer.ends_with(end), "{of}");
    }

    #[tokio::test]
    async fn a_path_says_which_methods_it_takes() {
        for path in ["/", "/health"] {
            let line = format!("DELETE {path} HTTP/1.1");
            let end = "only GET and HEAD are answered here\n";
            check(&line, "", "405", Some("GET, HEAD"), end).await;
        }
        for method in ["POST", "HEAD", "OPTIONS"] {
            let line = format!("{method} /connection/websocket HTTP/1.1");
            let end = match method {
                "HEAD" => "\r\n\r\n",
                _ => "method is not GET\n",
            };
            check(&line, "", "405", Some("GET"), end).await;
        }
        check("POST /nothing HTTP/1.1", "", "404", None, "not found\n").await;
    }

    #[tokio::test]
    async fn a_request_that_may_have_a_body_is_the_last() {
        for path in ["/", "/nothing", "/connection/websocket"] {
            let line = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
            let answer = answer(&line).await.to_ascii_lowercase();
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_told_why() {
        let line = "GET /connection/websocket HTTP/1.1";
        check(line, "", "426", None, "Upgrade: websocket is needed\n").await;
        let keyless = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
        check(line, keyless, "400", None, "missing Sec-WebSocket-Key header\n").await;
    }
}
