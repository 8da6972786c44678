//! Publications with history: storing, reading, removing.
//!
//! The offset of a publication is its sequence in the stream. Channels share streams, so offsets have gaps, and each
//! publication names the one before it. A stream keeps more than the history: one more publication per channel, and
//! each for twice the TTL. So a reader at a position usually finds the publication at that position, which proves that
//! those after it are complete. Where no proof exists, `previous` is `offset - 1`, so that nobody recovers by mistake.
//!
//! A channel without messages has
//!
//! 1. the position that this node has confirmed, if that was within the time that a stream keeps messages,
//! 2. otherwise the position of the reader, if nothing after it can have expired,
//! 3. otherwise the end of the stream.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::cluster::{
    POSITIONS_TIMEOUT, StoreError, StorePublish, StorePublished, StoredPage, StoredPublication,
};
use super::super::{HistoryLimits, HistoryQuery, Position, PublishOutcome, Version};
use super::api::{self, ApiError};
use super::direct::{self, Stored};
use super::streams::Stream;
use super::subject::{StreamKey, decode_token, token};
use super::{Link, Shared};
use crate::channel::ChannelName;

/// Header: the time of the publisher, in milliseconds.
pub(super) const TIME: &str = "Sockeye-Time";
/// Header: the version of a publication.
const VERSION: &str = "Sockeye-Version";
/// Header of a marker, which takes the place of removed publications: the position of the channel.
pub(super) const MARKER: &str = "Sockeye-Position";

/// How often a call is repeated after another node has published at the same time, or a stream has a new epoch.
const ATTEMPTS: u32 = 20;

/// Pause before a read is repeated, because a replica lags behind.
const LAG_PAUSE: Duration = Duration::from_millis(20);

/// Number of streams that are asked for positions at the same time.
const STREAMS_AT_ONCE: usize = 64;

/// Number of positions that are read one by one at the same time.
const POSITIONS_AT_ONCE: usize = 64;

impl Shared {
    pub(super) async fn publish_stored(
        &self,
        channel: &ChannelName,
        publish: StorePublish,
        limits: HistoryLimits,
    ) -> Result<StorePublished, StoreError> {
        if publish.payload.len() > limits.bytes_max {
            return Err(StoreError::TooLarge);
        }
        let link = self.link()?;
        let id = publish.idempotency_key.as_deref().map(|key| message_id(channel, key));
        for attempt in 0..ATTEMPTS {
            let stream = self
                .streams
                .open(&link.client, StreamKey::new(channel, &limits))
                .await?;
            let mut headers = HeaderMap::new();
            headers.insert(TIME, publish.time_ms.to_string());
            if let Some(id) = &id {
                headers.insert("Nats-Msg-Id", id.as_str());
            }
            let stored = async {
                if let Some(version) = &publish.version {
                    let newest = self.newest_version(link, &stream, channel, id.as_deref()).await?;
                    match newest {
                        Versions::Published(sequence) => return Ok((sequence, PublishOutcome::Duplicate)),
                        Versions::Newest {
                            version: Some(newest),
                            top,
                            ..
                        } if is_outdated(version, &newest) => {
                            return Ok((top, PublishOutcome::Suppressed));
                        }
                        Versions::Newest { last, .. } => {
                            headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
                            headers.insert(VERSION, encode_version(version));
                        }
                    }
                }
                let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
                let ack = api::publish(&link.client, subject, headers, publish.payload.clone()).await?;
                let outcome = match ack.duplicate {
                    true => PublishOutcome::Duplicate,
                    false => PublishOutcome::Delivered,
                };
                Ok((ack.seq, outcome))
            };
            match stored.await {
                Ok((offset, outcome)) => {
                    return Ok(StorePublished {
                        position: Position {
                            epoch: stream.epoch.clone(),
                            offset,
                        },
                        outcome,
                    });
                }
                Err(ApiError::Conflict) => sleep(Duration::from_millis(1) * attempt).await,
                // It was deleted, or has a new epoch, or a leader is being elected.
                Err(ApiError::NoStream) if attempt < 2 => self.streams.forget(&stream),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict.into())
    }

    /// Publishes without storing, unless the idempotency key was used before.
    pub(super) async fn publish_unstored(
        &self,
        channel: &ChannelName,
        publish: StorePublish,
    ) -> Result<StorePublished, StoreError> {
        let link = self.link()?;
        let mut headers = HeaderMap::new();
        headers.insert(TIME, publish.time_ms.to_string());
        let mut outcome = PublishOutcome::Delivered;
        if let Some(key) = publish.idempotency_key.as_deref() {
            headers.insert("Nats-Msg-Id", message_id(channel, key));
            let subject = self.subjects.keyed(channel);
            let keyed = || api::publish(&link.client, subject.clone(), headers.clone(), publish.payload.clone());
            let ack = match keyed().await {
                Err(ApiError::NoStream) => {
                    self.create_keyed_stream(&link.client).await?;
                    keyed().await?
                }
                ack => ack?,
            };
            if ack.duplicate {
                outcome = PublishOutcome::Duplicate;
            }
        } else {
            let subject = self.subjects.live(channel);
            let published = link.client.publish_with_headers(subject, headers, publish.payload);
            published.await.map_err(|error| api::publish_error(&error))?;
        }
        Ok(StorePublished {
            position: Position::none(),
            outcome,
        })
    }

    pub(super) async fn read(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> Result<StoredPage, StoreError> {
        let link = self.link()?;
        for _ in 0..ATTEMPTS {
            let stream = self
                .streams
                .open(&link.client, StreamKey::new(channel, &limits))
                .await?;
            match self.try_read(link, &stream, channel, query, limits).await {
                Ok(Some(page)) => {
                    self.confirm(channel, &page.top);
                    return Ok(page);
                }
                Ok(None) => sleep(LAG_PAUSE).await,
                Err(ApiError::NoStream) => self.streams.forget(&stream),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Unavailable("a replica of a stream lags behind".into()))
    }

    /// Returns `None` if a replica lags behind.
    async fn try_read(
        &self,
        link: &Link,
        stream: &Stream,
        channel: &ChannelName,
        query: HistoryQuery,
        limits: HistoryLimits,
    ) -> Result<Option<StoredPage>, ApiError> {
        let start = Instant::now();
        let since = query.since.filter(|_| !query.is_reversed);
        let mut chain = Chain::new(since, stream.key.class.count, limits.bytes_max);
        // Only the top is asked for.
        if query.limit > 0 {
            let from = since.unwrap_or(0);
            self.each_of(link, stream, channel, from, |stored| chain.add(stored))
                .await?;
        }
        let top = match chain.top {
            Some(top) => top,
            None => match self.top(link, stream, channel, query.since).await? {
                Some(top) => top,
                None => return Ok(None),
            },
        };
        if self.is_behind(link, stream, channel, since, top).await? {
            return Ok(None);
        }
        let since_is_start = match (since, chain.unproven) {
            (Some(since), true) => {
                // From before the read, they would not show what has expired in the meantime.
                let bounds = self.streams.bounds_since(&link.client, stream, start).await?;
                chain.count <= stream.key.class.count && bounds.oldest <= since.saturating_add(1)
            }
            _ => false,
        };
        let oldest = self.streams.server_time_ms().saturating_sub(stream.key.class.ttl_ms);
        let publications = chain.publications(since.filter(|_| since_is_start), oldest);
        Ok(Some(StoredPage {
            publications: select(publications, query),
            top: Position {
                epoch: stream.epoch.clone(),
                offset: top,
            },
        }))
    }

    /// Reads the positions of the channels of each stream together. The others, which have no messages or may lag
    /// behind, are read one by one.
    pub(super) async fn positions(
        &self,
        channels: &[(ChannelName, HistoryLimits)],
    ) -> Result<Vec<Option<Position>>, StoreError> {
        let link = self.link()?;
        let mut by_stream: HashMap<StreamKey, Vec<usize>> = HashMap::new();
        for (index, (channel, limits)) in channels.iter().enumerate() {
            by_stream
                .entry(StreamKey::new(channel, limits))
                .or_default()
                .push(index);
        }
        let mut positions = vec![None; channels.len()];
        let start = Instant::now();
        let deadline = start + POSITIONS_TIMEOUT;
        let by_stream = by_stream.into_iter().map(async |(key, indexes)| {
            let known = indexes.iter().map(|&index| &channels[index].0).collect();
            let newest = self.newest_positions(link, key, known);
            let found = match timeout_at(start + POSITIONS_TIMEOUT / 2, newest).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    tracing::debug!(?error, "could not read the positions of a stream");
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            indexes.into_iter().zip(found)
        });
        let mut by_stream = stream::iter(by_stream).buffer_unordered(STREAMS_AT_ONCE);
        let mut unread = Vec::new();
        while let Some(found) = by_stream.next().await {
            for (index, position) in found {
                match position {
                    Some(position) => positions[index] = Some(position),
                    None => unread.push(index),
                }
            }
        }
        let mut reads = stream::iter(unread)
            .map(async |index| {
                let (channel, limits) = &channels[index];
                (index, self.position(channel, limits).await)
            })
            .buffer_unordered(POSITIONS_AT_ONCE);
        while let Ok(Some((index, position))) = timeout_at(deadline, reads.next()).await {
            match position {
                Ok(position) => positions[index] = Some(position),
                Err(error) => tracing::debug!(channel = %channels[index].0, %error, "could not read a position"),
            }
        }
        Ok(positions)
    }

    /// The positions of those channels of a stream that are known without asking for each.
    async fn newest_positions(
        &self,
        link: &Link,
        key: StreamKey,
        channels: Vec<&ChannelName>,
    ) -> Result<Vec<Option<Position>>, ApiError> {
        let stream = self.streams.open(&link.client, key).await?;
        let subject = |channel: &&ChannelName| self.subjects.stored(key, &stream.epoch, channel);
        let subjects: Vec<_> = channels.iter().map(subject).collect();
        let mut tops = HashMap::new();
        let read = async |subjects: &[String], tops: &mut HashMap<String, u64>| {
            let found = direct::last_of_each(&link.client, &link.replies, &stream.name, subjects).await?;
            let found = found.into_iter().map(|last| {
                let top = marked_position(&last).unwrap_or(last.sequence);
                (last.subject, top)
            });
            tops.extend(found);
            Ok::<_, ApiError>(())
        };
        read(&subjects, &mut tops).await?;
        // As in `top`, but a replica that lags behind may not have what the others have.
        let mut newest = None;
        if !self.streams.has_replicas() && tops.len() < subjects.len() {
            let bounds = self.streams.bounds(&link.client, &stream).await?;
            let rest: Vec<_> = subjects
                .iter()
                .filter(|subject| !tops.contains_key(*subject))
                .cloned()
                .collect();
            let before = tops.len();
            read(&rest, &mut tops).await?;
            newest = (tops.len() == before).then_some(bounds.newest);
        }
        let age_max = key.class.age_max();
        let position = |(channel, subject): (&ChannelName, &String)| {
            let confirmed = |age_max| self.confirmed(channel, &stream.epoch, age_max);
            let offset = match tops.get(subject) {
                Some(&top)
                    if self.streams.has_replicas() && confirmed(Duration::MAX).is_some_and(|seen| top < seen) =>
                {
                    None
                }
                Some(&top) => Some(top),
                None => newest.map(|newest| confirmed(age_max).unwrap_or(newest)),
            };
            let position = Position {
                epoch: stream.epoch.clone(),
                offset: offset?,
            };
            self.confirm(channel, &position);
            Some(position)
        };
        Ok(channels.into_iter().zip(&subjects).map(position).collect())
    }

    pub(super) async fn position(&self, channel: &ChannelName, limits: &HistoryLimits) -> Result<Position, StoreError> {
        let query = HistoryQuery::default();
        Ok(self.read(channel, query, *limits).await?.top)
    }

    /// Returns the offset of the newest publication, or `None` if a replica lags behind.
    async fn top(
        &self,
        link: &Link,
        stream: &Stream,
        channel: &ChannelName,
        since: Option<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
        if let Some(last) = direct::last(&link.client, &stream.name, &subject).await? {
            return Ok(Some(marked_position(&last).unwrap_or(last.sequence)));
        }
        // This also notices another epoch. Then nothing can be found.
        let bounds = self.streams.bounds(&link.client, stream).await?;
        let empty_since = Instant::now();
        // A publication after `bounds` is found now. The leader has all of them, replicas may not.
        let is_empty = match self.streams.has_replicas() {
            true => api::last_sequence(&link.client, &stream.name, &subject)
                .await?
                .is_none(),
            false => direct::last(&link.client, &stream.name, &subject).await?.is_none(),
        };
        if !is_empty {
            return Ok(None);
        }
        if let Some(confirmed) = self.confirmed(channel, &stream.epoch, stream.key.class.age_max()) {
            return Ok(Some(confirmed));
        }
        let Some(since) = since.filter(|since| *since <= bounds.newest) else {
            return Ok(Some(bounds.newest));
        };
        // Nothing after `since` can have expired if the stream still has what is older, after it was found to be empty.
        let now = self.streams.bounds_since(&link.client, stream, empty_since).await?;
        let is_at_since = now.oldest <= since.saturating_add(1);
        Ok(Some(if is_at_since { since } else { bounds.newest }))
    }

    /// Whether a replica has answered that lags behind what the reader or this node has seen.
    async fn is_behind(
        &self,
        link: &Link,
        stream: &Stream,
        channel: &ChannelName,
        since: Option<u64>,
        top: u64,
    ) -> Result<bool, ApiError> {
        if !self.streams.has_replicas() {
            return Ok(false);
        }
        let confirmed = self.confirmed(channel, &stream.epoch, Duration::MAX);
        let seen = since.max(confirmed).unwrap_or(0);
        if top >= seen {
            return Ok(false);
        }
        // If the leader does not have it either, it is lost.
        let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
        let last = api::last_sequence(&link.client, &stream.name, &subject).await?;
        Ok(last.is_some_and(|last| last >= seen))
    }

    pub(super) async fn remove_history(&self, channel: &ChannelName, limits: HistoryLimits) -> Result<(), StoreError> {
        let link = self.link()?;
        for attempt in 0..ATTEMPTS {
            let stream = self
                .streams
                .open(&link.client, StreamKey::new(channel, &limits))
                .await?;
            match self.try_remove(link, &stream, channel).await {
                Ok(()) => return Ok(()),
                Err(ApiError::Conflict) => sleep(Duration::from_millis(1) * attempt).await,
                Err(ApiError::NoStream) if attempt < 2 => self.streams.forget(&stream),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict.into())
    }

    /// Publishes a marker that keeps the position and the version of the channel, and purges what is before it.
    async fn try_remove(&self, link: &Link, stream: &Stream, channel: &ChannelName) -> Result<(), ApiError> {
        let mut version = None;
        let mut last = None;
        let each = |stored: Stored| {
            version = stored.header(VERSION).map(str::to_owned).or(version.take());
            last = Some((stored.sequence, marked_position(&stored).unwrap_or(stored.sequence)));
        };
        self.each_of(link, stream, channel, 0, each).await?;
        let Some((sequence, position)) = last else {
            return Ok(());
        };
        let mut headers = HeaderMap::new();
        headers.insert(MARKER, position.to_string());
        headers.insert("Nats-Expected-Last-Subject-Sequence", sequence.to_string());
        if let Some(version) = version {
            headers.insert(VERSION, version);
        }
        let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
        let ack = api::publish(&link.client, subject.clone(), headers, bytes::Bytes::new()).await?;
        let purge = json!({ "filter": subject, "seq": ack.seq });
        api::call::<Value>(&link.client, &format!("STREAM.PURGE.{}", stream.name), &purge).await?;
        Ok(())
    }

    /// Gives the stream of a channel a new epoch if its leader has lost the publication at `seen`.
    pub(super) async fn replace_epoch(
        &self,
        channel: &ChannelName,
        limits: &HistoryLimits,
        seen: &Position,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        let stream = self.streams.open(&link.client, StreamKey::new(channel, limits)).await?;
        if stream.epoch != seen.epoch {
            return Ok(());
        }
        let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
        let last = match api::last_sequence(&link.client, &stream.name, &subject).await {
            Ok(last) => last,
            Err(ApiError::NoStream) => {
                self.streams.forget(&stream);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let info = api::info(&link.client, &stream.name).await?;
        let is_lost = info.state.last_seq < seen.offset || last.is_some_and(|last| last < seen.offset);
        match is_lost {
            true => self.streams.replace_epoch(&link.client, &stream).await?,
            // A replica lags behind.
            false => sleep(LAG_PAUSE).await,
        }
        Ok(())
    }

    /// Passes on all messages of a channel, from a sequence on.
    async fn each_of(
        &self,
        link: &Link,
        stream: &Stream,
        channel: &ChannelName,
        from: u64,
        each: impl FnMut(Stored),
    ) -> Result<(), ApiError> {
        let subject = self.subjects.stored(stream.key, &stream.epoch, channel);
        direct::each(&link.client, &link.replies, &stream.name, &subject, from, each).await
    }

    /// Looks for the newest version of a channel, and for a publication with an id.
    async fn newest_version(
        &self,
        link: &Link,
        stream: &Stream,
        channel: &ChannelName,
        id: Option<&str>,
    ) -> Result<Versions, ApiError> {
        let mut newest = None;
        let mut published = None;
        let (mut top, mut last) = (0, 0);
        let each = |stored: Stored| {
            newest = stored.header(VERSION).and_then(decode_version).or(newest.take());
            if id.is_some() && stored.header("Nats-Msg-Id") == id {
                published = Some(stored.sequence);
            }
            last = stored.sequence;
            top = marked_position(&stored).unwrap_or(last);
        };
        self.each_of(link, stream, channel, 0, each).await?;
        Ok(match published {
            Some(sequence) => Versions::Published(sequence),
            None => Versions::Newest {
                version: newest,
                top,
                last,
            },
        })
    }

    async fn create_keyed_stream(&self, client: &Client) -> Result<(), ApiError> {
        let name = self.subjects.keyed_stream();
        let window = super::streams::nanos(crate::engine::idempotency::KEY_TTL);
        let subject = self.subjects.keyed_all();
        let config = json!({
            "name": name,
            "subjects": [subject],
            "storage": "memory",
            "discard": "old",
            "num_replicas": self.config.replicas,
            "max_msgs": 1,
            "max_bytes": KEYED_STREAM_BYTES,
            "max_age": window,
            "duplicate_window": window,
            "republish": { "src": subject, "dest": self.subjects.live_all() },
        });
        match api::call::<Value>(client, &format!("STREAM.CREATE.{name}"), &config).await {
            Ok(_) | Err(ApiError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Maximum size of the stream that recognizes repeated keys. It keeps one message.
const KEYED_STREAM_BYTES: u64 = 8 << 20;

enum Versions {
    /// A publication with the id exists, with this sequence.
    Published(u64),
    /// There is none.
    Newest {
        version: Option<Version>,
        /// The offset of the newest publication; 0 without messages.
        top: u64,
        /// The sequence of the newest message.
        last: u64,
    },
}

/// The messages of a channel, from the oldest one that was asked for.
struct Chain {
    since: Option<u64>,
    count_max: u64,
    bytes_max: usize,
    /// The newest messages, within the limits, each with the offset of the one before it, if it is known.
    newest: VecDeque<(Option<u64>, Stored)>,
    bytes: usize,
    /// Number of messages after `since`.
    count: u64,
    previous: Option<u64>,
    top: Option<u64>,
    /// Whether messages between `since` and the first one may be missing.
    unproven: bool,
}

impl Chain {
    fn new(since: Option<u64>, count_max: u64, bytes_max: usize) -> Self {
        Self {
            since,
            count_max,
            bytes_max,
            newest: VecDeque::new(),
            bytes: 0,
            count: 0,
            previous: None,
            top: None,
            unproven: since.is_some(),
        }
    }

    fn add(&mut self, stored: Stored) {
        let sequence = stored.sequence;
        if let Some(position) = marked_position(&stored) {
            // What was before it is removed.
            self.newest.clear();
            self.bytes = 0;
            // The position is that of the last publication, so nothing is between it and the marker.
            self.unproven &= self.since.is_some_and(|since| position > since) || self.count > 0;
            self.previous = Some(position);
            self.top = Some(position);
            self.count += 1;
            return;
        }
        let previous = self.previous.replace(sequence);
        self.top = Some(sequence);
        if Some(sequence) == self.since {
            self.unproven = false;
            return;
        }
        self.count += 1;
        self.bytes += stored.payload.len();
        self.newest.push_back((previous, stored));
        while self.newest.len() as u64 > self.count_max || self.bytes > self.bytes_max && self.newest.len() > 1 {
            let Some((_, removed)) = self.newest.pop_front() else {
                break;
            };
            self.bytes -= removed.payload.len();
        }
    }

    /// The publications that are not older than `oldest_ms`. `start` is the position before the first one, if it is
    /// known.
    fn publications(self, start: Option<u64>, oldest_ms: u64) -> Vec<StoredPublication> {
        let publications = self.newest.into_iter().filter(|(_, stored)| stored.time_ms > oldest_ms);
        publications
            .map(|(previous, stored)| StoredPublication {
                offset: stored.sequence,
                previous: previous.or(start).unwrap_or(stored.sequence.saturating_sub(1)),
                time_ms: publisher_time(&stored.headers).unwrap_or(stored.time_ms),
                payload: stored.payload,
            })
            .collect()
    }
}

/// Selects the part of the publications that was asked for.
fn select(mut publications: Vec<StoredPublication>, query: HistoryQuery) -> Vec<StoredPublication> {
    if query.is_reversed {
        publications.retain(|publication| query.since.is_none_or(|since| publication.offset < since));
        publications.reverse();
    }
    publications.truncate(query.limit);
    publications
}

pub(super) fn publisher_time(headers: &HeaderMap) -> Option<u64> {
    headers.get(TIME)?.as_str().parse().ok()
}

/// The position of the channel, if the message is a marker.
fn marked_position(stored: &Stored) -> Option<u64> {
    stored.header(MARKER)?.parse().ok()
}

fn encode_version(version: &Version) -> String {
    // Not a space, which would be lost at the end of a header.
    format!("{}/{}", version.number, token(&version.epoch))
}

fn decode_version(text: &str) -> Option<Version> {
    let (number, epoch) = text.split_once('/')?;
    Some(Version {
        number: number.parse().ok()?,
        epoch: decode_token(epoch)?.into(),
    })
}

fn is_outdated(version: &Version, newest: &Version) -> bool {
    newest.epoch == version.epoch && newest.number >= version.number
}

/// The id of a publication with an idempotency key. A hash, because keys and channels may be long and contain any
/// character.
fn message_id(channel: &ChannelName, key: &str) -> String {
    use base64::Engine as _;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    // Channel names have no control characters.
    hash.update(channel.as_str().as_bytes());
    hash.update(b"\0");
    hash.update(key.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64, marker: Option<u64>) -> Stored {
        let mut headers = HeaderMap::new();
        if let Some(position) = marker {
            headers.insert(MARKER, position.to_string());
        }
        Stored {
            subject: String::new(),
            sequence,
            time_ms: sequence,
            headers,
            payload: bytes::Bytes::from_static(b"12345678"),
        }
    }

    fn chain(since: Option<u64>, messages: &[(u64, Option<u64>)]) -> Chain {
        let mut chain = Chain::new(since, 3, 1000);
        for (sequence, marker) in messages {
            chain.add(stored(*sequence, *marker));
        }
        chain
    }

    fn numbers(chain: Chain, start: Option<u64>) -> Vec<(u64, u64)> {
        let publications = chain.publications(start, 0);
        publications.iter().map(|p| (p.previous, p.offset)).collect()
    }

    #[test]
    fn publications_name_the_one_before_them() {
        let found = chain(None, &[(3, None), (7, None), (20, None)]);
        assert_eq!(found.top, Some(20));
        assert_eq!(numbers(found, None), [(2, 3), (3, 7), (7, 20)]);
    }

    #[test]
    fn the_publication_at_the_position_proves_that_nothing_is_missing() {
        let found = chain(Some(3), &[(3, None), (7, None)]);
        assert!(!found.unproven);
        assert_eq!(numbers(found, None), [(3, 7)]);
        let found = chain(Some(3), &[(7, None)]);
        assert!(found.unproven);
        assert_eq!(numbers(found, None), [(6, 7)]);
        assert_eq!(numbers(chain(Some(3), &[(7, None)]), Some(3)), [(3, 7)]);
    }

    #[test]
    fn a_marker_removes_what_is_before_it_and_keeps_the_position() {
        let found = chain(Some(7), &[(7, None), (9, Some(7)), (12, None)]);
        assert_eq!((found.unproven, found.top), (false, Some(12)));
        assert_eq!(numbers(found, None), [(7, 12)]);
        let found = chain(Some(7), &[(9, Some(7)), (12, None)]);
        assert!(!found.unproven);
        let found = chain(Some(5), &[(9, Some(7))]);
        assert_eq!((found.unproven, found.top), (true, Some(7)));
    }

    #[test]
    fn only_the_newest_publications_are_kept() {
        let found = chain(None, &[(1, None), (2, None), (3, None), (5, None)]);
        assert_eq!(numbers(found, None), [(1, 2), (2, 3), (3, 5)]);
        let mut found = Chain::new(None, 10, 16);
        (1..=4).for_each(|sequence| found.add(stored(sequence, None)));
        assert_eq!(numbers(found, None), [(2, 3), (3, 4)]);
        let found = chain(None, &[(1, None), (2, None)]);
        let visible = found.publications(None, 1);
        assert_eq!((visible.len(), visible[0].previous), (1, 1));
    }

    #[test]
    fn versions_are_compared_within_their_epoch() {
        let version = |number, epoch: &str| Version {
            number,
            epoch: epoch.into(),
        };
        let decoded = decode_version(&encode_version(&version(7, "a b é"))).unwrap();
        assert_eq!(decoded, version(7, "a b é"));
        assert!(is_outdated(&version(6, "a b é"), &decoded) && is_outdated(&version(7, "a b é"), &decoded));
        assert!(!is_outdated(&version(8, "a b é"), &decoded) && !is_outdated(&version(1, "x"), &decoded));
        assert_eq!(decode_version("x"), None);
    }

    #[test]
    fn message_ids_distinguish_channels_and_keys() {
        let id = |channel: &str, key| message_id(&ChannelName::new(channel).unwrap(), key);
        assert_eq!(id("a", "k").len(), 43);
        assert_ne!(id("a", "bk"), id("ab", "k"));
    }
}
