//! Publications and their streams.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use redis::Value;
use redis::aio::ConnectionLike;
use tokio::time::{Instant, timeout_at};

use super::super::cluster::{POSITIONS_TIMEOUT, StoreError, StorePublish, StorePublished, StoredPage};
use super::super::idempotency::KEY_TTL;
use super::super::{Epoch, HistoryLimits, HistoryQuery, Position, PublishOutcome};
use super::config::Address;
use super::link::Link;
use super::names::slot;
use super::script::{Call, Script, unexpected};
use super::{Shared, message};
use crate::channel::ChannelName;

/// How long the epoch and the offset of a stream are kept after its last use, beyond the time to live of its
/// publications. A client that comes back later cannot recover.
const STATE_TTL: Duration = Duration::from_secs(60 * 60);

/// Number of positions that are read by a script at the same time.
const POSITION_SCRIPTS_MAX: usize = 64;

/// The largest integer that scripts compute with exactly.
const NUMBER_MAX: u64 = 1 << 53;

/// Longest size of a publication: a server closes the connection beyond its `proto-max-bulk-len`, 512 MiB by default.
const SIZE_MAX: usize = 256 << 20;

/// Attempts to agree with other nodes about the lineage of a stream.
const LINEAGE_ATTEMPTS: usize = 8;

impl Shared {
    pub(super) async fn publish(
        &self,
        channel: &ChannelName,
        publish: StorePublish,
    ) -> Result<StorePublished, StoreError> {
        if publish.payload.len() > SIZE_MAX {
            return Err(StoreError::TooLarge);
        }
        let name = self.names.channel(channel);
        let Some(limits) = publish.limits else {
            return self.publish_unnumbered(name, publish).await;
        };
        let body = message::body(publish.time_ms, &publish.payload);
        let key = publish.idempotency_key.as_deref();
        let (version, version_epoch) = match &publish.version {
            // As text of one length, versions compare like their numbers.
            Some(version) => (format!("{:020}", version.number), &*version.epoch),
            None => (String::new(), ""),
        };
        let values = self
            .stream_call(&self.scripts.publish, &name, limits, |call| {
                let call = match key {
                    Some(key) => call.key(idempotency_key(&name, key)),
                    None => call,
                };
                call.argument(self.publish_command())
                    .argument(name.as_str())
                    .argument(body.clone())
                    .number(limits.count_max as u64)
                    .number(limits.bytes_max as u64)
                    .number(ttl_ms(limits.ttl))
                    .argument(version.as_str())
                    .argument(version_epoch)
                    .number(KEY_TTL.as_millis() as u64)
            })
            .await?;
        let [kind, epoch, offset] = values.try_into().map_err(|_| malformed())?;
        Ok(StorePublished {
            position: position(epoch, offset)?,
            outcome: match &*text(kind)? {
                "p" => PublishOutcome::Delivered,
                "d" => PublishOutcome::Duplicate,
                "s" => PublishOutcome::Suppressed,
                _ => return Err(malformed()),
            },
        })
    }

    async fn publish_unnumbered(&self, name: String, publish: StorePublish) -> Result<StorePublished, StoreError> {
        let message = message::unnumbered(publish.time_ms, &publish.payload);
        let outcome = match &publish.idempotency_key {
            None => {
                let call = Call::command(self.publish_command()).key(name).argument(message);
                self.call(call).await?;
                PublishOutcome::Delivered
            }
            Some(key) => {
                let call = self.scripts.publish_once.call().key(idempotency_key(&name, key));
                let call = call.argument(self.publish_command()).argument(name).argument(message);
                match self.call(call.number(KEY_TTL.as_millis() as u64)).await? {
                    Value::Int(0) => PublishOutcome::Duplicate,
                    _ => PublishOutcome::Delivered,
                }
            }
        };
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
        let name = self.names.channel(channel);
        let since = query
            .since
            .map_or(String::new(), |since| since.min(NUMBER_MAX).to_string());
        let values = self
            .stream_call(&self.scripts.read, &name, limits, |call| {
                call.argument(since.as_str())
                    .number((query.limit as u64).min(NUMBER_MAX))
                    .argument(if query.is_reversed { "1" } else { "0" })
                    .number(ttl_ms(limits.ttl))
            })
            .await?;
        let [_, epoch, top, first, items] = values.try_into().map_err(|_| malformed())?;
        let first = number(first)?;
        let Value::Array(items) = items else {
            return Err(malformed());
        };
        let mut publications = (first..)
            .zip(items)
            .map(|(offset, item)| match item {
                Value::BulkString(item) => message::decode_item(offset, item),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(malformed)?;
        if query.is_reversed {
            publications.reverse();
        }
        Ok(StoredPage {
            publications,
            top: position(epoch, top)?,
        })
    }

    /// Reads the states of the streams of each server with one pipeline. A script is only needed for a stream that does
    /// not exist, or was written by another server.
    pub(super) async fn positions(
        &self,
        channels: &[(ChannelName, HistoryLimits)],
    ) -> Result<Vec<Option<Position>>, StoreError> {
        let topology = self.topology();
        let mut by_server: HashMap<&Address, (&Link, Vec<usize>)> = HashMap::new();
        let names: Vec<_> = channels
            .iter()
            .map(|(channel, _)| self.names.channel(channel))
            .collect();
        for (index, name) in names.iter().enumerate() {
            if let Some(link) = topology.link(slot(name.as_bytes())) {
                by_server
                    .entry(link.address())
                    .or_insert((link, Vec::new()))
                    .1
                    .push(index);
            }
        }
        let start = Instant::now();
        let deadline = start + POSITIONS_TIMEOUT;
        let reads = by_server.into_values().map(async |(link, indexes)| {
            let states = indexes
                .iter()
                .map(|&index| (&*names[index], state_ttl_ms(&channels[index].1)));
            let positions = timeout_at(start + POSITIONS_TIMEOUT / 2, read_positions(link, states)).await;
            indexes.into_iter().zip(positions.unwrap_or_default())
        });
        let mut positions = vec![None; channels.len()];
        let mut unread = Vec::new();
        for (index, position) in join_all(reads).await.into_iter().flatten() {
            match position {
                Some(position) => positions[index] = Some(position),
                None => unread.push(index),
            }
        }
        let mut scripts = stream::iter(unread)
            .map(async |index| {
                let (channel, limits) = &channels[index];
                (index, self.position(channel, *limits).await)
            })
            .buffer_unordered(POSITION_SCRIPTS_MAX);
        while let Ok(Some((index, position))) = timeout_at(deadline, scripts.next()).await {
            match position {
                Ok(position) => positions[index] = Some(position),
                Err(error) => tracing::debug!(channel = %channels[index].0, %error, "could not read a position"),
            }
        }
        Ok(positions)
    }

    async fn position(&self, channel: &ChannelName, limits: HistoryLimits) -> Result<Position, StoreError> {
        let name = self.names.channel(channel);
        let values = self
            .stream_call(&self.scripts.position, &name, limits, |call| call)
            .await?;
        let [_, epoch, top] = values.try_into().map_err(|_| malformed())?;
        position(epoch, top)
    }

    pub(super) async fn remove_history(&self, channel: &ChannelName) -> Result<(), StoreError> {
        let name = self.names.channel(channel);
        let call = self
            .scripts
            .remove_history
            .call()
            .key(format!("{name}:m"))
            .key(format!("{name}:h"));
        self.call(call).await.map(drop)
    }

    pub(super) async fn replace_epoch(&self, channel: &ChannelName, lost: &Epoch) -> Result<(), StoreError> {
        let name = self.names.channel(channel);
        let call = self.scripts.replace_epoch.call().key(format!("{name}:m"));
        self.call(call.argument(lost.as_str()).argument(random_epoch()))
            .await
            .map(drop)
    }

    /// Runs a script about a stream, after a decision about its lineage if that is necessary.
    async fn stream_call<'a>(
        &'a self,
        script: &'a Script,
        name: &str,
        limits: HistoryLimits,
        arguments: impl Fn(Call<'a>) -> Call<'a>,
    ) -> Result<Vec<Value>, StoreError> {
        let (state, list) = (format!("{name}:m"), format!("{name}:h"));
        let state_ttl = state_ttl_ms(&limits);
        let epoch = random_epoch();
        let (mut continues, mut ended) = (String::new(), String::new());
        for _ in 0..LINEAGE_ATTEMPTS {
            let call = |link: &Link| {
                // The order of the keys and arguments is that of `stream.lua`.
                let call = script.call().key(state.as_str()).key(list.as_str());
                let call = call.argument(link.lineage()).argument(continues.as_str());
                arguments(call.argument(ended.as_str()).argument(epoch.as_str()).number(state_ttl))
            };
            let (value, link) = self.call_at(slot(state.as_bytes()), call).await?;
            let Value::Array(values) = value else {
                return Err(StoreError::Unavailable(unexpected(&value).to_string().into()));
            };
            match values.as_slice() {
                [Value::BulkString(kind), Value::BulkString(lineage)] if kind == b"l" => {
                    let lineage = String::from_utf8_lossy(lineage).into_owned();
                    match self.is_alive(&lineage, &link).await? {
                        true => (continues, ended) = (lineage, String::new()),
                        false => (continues, ended) = (String::new(), lineage),
                    }
                }
                _ => return Ok(values),
            }
        }
        Err(StoreError::Unavailable(
            "the nodes do not agree which server has the channel".into(),
        ))
    }

    /// Whether streams of a lineage continue on the server of `link`, which has another one: they were moved to it by a
    /// primary that still has all its data.
    async fn is_alive(&self, lineage: &str, link: &Link) -> Result<bool, StoreError> {
        let verify = async |link: &Link| {
            let verified = link.verify().await;
            verified.inspect_err(|_| self.look_again.notify_one())
        };
        // Another node may know that this server has begun a new lineage.
        verify(link)
            .await
            .map_err(|reason| StoreError::Unavailable(reason.into()))?;
        if self.lineages.continues(lineage, link.run_id()) {
            return Ok(true);
        }
        let topology = self.topology();
        for other in topology
            .links
            .iter()
            .filter(|other| !other.is_lost() && other.lineage() == lineage)
        {
            if verify(other).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn idempotency_key(name: &str, key: &str) -> String {
    format!("{name}:i:{key}")
}

fn random_epoch() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// A time to live for the server, which wants at least a millisecond.
fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(NUMBER_MAX).clamp(1, 1 << 48)
}

/// How long the state of a stream is kept after its last use.
fn state_ttl_ms(limits: &HistoryLimits) -> u64 {
    let ttl = ttl_ms(limits.ttl).saturating_add(STATE_TTL.as_millis() as u64);
    ttl.min(NUMBER_MAX)
}

/// Reads the positions of streams that belong to the lineage of a server, and keeps their states for a time to live.
/// `None` for other streams, and for those that the server does not have.
async fn read_positions<'a>(link: &Link, names: impl Iterator<Item = (&'a str, u64)>) -> Vec<Option<Position>> {
    let mut pipeline = redis::pipe();
    let mut count = 0;
    for (name, ttl_ms) in names {
        let key = format!("{name}:m");
        pipeline.cmd("HMGET").arg(&key).arg(&["l", "e", "o"]);
        pipeline.cmd("PEXPIRE").arg(key).arg(ttl_ms);
        count += 1;
    }
    let mut commands = link.commands().commands();
    let replies = commands.req_packed_commands(&pipeline, 0, 2 * count).await;
    let mut replies = replies.unwrap_or_default().into_iter();
    let position = |_| {
        let state = replies.next()?;
        replies.next()?;
        let Value::Array(fields) = state else { return None };
        let [lineage, epoch, offset] = fields.try_into().ok()?;
        let is_current = text(lineage).is_ok_and(|lineage| lineage == link.lineage());
        is_current.then(|| position(epoch, offset).ok()).flatten()
    };
    (0..count).map(position).collect()
}

fn position(epoch: Value, offset: Value) -> Result<Position, StoreError> {
    Ok(Position {
        epoch: Epoch::new(text(epoch)?),
        offset: number(offset)?,
    })
}

fn text(value: Value) -> Result<String, StoreError> {
    redis::from_redis_value(value).map_err(|_| malformed())
}

fn number(value: Value) -> Result<u64, StoreError> {
    text(value)?.parse().map_err(|_| malformed())
}

fn malformed() -> StoreError {
    StoreError::Unavailable("a script has returned an unexpected value".into())
}
