//! The streams of publications, and their epochs.
//!
//! A stream is created when it is first needed. Its epoch is a part of its subject: each publication is stored in the
//! epoch that its publisher knows, or not at all, and readers find only publications of the epoch that they ask for. A
//! stream that is deleted and created again gets another epoch.
//!
//! JetStream may lose the newest publications in a crash, unless it syncs each write. So each node remembers the newest
//! publication of each stream that it has received. After each connection, and every few seconds, because another
//! server of a cluster may have the stream, it compares it with the stream. If the stream ends before it, or has
//! another message with its sequence, the stream gets a new epoch. The new epoch is a hash of the old one, so that
//! nodes that notice the loss at the same time agree. A loss is not noticed if no node has received the lost
//! publications, or if the newest one that a node has received was removed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::Client;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::{Epoch, unix_time_ms};
use super::api::{self, ApiError, StreamInfo};
use super::direct;
use super::subject::{StreamKey, Subjects};
use crate::engine::idempotency::KEY_TTL;

/// How long the state of a stream may be used again.
const INFO_AGE_MAX: Duration = Duration::from_millis(200);

/// Number of streams that are compared at the same time.
const VERIFIED_AT_ONCE: usize = 64;

/// Pause before the leader of a stream with replicas is asked again.
const LEADER_PAUSE: Duration = Duration::from_secs(1);

/// A stream in an epoch.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: StreamKey,
    pub(super) name: String,
    pub(super) epoch: Epoch,
    /// The newest publication that this node has received: its sequence, and its time in milliseconds.
    newest: Mutex<(u64, u64)>,
    bounds: tokio::sync::Mutex<Option<(Instant, Bounds)>>,
}

/// The sequences of the oldest and the newest message of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) oldest: u64,
    pub(super) newest: u64,
}

/// What is known of a stream that was forgotten.
#[derive(Debug)]
struct Forgotten {
    epoch: Epoch,
    /// As [`Stream::newest`].
    newest: (u64, u64),
}

/// The streams that this node has used.
#[derive(Debug)]
pub(super) struct Streams {
    subjects: Subjects,
    replicas: u8,
    bytes_max: u64,
    known: Mutex<HashMap<StreamKey, Arc<Stream>>>,
    /// The epoch and the newest publication of streams that were forgotten: they may come back with fewer publications.
    forgotten: Mutex<HashMap<StreamKey, Forgotten>>,
    /// Whether a stream has got another epoch.
    has_changed: AtomicBool,
    /// Held while a stream is looked up or created.
    opening: Mutex<HashMap<StreamKey, Arc<tokio::sync::Mutex<()>>>>,
    /// Clock of the server minus clock of this node, in milliseconds.
    clock_difference_ms: AtomicI64,
}

impl Stream {
    /// Remembers a publication that was received.
    pub(super) fn saw(&self, sequence: u64, time_ms: u64) {
        let mut newest = self.newest.lock();
        if sequence > newest.0 {
            *newest = (sequence, time_ms);
        }
    }
}

impl Streams {
    pub(super) fn new(subjects: Subjects, replicas: u8, bytes_max: u64) -> Self {
        Self {
            subjects,
            replicas,
            bytes_max,
            known: Mutex::default(),
            forgotten: Mutex::default(),
            has_changed: AtomicBool::new(false),
            opening: Mutex::default(),
            clock_difference_ms: AtomicI64::new(0),
        }
    }

    /// The time of the server's clock.
    pub(super) fn server_time_ms(&self) -> u64 {
        unix_time_ms().saturating_add_signed(self.clock_difference_ms.load(Ordering::Relaxed))
    }

    /// Whether reads must ask the leader to be sure that a message does not exist.
    pub(super) fn has_replicas(&self) -> bool {
        self.replicas > 1
    }

    /// The stream, if this node has used it in this epoch.
    pub(super) fn known(&self, key: StreamKey, epoch: &Epoch) -> Option<Arc<Stream>> {
        let stream = self.known.lock().get(&key).cloned()?;
        (stream.epoch == *epoch).then_some(stream)
    }

    /// Returns a stream, which is looked up or created if this node has not used it.
    pub(super) async fn open(&self, client: &Client, key: StreamKey) -> Result<Arc<Stream>, ApiError> {
        if let Some(stream) = self.known.lock().get(&key) {
            return Ok(stream.clone());
        }
        let opening = self.opening.lock().entry(key).or_default().clone();
        let _opening = opening.lock().await;
        if let Some(stream) = self.known.lock().get(&key) {
            return Ok(stream.clone());
        }
        let mut stream = self.look_up(client, key).await?;
        if stream.newest.lock().0 > 0 {
            // It was forgotten, and may have come back with fewer publications.
            match self.replace_epoch_after_loss(client, &stream).await {
                Ok(false) => {}
                Ok(true) => {
                    self.remember(&stream);
                    stream = self.look_up(client, key).await?;
                }
                Err(error) => {
                    self.remember(&stream);
                    return Err(error);
                }
            }
        }
        self.known.lock().insert(key, stream.clone());
        Ok(stream)
    }

    async fn look_up(&self, client: &Client, key: StreamKey) -> Result<Arc<Stream>, ApiError> {
        let name = self.subjects.stream(key);
        let info = match api::info(client, &name).await {
            Err(ApiError::NoStream) => match self.create(client, key, &name).await {
                // Another node was faster.
                Err(ApiError::Exists) => api::info(client, &name).await?,
                info => info?,
            },
            info => info?,
        };
        self.adopt(key, name, &info)
    }

    /// Forgets a stream, because it may have another epoch.
    pub(super) fn forget(&self, stream: &Stream) {
        let mut known = self.known.lock();
        if known.get(&stream.key).is_some_and(|known| known.epoch == stream.epoch) {
            known.remove(&stream.key);
            self.remember(stream);
        }
    }

    /// Keeps what is known of a stream until it is opened.
    fn remember(&self, stream: &Stream) {
        let forgotten = Forgotten {
            epoch: stream.epoch.clone(),
            newest: *stream.newest.lock(),
        };
        self.forgotten.lock().insert(stream.key, forgotten);
    }

    /// Returns the oldest and newest sequence of a stream, as they were at most [`INFO_AGE_MAX`] ago.
    ///
    /// # Errors
    /// [`ApiError::NoStream`] if the stream has another epoch, or is gone.
    pub(super) async fn bounds(&self, client: &Client, stream: &Stream) -> Result<Bounds, ApiError> {
        let now = Instant::now();
        let since = now.checked_sub(INFO_AGE_MAX).unwrap_or(now);
        self.bounds_since(client, stream, since).await
    }

    /// Returns the oldest and newest sequence of a stream, as they were at `since` or later.
    ///
    /// # Errors
    /// As [`bounds`](Self::bounds).
    pub(super) async fn bounds_since(
        &self,
        client: &Client,
        stream: &Stream,
        since: Instant,
    ) -> Result<Bounds, ApiError> {
        let mut cached = stream.bounds.lock().await;
        if let Some((at, bounds)) = *cached
            && at >= since
        {
            return Ok(bounds);
        }
        let asked = Instant::now();
        let info = api::info(client, &stream.name).await?;
        self.set_clock(&info);
        if self.epoch_of(stream.key, &info)? != stream.epoch {
            return Err(ApiError::NoStream);
        }
        let bounds = Bounds {
            oldest: info.state.oldest(),
            newest: info.state.last_seq,
        };
        *cached = Some((asked, bounds));
        Ok(bounds)
    }

    /// Compares all streams with what this node has received.
    ///
    /// # Errors
    /// Fails if a stream cannot be compared. It is compared when it is used next. The others are compared now.
    pub(super) async fn verify(&self, client: &Client) -> Result<(), ApiError> {
        let mut result = Ok(());
        let known: Vec<_> = self.known.lock().values().cloned().collect();
        let mut verified = stream::iter(known)
            .map(async |stream| (self.replace_epoch_after_loss(client, &stream).await, stream))
            .buffer_unordered(VERIFIED_AT_ONCE);
        while let Some((outcome, stream)) = verified.next().await {
            match outcome {
                Ok(_) => {}
                Err(ApiError::NoStream) => self.forget(&stream),
                Err(error) => {
                    self.forget(&stream);
                    result = Err(error);
                }
            }
        }
        let forgotten: Vec<_> = self.forgotten.lock().keys().copied().collect();
        let mut opened = stream::iter(forgotten)
            .map(|key| self.open(client, key))
            .buffer_unordered(VERIFIED_AT_ONCE);
        while let Some(opened) = opened.next().await {
            match opened {
                Ok(_) | Err(ApiError::NoStream) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Whether a stream has got another epoch since the last call.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed.swap(false, Ordering::Relaxed)
    }

    /// Gives a stream a new epoch if it has lost a publication that this node has received. Returns whether it has.
    async fn replace_epoch_after_loss(&self, client: &Client, stream: &Stream) -> Result<bool, ApiError> {
        let mut has_lost = self.has_lost(client, stream).await?;
        if has_lost && self.has_replicas() {
            // A new leader may not have applied everything yet.
            sleep(LEADER_PAUSE).await;
            has_lost = self.has_lost(client, stream).await?;
        }
        if has_lost {
            self.replace_epoch(client, stream).await?;
        }
        Ok(has_lost)
    }

    /// Whether a stream has lost a publication that this node has received.
    async fn has_lost(&self, client: &Client, stream: &Stream) -> Result<bool, ApiError> {
        // Before the stream is asked: it then has everything that was received until now.
        let (sequence, time_ms) = *stream.newest.lock();
        let bounds = self.bounds_since(client, stream, Instant::now()).await?;
        if sequence == 0 || bounds.newest < sequence {
            return Ok(bounds.newest < sequence);
        }
        // If it was removed, because it has expired or the channel has newer ones, nothing is known.
        let found = direct::at(client, &stream.name, sequence).await?;
        Ok(found.is_some_and(|found| found.time_ms != time_ms))
    }

    /// Gives a stream the next epoch, unless it has another one already.
    pub(super) async fn replace_epoch(&self, client: &Client, stream: &Stream) -> Result<(), ApiError> {
        let mut info = api::info(client, &stream.name).await?;
        if self.epoch_of(stream.key, &info)? == stream.epoch {
            tracing::warn!(
                stream = stream.name,
                "NATS has lost publications; the stream gets a new epoch"
            );
            let next = next_epoch(&stream.epoch);
            let subject = self.subjects.of_epoch(stream.key, &next);
            info.config["subjects"] = json!([subject]);
            info.config["republish"] = json!({ "src": subject, "dest": self.subjects.live_all() });
            let update = format!("STREAM.UPDATE.{}", stream.name);
            api::call::<Value>(client, &update, &info.config).await?;
        }
        self.forget(stream);
        Ok(())
    }

    async fn create(&self, client: &Client, key: StreamKey, name: &str) -> Result<StreamInfo, ApiError> {
        let subject = self
            .subjects
            .of_epoch(key, &Epoch::new(format!("{:016x}", rand::random::<u64>())));
        let config = json!({
            "name": name,
            "subjects": [subject],
            "storage": "file",
            "discard": "old",
            "num_replicas": self.replicas,
            "max_bytes": self.bytes_max,
            "max_msgs_per_subject": key.class.messages_max(),
            "max_age": nanos(key.class.age_max()),
            "duplicate_window": nanos(KEY_TTL),
            "allow_direct": true,
            "republish": { "src": subject, "dest": self.subjects.live_all() },
        });
        api::call(client, &format!("STREAM.CREATE.{name}"), &config).await
    }

    fn adopt(&self, key: StreamKey, name: String, info: &StreamInfo) -> Result<Arc<Stream>, ApiError> {
        self.set_clock(info);
        let epoch = self.epoch_of(key, info)?;
        let forgotten = self.forgotten.lock().remove(&key);
        if forgotten.as_ref().is_some_and(|forgotten| forgotten.epoch != epoch) {
            self.has_changed.store(true, Ordering::Relaxed);
        }
        let forgotten = forgotten.filter(|forgotten| forgotten.epoch == epoch);
        let newest = forgotten.map(|forgotten| forgotten.newest);
        Ok(Arc::new(Stream {
            key,
            name,
            epoch,
            newest: Mutex::new(newest.unwrap_or_default()),
            bounds: tokio::sync::Mutex::default(),
        }))
    }

    fn epoch_of(&self, key: StreamKey, info: &StreamInfo) -> Result<Epoch, ApiError> {
        let epoch = info.subject().and_then(|subject| self.subjects.epoch_of(key, subject));
        epoch.ok_or(ApiError::Exists)
    }

    fn set_clock(&self, info: &StreamInfo) {
        if let Some(time) = info.server_time_ms() {
            let difference = time as i64 - unix_time_ms() as i64;
            self.clock_difference_ms.store(difference, Ordering::Relaxed);
        }
    }
}

/// The epoch after a loss. Nodes that notice it at the same time choose the same.
fn next_epoch(epoch: &Epoch) -> Epoch {
    let hash = ring::digest::digest(&ring::digest::SHA256, epoch.as_str().as_bytes());
    Epoch::new(
        hash.as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    )
}

/// A duration as JetStream writes it.
pub(super) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
