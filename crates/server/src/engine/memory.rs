//! The engine of a single node: everything in this process, gone when it ends.
//!
//! Order: a stream's lock is held from numbering a publication to delivering it, so subscribers see numbers in order.
//! Locks are taken in one direction only: shard of streams, stream, the hub's channel, a client's queue.
//!
//! Memory: streams are bounded one by one and all together. When all of them outgrow their budget, the least recently
//! used are evicted. A channel that is used again after that has a new stream under a new epoch, so that clients which
//! knew the old one are told that they cannot recover.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::stream::StreamLimits;
use super::streams::Streams;
use super::{Content, Deliver, Engine, EngineError, EngineFuture, History, HistoryQuery, Publication};
use crate::channel::ChannelName;
use crate::config::{ChannelOptions, Limits};
use crate::presence::{ClientId, ClientInfo, Presence, PresenceStats, Subscription};

pub(crate) struct MemoryEngine {
    deliver: Arc<dyn Deliver>,
    presence: Presence,
    streams: Option<Streams>,
}

impl MemoryEngine {
    pub(crate) fn new(deliver: Arc<dyn Deliver>, options: &ChannelOptions, limits: &Limits) -> Self {
        let limits_of_one = StreamLimits {
            count_max: options.history_count_max,
            bytes_max: limits.history_bytes_per_channel_max,
            ttl: options.history_ttl,
        };
        let has_history = options.history_count_max > 0;
        Self {
            deliver,
            presence: Presence::new(),
            streams: has_history.then(|| Streams::new(limits_of_one, limits.history_bytes_max)),
        }
    }

    /// Evicts expired history. Reads never show it anyway; this frees its memory.
    pub(crate) fn sweep(&self) {
        if let Some(streams) = &self.streams {
            streams.sweep(&*self.deliver);
        }
    }

    #[cfg(test)]
    pub(super) fn history_bytes(&self) -> usize {
        self.streams.as_ref().map_or(0, Streams::bytes)
    }

    #[cfg(test)]
    pub(super) fn has_stream(&self, channel: &ChannelName) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.has(channel))
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
            Some(streams) => streams.append(channel, content, time_ms, |publication, epoch| {
                self.deliver.publication(channel, publication, Some(epoch));
            }),
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
            Some(streams) => Ok(streams.read(channel, query)),
        })
    }

    fn presence_add<'a>(&'a self, subscription: &'a Subscription, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.presence.add(subscription, info);
        done(Ok(()))
    }

    fn presence_remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()> {
        self.presence.remove(subscription, client);
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
