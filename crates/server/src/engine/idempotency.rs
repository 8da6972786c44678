//! Idempotency keys: a publisher that repeats a publication with the same key gets the result of the first one.
//!
//! Keys count per channel. They are forgotten after [`KEY_TTL`], or earlier if there are very many. While a publication
//! is in progress, repetitions wait for it; if it fails, one of them takes its place.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Position;
use crate::channel::ChannelName;

/// The known keys of all channels.
#[derive(Debug)]
pub(super) struct Keys {
    shards: Box<[Mutex<Shard>]>,
    hashers: [RandomState; 2],
}

/// How long a key is known.
pub(super) const KEY_TTL: Duration = Duration::from_secs(5 * 60);

const SHARDS: usize = 64;

/// Maximum number of completed keys per shard, 262,144 in all, which take 30 MiB. Beyond it the oldest are forgotten.
const KEYS_PER_SHARD_MAX: usize = 4096;

/// A hash of channel and key. With 128 bits and random hash keys, two that are equal by accident are out of the
/// question.
type KeyId = u128;

#[derive(Debug, Default)]
struct Shard {
    states: HashMap<KeyId, State>,
    /// Completed keys, the oldest first.
    completed: VecDeque<(Instant, KeyId)>,
}

#[derive(Debug)]
enum State {
    /// The receiver is notified when the publication has completed or failed.
    InProgress(watch::Receiver<()>),
    Completed(Position, Instant),
}

/// The answer of [`Keys::claim`].
#[derive(Debug)]
pub(super) enum Claimed {
    /// The caller must publish.
    New(Claim),
    /// The position of the first publication.
    Known(Position),
}

/// The right to publish with a key. Dropping it releases the key.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Arc<Keys>,
    id: KeyId,
    /// Dropped to notify those that wait.
    _done: watch::Sender<()>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Claims a key, or returns the result of the publication that has it. Waits while that is in progress.
    ///
    /// # Cancel safety
    /// Nothing is claimed.
    pub(super) async fn claim(self: &Arc<Self>, channel: &ChannelName, key: &str) -> Claimed {
        let id = self.id(channel, key);
        loop {
            let mut waiting = match self.try_claim(id) {
                Ok(claimed) => return claimed,
                Err(waiting) => waiting,
            };
            // The sender is never used, only dropped.
            let _ = waiting.changed().await;
        }
    }

    /// Adds a key that was completed some time ago.
    pub(super) fn restore(&self, channel: &ChannelName, key: &str, position: Position, age: Duration) {
        let now = Instant::now();
        if age < KEY_TTL {
            let at = now.checked_sub(age).unwrap_or(now);
            self.shard(self.id(channel, key))
                .lock()
                .complete(self.id(channel, key), position, at);
        }
    }

    /// Changes the positions of all completed keys.
    pub(super) fn map_positions(&self, mut map: impl FnMut(&mut Position)) {
        for shard in &self.shards {
            for state in shard.lock().states.values_mut() {
                if let State::Completed(position, _) = state {
                    map(position);
                }
            }
        }
    }

    fn try_claim(self: &Arc<Self>, id: KeyId) -> Result<Claimed, watch::Receiver<()>> {
        let now = Instant::now();
        let mut shard = self.shard(id).lock();
        shard.forget_expired(now);
        match shard.states.get(&id) {
            Some(State::InProgress(waiting)) => return Err(waiting.clone()),
            Some(State::Completed(position, _)) => return Ok(Claimed::Known(position.clone())),
            None => {}
        }
        let (done, waiting) = watch::channel(());
        shard.states.insert(id, State::InProgress(waiting));
        Ok(Claimed::New(Claim {
            keys: self.clone(),
            id,
            _done: done,
        }))
    }

    fn id(&self, channel: &ChannelName, key: &str) -> KeyId {
        let [high, low] = self
            .hashers
            .each_ref()
            .map(|hasher| hasher.hash_one((channel.as_str(), key)));
        u128::from(high) << 64 | u128::from(low)
    }

    fn shard(&self, id: KeyId) -> &Mutex<Shard> {
        &self.shards[id as usize % SHARDS]
    }
}

impl Claim {
    /// Stores the result of the publication.
    pub(super) fn complete(self, position: Position) {
        self.keys
            .shard(self.id)
            .lock()
            .complete(self.id, position, Instant::now());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shard = self.keys.shard(self.id).lock();
        if let Some(State::InProgress(_)) = shard.states.get(&self.id) {
            shard.states.remove(&self.id);
        }
    }
}

impl Shard {
    fn complete(&mut self, id: KeyId, position: Position, at: Instant) {
        self.states.insert(id, State::Completed(position, at));
        self.completed.push_back((at, id));
        while self.completed.len() > KEYS_PER_SHARD_MAX {
            self.forget_oldest();
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        while self
            .completed
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= KEY_TTL)
        {
            self.forget_oldest();
        }
        if self.completed.is_empty() {
            self.completed = VecDeque::new();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, id)) = self.completed.pop_front() else {
            return;
        };
        // The key may have been completed again.
        if let Some(State::Completed(_, completed_at)) = self.states.get(&id)
            && *completed_at == at
        {
            self.states.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::Epoch;

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::new("e"),
            offset,
        }
    }

    async fn known(keys: &Arc<Keys>, channel: &str, key: &str) -> Option<Position> {
        match keys.claim(&ChannelName::new(channel).unwrap(), key).await {
            Claimed::Known(position) => Some(position),
            Claimed::New(_) => None,
        }
    }

    async fn complete(keys: &Arc<Keys>, channel: &str, key: &str, offset: u64) {
        match keys.claim(&ChannelName::new(channel).unwrap(), key).await {
            Claimed::Known(position) => panic!("{position:?}"),
            Claimed::New(claim) => claim.complete(at(offset)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_count_per_channel_and_expire() {
        let keys = Arc::new(Keys::new());
        complete(&keys, "a", "k", 1).await;
        assert_eq!(known(&keys, "a", "k").await, Some(at(1)));
        assert_eq!(known(&keys, "b", "k").await, None);
        assert_eq!(known(&keys, "a", "l").await, None);
        tokio::time::advance(KEY_TTL - Duration::from_nanos(1)).await;
        assert_eq!(known(&keys, "a", "k").await, Some(at(1)));
        tokio::time::advance(Duration::from_nanos(1)).await;
        complete(&keys, "a", "k", 2).await;
        assert_eq!(known(&keys, "a", "k").await, Some(at(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn restored_keys_have_an_age() {
        let keys = Arc::new(Keys::new());
        let channel = ChannelName::new("a").unwrap();
        keys.restore(&channel, "young", at(1), KEY_TTL / 2);
        keys.restore(&channel, "old", at(2), KEY_TTL);
        assert_eq!(known(&keys, "a", "young").await, Some(at(1)));
        assert_eq!(known(&keys, "a", "old").await, None);
    }

    #[tokio::test]
    async fn the_number_of_keys_is_bounded() {
        let keys = Arc::new(Keys::new());
        for n in 0..2 * SHARDS * KEYS_PER_SHARD_MAX {
            let id = n as KeyId;
            keys.shard(id).lock().complete(id, at(1), Instant::now());
        }
        for shard in &keys.shards {
            assert_eq!(shard.lock().states.len(), KEYS_PER_SHARD_MAX);
        }
    }

    /// Of many concurrent publishers, one publishes. Those before it fail or are cancelled.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_of_many_concurrent_publishers_publishes() {
        for round in 0..50 {
            let keys = Arc::new(Keys::new());
            let attempts = Arc::new(AtomicUsize::new(0));
            let publishers = (0..16).map(|_| {
                let (keys, attempts) = (keys.clone(), attempts.clone());
                tokio::spawn(async move {
                    match keys.claim(&ChannelName::new("a").unwrap(), "k").await {
                        Claimed::Known(position) => Some(position),
                        Claimed::New(claim) => {
                            tokio::task::yield_now().await;
                            match attempts.fetch_add(1, Ordering::Relaxed) {
                                failing if failing < round % 5 => None,
                                offset => {
                                    claim.complete(at(offset as u64));
                                    Some(at(offset as u64))
                                }
                            }
                        }
                    }
                })
            });
            let mut positions = Vec::new();
            for publisher in publishers.collect::<Vec<_>>() {
                positions.extend(publisher.await.unwrap());
            }
            assert_eq!(attempts.load(Ordering::Relaxed), round % 5 + 1);
            assert!(positions.len() >= 16 - 5 && positions.iter().all(|position| *position == positions[0]));
        }
    }
}
