//! Requests to JetStream.
//!
//! They are written by hand: the client library has no batched Direct Get, and its JetStream part would add
//! dependencies for consumers, which this engine does not use.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::{Client, HeaderMap, Message, RequestErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::cluster::StoreError;

/// Time for one request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// There is no such stream, or no stream takes the subject.
    NoStream,
    /// An expectation about the last message of the subject was wrong.
    Conflict,
    /// A message does not exist.
    NoMessage,
    /// A stream of this name exists with another configuration.
    Exists,
    Store(StoreError),
}

/// The error of a JetStream response.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Response {
    error: Option<ErrorBody>,
}

/// The acknowledgement of a stored message.
#[derive(Debug, Deserialize)]
pub(super) struct Ack {
    pub(super) seq: u64,
    /// Whether a message with the same `Nats-Msg-Id` was stored before, with this sequence.
    #[serde(default)]
    pub(super) duplicate: bool,
}

/// What is known about a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: Value,
    #[serde(default)]
    pub(super) state: StreamState,
    /// The clock of the server.
    #[serde(default)]
    ts: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) first_seq: u64,
    #[serde(default)]
    pub(super) last_seq: u64,
    /// Subjects and their numbers of messages, if they were asked for.
    #[serde(default)]
    pub(super) subjects: std::collections::HashMap<String, u64>,
}

impl StreamInfo {
    /// The only subject of the stream.
    pub(super) fn subject(&self) -> Option<&str> {
        match self.config.get("subjects")?.as_array()?.as_slice() {
            [subject] => subject.as_str(),
            _ => None,
        }
    }

    pub(super) fn server_time_ms(&self) -> Option<u64> {
        parse_time_ms(&self.ts)
    }
}

impl StreamState {
    /// The sequence of the oldest message, or of the next one if there is none.
    pub(super) fn oldest(&self) -> u64 {
        match self.last_seq {
            0 => 1,
            _ => self.first_seq,
        }
    }
}

/// Parses a time stamp of RFC 3339.
pub(super) fn parse_time_ms(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis() as u64)
}

/// Calls `$JS.API.<call>`.
pub(super) async fn call<T: DeserializeOwned>(client: &Client, call: &str, body: &Value) -> Result<T, ApiError> {
    let body = match body {
        Value::Null => Bytes::new(),
        body => body.to_string().into(),
    };
    let request = client.request(format!("$JS.API.{call}"), body);
    let message = request.await.map_err(request_error)?;
    parse(&message)
}

/// Publishes into a stream and waits for the acknowledgement.
pub(super) async fn publish(
    client: &Client,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Ack, ApiError> {
    let message = client.request_with_headers(subject, headers, payload).await;
    parse(&message.map_err(request_error)?)
}

pub(super) async fn info(client: &Client, stream: &str) -> Result<StreamInfo, ApiError> {
    call(client, &format!("STREAM.INFO.{stream}"), &Value::Null).await
}

/// A message as the leader of a stream returns it.
#[derive(Debug, Deserialize)]
pub(super) struct LastMessage {
    #[serde(rename = "seq")]
    pub(super) sequence: u64,
    /// The headers with their first line, in base64.
    #[serde(default, rename = "hdrs")]
    headers: String,
}

impl LastMessage {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let headers = STANDARD.decode(&self.headers).ok()?;
        let headers = std::str::from_utf8(&headers).ok()?;
        let lines = headers.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .next()
    }
}

/// Returns the newest message of a subject, which may have wildcards, from the leader of the stream. The leader has
/// each message that was acknowledged; the replicas that Direct Get asks may not have it yet.
pub(super) async fn last(client: &Client, stream: &str, subject: &str) -> Result<Option<LastMessage>, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        message: LastMessage,
    }
    let body = json!({ "last_by_subj": subject });
    match call::<Body>(client, &format!("STREAM.MSG.GET.{stream}"), &body).await {
        Ok(body) => Ok(Some(body.message)),
        Err(ApiError::NoMessage) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the sequence of the newest message of a subject, from the leader of the stream.
pub(super) async fn last_sequence(client: &Client, stream: &str, subject: &str) -> Result<Option<u64>, ApiError> {
    Ok(last(client, stream, subject).await?.map(|last| last.sequence))
}

/// Returns the subjects with messages that match a filter, from the leader of the stream. Not more than the server puts
/// into one response.
pub(super) async fn subjects(client: &Client, stream: &str, filter: &str) -> Result<Vec<String>, ApiError> {
    let body = json!({ "subjects_filter": filter });
    let info: StreamInfo = call(client, &format!("STREAM.INFO.{stream}"), &body).await?;
    Ok(info.state.subjects.into_keys().collect())
}

/// Deletes a message. Of several concurrent calls, exactly one returns true.
pub(super) async fn delete(client: &Client, stream: &str, sequence: u64) -> Result<bool, ApiError> {
    let body = json!({ "seq": sequence, "no_erase": true });
    match call::<Value>(client, &format!("STREAM.MSG.DELETE.{stream}"), &body).await {
        Ok(_) => Ok(true),
        Err(ApiError::NoMessage) => Ok(false),
        Err(error) => Err(error),
    }
}

fn parse<T: DeserializeOwned>(message: &Message) -> Result<T, ApiError> {
    let unexpected = || unavailable("JetStream sent an unexpected response");
    let response: Response = serde_json::from_slice(&message.payload).map_err(|_| unexpected())?;
    match response.error {
        Some(error) => Err(error.into()),
        None => serde_json::from_slice(&message.payload).map_err(|_| unexpected()),
    }
}

impl From<ErrorBody> for ApiError {
    fn from(error: ErrorBody) -> Self {
        let ErrorBody {
            code,
            err_code,
            description,
        } = error;
        // The numbers are from server/errors.json of nats-server.
        match err_code {
            // Wrong last sequence, with and without the number; another message of the subject is being stored.
            10070 | 10071 | 10164 | 10193 | 10201 => Self::Conflict,
            10037 | 10043 => Self::NoMessage,
            // A deletion failed: the message does not exist.
            10057 if description.contains("no message found") || description.contains("not found") => Self::NoMessage,
            10059 => Self::NoStream,
            10058 => Self::Exists,
            // Message size exceeds the maximum of the stream.
            10054 => Self::Store(StoreError::TooLarge),
            // Insufficient resources, account limits, memory, storage, maximum bytes or messages of a stream.
            10002 | 10023 | 10028 | 10047 | 10077 => Self::Store(StoreError::Full(description.into())),
            _ if description.contains("maximum bytes") || description.contains("no space left") => {
                Self::Store(StoreError::Full(description.into()))
            }
            _ => unavailable(&format!("JetStream: {description} ({code}, error {err_code})")),
        }
    }
}

/// The error of a request that had no response.
pub(super) fn request_error(error: async_nats::RequestError) -> ApiError {
    match error.kind() {
        RequestErrorKind::NoResponders => ApiError::NoStream,
        RequestErrorKind::MaxPayloadExceeded => ApiError::Store(StoreError::TooLarge),
        RequestErrorKind::TimedOut => unavailable("no response in time"),
        _ => unavailable(&error.to_string()),
    }
}

/// The error of a message that was not sent.
pub(super) fn publish_error(error: &async_nats::PublishError) -> StoreError {
    match error.kind() {
        async_nats::client::PublishErrorKind::MaxPayloadExceeded => StoreError::TooLarge,
        _ => StoreError::Unavailable(error.to_string().into()),
    }
}

pub(super) fn unavailable(reason: &str) -> ApiError {
    ApiError::Store(StoreError::Unavailable(reason.into()))
}

impl From<ApiError> for StoreError {
    fn from(error: ApiError) -> Self {
        let reason: Arc<str> = match error {
            ApiError::Store(error) => return error,
            ApiError::NoStream => "a stream is missing, has no leader, or JetStream is not enabled".into(),
            ApiError::Conflict => "another node publishes at the same time".into(),
            ApiError::NoMessage => "a message is missing".into(),
            ApiError::Exists => "a stream has an unexpected configuration".into(),
        };
        Self::Unavailable(reason)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
