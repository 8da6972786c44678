//! State shared by all clients: configuration, channels, engine, and the list of clients.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::channel::{ChannelName, Hub};
use crate::clients::{Clients, TooManyConnections};
use crate::codes::DisconnectCode;
use crate::config::Config;
use crate::demo::Demos;
use crate::engine::{Content, Engine, EngineError, MemoryEngine, Store};
use crate::handle::Idempotency;
use crate::presence::{ClientId, ClientInfo, Subscription};
use crate::queue::Queue;
use crate::refusals::RefusalLog;

/// The shared state of one server.
#[derive(Debug)]
pub(crate) struct Node {
    config: Arc<Config>,
    hub: Arc<Hub>,
    engine: Arc<MemoryEngine>,
    clients: Clients,
    demos: Option<Demos>,
    draining: CancellationToken,
    refusals: RefusalLog,
    idempotency: Idempotency,
    /// A random id of this run of the server.
    uid: String,
    started: Instant,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Node {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let engine = Arc::new(MemoryEngine::new(hub.clone(), &config.channels, &config.limits));
        let config = Arc::new(config);
        Arc::new(Self {
            hub,
            engine,
            clients: Clients::default(),
            demos: config.demos.then(Demos::default),
            config,
            draining: CancellationToken::new(),
            refusals: RefusalLog::new(),
            idempotency: Idempotency::default(),
            uid: ClientId::from_random(rand::random()).to_string(),
            started: Instant::now(),
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

    /// The demonstrations, if they are enabled.
    pub(crate) fn demos(&self) -> Option<&Demos> {
        self.demos.as_ref()
    }

    /// Publishes for a client. A demonstration may take the publication, which is then not delivered.
    pub(crate) async fn publish_from_client(&self, channel: &ChannelName, content: Content) -> Result<(), EngineError> {
        match &self.demos {
            Some(demos) if demos.consume(self, channel, &content) => Ok(()),
            _ => self.engine.publish(channel, content, Store::Keep).await.map(drop),
        }
    }

    /// Notifies the engine and the demonstrations that a channel may have gained its first subscriber.
    pub(crate) async fn interest_changed(&self, channel: &ChannelName) -> Result<(), EngineError> {
        if let Some(demos) = &self.demos {
            demos.interest_changed(channel);
        }
        self.engine.interest_changed(channel).await
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Sets the user of a client that has connected.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if the user has too many connections.
    pub(crate) fn set_user(&self, client: ClientId, user: &Arc<str>) -> Result<(), DisconnectCode> {
        let per_user_max = self.config.limits.connections_per_user_max;
        self.clients
            .set_user(client, user, per_user_max)
            .map_err(|TooManyConnections| DisconnectCode::ConnectionLimit)
    }

    /// The results of recent publications with an idempotency key.
    pub(crate) fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Adds a client to the list. During a shutdown, it is disconnected immediately.
    pub(crate) fn register(&self, client: ClientId, queue: &Arc<Queue>) {
        self.clients.insert(client, queue.clone());
        // Checked after the insertion, so that a concurrent `drain` cannot miss the client.
        if self.is_draining() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    /// Removes a client from the list and from its channels. It receives no further publications.
    pub(crate) fn unregister(
        self: &Arc<Self>,
        client: ClientId,
        info: Option<&Arc<ClientInfo>>,
        left: Vec<Subscription>,
    ) {
        self.clients.remove(client);
        for subscription in &left {
            self.hub.unsubscribe(subscription, client);
        }
        let Some(info) = info.filter(|_| !left.is_empty()).cloned() else {
            return;
        };
        // The caller is a destructor and cannot wait for the engine. The client id is never reused, so no later subscription
        // of the client can be affected.
        let node = self.clone();
        tokio::spawn(async move {
            for subscription in left {
                node.announce_leave(&subscription, &info).await;
            }
        });
    }

    /// Removes a client from the presence of a channel, and announces that it left. The client must already have left the
    /// hub.
    pub(crate) async fn announce_leave(&self, subscription: &Subscription, info: &Arc<ClientInfo>) {
        self.remove_presence(subscription, info).await;
        let channel = &subscription.channel;
        if self.config.channels.join_leave {
            log_engine_error(channel, self.engine.publish_leave(channel, info.clone()).await);
        }
    }

    /// Removes a client from the presence of a channel, without an announcement. The client must already have left the hub.
    pub(crate) async fn remove_presence(&self, subscription: &Subscription, info: &Arc<ClientInfo>) {
        let channel = &subscription.channel;
        log_engine_error(channel, self.engine.interest_changed(channel).await);
        if self.config.channels.presence {
            log_engine_error(channel, self.engine.presence_remove(subscription, info.client).await);
        }
    }

    /// Disconnects all clients with 3001, including those that connect later.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        for queue in self.clients.queues() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until [`drain`](Self::drain) is called. Cancel-safe.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Runs the demonstrations, if they are enabled. Never returns.
    pub(crate) async fn run_demos(&self) {
        match &self.demos {
            Some(demos) => demos.run(self).await,
            None => std::future::pending().await,
        }
    }

    /// Periodically evicts expired history and logs the number of suppressed refusals. Never returns.
    pub(crate) async fn run_maintenance(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.engine.sweep();
            self.refusals.report();
        }
    }
}

fn log_engine_error(channel: &ChannelName, result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(%channel, %error, "the engine could not record that a client left");
    }
}
