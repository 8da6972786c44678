//! Reads the streams of channels that may have missed events, and delivers what it finds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::super::{HistoryQuery, POSITIONS_PER_CALL, Position};
use super::Shared;
use super::calls::CALL_TIMEOUT;
use super::inbox::{Connection, Resumed, is_doubtful};
use crate::channel::ChannelName;

/// Maximum number of channels whose streams are read at the same time.
const READS_MAX: usize = 64;

/// Pause after a call that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Catches up each suspended channel. Never returns.
pub(super) async fn run(shared: Arc<Shared>, mut suspended: mpsc::UnboundedReceiver<ChannelName>) {
    let reads = Arc::new(Semaphore::new(READS_MAX));
    while let Some(channel) = suspended.recv().await {
        let Ok(permit) = reads.clone().acquire_owned().await else {
            return;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            catch_up(&shared, &channel).await;
            drop(permit);
        });
    }
}

async fn catch_up(shared: &Shared, channel: &ChannelName) {
    loop {
        if read_missing(shared, channel).await && matches!(shared.inbox.resume(channel).await, Resumed::Resumed) {
            return;
        }
    }
}

/// Delivers what the channel has missed. Returns false if it has to be done again.
async fn read_missing(shared: &Shared, channel: &ChannelName) -> bool {
    let deliver = shared.inbox.deliver();
    // Without a position, no subscriber has one.
    let (Some(seen), Some(limits)) = (deliver.position(channel), (shared.limits)(channel)) else {
        return true;
    };
    let query = HistoryQuery {
        since: Some(seen.offset),
        limit: usize::MAX,
        is_reversed: false,
    };
    wait_until_connected(shared).await;
    let page = match timeout(CALL_TIMEOUT, shared.store.read(channel, query, limits)).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => {
            tracing::debug!(%channel, %error, "could not read missed publications; trying again");
            sleep(RETRY_PAUSE).await;
            return false;
        }
        Err(_) => return false,
    };
    let top = page.top;
    if top.epoch != seen.epoch {
        // What was kept while the channel was suspended follows.
        let offset = shared.inbox.offset_before(channel, &top.epoch).unwrap_or(top.offset);
        let start = Position {
            epoch: top.epoch,
            offset,
        };
        deliver.catch_up(channel, &seen, &start);
    } else if top.offset < seen.offset {
        tracing::warn!(%channel, seen = seen.offset, top = top.offset, "the engine seems to have lost publications");
        let replaced = timeout(CALL_TIMEOUT, shared.store.replace_epoch(channel, limits, &seen)).await;
        if !matches!(replaced, Ok(Ok(()))) {
            sleep(RETRY_PAUSE).await;
        }
        return false;
    } else if page.publications.is_empty() && top.offset > seen.offset {
        // The history does not have them any more.
        deliver.catch_up(channel, &seen, &top);
    } else {
        for publication in page.publications {
            shared.inbox.deliver_stored(channel, &top.epoch, publication);
            tokio::task::coop::consume_budget().await;
        }
    }
    true
}

/// Compares the positions of all channels with their streams after each connection. Never returns.
pub(super) async fn verify_after_each_connection(shared: Arc<Shared>) {
    let mut connection = shared.inbox.connection();
    loop {
        let is_connected = matches!(*connection.borrow_and_update(), Connection::Connected(_));
        if is_connected {
            tokio::select! {
                () = verify(&shared) => {}
                _ = connection.changed() => continue,
            }
        }
        if connection.changed().await.is_err() {
            return;
        }
    }
}

async fn verify(shared: &Shared) {
    let mut channels: Vec<_> = shared
        .inbox
        .deliver()
        .positions()
        .into_iter()
        .map(|(channel, _)| channel)
        .collect();
    while !channels.is_empty() {
        // Those that cannot be read do not delay the others.
        let mut again = Vec::new();
        while !channels.is_empty() {
            let part = channels.split_off(channels.len().saturating_sub(POSITIONS_PER_CALL));
            again.extend(compare(shared, part).await);
        }
        channels = again;
        if !channels.is_empty() {
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Compares the positions of channels with their streams. Returns those that could not be read.
async fn compare(shared: &Shared, channels: Vec<ChannelName>) -> Vec<ChannelName> {
    let with_limits = channels.into_iter().filter_map(|channel| {
        let limits = (shared.limits)(&channel)?;
        Some((channel, limits))
    });
    let with_limits: Vec<_> = with_limits.collect();
    let tops = match timeout(CALL_TIMEOUT, shared.store.positions(&with_limits)).await {
        Ok(Ok(tops)) => tops,
        _ => {
            sleep(RETRY_PAUSE).await;
            return with_limits.into_iter().map(|(channel, _)| channel).collect();
        }
    };
    let mut unread = Vec::new();
    for ((channel, _), top) in with_limits.into_iter().zip(tops) {
        let Some(top) = top else {
            unread.push(channel);
            continue;
        };
        let seen = shared.inbox.deliver().position(&channel);
        if seen.is_some_and(|seen| is_doubtful(&seen, &top)) {
            shared.inbox.doubt(&channel);
        }
    }
    unread
}

pub(super) async fn wait_until_connected(shared: &Shared) {
    let mut connection: watch::Receiver<Connection> = shared.inbox.connection();
    // Fails during a shutdown.
    let _ = connection
        .wait_for(|connection| matches!(connection, Connection::Connected(_)))
        .await;
}
