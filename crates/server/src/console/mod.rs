//! The admin console at `/console`: statistics, channels, and the calls of the HTTP API, behind a password. Off without
//! one.
//!
//! A session starts with the password at `/console/login`. Its token is in a cookie that pages cannot read, or in the
//! response for programs, which send it as a bearer token. Three rules keep other sites out: the cookie is
//! `SameSite=Strict`, it counts only with the header [`CONSOLE_HEADER`], which a page of another origin cannot send,
//! and a request that names another origin is refused. Requests pass the host policy before they come here.

mod samples;
mod sessions;
mod tap;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::api;
use crate::auth::{ApiKeys, Secret};
use crate::codes::ErrorCode;
use crate::engine::{Health, Publication};
use crate::handle::{HistoryOptions, ServerHandle, StreamPosition};
use crate::node::Node;
use crate::page;
use crate::protocol::{HistoryResult, encode};
use crate::request_id::RequestContext;
use crate::transports::{Body, Frames, parameter};
use samples::Samples;
use sessions::{Attempts, Session, Sessions};
use tap::Tap;

type Request = hyper::Request<Incoming>;
type Response = hyper::Response<Body>;

/// Path of the page. All other paths of the console start with it and a slash.
pub(crate) const CONSOLE: &str = "/console";

/// Header of requests with the cookie.
const CONSOLE_HEADER: HeaderName = HeaderName::from_static("sockeye-console");

const COOKIE: &str = "sockeye_console";

/// Size of the request to sign in.
const LOGIN_BYTES_MAX: usize = 4 << 10;

/// Time to receive the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of taps of all operators together.
const TAPS_MAX: usize = 16;

/// Number of publications in a page of history.
const HISTORY_PAGE: usize = 50;

/// Number of channels in a list.
const CHANNELS_MAX: usize = 200;

/// The console of one server.
#[derive(Debug)]
pub(crate) struct Console {
    node: Arc<Node>,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    samples: Mutex<Samples>,
    taps: Arc<Semaphore>,
}

/// Whether a path belongs to the console.
pub(crate) fn is_path(path: &str) -> bool {
    path.strip_prefix(CONSOLE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A request without its body.
struct Head<'a> {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    context: &'a RequestContext,
}

impl Console {
    pub(crate) fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node,
            sessions: Mutex::default(),
            attempts: Mutex::default(),
            samples: Mutex::default(),
            taps: Arc::new(Semaphore::new(TAPS_MAX)),
        })
    }

    /// Handles a request. Returns whether the response is a stream.
    pub(crate) async fn respond(self: &Arc<Self>, request: Request, context: &RequestContext) -> (Response, bool) {
        let (parts, body) = request.into_parts();
        let head = Head {
            path: parts.uri.path().strip_prefix(CONSOLE).unwrap_or_default().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            method: parts.method,
            headers: parts.headers,
            context,
        };
        let Some(password) = self.password() else {
            return (text(StatusCode::NOT_FOUND, "not found\n"), false);
        };
        if let Some(asset) = page::console_asset(&head.path) {
            return (asset_response(&head.method, asset), false);
        }
        if !is_same_origin(&head.headers) {
            return (text(StatusCode::FORBIDDEN, OTHER_ORIGIN), false);
        }
        if head.path == "/login" {
            return (self.sign_in(&head, body, &password).await, false);
        }
        let Some((token, session)) = self.session(&head.headers, &password) else {
            return (text(StatusCode::UNAUTHORIZED, SIGN_IN), false);
        };
        match (&head.method, &*head.path) {
            (&Method::POST, "/logout") => (self.sign_out(&head, &token), false),
            (&Method::GET, "/stats") => (self.stats(&head.query), false),
            (&Method::GET, "/channels") => (self.channels(&head.query).await, false),
            (&Method::GET, "/history") => (self.history(&head.query).await, false),
            (&Method::GET, "/tap") => self.tap(&head.query, session).await,
            (_, path) if path.starts_with(api::PREFIX) => (self.call(&head, body).await, false),
            (_, "/login" | "/logout" | "/stats" | "/channels" | "/history" | "/tap") => (
                text(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed\n"),
                false,
            ),
            _ => (text(StatusCode::NOT_FOUND, "not found\n"), false),
        }
    }

    /// The password, if there is a console. A reload may change that.
    fn password(&self) -> Option<Secret> {
        let password = self.node.config().console.password.clone();
        password.filter(|password| !password.expose().is_empty())
    }

    async fn sign_in(self: &Arc<Self>, head: &Head<'_>, body: Incoming, password: &Secret) -> Response {
        #[derive(Deserialize)]
        struct Login {
            password: String,
            /// Whether the token is in the response instead of a cookie.
            #[serde(default)]
            token: bool,
        }
        #[derive(Serialize)]
        struct SignedIn<'a> {
            expires_in: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            token: Option<&'a str>,
        }
        if head.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed\n");
        }
        let body = timeout(BODY_TIMEOUT, Limited::new(body, LOGIN_BYTES_MAX).collect()).await;
        let Ok(Ok(body)) = body else {
            return closing(text(
                StatusCode::BAD_REQUEST,
                "the request is too large or incomplete\n",
            ));
        };
        let Ok(login) = serde_json::from_slice::<Login>(&body.to_bytes()) else {
            return text(StatusCode::BAD_REQUEST, "the request is not {\"password\":\"...\"}\n");
        };
        let (now, address): (_, IpAddr) = (Instant::now(), head.context.peer.ip());
        if let Err(after) = self.attempts.lock().admit(address, now) {
            self.node.metrics().console_login("limited");
            self.log_refusal(head.context, "too many attempts");
            let mut response = text(StatusCode::TOO_MANY_REQUESTS, "too many attempts; try again later\n");
            let seconds = after.as_secs() + 1;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return response;
        }
        // In constant time.
        if !ApiKeys::new([password]).matches(login.password.as_bytes()) {
            self.node.metrics().console_login("wrong");
            self.log_refusal(head.context, "wrong password");
            return text(StatusCode::UNAUTHORIZED, "wrong password\n");
        }
        self.attempts.lock().succeeded(address);
        self.node.metrics().console_login("ok");
        let RequestContext { peer, request } = head.context;
        tracing::info!(%peer, request_id = %request, "signed in to the console");
        let lifetime = self.node.config().console.session_lifetime;
        let token = self.sessions.lock().start(password, now, lifetime);
        self.start_sampling();
        let mut response = json(encode(&SignedIn {
            expires_in: lifetime.as_secs(),
            token: login.token.then_some(&token),
        }));
        if !login.token {
            self.set_cookie(&mut response, head, &token, lifetime.as_secs());
        }
        response
    }

    fn sign_out(&self, head: &Head<'_>, token: &str) -> Response {
        self.sessions.lock().end(token);
        let mut response = text(StatusCode::NO_CONTENT, "");
        self.set_cookie(&mut response, head, "", 0);
        response
    }

    fn set_cookie(&self, response: &mut Response, head: &Head<'_>, token: &str, seconds: u64) {
        let is_tls = self.node.tls().is_some() || head.headers.get("x-forwarded-proto").is_some_and(|it| it == "https");
        let secure = if is_tls { "; Secure" } else { "" };
        let cookie = format!("{COOKIE}={token}; Path={CONSOLE}; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
    }

    /// The token and session of a request.
    fn session(&self, headers: &HeaderMap, password: &Secret) -> Option<(String, Session)> {
        let token = token(headers)?;
        let session = self.sessions.lock().find(token, password, Instant::now())?;
        Some((token.to_owned(), session))
    }

    fn stats(&self, query: &str) -> Response {
        #[derive(Serialize)]
        struct Stats<'a> {
            name: &'a str,
            version: &'static str,
            /// Another value after a restart.
            uid: &'a str,
            uptime: u64,
            ready: bool,
            draining: bool,
            /// Why publications to channels with history fail, if they do.
            problem: Option<Arc<str>>,
            #[serde(flatten)]
            page: samples::Page<'a>,
        }
        let since = parameter(query, "since").and_then(|number| number.parse().ok());
        let samples = self.samples.lock();
        json(encode(&Stats {
            name: &self.node.config().name,
            version: env!("CARGO_PKG_VERSION"),
            uid: self.node.uid(),
            uptime: self.node.uptime().as_secs(),
            ready: self.node.is_known_ready(),
            draining: self.node.is_draining(),
            problem: match self.node.engine().health() {
                Health::Ready => None,
                Health::NotReady(reason) => Some(reason),
            },
            page: samples.since(since.unwrap_or(0)),
        }))
    }

    /// The channels with the most subscribers, or those that match a pattern.
    async fn channels(&self, query: &str) -> Response {
        #[derive(Serialize)]
        struct Channel {
            name: String,
            clients: usize,
            /// `None` without history.
            #[serde(skip_serializing_if = "Option::is_none")]
            position: Option<Position>,
        }
        #[derive(Serialize)]
        struct Position {
            offset: u64,
            epoch: String,
        }
        #[derive(Serialize)]
        struct Channels {
            total: usize,
            channels: Vec<Channel>,
        }
        let handle = self.handle();
        let mut found = match handle.channels(&parameter(query, "pattern").unwrap_or_default()).await {
            Ok(found) => found,
            Err(ErrorCode::BadRequest) => return text(StatusCode::BAD_REQUEST, "the pattern is not valid\n"),
            Err(_) => return text(StatusCode::SERVICE_UNAVAILABLE, "the engine failed\n"),
        };
        found.sort_by(|a, b| b.subscribers.cmp(&a.subscribers).then_with(|| a.name.cmp(&b.name)));
        let total = found.len();
        found.truncate(CHANNELS_MAX);
        let mut channels = Vec::with_capacity(found.len());
        for channel in found {
            let history = handle.read_history(&channel.name, HistoryOptions::default()).await.ok();
            channels.push(Channel {
                name: channel.name,
                clients: channel.subscribers,
                position: history.map(|history| Position {
                    offset: history.top.offset,
                    epoch: history.top.epoch.as_str().to_owned(),
                }),
            });
        }
        json(encode(&Channels { total, channels }))
    }

    /// A page of the history of a channel, newest first, with the times that the HTTP API does not have.
    async fn history(&self, query: &str) -> Response {
        let number = |name: &str| parameter(query, name)?.parse().ok();
        let since = number("before").map(|offset| StreamPosition {
            offset,
            epoch: parameter(query, "epoch").unwrap_or_default(),
        });
        let options = HistoryOptions {
            limit: HISTORY_PAGE,
            since,
            reverse: true,
        };
        let channel = parameter(query, "channel").unwrap_or_default();
        match self.handle().read_history(&channel, options).await {
            Ok(history) => json(encode(&HistoryResult {
                publications: history.publications.iter().map(Publication::wire).collect(),
                epoch: history.top.epoch.as_str(),
                offset: history.top.offset,
            })),
            Err(ErrorCode::NotAvailable) => text(StatusCode::NOT_FOUND, "the namespace has no history\n"),
            Err(ErrorCode::UnknownChannel) => text(StatusCode::NOT_FOUND, UNKNOWN_NAMESPACE),
            Err(ErrorCode::UnrecoverablePosition) => {
                text(StatusCode::CONFLICT, "the history has begun anew: reload it\n")
            }
            Err(ErrorCode::BadRequest) => text(StatusCode::BAD_REQUEST, NOT_A_CHANNEL),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the engine failed\n"),
        }
    }

    /// Starts a tap, which ends with the session.
    async fn tap(self: &Arc<Self>, query: &str, session: Session) -> (Response, bool) {
        let channel = parameter(query, "channel").unwrap_or_default();
        let channel = match self.handle().channel(&channel) {
            Ok((channel, _)) => channel,
            Err(ErrorCode::UnknownChannel) => {
                return (text(StatusCode::NOT_FOUND, UNKNOWN_NAMESPACE), false);
            }
            Err(_) => {
                return (text(StatusCode::BAD_REQUEST, NOT_A_CHANNEL), false);
            }
        };
        let Ok(permit) = self.taps.clone().try_acquire_owned() else {
            return (
                text(StatusCode::SERVICE_UNAVAILABLE, "too many live views are open\n"),
                false,
            );
        };
        let Some(tap) = Tap::open(&self.node, channel).await else {
            return (text(StatusCode::SERVICE_UNAVAILABLE, "the engine failed\n"), false);
        };
        let (frames, body) = Frames::channel();
        let node = self.node.clone();
        tokio::spawn(async move {
            let ended = async {
                tokio::select! {
                    () = node.draining() => {}
                    () = session.ended.cancelled() => {}
                    () = sleep_until(session.expires) => {}
                }
            };
            tap.run(frames, ended).await;
            drop(permit);
        });
        let mut response = hyper::Response::new(Body::Right(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Proxies would otherwise wait for the end of the response.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        (response, true)
    }

    /// Executes a request of the HTTP API, for which the session stands in for the key.
    async fn call(&self, head: &Head<'_>, body: Incoming) -> Response {
        let size_max = self.node.config().limits.api_request_size_max;
        let mut request = Request::new(body);
        request.method_mut().clone_from(&head.method);
        request.headers_mut().clone_from(&head.headers);
        match head.path.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return text(StatusCode::NOT_FOUND, "not found\n"),
        }
        let response = api::respond(&self.handle(), None, request, size_max).await;
        // The log shows who changed something by hand. Reads would only fill it.
        let method = head.path.trim_start_matches(api::PREFIX);
        if matches!(method, "publish" | "disconnect" | "unsubscribe" | "history_remove") {
            let status = response.status().as_u16();
            let RequestContext { peer, request } = head.context;
            tracing::info!(%peer, request_id = %request, method, status, "call from the console");
        }
        response.map(Body::Left)
    }

    /// Takes samples until nobody is signed in.
    fn start_sampling(self: &Arc<Self>) {
        if std::mem::replace(&mut self.samples.lock().is_running, true) {
            return;
        }
        let console = self.clone();
        tokio::spawn(async move {
            let mut interval = interval(samples::INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                let is_watched = match console.password() {
                    Some(password) => console.sessions.lock().keep_valid(&password, Instant::now()),
                    None => console.sessions.lock().keep_valid(&Secret::new(""), Instant::now()),
                };
                let mut samples = console.samples.lock();
                if !is_watched || console.node.is_draining() {
                    samples.is_running = false;
                    return;
                }
                drop(samples);
                let sample = samples::take(&console.node);
                samples = console.samples.lock();
                samples.add(sample);
            }
        });
    }

    fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.node.clone())
    }

    fn log_refusal(&self, context: &RequestContext, reason: &str) {
        let RequestContext { peer, request } = context;
        self.node
            .refusals()
            .log(|| tracing::warn!(%peer, request_id = %request, "refused to sign in to the console: {reason}"));
    }
}

const OTHER_ORIGIN: &str = "the console accepts only requests of its own page; a proxy must preserve the Host header\n";
const UNKNOWN_NAMESPACE: &str = "the namespace of the channel does not exist\n";
const NOT_A_CHANNEL: &str = "this is not the name of a channel\n";
const SIGN_IN: &str = "sign in: POST /console/login with {\"password\":\"...\"}\n";

/// The token of a request: a bearer token, or the cookie together with [`CONSOLE_HEADER`].
fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    if !headers.contains_key(CONSOLE_HEADER) {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Whether a request comes from the console's page, or from a program that is no browser.
fn is_same_origin(headers: &HeaderMap) -> bool {
    // Browsers set this one themselves, so it also counts behind a proxy that changes the Host header.
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let (Some(origin), Some(host)) = (text(origin), headers.get(header::HOST).and_then(text)) else {
        return false;
    };
    origin.split_once("://").is_some_and(|(_, authority)| authority == host)
}

fn asset_response(method: &Method, asset: page::Asset) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = closing(text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n"));
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return response;
    }
    let cache = match asset.is_versioned {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    content(StatusCode::OK, asset.content_type, cache, asset.body)
}

fn json(body: String) -> Response {
    content(StatusCode::OK, "application/json", "no-store", body)
}

fn text(status: StatusCode, body: &'static str) -> Response {
    content(status, "text/plain; charset=utf-8", "no-store", body)
}

fn closing(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn content(status: StatusCode, content_type: &'static str, cache: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = hyper::Response::new(Body::Left(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

#[cfg(test)]
mod tests;
