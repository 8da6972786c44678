//! HTTP: routing, the pages, and the upgrade to WebSocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{Method, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sockeye::Keepalive;
use sockeye::hyper::UpgradeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::api::{self, ApiMethod};
use crate::auth::ApiKeys;
use crate::client::{PingedBy, TransportOptions};
use crate::config::Config;
use crate::connection::{self, Permit};
use crate::connection_limiter::Admission;
use crate::console::{self, Console};
use crate::handle::ServerHandle;
use crate::node::Node;
use crate::page;
use crate::policy::{self, Policy};
use crate::protocol::Encoding;
use crate::request_id::{REQUEST_ID, RequestContext, RequestId};
use crate::serve::log_limit_reached;
use crate::transports::{self, Body};

type Request = hyper::Request<Incoming>;
type Response = hyper::Response<Full<Bytes>>;

/// State shared by all HTTP connections.
#[derive(Debug)]
pub(crate) struct HttpService {
    node: Arc<Node>,
    server: sockeye::Server,
    /// For clients that request WebSocket ping frames.
    pinging_server: sockeye::Server,
    console: Arc<Console>,
}

/// Path of the WebSocket endpoint.
const WEBSOCKET: &str = "/connection/websocket";

/// Path that reports that the process runs.
const LIVE: &str = "/health/live";

/// Path that reports whether the server can do its work.
const READY: &str = "/health/ready";

/// Path of the metrics.
const METRICS: &str = "/metrics";

/// Path that reports whether a page may connect, and why not. Browsers do not show a page why its WebSocket was
/// refused. The page sends its origin in [`PAGE_ORIGIN`].
const CHECK: &str = "/connection/check";

/// Request header with the `location.origin` of the page. `Origin` cannot be used, because browsers omit it from a
/// same-origin GET.
const PAGE_ORIGIN: HeaderName = HeaderName::from_static("sockeye-page-origin");

/// The subprotocols, the preferred one first. JSON is assumed if a client offers none.
const SUBPROTOCOLS: [&str; 2] = [JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL];

const JSON_SUBPROTOCOL: &str = "centrifuge-json";
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";

const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;

/// Headers of every response. They limit a page to its own scripts, styles and server.
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

impl HttpService {
    pub(crate) fn new(node: Arc<Node>, is_loopback: bool) -> Self {
        let config = node.startup_config();
        let policy = Policy::new(config, is_loopback);
        let server = websocket_server(config, &policy, None);
        // The same times as for pings of the client protocol.
        let mut keepalive = Keepalive::default();
        (keepalive.interval, keepalive.timeout) = (config.timeouts.ping_interval, config.timeouts.pong);
        let pinging_server = websocket_server(config, &policy, Some(keepalive));
        Self {
            console: Console::new(node.clone()),
            node,
            server,
            pinging_server,
        }
    }

    /// Handles one request. If the connection becomes a WebSocket, the permit moves to its task.
    fn respond(&self, mut request: Request, context: &RequestContext, permit: &Permit) -> Response {
        let is_get_or_head = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = match request.uri().path() {
            // Exempt from the host policy: health probes connect by address, and the response is not sensitive.
            "/health" => get_or_head(is_get_or_head, || self.health()),
            LIVE => get_or_head(is_get_or_head, || text(StatusCode::OK, "ok\n")),
            METRICS => get_or_head(is_get_or_head, || self.metrics(&request, context)),
            // The handshake refuses every method but GET, including HEAD.
            WEBSOCKET => self.upgrade(&mut request, context, permit),
            CHECK => get_or_head(is_get_or_head, || self.check(&request)),
            path => match (self.page(path, request.uri().query()), is_get_or_head) {
                (None, _) => text(StatusCode::NOT_FOUND, "not found\n"),
                (Some(_), false) => method_not_allowed(),
                // Serve the page only to hosts from which its WebSocket would be accepted.
                (Some(page), true) => match self.dry_run_handshake(&request, None) {
                    Err(refusal) if refusal.response().status() == StatusCode::MISDIRECTED_REQUEST => {
                        self.refuse(&refusal, context)
                    }
                    _ => page,
                },
            },
        };
        if !is_get_or_head {
            // Close the connection, because a request body is not read.
            let connection = response.headers_mut().entry(header::CONNECTION);
            connection.or_insert(HeaderValue::from_static("close"));
        }
        response
    }

    /// Handles one request, and adds the headers that all responses have.
    async fn handle(
        &self,
        request: Request,
        context: &RequestContext,
        permit: &Permit,
        progress: &Progress,
    ) -> hyper::Response<Body> {
        // Boxed, so that other connections do not reserve memory for them.
        let mut response = match request.uri().path() {
            _ if !has_one_host(&request) => bad_host().map(Body::Left),
            path if path.starts_with(api::PREFIX) => Box::pin(self.call_api(request, context)).await.map(Body::Left),
            path if console::is_path(path) || transports::is_path(path) => {
                let (response, is_stream) = match console::is_path(path) {
                    true => Box::pin(self.call_console(request, context)).await,
                    false => Box::pin(self.call_transport(request, context, permit)).await,
                };
                if is_stream {
                    progress.set(Progress::STREAM);
                }
                response
            }
            READY if matches!(*request.method(), Method::GET | Method::HEAD) => {
                Box::pin(self.ready()).await.map(Body::Left)
            }
            READY => method_not_allowed().map(Body::Left),
            _ => self.respond(request, context, permit).map(Body::Left),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            progress.set(Progress::UPGRADE);
        } else if self.node.is_draining() {
            let connection = response.headers_mut().entry(header::CONNECTION);
            connection.or_insert(HeaderValue::from_static("close"));
        }
        response.headers_mut().insert(REQUEST_ID, context.request.header());
        for (name, value) in SECURITY_HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// Returns a file of the demonstrations, or a snapshot of one.
    fn page(&self, path: &str, query: Option<&str>) -> Option<Response> {
        let demos = self.node.demos()?;
        if let Some(asset) = page::asset(path) {
            let mut response = content(StatusCode::OK, asset.content_type, asset.body);
            if asset.is_versioned {
                let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            return Some(response);
        }
        let snapshot = demos.snapshot(self.node.startup_config(), path, query)?;
        Some(content(StatusCode::OK, "application/json", snapshot))
    }

    /// Executes a request of the HTTP API.
    async fn call_api(&self, request: Request, context: &RequestContext) -> Response {
        let config = self.node.config();
        let api_keys = ApiKeys::new(&config.api_keys);
        let keys = (!config.insecure_api).then_some(&api_keys);
        // Without keys, a page of any site could call the API of a server on the machine of its visitor.
        if keys.is_none()
            && let Err(refusal) = self.dry_run_handshake(&request, request.headers().get(header::ORIGIN))
        {
            return self.refuse(&refusal, context);
        }
        let started = Instant::now();
        let method = ApiMethod::from_path(request.uri().path());
        let handle = ServerHandle::new(self.node.clone());
        let response = api::respond(&handle, keys, request, config.limits.api_request_size_max).await;
        let seconds = started.elapsed().as_secs_f64();
        self.node
            .metrics()
            .api_request(method, response.status().as_u16(), seconds);
        if response.status() == StatusCode::UNAUTHORIZED {
            self.log_refusal(context, response.status(), || match api_keys.is_empty() {
                true => "the HTTP API has no key; set api_keys (sockeye serve --api-key)".to_owned(),
                false => "wrong or missing key of the HTTP API".to_owned(),
            });
        }
        response
    }

    /// Handles a request of a client without WebSocket. Returns whether the response is a stream.
    async fn call_transport(
        &self,
        request: Request,
        context: &RequestContext,
        permit: &Permit,
    ) -> (hyper::Response<Body>, bool) {
        // Held until the session of a stream is registered.
        let Some(_arrival) = self.node.arrive() else {
            return (self.refuse_draining(context).map(Body::Left), false);
        };
        // The same origins as for WebSockets.
        let origin = request.headers().get(header::ORIGIN).cloned();
        if let Err(refusal) = self.dry_run_handshake(&request, origin.as_ref()) {
            return (self.refuse(&refusal, context).map(Body::Left), false);
        }
        let admitted = match transports::opens_session(&request) {
            true => self.admit_handshake(context),
            false => Ok(()),
        };
        let (mut response, is_stream) = match admitted {
            Err(after) => (too_many_handshakes(after).map(Body::Left), false),
            Ok(()) => self.node.sessions().respond(request, &self.node, context, permit).await,
        };
        if let Some(origin) = origin {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        (response, is_stream)
    }

    /// Handles a request of the console. Returns whether the response is a stream.
    async fn call_console(&self, request: Request, context: &RequestContext) -> (hyper::Response<Body>, bool) {
        // A page of another site must not reach it with a name that it makes point here.
        match self.dry_run_handshake(&request, None) {
            Err(refusal) if refusal.response().status() == StatusCode::MISDIRECTED_REQUEST => {
                (self.refuse(&refusal, context).map(Body::Left), false)
            }
            _ => self.console.respond(request, context).await,
        }
    }

    /// Responds to [`READY`].
    async fn ready(&self) -> Response {
        match self.node.check_ready().await {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        }
    }

    fn metrics(&self, request: &Request, context: &RequestContext) -> Response {
        // A page of another site must not read them with a name that it makes point here.
        match self.dry_run_handshake(request, None) {
            Err(refusal) if refusal.response().status() == StatusCode::MISDIRECTED_REQUEST => {
                self.refuse(&refusal, context)
            }
            _ => {
                let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                content(StatusCode::OK, content_type, self.node.encode_metrics())
            }
        }
    }

    fn health(&self) -> Response {
        match self.node.is_draining() {
            true => text(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN),
            false => text(StatusCode::OK, "ok\n"),
        }
    }

    /// Responds to [`CHECK`].
    fn check(&self, request: &Request) -> Response {
        if self.node.is_draining() {
            return text(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN);
        }
        let origin = request.headers().get(PAGE_ORIGIN);
        match self.dry_run_handshake(request, origin) {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(refusal) => text(refusal.response().status(), explanation(&refusal)),
        }
    }

    /// Performs the checks of the handshake as if a page of `origin` opened a WebSocket to the host of this request.
    ///
    /// # Errors
    /// Returns the refusal that such a request would get.
    fn dry_run_handshake(&self, request: &Request, origin: Option<&HeaderValue>) -> Result<(), UpgradeError> {
        let mut handshake = hyper::Request::new(());
        *handshake.uri_mut() = request.uri().clone();
        let headers = handshake.headers_mut();
        for host in request.headers().get_all(header::HOST) {
            headers.append(header::HOST, host.clone());
        }
        for (name, value) in [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.clone());
        }
        sockeye::hyper::upgrade(&self.server, &mut handshake).map(|_| ())
    }

    /// Accepts a WebSocket whose connection is not counted yet.
    pub(crate) fn admit<B>(&self, request: &mut ::http::Request<B>, peer: SocketAddr) -> Response {
        let context = RequestContext {
            peer,
            request: RequestId::of(request.headers()),
        };
        let per_address_max = self.node.config().limits.connections_per_address_max;
        let mut response = match self.node.connection_limiter().admit(peer.ip(), per_address_max) {
            Ok(permit) => self.upgrade(request, &context, &Arc::new(permit)),
            Err(closed) => {
                log_limit_reached(&self.node, peer, closed);
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many connections are open; try again later\n",
                )
            }
        };
        response.headers_mut().insert(REQUEST_ID, context.request.header());
        response
    }

    /// Admits a new client within the rate of handshakes.
    ///
    /// # Errors
    /// Returns the time after which it would be admitted.
    fn admit_handshake(&self, context: &RequestContext) -> Result<(), Duration> {
        let rate_max = self.node.config().limits.handshakes_per_second_max;
        self.node.admit_handshake(rate_max).inspect_err(|_| {
            self.node.metrics().refusal("rate");
            self.log_refusal(context, StatusCode::SERVICE_UNAVAILABLE, || {
                format!("limits.handshakes_per_second_max ({rate_max}) is exceeded")
            });
        })
    }

    fn upgrade<B>(&self, request: &mut ::http::Request<B>, context: &RequestContext, permit: &Permit) -> Response {
        let Some(arrival) = self.node.arrive() else {
            return self.refuse_draining(context);
        };
        if let Err(after) = self.admit_handshake(context) {
            return too_many_handshakes(after);
        }
        let (server, pinged_by) = match wants_ping_frames(request.uri().query()) {
            true => (&self.pinging_server, PingedBy::Frames),
            false => (&self.server, PingedBy::Commands),
        };
        let is_protobuf = wants_protobuf(request.uri().query());
        match sockeye::hyper::upgrade(server, request) {
            Err(refusal) => {
                self.node.metrics().refusal(match refusal.response().status() {
                    StatusCode::MISDIRECTED_REQUEST => "host",
                    StatusCode::FORBIDDEN => "origin",
                    _ => "invalid",
                });
                self.refuse(&refusal, context)
            }
            Ok((response, upgrade)) => {
                self.node.metrics().handshake();
                let (node, permit) = (self.node.clone(), permit.clone());
                let subprotocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
                let is_protobuf = is_protobuf || subprotocol.is_some_and(|name| name == PROTOBUF_SUBPROTOCOL);
                let mut options = TransportOptions::from(pinged_by);
                options.context = Some(context.clone());
                options.headers = node.hooks().forwarded(request.headers());
                if is_protobuf {
                    options.encoding = Encoding::Protobuf;
                }
                tokio::spawn(async move {
                    // An error means that the client disconnected before it got the response.
                    if let Ok(ws) = upgrade.await {
                        // A new task, so that the memory of the upgrade is freed.
                        tokio::spawn(connection::run(ws, node, options, permit));
                    }
                    // `run` has registered the client.
                    drop(arrival);
                });
                response
            }
        }
    }

    /// Refuses a client during the shutdown.
    fn refuse_draining(&self, context: &RequestContext) -> Response {
        self.node.metrics().refusal("draining");
        self.log_refusal(context, StatusCode::SERVICE_UNAVAILABLE, || SHUTTING_DOWN.to_owned());
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN);
        let after = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, after);
        response
    }

    /// Logs a refusal and returns the response. The log also contains what the policy allows; the response does not.
    fn refuse(&self, refusal: &UpgradeError, context: &RequestContext) -> Response {
        let status = refusal.response().status();
        let explanation = explanation(refusal);
        self.log_refusal(context, status, || match refusal.error().denial() {
            Some(denial) => format!("{}; allowed: {}", explanation.trim_end(), denial.allowed()),
            None => explanation.clone(),
        });
        match refusal.error().is_denied() {
            true => text(status, explanation),
            false => refusal.response().clone(),
        }
    }

    fn log_refusal(&self, context: &RequestContext, status: StatusCode, reason: impl Fn() -> String) {
        self.node.refusals().log(|| {
            let (status, reason) = (status.as_u16(), reason());
            let RequestContext { peer, request } = context;
            tracing::warn!(%peer, request_id = %request, status, "refused a connection: {}", reason.trim_end());
        });
    }
}

/// What has happened on a connection.
#[derive(Debug, Default)]
struct Progress(AtomicU8);

impl Progress {
    /// A request has arrived.
    const REQUEST: u8 = 1;
    /// A response is a stream, which has its own timeouts.
    const STREAM: u8 = 2;
    /// The connection becomes a WebSocket.
    const UPGRADE: u8 = 4;

    fn set(&self, event: u8) {
        self.0.fetch_or(event, Ordering::Relaxed);
    }

    fn has(&self, event: u8) -> bool {
        self.0.load(Ordering::Relaxed) & event != 0
    }
}

/// How long the shutdown waits for the first request of a connection.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

const SHUTTING_DOWN: &str = "shutting down\n";

/// Serves the requests of one connection until it closes or becomes a WebSocket.
pub(crate) async fn serve_connection<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    service: Arc<HttpService>,
    stream: T,
    peer: SocketAddr,
    permit: Admission,
) {
    let timeouts = service.node.startup_config().timeouts.clone();
    let node = service.node.clone();
    let permit = Arc::new(permit);
    let progress = Arc::<Progress>::default();
    let service = service_fn({
        let progress = progress.clone();
        move |request: Request| {
            let (service, permit, progress) = (service.clone(), permit.clone(), progress.clone());
            progress.set(Progress::REQUEST);
            let context = RequestContext {
                peer,
                request: RequestId::of(request.headers()),
            };
            async move {
                let response = service.handle(request, &context, &permit, &progress).await;
                Ok::<_, Infallible>(response)
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.request_head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A probe that connects during the shutdown is answered. Older connections are closed when they are idle.
    let is_probe = node.is_draining();
    // The lifetime of a connection is limited, unless it carries a stream, whose session has its own timeouts.
    let lifetime = async {
        tokio::time::sleep(timeouts.http_connection).await;
        if progress.has(Progress::STREAM) {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::select! {
        result = connection.as_mut() => result,
        () = lifetime => return,
        () = node.draining(), if !is_probe => {
            shut_down(connection, |connection| connection.graceful_shutdown(), &progress, timeouts.close).await
        }
    };
    match served {
        // hyper has already responded with 400, 414 or 431.
        Err(error) if error.is_parse() => node
            .refusals()
            .log(|| tracing::warn!(%peer, "refused a connection: invalid HTTP request: {error}")),
        // Other errors come from the client or the network, and only end the connection.
        _ => {}
    }
}

/// Ends a connection that was open when the shutdown began.
async fn shut_down<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    graceful: impl FnOnce(Pin<&mut C>),
    progress: &Progress,
    close_timeout: Duration,
) -> hyper::Result<()> {
    // The first request may be on its way, and hyper would close the connection without an answer.
    if !progress.has(Progress::REQUEST)
        && let Ok(result) = timeout(FIRST_REQUEST_TIMEOUT, connection.as_mut()).await
    {
        return result;
    }
    if progress.has(Progress::STREAM) {
        // The session ends in its share of the drain.
        return connection.await;
    }
    // hyper would hand an upgraded connection over before it has written the rest of the response.
    if !progress.has(Progress::UPGRADE) {
        graceful(connection.as_mut());
    }
    timeout(close_timeout, connection).await.unwrap_or(Ok(()))
}

/// Whether the client requests WebSocket ping frames instead of pings of the client protocol, by the query parameter
/// that Centrifugo defines.
fn wants_ping_frames(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "cf_ws_frame_ping_pong=true"))
}

/// Whether the client requests Protobuf by a query parameter, which older client libraries do instead of the
/// subprotocol.
fn wants_protobuf(query: Option<&str>) -> bool {
    let is_wanted = |pair| matches!(pair, "format=protobuf" | "cf_protocol=protobuf");
    query.is_some_and(|query| query.split('&').any(is_wanted))
}

fn websocket_server(config: &Config, policy: &Policy, keepalive: Option<Keepalive>) -> sockeye::Server {
    let mut limits = sockeye::Limits::default();
    limits.message_size_max = config.limits.message_size_max as u64;
    limits.write_buffer_max = connection::WRITE_BUFFER_BYTES_MAX;
    // Clients send small commands, so reading ahead by one message of maximum size is enough.
    limits.read_ahead_max = config.limits.message_size_max;
    let mut timeouts = sockeye::Timeouts::default();
    timeouts.close = config.timeouts.close;
    let mut server = sockeye::Server::builder()
        .origins(policy.origins.clone())
        .hosts(policy.hosts.clone())
        .subprotocols(SUBPROTOCOLS)
        .limits(limits)
        .timeouts(timeouts)
        // Off unless requested: the client protocol has its own pings, which the client application answers.
        .keepalive(keepalive);
    if let Some(config) = &config.compression {
        server = server.compression(config.clone());
    }
    server.build()
}

/// Calls `respond` for GET and HEAD, and returns 405 for other methods.
fn get_or_head(is_get_or_head: bool, respond: impl FnOnce() -> Response) -> Response {
    if is_get_or_head {
        respond()
    } else {
        method_not_allowed()
    }
}

/// The reason of a refusal, as one line.
fn explanation(refusal: &UpgradeError) -> String {
    match (refusal.error().denial(), refusal.error().handshake_error()) {
        (Some(denial), _) => policy::explain(refusal.status(), denial),
        (None, Some(fault)) => format!("{fault}\n"),
        (None, None) => format!("{}\n", refusal.error()),
    }
}

/// RFC 9112 §3.2: a request of HTTP/1.1 has exactly one `Host`, or is answered with 400.
fn has_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || hosts == 0 && request.version() < Version::HTTP_11
}

fn bad_host() -> Response {
    let mut response = text(StatusCode::BAD_REQUEST, "the request needs one Host header\n");
    // A body is not read.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// The response to a client over the rate of handshakes.
fn too_many_handshakes(after: Duration) -> Response {
    let mut response = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many handshakes; try again later\n",
    );
    let seconds = after.as_secs() + 1;
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn method_not_allowed() -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
    // RFC 9110 §10.2.1: a 405 response has an Allow header.
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    content(status, "text/plain; charset=utf-8", body)
}

fn content(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // By default; assets with a version in their path override it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Sends a request, shuts down writing, and returns the whole response.
    async fn answer(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let service = Arc::new(HttpService::new(Node::new(Config::default()), true));
        let permit = crate::connection_limiter::ConnectionLimiter::new(1)
            .admit(peer.ip(), 1)
            .unwrap();
        let serving = tokio::spawn(serve_connection(service, stream, peer, permit));
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

    /// Sends a request without a body, and checks the status, the Allow header, and the end of the response.
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
    async fn each_path_allows_its_methods() {
        for path in ["/", "/health"] {
            let line = format!("DELETE {path} HTTP/1.1");
            let end = "only GET and HEAD are allowed\n";
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
    async fn a_request_with_a_body_closes_the_connection() {
        for path in ["/", "/nothing", "/connection/websocket"] {
            let line = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
            let answer = answer(&line).await.to_ascii_lowercase();
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_invalid_websocket_request_gets_the_reason() {
        let line = "GET /connection/websocket HTTP/1.1";
        check(line, "", "426", None, "requires the header Upgrade: websocket\n").await;
        let keyless = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
        check(line, keyless, "400", None, "missing Sec-WebSocket-Key header\n").await;
    }
}
