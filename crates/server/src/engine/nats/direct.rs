//! Direct Get: reads messages of a stream from any of its replicas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::api::{ApiError, REQUEST_TIMEOUT, parse_time_ms, publish_error, request_error, unavailable};

/// Maximum number of messages per request.
const BATCH: usize = 256;

/// Maximum number of requests with several responses at the same time. The others wait.
const BATCHES_MAX: usize = 64;

/// Number of responses that may arrive before they are processed: one subscription receives those of all requests, each
/// with one more at its end.
pub(super) const RESPONSES_MAX: usize = BATCHES_MAX * (BATCH + 1);

/// Maximum size of the messages per request, unless the first one is larger.
const BATCH_BYTES: usize = 1 << 20;

/// A message of a stream.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// When the server stored it, by its clock.
    pub(super) time_ms: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl Stored {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    fn parse(message: Message) -> Option<Self> {
        let headers = message.headers?;
        let text = |name: &str| headers.get(name).map(|value| value.as_str());
        Some(Self {
            subject: text("Nats-Subject")?.to_owned(),
            sequence: text("Nats-Sequence")?.parse().ok()?,
            time_ms: parse_time_ms(text("Nats-Time-Stamp")?)?,
            payload: message.payload,
            headers,
        })
    }
}

/// The responses to requests that have several. One subscription serves all requests.
#[derive(Debug)]
pub(super) struct Replies {
    inbox: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Message>>>,
    /// Room for responses.
    room: Semaphore,
}

impl Replies {
    pub(super) fn new(client: &Client) -> Arc<Self> {
        Arc::new(Self {
            inbox: client.new_inbox(),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            room: Semaphore::new(RESPONSES_MAX),
        })
    }

    /// Subscribes to the responses. The returned future passes them on; it ends with the client.
    pub(super) async fn start(self: Arc<Self>, client: &Client) -> Result<impl Future<Output = ()> + use<>, String> {
        let subscriber = client.subscribe(format!("{}.*", self.inbox)).await;
        let mut subscriber = subscriber.map_err(|error| error.to_string())?;
        Ok(async move {
            while let Some(message) = subscriber.next().await {
                let id = message.subject.rsplit('.').next().and_then(|id| id.parse().ok());
                let sender = id.and_then(|id: u64| self.waiting.lock().get(&id).cloned());
                if let Some(sender) = sender {
                    // There is room for a batch. A response that is missing makes the read fail.
                    let _ = sender.try_send(message);
                }
            }
        })
    }
}

/// A request that waits for responses.
struct Waiting<'a> {
    replies: &'a Replies,
    id: u64,
    received: mpsc::Receiver<Message>,
}

impl<'a> Waiting<'a> {
    /// A request with at most `responses_max` responses.
    fn new(replies: &'a Replies, responses_max: usize) -> Self {
        let id = replies.next.fetch_add(1, Ordering::Relaxed);
        // One for the end.
        let (sender, received) = mpsc::channel(responses_max + 1);
        replies.waiting.lock().insert(id, sender);
        Self { replies, id, received }
    }

    fn subject(&self) -> String {
        format!("{}.{}", self.replies.inbox, self.id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().remove(&self.id);
    }
}

/// Returns the newest message of a subject.
pub(super) async fn last(client: &Client, stream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
    get(client, stream, &json!({ "last_by_subj": subject })).await
}

/// Returns the message with a sequence.
pub(super) async fn at(client: &Client, stream: &str, sequence: u64) -> Result<Option<Stored>, ApiError> {
    get(client, stream, &json!({ "seq": sequence })).await
}

async fn get(client: &Client, stream: &str, body: &Value) -> Result<Option<Stored>, ApiError> {
    let request = client.request(format!("$JS.API.DIRECT.GET.{stream}"), body.to_string().into());
    let message = request.await.map_err(request_error)?;
    match message.status {
        None => Stored::parse(message).map(Some).ok_or_else(unexpected),
        Some(StatusCode::NOT_FOUND) => Ok(None),
        Some(status) => Err(unavailable(&format!("Direct Get failed with status {status}"))),
    }
}

/// Passes all messages of a subject, which may have wildcards, to `each`, from a sequence on.
pub(super) async fn each(
    client: &Client,
    replies: &Replies,
    stream: &str,
    filter: &str,
    from: u64,
    mut each: impl FnMut(Stored),
) -> Result<(), ApiError> {
    let mut from = from.max(1);
    loop {
        let batch = batch(client, replies, stream, filter, from, &mut each).await?;
        match batch {
            Some(last) => from = last.saturating_add(1),
            None => return Ok(()),
        }
    }
}

/// Returns the newest message of each of the subjects, if it has one. Not in their order.
pub(super) async fn last_of_each(
    client: &Client,
    replies: &Replies,
    stream: &str,
    subjects: &[String],
) -> Result<Vec<Stored>, ApiError> {
    let mut found = Vec::with_capacity(subjects.len());
    let mut rest: Vec<_> = subjects.iter().map(String::as_str).collect();
    loop {
        let body = json!({ "multi_last": rest, "batch": rest.len(), "max_bytes": BATCH_BYTES });
        let before = found.len();
        let more = request(client, replies, stream, &body, rest.len(), &mut |stored| {
            found.push(stored)
        })
        .await?;
        // The responses were too large for one request.
        if more.is_none() || found.len() == before {
            return Ok(found);
        }
        let known: HashSet<_> = found[before..]
            .iter()
            .map(|stored: &Stored| stored.subject.as_str())
            .collect();
        rest.retain(|subject| !known.contains(subject));
    }
}

/// Reads messages of a subject from a sequence on. Returns the sequence of the last one if there are more.
async fn batch(
    client: &Client,
    replies: &Replies,
    stream: &str,
    filter: &str,
    from: u64,
    each: &mut impl FnMut(Stored),
) -> Result<Option<u64>, ApiError> {
    let body = json!({ "seq": from, "next_by_subj": filter, "batch": BATCH, "max_bytes": BATCH_BYTES });
    request(client, replies, stream, &body, BATCH, each).await
}

/// Makes a request with several responses. Returns the sequence of the last message if there are more.
async fn request(
    client: &Client,
    replies: &Replies,
    stream: &str,
    body: &Value,
    responses_max: usize,
    each: &mut impl FnMut(Stored),
) -> Result<Option<u64>, ApiError> {
    let room = u32::try_from(responses_max + 1)
        .unwrap_or(u32::MAX)
        .min(RESPONSES_MAX as u32);
    let _room = replies.room.acquire_many(room).await;
    let mut waiting = Waiting::new(replies, responses_max);
    let sent = client
        .publish_with_reply(
            format!("$JS.API.DIRECT.GET.{stream}"),
            waiting.subject(),
            body.to_string().into(),
        )
        .await;
    sent.map_err(|error| publish_error(&error))?;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    // Each message names the one before it, so that a lost one is noticed.
    let mut last = 0;
    loop {
        let message = timeout_at(deadline, waiting.received.recv()).await;
        let message = message
            .ok()
            .flatten()
            .ok_or_else(|| unavailable("no response in time"))?;
        let number = |name: &str| {
            let value = message.headers.as_ref()?.get(name)?;
            value.as_str().parse::<u64>().ok()
        };
        if number("Nats-Last-Sequence").is_some_and(|before| before != last) {
            return Err(unavailable("a response of Direct Get was lost"));
        }
        match message.status.map(|status| status.as_u16()) {
            None => {
                let stored = Stored::parse(message).ok_or_else(unexpected)?;
                last = stored.sequence;
                each(stored);
            }
            // The end of the batch.
            Some(204) => {
                return Ok(number("Nats-Num-Pending")
                    .filter(|pending| *pending > 0 && last > 0)
                    .map(|_| last));
            }
            Some(404) => return Ok(None),
            Some(503) => return Err(ApiError::NoStream),
            Some(status) => return Err(unavailable(&format!("Direct Get failed with status {status}"))),
        }
    }
}

fn unexpected() -> ApiError {
    unavailable("Direct Get sent an unexpected response")
}
