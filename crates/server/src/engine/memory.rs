//! The engine of a single node, which keeps everything in memory.
//!
//! Order: the lock of a stream is held while a publication is numbered and delivered, so subscribers see increasing offsets.
//! Lock order: shard of streams, stream, channel of the hub, queue of a client.
//!
//! Memory: each stream has a limit, and all streams share a budget. If the budget is exceeded, the least recently used
//! streams are evicted. If such a channel is used again, it gets a new stream with a new epoch, so that clients with a
//! position in the old stream learn that they cannot recover.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::stream::StreamLimits;
use super::streams::Streams;
use super::{Content, Deliver, Engine, EngineError, EngineFuture, History, HistoryQuery, Position, Publication, Store};
use crate::channel::ChannelName;
use crate::config::{ChannelOptions, Limits};
use crate::presence::{ClientId, ClientInfo, Presence, PresenceStats, Subscription};

/// The engine; see the module documentation.
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

    /// Frees expired history. Reads do not return it in any case.
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

    fn publish_now(&self, channel: &ChannelName, content: Content, store: Store) -> Option<Position> {
        let time_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis() as u64);
        let Some(streams) = self.streams.as_ref().filter(|_| store == Store::Keep) else {
            let publication = Publication {
                content,
                offset: 0,
                time_ms,
            };
            self.deliver.publication(channel, &publication, None);
            return None;
        };
        let position = streams.append(channel, content, time_ms, |publication, epoch| {
            self.deliver.publication(channel, publication, Some(epoch));
        });
        Some(position)
    }
}

impl Engine for MemoryEngine {
    fn interest_changed<'a>(&'a self, _: &'a ChannelName) -> EngineFuture<'a, ()> {
        // Nothing to do: there is only one node, which receives all publications.
        ready(Ok(()))
    }

    fn publish<'a>(
        &'a self,
        channel: &'a ChannelName,
        content: Content,
        store: Store,
    ) -> EngineFuture<'a, Option<Position>> {
        ready(Ok(self.publish_now(channel, content, store)))
    }

    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.deliver.join(channel, &info);
        ready(Ok(()))
    }

    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.deliver.leave(channel, &info);
        ready(Ok(()))
    }

    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History> {
        ready(match &self.streams {
            None => Err(EngineError::NoHistory),
            Some(streams) => Ok(streams.read(channel, query)),
        })
    }

    fn history_remove<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        ready(match &self.streams {
            None => Err(EngineError::NoHistory),
            Some(streams) => {
                streams.clear(channel);
                Ok(())
            }
        })
    }

    fn presence_add<'a>(&'a self, subscription: &'a Subscription, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.presence.add(subscription, info);
        ready(Ok(()))
    }

    fn presence_remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()> {
        self.presence.remove(subscription, client);
        ready(Ok(()))
    }

    fn presence<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>> {
        ready(Ok(self.presence.members(channel, clients_max)))
    }

    fn presence_stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats> {
        ready(Ok(self.presence.stats(channel)))
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").finish_non_exhaustive()
    }
}

/// Returns a ready future.
fn ready<'a, T: Send + 'a>(result: Result<T, EngineError>) -> EngineFuture<'a, T> {
    Box::pin(std::future::ready(result))
}
