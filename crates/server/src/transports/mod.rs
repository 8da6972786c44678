//! Transports for clients without WebSocket: server-sent events and HTTP streaming.
//!
//! The response to one request carries all frames to the client. The first commands are part of that request; the
//! client sends later ones with requests to [`EMULATION`], with the secret that the reply to `connect` contains. Both
//! go to the same session as with a WebSocket. If another node has the session, the commands are forwarded to it.

mod body;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use ::http::header::{self, HeaderValue};
use ::http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use parking_lot::Mutex;
use prost::Message as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) use self::body::{Body, Frames};
use crate::client::{Client, PingedBy, TransportOptions};
use crate::connection::Permit;
use crate::handle::{self, ForwardError};
use crate::metrics::Transport;
use crate::node::Node;
use crate::protocol::{EmulationRequest, Encoding};
use crate::request_id::RequestContext;

/// Path of server-sent events.
pub(crate) const SSE: &str = "/connection/sse";

/// Path of HTTP streaming.
pub(crate) const HTTP_STREAM: &str = "/connection/http_stream";

/// Path of the commands of both.
pub(crate) const EMULATION: &str = "/emulation";

type Request = hyper::Request<Incoming>;
type Response = hyper::Response<Body>;

/// Number of requests with commands that wait for a session.
const COMMANDS_WAITING_MAX: usize = 16;

/// How frames are separated in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Server-sent events: one event per line of JSON.
    Events,
    /// Lines of JSON.
    Lines,
    /// Protobuf messages, which contain their length.
    Messages,
}

/// The sessions of clients whose transport has one direction, by their secret.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    commands: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
}

/// Whether a path belongs to this module.
pub(crate) fn is_path(path: &str) -> bool {
    matches!(path, SSE | HTTP_STREAM | EMULATION)
}

/// Whether a request for a path of this module opens a session, unless it is refused.
pub(crate) fn opens_session(request: &Request) -> bool {
    request.uri().path() != EMULATION && request.method() != Method::OPTIONS
}

impl Sessions {
    /// Responds to a request whose origin is allowed. Returns whether the response is a stream.
    pub(crate) async fn respond(
        self: &Arc<Self>,
        request: Request,
        node: &Arc<Node>,
        context: &RequestContext,
        permit: &Permit,
    ) -> (Response, bool) {
        if request.method() == Method::OPTIONS {
            return (preflight(), false);
        }
        let size_max = node.startup_config().limits.message_size_max;
        let is_get = request.method() == Method::GET;
        let is_protobuf = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind == "application/octet-stream");
        let headers = node.hooks().forwarded(request.headers());
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        if !(is_get && path == SSE || request.method() == Method::POST) {
            return (text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"), false);
        }
        let body = match is_get {
            true => match parameter(&query, "cf_connect") {
                Some(commands) => Bytes::from(commands),
                None => {
                    let reason = "the parameter cf_connect with the connect command is missing or invalid\n";
                    return (text(StatusCode::BAD_REQUEST, reason), false);
                }
            },
            false => {
                let body = Limited::new(request.into_body(), size_max).collect();
                match timeout(node.startup_config().timeouts.connect, body).await {
                    Ok(Ok(body)) => body.to_bytes(),
                    Ok(Err(_)) => {
                        let reason = "the body is incomplete, or larger than limits.message_size_max\n";
                        return (text(StatusCode::PAYLOAD_TOO_LARGE, reason), false);
                    }
                    Err(_) => {
                        let mut response = text(StatusCode::REQUEST_TIMEOUT, "the request took too long\n");
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(header::CONNECTION, close);
                        return (response, false);
                    }
                }
            }
        };
        if path == EMULATION {
            return (self.deliver(&body, is_protobuf, node).await, false);
        }
        let framing = match (&*path, is_protobuf) {
            (SSE, _) => Framing::Events,
            (_, true) => Framing::Messages,
            (_, false) => Framing::Lines,
        };
        (self.open(body, framing, headers, node, context, permit), true)
    }

    /// Starts a session whose frames are the body of the response.
    fn open(
        self: &Arc<Self>,
        first: Bytes,
        framing: Framing,
        headers: Option<Arc<HeaderMap>>,
        node: &Arc<Node>,
        context: &RequestContext,
        permit: &Permit,
    ) -> Response {
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let options = TransportOptions {
            pinged_by: PingedBy::Commands,
            encoding: match framing {
                Framing::Events | Framing::Lines => Encoding::Json,
                Framing::Messages => Encoding::Protobuf,
            },
            transport: match framing {
                Framing::Events => Transport::Sse,
                Framing::Lines | Framing::Messages => Transport::HttpStream,
            },
            context: Some(context.clone()),
            secret: secret.clone(),
            headers,
        };
        let (commands, received) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (frames, body) = Frames::channel();
        self.commands.lock().insert(secret.clone(), commands);
        let client = Client::new(node.clone(), None, options);
        let registration = Registration {
            sessions: self.clone(),
            secret,
        };
        let (node, permit) = (node.clone(), permit.clone());
        tokio::spawn(async move {
            stream::run(client, &node, first, received, frames, framing).await;
            drop((registration, permit));
        });
        let content_type = match framing {
            Framing::Events => "text/event-stream; charset=utf-8",
            Framing::Lines => "application/json",
            Framing::Messages => "application/octet-stream",
        };
        let mut response = hyper::Response::new(Body::Right(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Proxies would otherwise wait for the end of the response.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let no_cache = HeaderValue::from_static("private, no-cache, no-store, max-age=0");
        headers.insert(header::CACHE_CONTROL, no_cache);
        response
    }

    /// The commands of a session of this node.
    pub(crate) fn get(&self, secret: &str) -> Option<mpsc::Sender<Bytes>> {
        self.commands.lock().get(secret).cloned()
    }

    /// Passes commands to their session, which may be on another node.
    async fn deliver(&self, body: &Bytes, is_protobuf: bool, node: &Arc<Node>) -> Response {
        let Some(Commands { secret, at, commands }) = parse_emulation(body, is_protobuf) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let unknown = || text(StatusCode::NOT_FOUND, "there is no such session; connect again\n");
        if let Some(session) = self.get(&secret) {
            return match session.send(commands).await {
                Ok(()) => status(StatusCode::NO_CONTENT),
                Err(_) => unknown(),
            };
        }
        match handle::forward_commands(node, &at, secret, commands).await {
            Ok(()) => status(StatusCode::NO_CONTENT),
            Err(ForwardError::NoSession) => unknown(),
            Err(ForwardError::NoAnswer) => text(
                StatusCode::NOT_FOUND,
                "the node that has the session does not answer; connect again\n",
            ),
            Err(ForwardError::TooLarge) => text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the commands are too large for another node; connect again, or send less at once\n",
            ),
            Err(ForwardError::Unreachable) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "another node has the session, and the engine is not reachable; try again\n",
            ),
        }
    }
}

/// Removes a session from the list when it ends.
struct Registration {
    sessions: Arc<Sessions>,
    secret: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.commands.lock().remove(&self.secret);
    }
}

/// The body of a request to [`EMULATION`].
#[derive(Debug, PartialEq, Eq)]
struct Commands {
    secret: String,
    /// The node that has the session, according to the client.
    at: String,
    commands: Bytes,
}

fn parse_emulation(body: &[u8], is_protobuf: bool) -> Option<Commands> {
    #[derive(Deserialize)]
    struct Json {
        session: String,
        #[serde(default)]
        node: String,
        data: String,
    }
    let (secret, at, commands) = match is_protobuf {
        true => {
            let request = EmulationRequest::decode(body).ok()?;
            (request.session, request.node, request.data.into())
        }
        false => {
            let request: Json = serde_json::from_slice(body).ok()?;
            (request.session, request.node, request.data.into())
        }
    };
    Some(Commands { secret, at, commands })
}

/// The value of a query parameter, decoded as a form field. `None` also for invalid UTF-8.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn preflight() -> Response {
    let mut response = status(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    response
}

fn text(status: StatusCode, reason: &'static str) -> Response {
    let mut response = hyper::Response::new(Body::Left(Full::from(reason)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn status(status: StatusCode) -> Response {
    let mut response = hyper::Response::new(Body::Left(Full::default()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_parameter_is_decoded() {
        let query = "a=1&cf_connect=%7B%22id%22%3A+1%7D%0A%C3%A9&b=2";
        assert_eq!(parameter(query, "cf_connect").unwrap(), "{\"id\": 1}\né");
        for query in ["", "cf_connect", "cf_connect=%", "cf_connect=%zz", "cf_connect=%ff"] {
            assert_eq!(parameter(query, "cf_connect"), None, "{query}");
        }
    }

    #[test]
    fn commands_are_extracted_from_both_encodings() {
        let json = br#"{"session":"s","node":"n","data":"{\"id\":1}"}"#;
        let protobuf = EmulationRequest {
            node: "n".to_owned(),
            session: "s".to_owned(),
            data: br#"{"id":1}"#.to_vec(),
        };
        let expect = Some(Commands {
            secret: "s".to_owned(),
            at: "n".to_owned(),
            commands: Bytes::from_static(br#"{"id":1}"#),
        });
        assert_eq!(parse_emulation(json, false), expect);
        assert_eq!(parse_emulation(&protobuf.encode_to_vec(), true), expect);
        assert_eq!(parse_emulation(b"{}", false), None);
    }
}
