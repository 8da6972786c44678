//! The HTTP API: `POST /api/<method>` with JSON, as Centrifugo 6 has it.
//!
//! A request is checked in this order: the method (405), the key (401), the path (404), the size (413), the JSON (400).
//! An error of the call itself is a response with status 200 and an `error` object, as in the client protocol.

mod methods;
mod types;

use std::time::Duration;

use ::http::header::{self, HeaderValue};
use ::http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::auth::ApiKeys;
use crate::codes::ErrorCode;
use crate::handle::ServerHandle;
use crate::protocol::encode;

type Response = hyper::Response<Full<Bytes>>;

/// The path of a method follows this prefix.
pub(crate) const PREFIX: &str = "/api/";

/// Time to receive the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read and discarded. A connection that is closed with unread input is reset,
/// and the client may lose the response.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// The calls and their names in paths and batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiMethod {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    Batch,
}

impl ApiMethod {
    pub(crate) const ALL: [Self; 13] = [
        Self::Publish,
        Self::Broadcast,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Refresh,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::HistoryRemove,
        Self::Channels,
        Self::Info,
        Self::Batch,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels => "channels",
            Self::Info => "info",
            Self::Batch => "batch",
        }
    }

    /// The method of a path.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        Self::from_name(path.strip_prefix(PREFIX)?)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// The result of a call, as JSON.
type CallResult = Result<Box<RawValue>, ErrorCode>;

/// Checks the headers of a request.
///
/// # Errors
/// Returns the response to a request that is refused.
fn check(method: &Method, path: &str, headers: &HeaderMap, keys: Option<&ApiKeys>) -> Result<ApiMethod, Box<Response>> {
    if method != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed\n");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(response));
    }
    if keys.is_some_and(|keys| !keys.authorize(headers)) {
        return Err(Box::new(text(
            StatusCode::UNAUTHORIZED,
            "the HTTP API requires a key: X-API-Key: <key>, or Authorization: apikey <key>\n",
        )));
    }
    ApiMethod::from_path(path).ok_or_else(|| Box::new(text(StatusCode::NOT_FOUND, "there is no such API method\n")))
}

/// Handles a request. Without `keys`, no key is needed.
pub(crate) async fn respond(
    handle: &ServerHandle,
    keys: Option<&ApiKeys>,
    request: hyper::Request<Incoming>,
    size_max: usize,
) -> Response {
    let (head, body) = request.into_parts();
    let method = match check(&head.method, head.uri.path(), &head.headers, keys) {
        Ok(method) => method,
        Err(response) => {
            // Also read the body of a refused request, so that the response arrives.
            let _ = timeout(BODY_TIMEOUT, read_body(body, &head.headers, 0)).await;
            return *response;
        }
    };
    let body = match timeout(BODY_TIMEOUT, read_body(body, &head.headers, size_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooLarge)) => {
            let reason = format!("the request is larger than limits.api_request_size_max, {size_max} bytes\n");
            return closing(text(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Ok(Err(BodyError::Lost)) => return closing(text(StatusCode::BAD_REQUEST, "the request is incomplete\n")),
        Err(_) => return closing(text(StatusCode::REQUEST_TIMEOUT, "the request took too long\n")),
    };
    match methods::call(handle, method, &body).await {
        Ok(json) => content(StatusCode::OK, "application/json", json),
        Err(Malformed) => text(
            StatusCode::BAD_REQUEST,
            "the request is not a JSON object with fields of the right types\n",
        ),
    }
}

enum BodyError {
    TooLarge,
    /// The client closed the connection, or sent invalid chunks.
    Lost,
}

/// Reads a body of at most `size_max` bytes. Discards the rest of a larger one, up to a bound.
async fn read_body(mut body: Incoming, headers: &HeaderMap, size_max: usize) -> Result<Vec<u8>, BodyError> {
    let declared = body.size_hint().lower();
    let is_too_large = declared > size_max as u64;
    // A client that waits for `100 Continue` has not sent the body, and reading would ask for it.
    if is_too_large && headers.contains_key(header::EXPECT) {
        return Err(BodyError::TooLarge);
    }
    // Memory follows the bytes that arrive, not the declared length.
    let mut bytes = Vec::new();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Lost)?;
        let Some(data) = frame.data_ref() else { continue };
        received += data.len();
        if received <= size_max {
            bytes.extend_from_slice(data);
        } else {
            bytes = Vec::new();
        }
        if received > size_max.saturating_add(DISCARDED_BYTES_MAX) {
            break;
        }
    }
    match received > size_max {
        true => Err(BodyError::TooLarge),
        false => Ok(bytes),
    }
}

/// The response to one call: `{"result":…}` or `{"error":…}`.
fn reply(result: CallResult) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Reply {
        Result(Box<RawValue>),
        Error(types::WireError),
    }
    encode(&match result {
        Ok(result) => Reply::Result(result),
        Err(code) => Reply::Error(code.into()),
    })
}

fn closing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
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
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
