//! The check that events arrive: this node periodically sends a message to itself through the store.
//!
//! A connection can look healthy while nothing arrives: after a failover that the client library has not noticed, or
//! when a server has lost the subscriptions. If two probes in a row do not arrive, the node is not ready, and the store
//! connects again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::inbox::{Connection, Inbox};
use super::store::Store;

/// Time between two probes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time for a probe to arrive.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Number of probes in a row that must fail before the store connects again.
const FAILURES_MAX: u32 = 2;

/// The first bytes of a probe. Other control messages are JSON objects.
const PREFIX: &[u8] = b"probe ";

#[derive(Debug)]
pub(super) struct DeliveryProbe {
    state: Mutex<State>,
    arrived: Notify,
    /// Distinguishes the probes of this process from all others.
    nonce: u128,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the newest probe that arrived.
    arrived: u64,
    failures: u32,
}

impl DeliveryProbe {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            nonce: rand::random(),
        }
    }

    /// Why events do not arrive, if they do not.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        let failures = self.state.lock().failures;
        (failures > 0).then(|| "messages do not arrive through the engine".into())
    }

    /// Takes a control message, if it is a probe. Returns whether it is one.
    pub(super) fn handle(&self, payload: &[u8]) -> bool {
        let Some(probe) = payload.strip_prefix(PREFIX) else {
            return false;
        };
        let parsed = std::str::from_utf8(probe).ok().and_then(|text| {
            let (nonce, number) = text.split_once(' ')?;
            (nonce == format!("{:x}", self.nonce)).then_some(number.parse().ok()?)
        });
        if let Some(number) = parsed {
            let mut state = self.state.lock();
            state.arrived = state.arrived.max(number);
            self.arrived.notify_waiters();
        }
        true
    }

    /// Sends probes. Never returns.
    pub(super) async fn run(&self, store: &dyn Store, inbox: &Inbox, uid: &str) {
        let mut connection = inbox.connection();
        for number in 1.. {
            let is_connected = |connection: &Connection| matches!(connection, Connection::Connected(_));
            if connection.wait_for(is_connected).await.is_err() {
                return std::future::pending().await;
            }
            let next = Instant::now() + INTERVAL;
            let payload = Bytes::from(format!("probe {:x} {number}", self.nonce));
            let probe = async { store.send_control(Some(uid), payload).await.is_ok() && self.wait_for(number).await };
            let has_arrived = matches!(timeout(TIMEOUT, probe).await, Ok(true));
            // A connection that was lost in the meantime is being made again already.
            if has_arrived || !is_connected(&connection.borrow()) {
                self.state.lock().failures = 0;
            } else {
                let failures = {
                    let mut state = self.state.lock();
                    state.failures += 1;
                    state.failures
                };
                if failures.is_multiple_of(FAILURES_MAX) {
                    tracing::warn!("messages do not arrive through the engine; connecting again");
                    store.reconnect();
                    sleep(INTERVAL).await;
                }
            }
            sleep_until(next).await;
        }
    }

    async fn wait_for(&self, number: u64) -> bool {
        loop {
            let arrived = self.arrived.notified();
            if self.state.lock().arrived >= number {
                return true;
            }
            arrived.await;
        }
    }
}
