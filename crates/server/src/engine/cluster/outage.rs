//! Publications that wait until the store is reachable again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::EngineError;
use super::Shared;
use super::calls::CALL_TIMEOUT;
use super::catch_up::wait_until_connected;
use super::per_key::PerChannel;
use super::store::{StoreError, StorePublish, StorePublished};
use crate::channel::ChannelName;

/// What happens to publications while the store is not reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutagePolicy {
    /// They fail at once with a temporary error.
    Refuse,
    /// They wait this long, in the order of their arrival in a channel, and then fail. The publisher waits for the
    /// answer.
    Buffer(Duration),
}

/// Returns the policy of a channel.
pub(crate) type OutagePolicyOf = dyn Fn(&ChannelName) -> OutagePolicy + Send + Sync;

/// Maximum size of all publications that wait on this node.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Pause before a publication is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The publications that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes: AtomicUsize,
    /// One lock for each channel with publications that wait. Its queue is their order.
    channels: PerChannel<Mutex<()>>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            channels: PerChannel::default(),
        }
    }

    /// Size of the publications that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Publishes, and tries again for some time while the store is not reachable. The publication has an idempotency
    /// key.
    pub(super) async fn publish(
        &self,
        shared: &Shared,
        channel: &ChannelName,
        publish: StorePublish,
        time: Duration,
    ) -> Result<StorePublished, EngineError> {
        let deadline = Instant::now() + time;
        if !self.channels.is_used(channel) {
            match shared.call(shared.store.publish(channel, publish.clone())).await {
                Err(EngineError::Unreachable) => {}
                result => return result,
            }
        }
        let _reserved = self.reserve(publish.payload.len())?;
        let queue = self.channels.enter(channel);
        // Publications that wait longer are first.
        let _guard = timeout_at(deadline, queue.lock())
            .await
            .map_err(|_| EngineError::Unreachable)?;
        loop {
            let attempt = async {
                wait_until_connected(shared).await;
                shared.store.publish(channel, publish.clone()).await
            };
            match timeout_at(deadline.min(Instant::now() + CALL_TIMEOUT), attempt).await {
                Ok(Ok(published)) => return Ok(published),
                Ok(Err(StoreError::Unavailable(_))) | Err(_) if Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(EngineError::Unreachable),
            }
        }
    }

    fn reserve(&self, bytes: usize) -> Result<Reserved<'_>, EngineError> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved(self, bytes);
        match before + bytes > WAITING_BYTES_MAX {
            true => Err(EngineError::Full),
            false => Ok(reserved),
        }
    }
}

/// The memory of a publication that waits.
struct Reserved<'a>(&'a Waiting, usize);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A key for a publication without one.
pub(super) fn random_key() -> Box<str> {
    format!("~{:032x}", rand::random::<u128>()).into()
}
