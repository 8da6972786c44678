//! The engine of a single node, which keeps everything in memory, and optionally logs publications on disk.
//!
//! Order: the lock of a stream is held while a publication is numbered and while it is delivered, so subscribers see
//! increasing offsets. Lock order: shard of streams, stream, channel of the hub, queue of a client.
//!
//! Memory: each stream has a limit, and all streams share a budget. If the budget is exceeded, the least recently used
//! streams are evicted. If such a channel is used again, it gets a new stream with a new epoch, so that clients with a
//! position in the old stream learn that they cannot recover.
//!
//! With a log, a publication is numbered and queued for the log under one lock, and delivered when the log has it. The
//! task of the publisher delivers it, together with all earlier ones of the channel that have not been delivered yet.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Handle;

use super::durable::{self, Log, PAYLOAD_BYTES_MAX};
use super::epochs::Epochs;
use super::idempotency::{Claim, Claimed, Keys};
use super::streams::{PendingChange, Streams, Suppressed};
use super::{
    Broker, Content, Deliver, EngineError, EngineFuture, EngineStats, Epoch, Health, History, HistoryLimits,
    HistoryLimitsOf, HistoryQuery, JournalConfig, Position, PresenceStore, Publication, Publish, PublishOutcome,
    Published, StartedPublish, record, unix_time_ms,
};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Subscription};
use crate::journal::{Ack, AppendError, JournalStats, OpenError, Permit, Record, RecordKind, State};
use crate::presence::{ClientInfo, Presence, PresenceStats};

/// The broker; see the module documentation.
pub(crate) struct MemoryBroker {
    shared: Arc<Shared>,
    limits: Arc<HistoryLimitsOf>,
    log: Option<Log>,
}

/// What a publication needs until it is complete.
struct Shared {
    deliver: Arc<dyn Deliver>,
    streams: Arc<Streams>,
    keys: Arc<Keys>,
}

impl MemoryBroker {
    /// A broker without a log. Its histories take up to `bytes_max` together.
    pub(crate) fn new(deliver: Arc<dyn Deliver>, limits: Arc<HistoryLimitsOf>, bytes_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                deliver,
                streams: Arc::new(Streams::new(bytes_max, Epochs::new(rand::random(), None))),
                keys: Arc::new(Keys::new()),
            }),
            limits,
            log: None,
        }
    }

    /// A broker with a log, from which its histories are restored. Blocks while it reads the log.
    ///
    /// # Errors
    /// The log could not be opened.
    pub(crate) fn open(
        deliver: Arc<dyn Deliver>,
        limits: Arc<HistoryLimitsOf>,
        bytes_max: usize,
        config: &JournalConfig,
    ) -> Result<Self, OpenError> {
        let restored = durable::open(config, limits.clone(), bytes_max)?;
        Ok(Self::with_log(deliver, limits, restored))
    }

    /// A broker with a log on a simulated disk.
    #[cfg(test)]
    pub(crate) fn open_simulated(
        deliver: Arc<dyn Deliver>,
        limits: Arc<HistoryLimitsOf>,
        bytes_max: usize,
        disk: &crate::journal::tests::sim::SimDisk,
        options: &crate::journal::JournalOptions,
    ) -> Result<Self, OpenError> {
        let restored = durable::open_simulated(disk, options, limits.clone(), bytes_max)?;
        Ok(Self::with_log(deliver, limits, restored))
    }

    fn with_log(deliver: Arc<dyn Deliver>, limits: Arc<HistoryLimitsOf>, restored: durable::Restored) -> Self {
        Self {
            shared: Arc::new(Shared {
                deliver,
                streams: restored.streams,
                keys: restored.keys,
            }),
            limits,
            log: Some(restored.log),
        }
    }

    /// Frees expired history. Reads do not return it in any case.
    pub(crate) fn sweep(&self) {
        self.shared.streams.sweep(&*self.shared.deliver);
    }

    #[cfg(test)]
    pub(super) fn history_bytes(&self) -> usize {
        self.shared.streams.bytes()
    }

    #[cfg(test)]
    pub(super) fn has_stream(&self, channel: &ChannelName) -> bool {
        self.shared.streams.has(channel)
    }

    /// The limits of the channel's history, unless the publication skips it.
    fn limits(&self, channel: &ChannelName, publish: &Publish) -> Option<HistoryLimits> {
        (self.limits)(channel).filter(|_| !publish.skips_history)
    }

    async fn publish_once(&self, channel: &ChannelName, publish: Publish) -> Result<Published, EngineError> {
        let mut claim = None;
        if let Some(key) = &publish.idempotency_key {
            match self.shared.keys.claim(channel, key).await {
                Claimed::New(claimed) => claim = Some(claimed),
                Claimed::Known(position) => return Ok(Published::new(position, PublishOutcome::Duplicate)),
            }
        }
        match (self.limits(channel, &publish), &self.log) {
            (Some(limits), Some(log)) => self.publish_logged(channel, publish, limits, log, claim).await,
            (limits, _) => {
                let published = self.shared.publish_now(channel, publish, limits);
                if let Some(claim) = claim {
                    claim.complete(published.position.clone());
                }
                Ok(published)
            }
        }
    }

    async fn publish_logged(
        &self,
        channel: &ChannelName,
        publish: Publish,
        limits: HistoryLimits,
        log: &Log,
        claim: Option<Claim>,
    ) -> Result<Published, EngineError> {
        let payload = encode(&publish);
        // The log must not refuse a record once it is numbered.
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(EngineError::TooLarge);
        }
        let permit = log.journal.reserve(payload.len()).await?;
        match self.start_logged(channel, publish, limits, permit, payload, claim) {
            Ok(logging) => {
                let position = logging.await?;
                self.allow_wanted_evictions(log).await;
                Ok(Published::new(position, PublishOutcome::Delivered))
            }
            Err(Suppressed(position)) => Ok(Published::new(position, PublishOutcome::Suppressed)),
        }
    }

    /// Begins a publication for which the log has room, unless something else must be done first.
    fn try_start_logged(&self, channel: &ChannelName, publish: Publish) -> Result<StartedPublish<'static>, Publish> {
        let limits = self.limits(channel, &publish);
        let (Some(limits), Some(log), None) = (limits, &self.log, &publish.idempotency_key) else {
            return Err(publish);
        };
        if self.shared.streams.wants_evictions() {
            return Err(publish);
        }
        let payload = encode(&publish);
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(publish);
        }
        let Some(permit) = log.journal.try_reserve(payload.len()) else {
            return Err(publish);
        };
        let started = self.start_logged(channel, publish, limits, permit, payload, None);
        Ok(match started {
            Ok(logging) => StartedPublish::Numbered(Box::pin(async {
                let position = logging.await?;
                Ok(Published::new(position, PublishOutcome::Delivered))
            })),
            Err(Suppressed(position)) => {
                StartedPublish::Unnumbered(immediate(Ok(Published::new(position, PublishOutcome::Suppressed))))
            }
        })
    }

    /// Numbers a publication, and queues it for the log.
    fn start_logged(
        &self,
        channel: &ChannelName,
        publish: Publish,
        limits: HistoryLimits,
        permit: Permit,
        payload: Vec<u8>,
        claim: Option<Claim>,
    ) -> Result<Logging, Suppressed> {
        let Publish { content, version, .. } = publish;
        let time_ms = unix_time_ms();
        let streams = &self.shared.streams;
        let (pending, ack) = streams.begin(channel, content, version, time_ms, limits, |epoch, offset| {
            permit.append(&Record {
                kind: RecordKind::Publication,
                channel: channel.as_str(),
                epoch,
                offset,
                time_ms,
                payload: &payload,
            })
        })?;
        Ok(Logging::new(&self.shared, channel, pending, ack, claim))
    }

    async fn remove_logged(&self, channel: &ChannelName, log: &Log) -> Result<(), EngineError> {
        let permit = log.journal.reserve(0).await?;
        let begun = self.shared.streams.begin_removal(channel, |epoch, offset| {
            permit.append(&Record {
                kind: RecordKind::Position,
                channel: channel.as_str(),
                epoch,
                offset,
                time_ms: unix_time_ms(),
                payload: &[],
            })
        });
        if let Some((pending, ack)) = begun {
            Logging::new(&self.shared, channel, pending, ack, None).await?;
        }
        Ok(())
    }

    /// Lets streams be evicted if that was refused, once the log has a note of it.
    async fn allow_wanted_evictions(&self, log: &Log) {
        if self.shared.streams.wants_evictions() {
            match log.note_evictions().await {
                Ok(()) => self.shared.streams.allow_evictions(),
                // While the log is not writable, nothing is published that could exceed the budget further.
                Err(error) => tracing::debug!(%error, "could not evict history"),
            }
        }
    }
}

impl Shared {
    /// Publishes without a log.
    fn publish_now(&self, channel: &ChannelName, publish: Publish, limits: Option<HistoryLimits>) -> Published {
        let Publish { content, version, .. } = publish;
        let time_ms = unix_time_ms();
        let Some(limits) = limits else {
            self.deliver.publication(channel, &unnumbered(content, time_ms), None);
            return Published::new(Position::none(), PublishOutcome::Delivered);
        };
        let deliver = |publication: &Publication, epoch: &Epoch| {
            self.deliver.publication(channel, publication, Some(epoch));
        };
        match self.streams.append(channel, content, version, time_ms, limits, deliver) {
            Ok(position) => Published::new(position, PublishOutcome::Delivered),
            Err(Suppressed(position)) => Published::new(position, PublishOutcome::Suppressed),
        }
    }
}

/// The payload of a publication in the log.
fn encode(publish: &Publish) -> Vec<u8> {
    record::encode(
        &publish.content,
        publish.idempotency_key.as_deref(),
        publish.version.as_ref(),
    )
}

fn unnumbered(content: Content, time_ms: u64) -> Publication {
    Publication {
        content,
        offset: 0,
        previous: 0,
        time_ms,
    }
}

impl Published {
    fn new(position: Position, outcome: PublishOutcome) -> Self {
        Self { position, outcome }
    }
}

/// Waits until the log has a change, then applies and delivers it. Resolves to the position after the change.
///
/// If it is dropped before that, a task takes its place: the change will be in the log, and its offset cannot be taken
/// back.
struct Logging(Option<InLog>);

struct InLog {
    shared: Arc<Shared>,
    channel: ChannelName,
    pending: PendingChange,
    ack: Ack,
    claim: Option<Claim>,
}

impl Logging {
    fn new(
        shared: &Arc<Shared>,
        channel: &ChannelName,
        pending: PendingChange,
        ack: Ack,
        claim: Option<Claim>,
    ) -> Self {
        Self(Some(InLog {
            shared: shared.clone(),
            channel: channel.clone(),
            pending,
            ack,
            claim,
        }))
    }
}

impl Future for Logging {
    type Output = Result<Position, EngineError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = self.0.as_mut().expect("not polled after it has completed");
        let result = ready!(Pin::new(&mut waiting.ack).poll(cx));
        let done = self.0.take().expect("checked above");
        Poll::Ready(done.conclude(result))
    }
}

impl InLog {
    fn conclude(self, result: Result<(), AppendError>) -> Result<Position, EngineError> {
        let Self {
            shared,
            channel,
            pending,
            claim,
            ..
        } = self;
        if let Err(error) = result {
            shared.streams.abort(&pending);
            return Err(error.into());
        }
        shared.streams.commit(&pending, |publication, epoch| {
            shared.deliver.publication(&channel, publication, Some(epoch));
        });
        if let Some(claim) = claim {
            claim.complete(pending.position.clone());
        }
        Ok(pending.position)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Without a runtime, the process is about to end.
        if let Some(waiting) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(Self(Some(waiting)));
        }
    }
}

impl Broker for MemoryBroker {
    fn interest_changed<'a>(&'a self, _: &'a ChannelName) -> EngineFuture<'a, ()> {
        // Nothing to do: there is only one node, which receives all publications.
        immediate(Ok(()))
    }

    fn publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> EngineFuture<'a, Published> {
        let limits = self.limits(channel, &publish);
        match (&self.log, &publish.idempotency_key) {
            (None, None) => immediate(Ok(self.shared.publish_now(channel, publish, limits))),
            _ => Box::pin(self.publish_once(channel, publish)),
        }
    }

    fn start_publish<'a>(&'a self, channel: &'a ChannelName, publish: Publish) -> StartedPublish<'a> {
        match self.try_start_logged(channel, publish) {
            Ok(started) => started,
            Err(publish) => StartedPublish::Unnumbered(self.publish(channel, publish)),
        }
    }

    fn publish_join<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.shared.deliver.join(channel, &info);
        immediate(Ok(()))
    }

    fn publish_leave<'a>(&'a self, channel: &'a ChannelName, info: Arc<ClientInfo>) -> EngineFuture<'a, ()> {
        self.shared.deliver.leave(channel, &info);
        immediate(Ok(()))
    }

    fn history<'a>(&'a self, channel: &'a ChannelName, query: HistoryQuery) -> EngineFuture<'a, History> {
        immediate(match (self.limits)(channel) {
            None => Err(EngineError::NoHistory),
            Some(_) => Ok(self.shared.streams.read(channel, query)),
        })
    }

    fn history_remove<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, ()> {
        match ((self.limits)(channel), &self.log) {
            (None, _) => immediate(Err(EngineError::NoHistory)),
            (Some(_), Some(log)) => Box::pin(self.remove_logged(channel, log)),
            (Some(_), None) => {
                self.shared.streams.remove_history(channel);
                immediate(Ok(()))
            }
        }
    }

    fn positions<'a>(&'a self, channels: &'a [ChannelName]) -> EngineFuture<'a, Vec<Option<Position>>> {
        let position = |channel| (self.limits)(channel).map(|_| self.shared.streams.position(channel));
        immediate(Ok(channels.iter().map(position).collect()))
    }

    fn maintain(&self) -> EngineFuture<'_, ()> {
        self.sweep();
        match &self.log {
            Some(log) if self.shared.streams.wants_evictions() => Box::pin(async move {
                self.allow_wanted_evictions(log).await;
                Ok(())
            }),
            _ => immediate(Ok(())),
        }
    }

    fn probe(&self) -> EngineFuture<'_, ()> {
        match &self.log {
            None => immediate(Ok(())),
            Some(log) => Box::pin(log.probe()),
        }
    }

    fn health(&self) -> Health {
        let Some(log) = &self.log else {
            return Health::Ready;
        };
        let state = match log.journal.state() {
            State::Healthy => return Health::Ready,
            State::Full => "the log has no room",
            State::Poisoned => "the log failed to write; restart the server",
            State::Closed => "the log is closed",
        };
        Health::NotReady(match log.journal.reason() {
            Some(reason) => format!("{state}: {reason}").into(),
            None => state.into(),
        })
    }

    fn close(&self) -> EngineFuture<'_, ()> {
        match &self.log {
            None => immediate(Ok(())),
            Some(log) => Box::pin(async move { Ok(log.journal.close().await?) }),
        }
    }

    fn stats(&self) -> EngineStats {
        let log = self.log.as_ref();
        EngineStats {
            history_bytes: self.shared.streams.bytes(),
            evictions: self.shared.streams.evicted(),
            journal: log.map_or_else(JournalStats::default, |log| log.journal.stats()),
            cluster: None,
        }
    }

    fn sync_seconds(&self) -> Option<Histogram> {
        self.log.as_ref().map(|log| log.journal.sync_seconds())
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

/// The members of all channels of a single node.
pub(crate) struct MemoryPresence(Presence);

impl MemoryPresence {
    pub(crate) fn new() -> Self {
        Self(Presence::new())
    }
}

impl PresenceStore for MemoryPresence {
    fn add<'a>(&'a self, subscription: &'a Subscription, info: Arc<ClientInfo>, _: bool) -> EngineFuture<'a, ()> {
        self.0.add(subscription, info);
        immediate(Ok(()))
    }

    fn remove<'a>(&'a self, subscription: &'a Subscription, client: ClientId) -> EngineFuture<'a, ()> {
        self.0.remove(subscription, client);
        immediate(Ok(()))
    }

    fn members<'a>(
        &'a self,
        channel: &'a ChannelName,
        clients_max: usize,
    ) -> EngineFuture<'a, Option<Vec<Arc<ClientInfo>>>> {
        immediate(Ok(self.0.members(channel, clients_max)))
    }

    fn stats<'a>(&'a self, channel: &'a ChannelName) -> EngineFuture<'a, PresenceStats> {
        immediate(Ok(self.0.stats(channel)))
    }
}

impl fmt::Debug for MemoryPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPresence").finish_non_exhaustive()
    }
}

/// Returns a future that is complete.
fn immediate<'a, T: Send + 'a>(result: Result<T, EngineError>) -> EngineFuture<'a, T> {
    Box::pin(std::future::ready(result))
}
