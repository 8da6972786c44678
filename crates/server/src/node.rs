//! What all clients of this process share: the configuration, the channels, the engine, and the list of clients.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::channel::{ChannelName, Hub};
use crate::codes::DisconnectCode;
use crate::config::Config;
use crate::engine::{Engine, EngineError, MemoryEngine};
use crate::presence::{ClientId, ClientInfo, ClientMap, Subscription};
use crate::queue::Queue;
use crate::refusals::RefusalLog;

/// One server process.
#[derive(Debug)]
pub(crate) struct Node {
    config: Arc<Config>,
    hub: Arc<Hub>,
    engine: Arc<MemoryEngine>,
    clients: Mutex<ClientMap<Arc<Queue>>>,
    draining: CancellationToken,
    refusals: RefusalLog,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Node {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let engine = Arc::new(MemoryEngine::new(hub.clone(), &config.channels, &config.limits));
        let config = Arc::new(config);
        Arc::new(Self {
            config,
            hub,
            engine,
            clients: Mutex::default(),
            draining: CancellationToken::new(),
            refusals: RefusalLog::new(),
        })
    }

    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(crate) fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Adds a client to the list. One that comes while the node drains is sent away at once.
    pub(crate) fn register(&self, client: ClientId, queue: &Arc<Queue>) {
        self.clients.lock().insert(client, queue.clone());
        // Looked at after the client is on the list: whichever of the two comes first, the other one sees it.
        if self.is_draining() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    /// Takes a client off the list and out of its channels, where others are no longer heard from then on.
    pub(crate) fn unregister(
        self: &Arc<Self>,
        client: ClientId,
        info: Option<&Arc<ClientInfo>>,
        left: Vec<Subscription>,
    ) {
        self.clients.lock().remove(&client);
        for subscription in &left {
            self.hub.leave(subscription, client);
        }
        let Some(info) = info.filter(|_| !left.is_empty()).cloned() else {
            return;
        };
        // In a task of its own, for nothing can be waited for here. The client's id never comes again, so no
        // subscription of it can be overtaken.
        let node = self.clone();
        tokio::spawn(async move {
            for subscription in left {
                node.tell_left(&subscription, &info).await;
            }
        });
    }

    /// Tells the engine, and through it the others, that a client, already out of the hub, left a channel.
    pub(crate) async fn tell_left(&self, subscription: &Subscription, info: &Arc<ClientInfo>) {
        self.forget(subscription, info).await;
        let channel = &subscription.channel;
        if self.config.channels.join_leave {
            took_note(channel, self.engine.publish_leave(channel, info.clone()).await);
        }
    }

    /// Tells the engine that a client, already out of the hub, is not in a channel, where nobody was told it came.
    pub(crate) async fn forget(&self, subscription: &Subscription, info: &Arc<ClientInfo>) {
        let channel = &subscription.channel;
        took_note(channel, self.engine.interest_changed(channel).await);
        if self.config.channels.presence {
            took_note(channel, self.engine.presence_remove(subscription, info.client).await);
        }
    }

    /// Asks all clients, those to come included, to go elsewhere.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        for queue in self.clients.lock().values() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the node drains.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Evicts expired history and reports refusals that were not logged, for as long as it is polled.
    pub(crate) async fn keep_house(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.engine.sweep();
            self.refusals.report();
        }
    }
}

fn took_note(channel: &ChannelName, result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(%channel, %error, "a client left, and the engine did not take note");
    }
}
