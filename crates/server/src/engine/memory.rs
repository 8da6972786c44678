//! The engine of a single node: everything in this process, gone when it ends.
//!
//! Order: a stream's lock is held from numbering a publication to delivering it, so subscribers see numbers in order.
//! Locks are taken in one direction only: map of streams, or stream, then the hub's channel, then a client's queue.
//!
//! Memory: streams are bounded one by one and all together. When all of them outgrow their budget, those unused for
//! longest are forgotten; should one of them be used again it is a new stream under a new epoch, so that clients which
//! knew the old one are told that they cannot recover.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::stream::{STREAM_BYTES, Stream, StreamLimits};
use super::{Content, Deliver, Engine, EngineError, EngineFuture, Epoch, History, HistoryQuery, Publication};
use crate::channel::ChannelName;
use crate::config::{ChannelOptions, Limits};
use crate::presence::{ClientId, ClientInfo, Presence, PresenceStats};
use crate::sync::lock;

pub(crate) struct MemoryEngine {
    deliver: Arc<dyn Deliver>,
    presence: Presence,
    streams: Option<Streams>,
}

impl MemoryEngine {
    pub(crate) fn new(deliver: Arc<dyn Deliver>, options: &ChannelOptions, limits: &Limits) -> Self {
        let streams = (options.history_count_max > 0).then(|| Streams {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            limits: StreamLimits {
                count_max: options.history_count_max,
                bytes_max: limits.history_bytes_per_channel_max,
                ttl: options.history_ttl,
            },
            bytes: AtomicUsize::new(0),
            bytes_max: limits.history_bytes_max,
            sweeping: Mutex::new(()),
        });
        Self {
            deliver,
            presence: Presence::new(),
            streams,
        }
    }

    /// Forgets what has grown too old. Reads never show it anyway; this gives its memory back.
    pub(crate) fn sweep(&self) {
        if let Some(streams) = &self.streams {
            streams.sweep(&*self.deliver);
        }
    }

    #[cfg(test)]
    pub(super) fn history_bytes(&self) -> usize {
        self.streams
            .as_ref()
            .map_or(0, |streams| streams.bytes.load(Ordering::Relaxed))
    }

    fn publish_now(&self, channel: &ChannelName, content: Content) {
        let time_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis() as u64);
        match &self.streams {
            None => self.deliver.publication(
                channel,
                &Publication {
                    content,
                    offset: 0,
                    time_ms,
                },
                None,
            ),
            Some(streams) => {
                streams.with(channel, |stream| {
                    let publication = stream.append(content, time_ms, Instant::now(), streams.limits);
                    self.deliver
                        .publication(channel, &publication, Some(&stream.top().epoch));
                });
                streams.forget_if_over_budget();
            }
        }
    }
}

impl Engine for MemoryEngine {
    fn interest_changed<'a>(&'a self, _: &'a ChannelName) -> EngineFuture<'a, ()> {
        // What is published is delivered to the only node there is, whether it cares or not.
        done(Ok(()))
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, content: Content) -> EngineFuture<'a, ()> {
        self.publish_now(channel, content);
        done(Ok(()))
    }

    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.deliver.join(channel, &info);
        done(Ok(()))
    }

    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.deliver.leave(channel, &info);
        done(Ok(()))
    }

    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History> {
        done(match &self.streams {
            None => Err(EngineError::NoHistory),
            Some(streams) => {
                let history = streams.with(channel, |stream| stream.read(query, Instant::now(), streams.limits.ttl));
                streams.forget_if_over_budget();
                Ok(history)
            }
        })
    }

    fn presence_add<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.presence.add(channel, info);
        done(Ok(()))
    }

    fn presence_remove<'a>(&'a self, channel: &'a ChannelName, client: ClientId) -> EngineFuture<'a, ()> {
        self.presence.remove(channel, client);
        done(Ok(()))
    }

    fn presence<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>> {
        done(Ok(self.presence.members(channel, clients_max)))
    }

    fn presence_stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats> {
        done(Ok(self.presence.stats(channel)))
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").finish_non_exhaustive()
    }
}

/// An answer that is already there.
fn done<'a, T: Send + 'a>(result: Result<T, EngineError>) -> EngineFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

/// All streams of the node.
struct Streams {
    shards: Box<[Mutex<StreamMap>]>,
    hasher: RandomState,
    limits: StreamLimits,
    /// What all streams weigh together.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Held by the one task that forgets streams.
    sweeping: Mutex<()>,
}

type StreamMap = HashMap<ChannelName, Arc<Mutex<Stream>>>;

const SHARDS: usize = 64;

impl Streams {
    /// Does something to a channel's stream, which begins here if there is none, and accounts for what it weighs after.
    fn with<T>(&self, channel: &ChannelName, act: impl FnOnce(&mut Stream) -> T) -> T {
        loop {
            let stream = self.stream(channel);
            let mut stream = lock(&stream);
            if stream.is_forgotten() {
                continue;
            }
            let before = stream.bytes();
            let result = act(&mut stream);
            self.account(before, stream.bytes());
            return result;
        }
    }

    fn stream(&self, channel: &ChannelName) -> Arc<Mutex<Stream>> {
        let mut shard = lock(channel.shard(&self.shards, &self.hasher));
        if let Some(stream) = shard.get(channel) {
            return stream.clone();
        }
        let epoch = Epoch::new(format!("{:08x}", rand::random::<u32>()));
        let stream = Arc::new(Mutex::new(Stream::new(epoch, Instant::now())));
        self.account(0, STREAM_BYTES);
        shard.insert(channel.clone(), stream.clone());
        stream
    }

    fn account(&self, before: usize, after: usize) {
        // The difference may be negative: two's complement makes adding it the same as subtracting.
        self.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Keeps all streams together within their budget by forgetting those unused for longest, down to three quarters
    /// of it so that the search is paid for by many publications.
    fn forget_if_over_budget(&self) {
        if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
            return;
        }
        let _sweeping = match self.sweeping.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let mut by_age: Vec<(Instant, ChannelName)> = Vec::new();
        for shard in &self.shards {
            by_age.extend(
                lock(shard)
                    .iter()
                    .map(|(name, stream)| (lock(stream).last_used(), name.clone())),
            );
        }
        by_age.sort_unstable_by_key(|(last_used, _)| *last_used);
        let mut forgotten = 0;
        for (_, name) in by_age {
            if self.bytes.load(Ordering::Relaxed) <= self.bytes_max / 4 * 3 {
                break;
            }
            self.forget(&name, |_| true);
            forgotten += 1;
        }
        tracing::warn!(
            forgotten,
            "history outgrew its budget; the channels silent for longest were forgotten"
        );
    }

    fn sweep(&self, deliver: &dyn Deliver) {
        let now = Instant::now();
        for shard in &self.shards {
            let all: Vec<ChannelName> = lock(shard).keys().cloned().collect();
            for name in all {
                let is_wanted = deliver.is_wanted(&name);
                self.forget(&name, |stream| {
                    let before = stream.bytes();
                    stream.expire(now, self.limits.ttl);
                    self.account(before, stream.bytes());
                    // A stream that a client may still come back to keeps its numbers although it is empty.
                    !is_wanted && stream.is_empty() && now.duration_since(stream.last_used()) >= self.limits.ttl
                });
            }
        }
    }

    fn forget(&self, channel: &ChannelName, decide: impl FnOnce(&mut Stream) -> bool) {
        let mut shard = lock(channel.shard(&self.shards, &self.hasher));
        let Some(stream) = shard.get(channel).cloned() else {
            return;
        };
        let mut stream = lock(&stream);
        if decide(&mut stream) {
            self.account(stream.bytes(), 0);
            stream.forget();
            shard.remove(channel);
        }
    }
}
