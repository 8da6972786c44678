//! State shared by all clients: configuration, channels, engine, and the list of clients.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::auth::TokenVerifier;
use crate::channel::{ChannelName, Hub};
use crate::codes::DisconnectCode;
use crate::config::Config;
use crate::engine::{Engine, EngineError, MemoryEngine};
use crate::presence::{ClientId, ClientMap, Membership};
use crate::queue::Queue;
use crate::refusals::RefusalLog;

/// The shared state of one server.
#[derive(Debug)]
pub(crate) struct Node {
    config: Arc<Config>,
    hub: Arc<Hub>,
    engine: Arc<MemoryEngine>,
    clients: Mutex<ClientMap<Arc<Queue>>>,
    tokens: TokenVerifier,
    /// `None` if subscription tokens are verified like connection tokens.
    subscription_tokens: Option<TokenVerifier>,
    draining: CancellationToken,
    refusals: RefusalLog,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Node {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let hub = Arc::new(Hub::new());
        let engine = Arc::new(MemoryEngine::new(hub.clone(), &config.channels, &config.limits));
        let verifier = |config| TokenVerifier::new(config).expect("checked by `Config::check`");
        let tokens = verifier(&config.tokens);
        let subscription_tokens = config.subscription_tokens.as_ref().map(verifier);
        let config = Arc::new(config);
        Arc::new(Self {
            config,
            hub,
            engine,
            clients: Mutex::default(),
            tokens,
            subscription_tokens,
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

    /// Verifies connection tokens.
    pub(crate) fn tokens(&self) -> &TokenVerifier {
        &self.tokens
    }

    /// Verifies subscription tokens.
    pub(crate) fn subscription_tokens(&self) -> &TokenVerifier {
        self.subscription_tokens.as_ref().unwrap_or(&self.tokens)
    }

    pub(crate) fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Adds a client to the list. During a shutdown, it is disconnected immediately.
    pub(crate) fn register(&self, client: ClientId, queue: &Arc<Queue>) {
        self.clients.lock().insert(client, queue.clone());
        // Checked after the insertion, so that a concurrent `drain` cannot miss the client.
        if self.is_draining() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    /// Removes a client from the list and from its channels. It receives no further publications.
    pub(crate) fn unregister(self: &Arc<Self>, client: ClientId, left: Vec<Membership>) {
        self.clients.lock().remove(&client);
        for membership in &left {
            self.hub.unsubscribe(&membership.subscription, client);
        }
        if left.is_empty() {
            return;
        }
        // The caller is a destructor and cannot wait for the engine. The client id is never reused, so no later subscription
        // of the client can be affected.
        let node = self.clone();
        tokio::spawn(async move {
            for membership in left {
                node.announce_leave(&membership).await;
            }
        });
    }

    /// Removes a client from the presence of a channel, and announces that it left. The client must already have left the
    /// hub.
    pub(crate) async fn announce_leave(&self, membership: &Membership) {
        self.remove_presence(membership).await;
        let channel = &membership.subscription.channel;
        if membership.join_leave {
            log_engine_error(
                channel,
                self.engine.publish_leave(channel, membership.info.clone()).await,
            );
        }
    }

    /// Removes a client from the presence of a channel, without an announcement. The client must already have left the hub.
    pub(crate) async fn remove_presence(&self, membership: &Membership) {
        let Membership { subscription, info, .. } = membership;
        let channel = &subscription.channel;
        log_engine_error(channel, self.engine.interest_changed(channel).await);
        if membership.presence {
            log_engine_error(channel, self.engine.presence_remove(subscription, info.client).await);
        }
    }

    /// Disconnects all clients with 3001, including those that connect later.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        for queue in self.clients.lock().values() {
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
