//! State shared by all clients: configuration, channels, engine, and the list of clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::auth::TokenVerifier;
use crate::channel::{ChannelName, Hub};
use crate::clients::{Clients, TooManyConnections};
use crate::codes::DisconnectCode;
use crate::config::Config;
use crate::demo::Demos;
use crate::engine::{
    Broker, Content, Engine, EngineError, HistoryLimits, HistoryLimitsOf, MemoryBroker, MemoryPresence,
};
use crate::presence::{ClientId, Membership};
use crate::queue::Queue;
use crate::refusals::RefusalLog;

/// The shared state of one server.
#[derive(Debug)]
pub(crate) struct Node {
    config: Arc<Config>,
    hub: Arc<Hub>,
    engine: Engine,
    clients: Clients,
    demos: Option<Demos>,
    tokens: TokenVerifier,
    /// `None` if subscription tokens are verified like connection tokens.
    subscription_tokens: Option<TokenVerifier>,
    draining: CancellationToken,
    refusals: RefusalLog,
    /// A random id of this run of the server.
    uid: String,
    started: Instant,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Node {
    /// A node without a log.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let config = Arc::new(config);
        let hub = Arc::new(Hub::new());
        let bytes_max = config.limits.history_bytes_max;
        let broker = MemoryBroker::new(hub.clone(), history_limits(&config), bytes_max);
        Self::with_broker(config, hub, Arc::new(broker))
    }

    /// A node with the log that the configuration names, if it names one. Blocks while it reads the log.
    ///
    /// # Errors
    /// The log could not be opened.
    pub(crate) fn open(config: Config) -> io::Result<Arc<Self>> {
        let Some(log) = config.log.clone() else {
            return Ok(Self::new(config));
        };
        let config = Arc::new(config);
        let hub = Arc::new(Hub::new());
        let bytes_max = config.limits.history_bytes_max;
        let broker =
            MemoryBroker::open(hub.clone(), history_limits(&config), bytes_max, &log).map_err(io::Error::other)?;
        Ok(Self::with_broker(config, hub, Arc::new(broker)))
    }

    pub(crate) fn with_broker(config: Arc<Config>, hub: Arc<Hub>, broker: Arc<dyn Broker>) -> Arc<Self> {
        let verifier = |config| TokenVerifier::new(config).expect("checked by `Config::check`");
        let tokens = verifier(&config.tokens);
        let subscription_tokens = config.subscription_tokens.as_ref().map(verifier);
        Arc::new(Self {
            hub,
            engine: Engine::new(broker, Arc::new(MemoryPresence::new())),
            clients: Clients::default(),
            demos: config.demos.then(Demos::default),
            config,
            tokens,
            subscription_tokens,
            draining: CancellationToken::new(),
            refusals: RefusalLog::new(),
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

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The demonstrations, if they are enabled.
    pub(crate) fn demos(&self) -> Option<&Demos> {
        self.demos.as_ref()
    }

    /// Publishes for a client. A demonstration may take the publication, which is then not delivered.
    pub(crate) async fn publish_from_client(&self, channel: &ChannelName, content: Content) -> Result<(), EngineError> {
        match &self.demos {
            Some(demos) if demos.consume(self, channel, &content) => Ok(()),
            _ => self.engine.publish(channel, content).await.map(drop),
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

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
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
        self.clients.insert(client, queue.clone());
        // Checked after the insertion, so that a concurrent `drain` cannot miss the client.
        if self.is_draining() {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    /// Removes a client from the list and from its channels. It receives no further publications.
    pub(crate) fn unregister(self: &Arc<Self>, client: ClientId, left: Vec<Membership>) {
        self.clients.remove(client);
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
            if let Err(error) = self.engine.maintain().await {
                tracing::warn!(%error, "the engine could not free expired history");
            }
            self.refusals.report();
        }
    }
}

/// The limits of each channel's history, by its namespace.
fn history_limits(config: &Arc<Config>) -> Arc<HistoryLimitsOf> {
    let config = config.clone();
    Arc::new(move |channel: &ChannelName| {
        let all = &config.channels;
        let (count_max, ttl) = match config.namespace(channel.as_str()) {
            Some(options) => (
                options.history_size.min(all.history_count_max),
                options.history_ttl.min(all.history_ttl),
            ),
            None => (all.history_count_max, all.history_ttl),
        };
        (count_max > 0).then_some(HistoryLimits {
            count_max,
            bytes_max: config.limits.history_bytes_per_channel_max,
            ttl,
        })
    })
}

fn log_engine_error(channel: &ChannelName, result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(%channel, %error, "the engine could not record that a client left");
    }
}
