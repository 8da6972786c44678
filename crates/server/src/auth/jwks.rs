//! A JWK set that is fetched when a token needs it, and kept.
//!
//! At most one fetch is under way, in a task of its own: everybody who needs its result waits for it, and a client that
//! leaves does not abort it. A fetch that would come too soon after the one before is not made, so tokens with invented
//! key ids cause one request every [`REFETCH_INTERVAL`] at most.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::key_set::KeySet;
use crate::http_client::HttpClient;

/// How long a set is used before it is fetched again.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// How long a set is used if it cannot be fetched again. A key that the provider revoked is trusted for this long at
/// most.
const USABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Shortest time between the starts of two fetches.
const REFETCH_INTERVAL: Duration = Duration::from_secs(10);

/// Shortest time from the start of a fetch that failed to the next one.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The cached set of one address. Clones share it.
#[derive(Clone)]
pub(super) struct Jwks {
    shared: Arc<Shared>,
}

struct Shared {
    source: HttpClient,
    state: Mutex<State>,
    /// Number of fetches that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    set: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch began.
    attempted_at: Option<Instant>,
    has_failed: bool,
    is_fetching: bool,
}

impl State {
    fn set_within(&self, age_max: Duration, now: Instant) -> Option<Arc<KeySet>> {
        let (set, fetched_at) = self.set.as_ref()?;
        (now.duration_since(*fetched_at) <= age_max).then(|| set.clone())
    }

    fn may_fetch(&self, now: Instant) -> bool {
        let interval = if self.has_failed {
            RETRY_INTERVAL
        } else {
            REFETCH_INTERVAL
        };
        self.attempted_at.is_none_or(|at| now.duration_since(at) >= interval)
    }
}

/// State of the cache after a refresh.
pub(super) struct Refreshed {
    pub(super) set: Option<Arc<KeySet>>,
    /// Whether the last fetch failed, so that a key may be missing here which the provider has.
    pub(super) has_failed: bool,
}

impl Jwks {
    pub(super) fn new(source: HttpClient) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                state: Mutex::default(),
                ended: watch::Sender::new(0),
            }),
        }
    }

    /// The set, unless it is time to fetch it again.
    pub(super) fn cached(&self) -> Option<Arc<KeySet>> {
        let now = Instant::now();
        let state = self.shared.state();
        let age_max = if state.may_fetch(now) { FRESH } else { USABLE };
        state.set_within(age_max, now)
    }

    /// Fetches the set, or waits for a fetch that is under way; returns at once if neither is due.
    ///
    /// # Cancel safety
    /// The fetch goes on if the future is dropped.
    pub(super) async fn refresh(&self) -> Refreshed {
        if let Some(mut ended) = self.start_fetch() {
            // An error means that the sender is gone, which this handle keeps alive.
            let _ = ended.changed().await;
        }
        let state = self.shared.state();
        Refreshed {
            set: state.set_within(USABLE, Instant::now()),
            has_failed: state.has_failed,
        }
    }

    /// Makes sure that a fetch is under way, if one is due; the receiver changes when it has ended.
    fn start_fetch(&self) -> Option<watch::Receiver<u64>> {
        let now = Instant::now();
        let mut state = self.shared.state();
        // Before the task can end.
        let ended = self.shared.ended.subscribe();
        if state.is_fetching {
            return Some(ended);
        }
        if !state.may_fetch(now) {
            return None;
        }
        state.is_fetching = true;
        state.attempted_at = Some(now);
        let fetch = Fetch(self.shared.clone());
        tokio::spawn(async move { fetch.run().await });
        Some(ended)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A fetch under way. However it ends, others may start the next one.
struct Fetch(Arc<Shared>);

impl Fetch {
    async fn run(self) {
        let set = match self.0.source.fetch().await {
            Ok(body) => KeySet::parse(&body).map_err(|error| format!("the answer is no JWK set: {error}")),
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.0.state();
        state.has_failed = set.is_err();
        match set {
            Ok(set) => {
                debug!(keys = set.len(), "JWK set fetched");
                state.set = Some((Arc::new(set), Instant::now()));
            }
            Err(error) => warn!(%error, "cannot fetch the JWK set for tokens"),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.state().is_fetching = false;
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
