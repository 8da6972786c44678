//! Reads the streams of channels that may have missed events, and delivers what it finds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::super::{HistoryLimits, HistoryQuery, POSITIONS_PER_CALL, Position};
use super::Shared;
use super::calls::CALL_TIMEOUT;
use super::inbox::{Connection, Resumed, Suspension};
use super::store::StoreError;
use crate::channel::ChannelName;

/// Maximum number of channels whose streams are read at the same time.
const READS_MAX: usize = 64;

/// Maximum number of publications in one read.
const PUBLICATIONS_PER_READ: usize = 256;

/// Maximum number of channels whose positions are read at the same time after such a call has failed.
const POSITIONS_MAX: usize = 64;

/// Pause after a call that failed, doubled up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(200);

const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Number of failures of a channel after which they are logged, about 10 s.
const FAILURES_MAX: u32 = 8;

/// Pause before all positions are compared once more.
const VERIFY_PAUSE: Duration = Duration::from_millis(200);

/// What [`read_missing`] did.
enum Read {
    /// What was missing is delivered, or announced.
    Done,
    /// The channel has changed in the meantime.
    Again,
    Failed(Option<StoreError>),
}

/// Catches up each suspended channel. Never returns.
pub(super) async fn run(shared: Arc<Shared>, mut suspended: mpsc::UnboundedReceiver<Suspension>) {
    let reads = Arc::new(Semaphore::new(READS_MAX));
    while let Some(suspension) = suspended.recv().await {
        let Ok(permit) = reads.clone().acquire_owned().await else {
            return;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = catch_up(&shared, &suspension.channel).await {
                // Other channels, which may be on another server, go first.
                drop(permit);
                retry(&shared, suspension, error).await;
            }
        });
    }
}

async fn retry(shared: &Shared, mut suspension: Suspension, error: Option<StoreError>) {
    suspension.failures = suspension.failures.saturating_add(1);
    let Suspension { channel, failures } = &suspension;
    let error = error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
    if *failures == FAILURES_MAX {
        tracing::warn!(%channel, error, "could not read missed publications for some time; trying again");
    } else {
        tracing::debug!(%channel, error, "could not read missed publications; trying again");
    }
    sleep(pause_after(*failures)).await;
    shared.inbox.read_later(suspension);
}

fn pause_after(failures: u32) -> Duration {
    RETRY_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(8))
        .min(RETRY_PAUSE_MAX)
}

/// Fails with `None` if there was no answer in time.
async fn catch_up(shared: &Shared, channel: &ChannelName) -> Result<(), Option<StoreError>> {
    loop {
        match read_missing(shared, channel).await {
            Read::Done if matches!(shared.inbox.resume(channel).await, Resumed::Resumed) => return Ok(()),
            Read::Done | Read::Again => {}
            Read::Failed(error) => return Err(error),
        }
    }
}

/// Delivers what the channel has missed.
async fn read_missing(shared: &Shared, channel: &ChannelName) -> Read {
    let deliver = shared.inbox.deliver();
    // Without a position, no subscriber has one.
    let (Some(seen), Some(limits)) = (deliver.position(channel), (shared.limits)(channel)) else {
        return Read::Done;
    };
    let mut since = seen.offset;
    loop {
        let query = HistoryQuery {
            since: Some(since),
            limit: PUBLICATIONS_PER_READ,
            is_reversed: false,
        };
        wait_until_connected(shared).await;
        let page = match timeout(CALL_TIMEOUT, shared.store.read(channel, query, limits)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Read::Failed(Some(error)),
            Err(_) => return Read::Failed(None),
        };
        let top = page.top;
        if since > seen.offset && (top.epoch != seen.epoch || top.offset < since) {
            return Read::Again;
        }
        if top.epoch != seen.epoch {
            // What was kept while the channel was suspended follows.
            let offset = shared.inbox.offset_before(channel, &top.epoch).unwrap_or(top.offset);
            let start = Position {
                epoch: top.epoch,
                offset,
            };
            deliver.catch_up(channel, &seen, &start);
            return Read::Done;
        }
        if top.offset < seen.offset {
            tracing::warn!(%channel, seen = seen.offset, top = top.offset, "the engine seems to have lost publications");
            return match timeout(CALL_TIMEOUT, shared.store.replace_epoch(channel, limits, &seen)).await {
                Ok(Ok(())) => Read::Again,
                Ok(Err(error)) => Read::Failed(Some(error)),
                Err(_) => Read::Failed(None),
            };
        }
        let Some(last) = page.publications.last().map(|publication| publication.offset) else {
            if since == seen.offset && top.offset > seen.offset {
                // The history does not have them any more.
                deliver.catch_up(channel, &seen, &top);
            }
            return Read::Done;
        };
        let is_last = page.publications.len() < PUBLICATIONS_PER_READ || last >= top.offset;
        for publication in page.publications {
            shared.inbox.deliver_stored(channel, &top.epoch, publication);
            tokio::task::coop::consume_budget().await;
        }
        if is_last {
            return Read::Done;
        }
        since = last;
    }
}

/// Compares the positions of all channels with their streams after each connection, and when it is asked for. Never
/// returns.
pub(super) async fn verify_after_each_connection(shared: Arc<Shared>) {
    let mut connection = shared.inbox.connection();
    let mut requests = shared.inbox.verifications();
    // Channels whose positions could not be read.
    let mut failed = Vec::new();
    let mut failures = 0;
    loop {
        let is_connected = matches!(*connection.borrow_and_update(), Connection::Connected(_));
        if is_connected {
            let channels = match failed.is_empty() {
                true => {
                    requests.borrow_and_update();
                    channels_with_history(&shared)
                }
                false => std::mem::take(&mut failed),
            };
            tokio::select! {
                unread = verify(&shared, &channels) => failed = unread,
                _ = connection.changed() => continue,
            }
        }
        failures = if failed.is_empty() { 0 } else { failures + 1 };
        tokio::select! {
            changed = connection.changed() => match changed {
                Ok(()) => failed.clear(),
                Err(_) => return,
            },
            // Not while all positions are being compared, so that frequent requests do not keep it from its end.
            _ = requests.changed() => {
                failed.clear();
                sleep(VERIFY_PAUSE).await;
            }
            () = sleep(pause_after(failures)), if failures > 0 => {
                tracing::debug!(channels = failed.len(), "could not read positions; trying again");
            }
        }
    }
}

fn channels_with_history(shared: &Shared) -> Vec<(ChannelName, HistoryLimits)> {
    let positions = shared.inbox.deliver().positions();
    let with_limits = positions
        .into_iter()
        .filter_map(|(channel, _)| Some((channel.clone(), (shared.limits)(&channel)?)));
    with_limits.collect()
}

/// Returns the channels whose positions cannot be read.
async fn verify(shared: &Shared, channels: &[(ChannelName, HistoryLimits)]) -> Vec<(ChannelName, HistoryLimits)> {
    let mut failed = Vec::new();
    for part in channels.chunks(POSITIONS_PER_CALL) {
        match verify_part(shared, part).await {
            Some(unread) => failed.extend(unread),
            None => failed.extend(verify_each(shared, part).await),
        }
    }
    failed
}

/// Returns the channels whose positions cannot be read, or `None` if there was no answer.
async fn verify_part(
    shared: &Shared,
    channels: &[(ChannelName, HistoryLimits)],
) -> Option<Vec<(ChannelName, HistoryLimits)>> {
    let Ok(Ok(tops)) = timeout(CALL_TIMEOUT, shared.store.positions(channels)).await else {
        return None;
    };
    let mut unread = Vec::new();
    for (channel, top) in channels.iter().zip(tops) {
        let Some(top) = top else {
            unread.push(channel.clone());
            continue;
        };
        let seen = shared.inbox.deliver().position(&channel.0);
        if seen.is_some_and(|seen| seen != top) {
            shared.inbox.mark_dirty(&channel.0);
        }
    }
    Some(unread)
}

/// Verifies channels by a call for each, so that those on servers that answer do not wait for the others. Returns those
/// whose positions cannot be read.
async fn verify_each(shared: &Shared, channels: &[(ChannelName, HistoryLimits)]) -> Vec<(ChannelName, HistoryLimits)> {
    let failed = Mutex::new(Vec::new());
    stream::iter(channels.to_vec())
        .for_each_concurrent(POSITIONS_MAX, |channel| async {
            let channel = [channel];
            if verify_part(shared, &channel)
                .await
                .is_none_or(|unread| !unread.is_empty())
            {
                failed.lock().extend(channel);
            }
        })
        .await;
    failed.into_inner()
}

pub(super) async fn wait_until_connected(shared: &Shared) {
    let mut connection: watch::Receiver<Connection> = shared.inbox.connection();
    // Fails during a shutdown.
    let _ = connection
        .wait_for(|connection| matches!(connection, Connection::Connected(_)))
        .await;
}
