//! Calls to the store: bounded in number and time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::EngineError;
use super::inbox::{Connection, Inbox};
use super::store::StoreError;

/// Time for a call to the store.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Time that a call may wait for its turn. It does not count as time of the call, so a burst does not make calls fail
/// that the store would answer.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of calls that are made at the same time. They share one connection, so more would only wait there.
const CALLS_MAX: usize = 1024;

/// Makes calls to the store.
#[derive(Debug)]
pub(super) struct Calls {
    inbox: Arc<Inbox>,
    running: Semaphore,
}

impl Calls {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self {
            inbox,
            running: Semaphore::new(CALLS_MAX),
        }
    }

    /// Makes a call: fails at once without a connection, and after [`CALL_TIMEOUT`] without an answer. If the node has
    /// just started, or there are too many calls, it first waits up to [`QUEUE_TIMEOUT`]. Calls start in the order in
    /// which they wait.
    ///
    /// # Cancel safety
    /// As the call itself.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, EngineError> {
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        self.wait_for_connection(deadline).await?;
        let Ok(Ok(_running)) = timeout_at(deadline, self.running.acquire()).await else {
            tracing::debug!("{CALLS_MAX} calls to the engine did not end within {QUEUE_TIMEOUT:?}");
            return Err(EngineError::Unreachable);
        };
        // It may have been lost meanwhile.
        self.check_connection()?;
        match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a call to the engine failed");
                Err(error.into())
            }
            Err(_) => {
                tracing::debug!("the engine did not answer within {CALL_TIMEOUT:?}");
                Err(EngineError::Unreachable)
            }
        }
    }

    /// Waits for the first connection attempt, then fails at once if there is no connection. A starting node already
    /// accepts clients, whose commands should not fail during a deploy.
    pub(super) async fn wait_for_connection(&self, deadline: Instant) -> Result<(), EngineError> {
        let mut connection = self.inbox.connection();
        let has_started = connection.wait_for(|connection| !matches!(connection, Connection::Starting));
        // On timeout, the check below fails.
        let _ = timeout_at(deadline, has_started).await;
        self.check_connection()
    }

    fn check_connection(&self) -> Result<(), EngineError> {
        match self.inbox.is_connected() {
            true => Ok(()),
            false => Err(EngineError::Unreachable),
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unreachable,
            StoreError::Full(_) => Self::Full,
            StoreError::TooLarge => Self::TooLarge,
        }
    }
}
