//! Which channels this node is subscribed to at the store.
//!
//! The hub knows which channels have subscribers; [`Interests::changed`] tells the store. There is one call at a time
//! for a channel, so that the last one sees the final state. Callers that arrive during a call share the next one: a
//! thousand clients that subscribe to one channel at once cost two calls.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::EngineError;
use super::calls::{CALL_TIMEOUT, QUEUE_TIMEOUT};
use super::per_key::PerChannel;
use super::{Shared, StoreError};
use crate::channel::ChannelName;

/// The channels whose subscriptions are being changed.
#[derive(Debug, Default)]
pub(super) struct Interests {
    channels: PerChannel<Interest>,
}

/// The calls for one channel. Counters start when the first caller arrives, and end with the last one.
#[derive(Debug, Default)]
struct Interest {
    /// Held during a call.
    update_lock: Mutex<()>,
    /// Number of calls that have started.
    started: AtomicU64,
    /// Number of the last call that succeeded.
    succeeded: AtomicU64,
    /// Number of calls that failed.
    failed: AtomicU64,
}

impl Interests {
    /// Tells the store whether the channel has subscribers on this node. When the call returns, the store sends events
    /// if there are.
    ///
    /// # Cancel safety
    /// If the call is dropped, callers that wait make their own.
    pub(super) async fn changed(&self, shared: &Shared, channel: &ChannelName) -> Result<(), EngineError> {
        let interest = self.channels.enter(channel);
        // As long as one call may take that does not wait for another one.
        let result = timeout(QUEUE_TIMEOUT + CALL_TIMEOUT, interest.changed(shared, channel)).await;
        result.unwrap_or(Err(EngineError::Unreachable))
    }
}

impl Interest {
    async fn changed(&self, shared: &Shared, channel: &ChannelName) -> Result<(), EngineError> {
        let started = self.started.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let _guard = self.update_lock.lock().await;
        // A call that started after this one arrived has seen the same subscribers.
        if self.succeeded.load(Ordering::Acquire) > started {
            return Ok(());
        }
        // So that callers do not wait for a timeout each.
        if self.failed.load(Ordering::Acquire) > failed {
            return Err(EngineError::Unreachable);
        }
        let number = self.started.fetch_add(1, Ordering::AcqRel) + 1;
        let result = shared.calls.call(update_subscription(shared, channel)).await;
        match result {
            Ok(()) => self.succeeded.store(number, Ordering::Release),
            Err(_) => drop(self.failed.fetch_add(1, Ordering::AcqRel)),
        }
        result
    }
}

async fn update_subscription(shared: &Shared, channel: &ChannelName) -> Result<(), StoreError> {
    match shared.inbox.deliver().has_subscribers(channel) {
        true => shared.store.subscribe(channel).await,
        false => shared.store.unsubscribe(channel).await,
    }
}
