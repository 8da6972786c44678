//! Results of publications with an idempotency key, so that a repeated request is not published twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::StreamPosition;
use crate::channel::ChannelName;
use crate::codes::ErrorCode;

/// How long a result is kept.
const TTL: Duration = Duration::from_secs(5 * 60);

/// Maximum number of results. Beyond it, the oldest are forgotten early.
const RESULTS_MAX: usize = 1 << 20;

/// The longest key in bytes.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// The results of recent publications, by channel and key.
#[derive(Debug, Default)]
pub(crate) struct Idempotency {
    state: Mutex<State>,
}

type Key = (ChannelName, Arc<str>);
type Outcome = Arc<OnceCell<StreamPosition>>;

#[derive(Debug, Default)]
struct State {
    results: HashMap<Key, Outcome>,
    /// In the order of insertion, with the time at which they are forgotten.
    due: VecDeque<(Instant, Key)>,
}

impl Idempotency {
    /// Returns the result of the publication with this key, or calls `publish` if there is none. Concurrent calls with one
    /// key wait for the first of them. If it fails, the next one tries again.
    pub(super) async fn publish(
        &self,
        channel: &ChannelName,
        key: &str,
        publish: impl AsyncFnOnce() -> Result<StreamPosition, ErrorCode>,
    ) -> Result<StreamPosition, ErrorCode> {
        let outcome = self.outcome(channel, key, Instant::now());
        outcome.get_or_try_init(|| publish()).await.cloned()
    }

    fn outcome(&self, channel: &ChannelName, key: &str, now: Instant) -> Outcome {
        let mut state = self.state.lock();
        let State { results, due } = &mut *state;
        while due.front().is_some_and(|(at, _)| *at <= now) || due.len() >= RESULTS_MAX {
            if let Some((_, key)) = due.pop_front() {
                results.remove(&key);
            }
        }
        let key: Key = (channel.clone(), key.into());
        if let Some(known) = results.get(&key) {
            return known.clone();
        }
        due.push_back((now + TTL, key.clone()));
        results.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Publisher {
        results: Idempotency,
        published: AtomicU64,
    }

    impl Publisher {
        fn new() -> Self {
            Self {
                results: Idempotency::default(),
                published: AtomicU64::new(0),
            }
        }

        async fn publish(&self, channel: &str, key: &str) -> Result<u64, ErrorCode> {
            let channel = ChannelName::new(channel).unwrap();
            let publish = async || {
                tokio::task::yield_now().await;
                let offset = self.published.fetch_add(1, Ordering::Relaxed) + 1;
                match offset {
                    13 => Err(ErrorCode::Internal),
                    _ => Ok(StreamPosition {
                        offset,
                        epoch: "e".into(),
                    }),
                }
            };
            let position = self.results.publish(&channel, key, publish).await?;
            Ok(position.offset)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_counts_per_channel_and_for_five_minutes() {
        let publisher = Publisher::new();
        assert_eq!(publisher.publish("a", "k").await, Ok(1));
        assert_eq!(publisher.publish("a", "k").await, Ok(1));
        assert_eq!(publisher.publish("a", "l").await, Ok(2));
        assert_eq!(publisher.publish("b", "k").await, Ok(3));
        tokio::time::advance(TTL - Duration::from_millis(1)).await;
        assert_eq!(publisher.publish("a", "k").await, Ok(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(publisher.publish("a", "k").await, Ok(4));
        assert_eq!(publisher.results.state.lock().results.len(), 1);
    }

    #[tokio::test]
    async fn concurrent_publications_with_one_key_are_one() {
        let publisher = Publisher::new();
        let calls = (0..100).map(|_| publisher.publish("a", "k"));
        for offset in futures_all(calls).await {
            assert_eq!(offset, Ok(1));
        }
        assert_eq!(publisher.published.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failed_publication_may_be_repeated() {
        let publisher = Publisher::new();
        publisher.published.store(12, Ordering::Relaxed);
        assert_eq!(publisher.publish("a", "k").await, Err(ErrorCode::Internal));
        assert_eq!(publisher.publish("a", "k").await, Ok(14));
    }

    /// Polls all futures until all are ready.
    async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
        std::future::poll_fn(|cx| {
            let mut is_ready = true;
            for (future, result) in &mut futures {
                if result.is_none() {
                    match future.as_mut().poll(cx) {
                        std::task::Poll::Ready(value) => *result = Some(value),
                        std::task::Poll::Pending => is_ready = false,
                    }
                }
            }
            match is_ready {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
        futures.into_iter().filter_map(|(_, result)| result).collect()
    }
}
