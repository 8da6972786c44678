//! State shared by all clients: configuration, channels, engine, and the list of clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

use rand::seq::SliceRandom;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{TokenError, TokenVerifier};
use crate::channel::{ChannelName, Hub, PositionCheck, STEPS, SubscriberOptions};
use crate::clients::{Clients, TooManyConnections};
use crate::codes::DisconnectCode;
use crate::config::Config;
use crate::connection_limiter::ConnectionLimiter;
use crate::demo::Demos;
use crate::engine::{
    ClusterBroker, Content, Engine, EngineError, EngineFuture, Health, HistoryLimits, HistoryLimitsOf, MemoryBroker,
    MemoryPresence, OutagePolicy, OutagePolicyOf, Publish, Published, StartedPublish, Store,
};
use crate::engine_failures::{self, EngineFailures};
use crate::handle::Questions;
use crate::handlers::Handlers;
use crate::hooks::Hooks;
use crate::ids::{ClientId, Generation, Subscription};
use crate::metrics::{Metrics, SharedMetrics, Snapshot};
use crate::presence::Membership;
use crate::protocol::Data;
use crate::queue::{Item, Outgoing, Queue, RevokedCount, ServerCommand};
use crate::rate_limiter::{Rate, RateLimiter};
use crate::refusals::RefusalLog;
use crate::session::{TokenCheck, TokenKind, Verified};
use crate::transports::Sessions;

/// A configuration that can be replaced.
pub(crate) type SharedConfig = Arc<RwLock<Arc<Config>>>;

/// The shared state of one server.
#[derive(Debug)]
pub(crate) struct Node {
    /// The configuration at the start.
    config: Arc<Config>,
    /// The configuration after the last reload.
    current: SharedConfig,
    /// Number of reloads.
    generation: AtomicU64,
    hub: Arc<Hub>,
    engine: Engine,
    clients: Clients,
    demos: Option<Demos>,
    verifiers: RwLock<Arc<Verifiers>>,
    draining: CancellationToken,
    /// The tasks that announce the leaves of disconnected clients.
    leaving: TaskTracker,
    /// Number of clients that are accepted, but not registered yet.
    arriving: AtomicUsize,
    /// Whether [`drain`](Self::drain) has made its list of clients. Clients that register later are disconnected at
    /// once.
    is_drain_listed: AtomicBool,
    refusals: RefusalLog,
    engine_failures: EngineFailures,
    metrics: SharedMetrics,
    hooks: RwLock<Hooks>,
    handlers: RwLock<Handlers>,
    /// Certificates for new connections; `None` without TLS.
    tls: RwLock<Option<Arc<rustls::ServerConfig>>>,
    connection_limiter: ConnectionLimiter,
    handshakes: Mutex<RateLimiter>,
    /// Whether the last readiness check succeeded.
    is_ready: AtomicBool,
    /// When the last readiness check ended.
    ready_checked_at: Mutex<Option<Instant>>,
    /// A random id of this run of the server.
    uid: Arc<str>,
    /// Questions to other nodes.
    questions: Questions,
    /// Clients without WebSocket.
    sessions: Arc<Sessions>,
    started: Instant,
}

/// How long [`Node::drain`] waits for clients that are accepted and not registered yet: usually they take less than a
/// round trip. Later ones are disconnected when they register.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Handshakes are limited on average over this time.
const HANDSHAKES_BURST: Duration = Duration::from_secs(2);

/// How often [`Node::drain`] looks whether all clients are gone.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The channel of the readiness check. Clients cannot subscribe to it, because it is private.
const PROBE_CHANNEL: &str = "$sockeye:probe";

/// Time for the publication of the readiness check to arrive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Without requests for it, the readiness check runs this often, so that its metric is not stale.
const READY_MAX_AGE: Duration = Duration::from_secs(15);

/// How often the age of the last readiness check is compared with [`READY_MAX_AGE`].
const READY_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Size of the queue of the readiness check.
const PROBE_BYTES_MAX: usize = 64 << 10;

/// The verifiers of tokens.
#[derive(Debug)]
pub(crate) struct Verifiers {
    connections: TokenVerifier,
    /// `None` if subscription tokens are verified like connection tokens.
    subscriptions: Option<TokenVerifier>,
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl Verifiers {
    fn new(config: &Config) -> Self {
        let verifier = |config| TokenVerifier::new(config).expect("checked by `Config::check`");
        Self {
            connections: verifier(&config.tokens),
            subscriptions: config.subscription_tokens.as_ref().map(verifier),
        }
    }

    /// Verifies a token with the keys at hand; `None` if [`verify`](Self::verify) has to fetch some.
    pub(crate) fn try_verify(&self, check: &TokenCheck) -> Option<Result<Verified, TokenError>> {
        let unix = unix_seconds();
        match check.kind {
            TokenKind::Connection => {
                let token = self.connections().try_verify_connect(&check.token, unix)?;
                Some(token.map(Verified::Connection))
            }
            TokenKind::Subscription => {
                let token = self.subscriptions().try_verify_subscribe(&check.token, unix)?;
                Some(token.map(Verified::Subscription))
            }
        }
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// [`TokenError`] if the token is not accepted.
    pub(crate) async fn verify(&self, kind: TokenKind, token: &str) -> Result<Verified, TokenError> {
        let unix = unix_seconds();
        match kind {
            TokenKind::Connection => {
                let token = self.connections().verify_connect(token, unix).await;
                token.map(Verified::Connection)
            }
            TokenKind::Subscription => {
                let token = self.subscriptions().verify_subscribe(token, unix).await;
                token.map(Verified::Subscription)
            }
        }
    }

    /// Verifies connection tokens.
    pub(crate) fn connections(&self) -> &TokenVerifier {
        &self.connections
    }

    /// Verifies subscription tokens.
    pub(crate) fn subscriptions(&self) -> &TokenVerifier {
        self.subscriptions.as_ref().unwrap_or(&self.connections)
    }
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Node {
    /// A node without a log.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let current: SharedConfig = Arc::new(RwLock::new(Arc::new(config)));
        let hub = Arc::new(Hub::new());
        let bytes_max = current.read().limits.history_bytes_max;
        let broker = MemoryBroker::new(hub.clone(), history_limits(&current), bytes_max);
        Self::with_memory(current, hub, broker)
    }

    /// A node with the engine that the configuration names. Blocks while it reads a log. Does not wait for Redis or
    /// NATS.
    ///
    /// # Errors
    /// The log, or a file that the URL of the engine names, could not be read.
    pub(crate) fn open(config: Config) -> io::Result<Arc<Self>> {
        if let Some(url) = &config.engine {
            let uid = random_uid();
            let store = url.store(&uid)?;
            return Ok(Self::with_store(config, store, uid));
        }
        let Some(log) = config.journal.clone() else {
            return Ok(Self::new(config));
        };
        let bytes_max = config.limits.history_bytes_max;
        let current: SharedConfig = Arc::new(RwLock::new(Arc::new(config)));
        let hub = Arc::new(Hub::new());
        let broker =
            MemoryBroker::open(hub.clone(), history_limits(&current), bytes_max, &log).map_err(io::Error::other)?;
        Ok(Self::with_memory(current, hub, broker))
    }

    pub(crate) fn with_memory(current: SharedConfig, hub: Arc<Hub>, broker: MemoryBroker) -> Arc<Self> {
        let engine = Engine::new(Arc::new(broker), Arc::new(MemoryPresence::new()));
        Self::with_engine(current, hub, engine, random_uid())
    }

    /// A node that shares a store with others. The store has to know the node by the id `uid`.
    pub(crate) fn with_store(config: Config, store: Arc<dyn Store>, uid: Arc<str>) -> Arc<Self> {
        let current: SharedConfig = Arc::new(RwLock::new(Arc::new(config)));
        let hub = Arc::new(Hub::new());
        let limits = history_limits(&current);
        let broker = ClusterBroker::new(store, hub.clone(), limits, outage_policies(&current), uid.clone());
        let presence = broker.presence();
        Self::with_engine(current, hub, Engine::new(Arc::new(broker), presence), uid)
    }

    fn with_engine(current: SharedConfig, hub: Arc<Hub>, engine: Engine, uid: Arc<str>) -> Arc<Self> {
        let config = current.read().clone();
        let connection_limiter = ConnectionLimiter::new(config.limits.connections_max);
        let hooks = Hooks::from_options(&config.hooks).expect("checked by `Config::check`");
        let metrics = Arc::new(Metrics::new(engine.sync_seconds()));
        let verifiers = RwLock::new(Arc::new(Verifiers::new(&config)));
        Arc::new(Self {
            current,
            generation: AtomicU64::new(0),
            hub,
            hooks: RwLock::new(hooks.with_metrics(metrics.clone())),
            metrics,
            engine,
            clients: Clients::default(),
            verifiers,
            demos: config.demos.then(Demos::default),
            config,
            draining: CancellationToken::new(),
            leaving: TaskTracker::new(),
            arriving: AtomicUsize::new(0),
            is_drain_listed: AtomicBool::new(false),
            refusals: RefusalLog::new(),
            engine_failures: EngineFailures::default(),
            handlers: RwLock::default(),
            tls: RwLock::new(None),
            connection_limiter,
            handshakes: Mutex::default(),
            is_ready: AtomicBool::new(false),
            ready_checked_at: Mutex::new(None),
            uid,
            questions: Questions::default(),
            sessions: Arc::default(),
            started: Instant::now(),
        })
    }

    /// The configuration of the start, for what a reload does not change.
    pub(crate) fn startup_config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The configuration after the last reload.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.current.read().clone()
    }

    /// Returns the configuration if it was reloaded since `generation`, which is then set to the current one.
    pub(crate) fn reloaded_config(&self, generation: &mut u64) -> Option<Arc<Config>> {
        let current = self.generation.load(Ordering::Acquire);
        let is_new = std::mem::replace(generation, current) != current;
        is_new.then(|| self.config())
    }

    /// Number of reloads.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Replaces the configuration. Ends the subscriptions that it does not allow any more.
    pub(crate) fn reload(&self, config: Config) {
        if config.hooks != self.config().hooks
            && let Ok(hooks) = Hooks::from_options(&config.hooks)
        {
            *self.hooks.write() = hooks.with_metrics(self.metrics.clone());
        }
        let tokens = |config: &Config| (config.tokens.clone(), config.subscription_tokens.clone());
        // New verifiers have to fetch their JWK sets, which fails while the identity provider is not reachable.
        if tokens(&config) != tokens(&self.config()) {
            *self.verifiers.write() = Arc::new(Verifiers::new(&config));
        }
        let config = Arc::new(config);
        let old = std::mem::replace(&mut *self.current.write(), config.clone());
        self.generation.fetch_add(1, Ordering::Release);
        if !old.allows_same_subscriptions(&config) {
            // A client that is not registered yet has no subscription, and gets the new configuration with its first
            // one.
            let count = Arc::new(RevokedCount::default());
            for queue in self.clients.queues() {
                queue.push(Item::Command(Box::new(ServerCommand::CheckSubscriptions(
                    count.clone(),
                ))));
            }
        }
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
    ///
    /// Returns a future if the publication has its offset and waits for the log.
    pub(crate) async fn publish_from_client(
        &self,
        channel: &ChannelName,
        publish: impl Into<Publish>,
    ) -> Result<Option<EngineFuture<'static, Published>>, EngineError> {
        let publish = publish.into();
        match &self.demos {
            Some(demos) if demos.consume(self, channel, &publish.content) => Ok(None),
            _ => match self.engine.start_publish(channel, publish) {
                StartedPublish::Numbered(published) => Ok(Some(published)),
                StartedPublish::Unnumbered(published) => published.await.map(|_| None),
            },
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
        let per_user_max = self.config().limits.connections_per_user_max;
        self.clients
            .set_user(client, user, per_user_max)
            .map_err(|TooManyConnections| DisconnectCode::ConnectionLimit)
    }

    /// The calls to the backend.
    pub(crate) fn hooks(&self) -> Hooks {
        self.hooks.read().clone()
    }

    /// Replaces the backend.
    #[cfg(test)]
    pub(crate) fn set_hooks(&self, hooks: Hooks) {
        *self.hooks.write() = hooks;
    }

    /// The handlers of the embedding program.
    pub(crate) fn handlers(&self) -> Handlers {
        self.handlers.read().clone()
    }

    /// Sets the handlers of the embedding program, for new connections.
    pub(crate) fn set_handlers(&self, handlers: Handlers) {
        *self.handlers.write() = handlers;
    }

    /// The TLS configuration for new connections.
    pub(crate) fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.tls.read().clone()
    }

    /// Replaces the TLS configuration.
    pub(crate) fn set_tls(&self, tls: Arc<rustls::ServerConfig>) {
        *self.tls.write() = Some(tls);
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Limits the number of connections.
    pub(crate) fn connection_limiter(&self) -> &ConnectionLimiter {
        &self.connection_limiter
    }

    /// Admits a new client, over WebSocket or another transport, within a number per second.
    ///
    /// # Errors
    /// Returns the time after which it would be admitted.
    pub(crate) fn admit_handshake(&self, per_second_max: u32) -> Result<(), Duration> {
        let rate = Rate::per_second(per_second_max, HANDSHAKES_BURST);
        self.handshakes.lock().admit(Instant::now().into_std(), rate)
    }

    /// The metrics in the text format of OpenMetrics.
    pub(crate) fn encode_metrics(&self) -> String {
        let clients = self.clients.stats();
        self.metrics.encode(Snapshot {
            connections: self.connection_limiter.connections(),
            clients: clients.clients,
            users: clients.users,
            hub: self.hub.stats(),
            engine: self.engine.stats(),
            is_ready: self.is_known_ready(),
            uptime_seconds: self.uptime().as_secs(),
        })
    }

    /// Whether the last check succeeded, and the server does not shut down.
    pub(crate) fn is_known_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && !self.is_draining()
    }

    /// Checks that the server can do its work: a publication passes through the engine to a subscriber within a second.
    ///
    /// # Errors
    /// Returns the reason as one line.
    pub(crate) async fn check_ready(&self) -> Result<(), String> {
        let result = match self.is_draining() {
            true => Err("shutting down".to_owned()),
            false if let Health::NotReady(reason) = self.engine.health() => Err(reason.to_string()),
            false => timeout(PROBE_TIMEOUT, self.probe())
                .await
                .unwrap_or(Err("a publication did not arrive within a second"))
                .map_err(str::to_owned),
        };
        self.is_ready.store(result.is_ok(), Ordering::Relaxed);
        *self.ready_checked_at.lock() = Some(Instant::now());
        result
    }

    async fn probe(&self) -> Result<(), &'static str> {
        const FAILED: &str = "the engine does not accept a publication";
        /// Ends the subscription, also if the probe is cancelled.
        struct Probe<'a>(&'a Node, Subscription, ClientId);
        impl Drop for Probe<'_> {
            fn drop(&mut self) {
                self.0.hub.unsubscribe(&self.1, self.2);
            }
        }
        let channel = ChannelName::new(PROBE_CHANNEL).map_err(|_| FAILED)?;
        let client = ClientId::from_random(rand::random());
        let subscription = Subscription {
            channel: channel.clone(),
            generation: Generation::default().next(),
        };
        let queue = Arc::new(Queue::new(PROBE_BYTES_MAX, None));
        let options = SubscriberOptions {
            is_hidden: true,
            ..SubscriberOptions::default()
        };
        self.hub.subscribe(&subscription, client, queue.clone(), options);
        let _probe = Probe(self, subscription, client);
        self.engine.interest_changed(&channel).await.map_err(|_| FAILED)?;
        self.hub
            .activate(&channel, client, Default::default(), None, None)
            .map_err(|_| FAILED)?;
        // Concurrent probes see each other's publications.
        let token = client.to_string();
        let content = Content {
            data: Data::json(format!("\"{token}\"")).map_err(|_| FAILED)?,
            info: None,
            tags: None,
        };
        let publish = Publish {
            skips_history: true,
            ..Publish::from(content)
        };
        self.engine.publish(&channel, publish).await.map_err(|_| FAILED)?;
        // The publication above is not stored.
        self.engine
            .probe()
            .await
            .map_err(|_| "the engine does not store and deliver publications")?;
        loop {
            queue.ready().await;
            match queue.take() {
                Some(Outgoing::Frame(frame)) if frame.message().as_text().is_some_and(|text| text.contains(&token)) => {
                    return Ok(());
                }
                Some(Outgoing::Close(_)) => return Err(FAILED),
                _ => {}
            }
        }
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.questions
    }

    /// The sessions of clients without WebSocket.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The verifiers of tokens after the last reload.
    pub(crate) fn verifiers(&self) -> Arc<Verifiers> {
        self.verifiers.read().clone()
    }

    /// The log of calls to the engine that failed.
    pub(crate) fn engine_failures(&self) -> &EngineFailures {
        &self.engine_failures
    }

    pub(crate) fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Accepts a client, which is then registered. The shutdown waits for it until the result is dropped. Returns
    /// `None` during a shutdown.
    pub(crate) fn arrive(self: &Arc<Self>) -> Option<Arrival> {
        self.arriving.fetch_add(1, Ordering::SeqCst);
        let arrival = Arrival(self.clone());
        // Checked after the addition, so that a concurrent `drain` cannot miss the client.
        (!self.is_draining()).then_some(arrival)
    }

    /// Adds a client to the list. If [`drain`](Self::drain) has made its list, the client is disconnected at once.
    pub(crate) fn register(&self, client: ClientId, queue: &Arc<Queue>) {
        self.clients.insert(client, queue.clone());
        // Checked after the insertion, so that a concurrent `drain` cannot miss the client.
        if self.is_drain_listed.load(Ordering::SeqCst) {
            queue.close(DisconnectCode::Shutdown);
        }
    }

    /// Removes a client from the list and from its channels. It receives no further publications.
    pub(crate) fn unregister(self: &Arc<Self>, client: ClientId, left: Vec<Membership>) {
        // Before the client is removed, so that a drain waits for its leaves.
        let leaving = self.leaving.token();
        self.clients.remove(client);
        for membership in &left {
            self.hub.unsubscribe(&membership.subscription, client);
        }
        if left.is_empty() {
            return;
        }
        // The caller is a destructor and cannot wait for the engine. The client id is never reused, so no later
        // subscription of the client can be affected.
        let node = self.clone();
        tokio::spawn(async move {
            for membership in left {
                node.announce_leave(&membership).await;
            }
            drop(leaving);
        });
    }

    /// Removes a client from the presence of a channel, and announces that it left. The client must already have left
    /// the hub.
    pub(crate) async fn announce_leave(&self, membership: &Membership) {
        self.remove_presence(membership).await;
        let channel = &membership.subscription.channel;
        if membership.join_leave {
            let left = self.engine.publish_leave(channel, membership.info.clone()).await;
            self.log_engine_error(channel, left);
        }
    }

    /// Removes a client from the presence of a channel, without an announcement. The client must already have left the
    /// hub.
    pub(crate) async fn remove_presence(&self, membership: &Membership) {
        let Membership { subscription, info, .. } = membership;
        let channel = &subscription.channel;
        self.log_engine_error(channel, self.engine.interest_changed(channel).await);
        if membership.presence {
            self.log_engine_error(channel, self.engine.presence_remove(subscription, info.client).await);
        }
    }

    fn log_engine_error(&self, channel: &ChannelName, result: Result<(), EngineError>) {
        if let Err(error) = result {
            let what = "the engine could not record that a client left";
            self.engine_failures.log(channel, error, what);
        }
    }

    /// From now on, the server is not ready, and clients that connect are disconnected.
    pub(crate) fn start_drain(&self) {
        self.draining.cancel();
    }

    /// Disconnects all clients with 3001 in random order, spread over a time, and waits until they are gone and their
    /// leaves are announced. Clients that connect later are disconnected at once.
    pub(crate) async fn drain(&self, over: Duration) {
        self.start_drain();
        let start = Instant::now();
        while self.has_arriving() && start.elapsed() < ARRIVAL_TIMEOUT.min(over) {
            sleep(DRAIN_POLL_INTERVAL).await;
        }
        self.is_drain_listed.store(true, Ordering::SeqCst);
        let mut queues = self.clients.queues();
        queues.shuffle(&mut rand::rng());
        let count = queues.len() as f64;
        for (index, queue) in queues.into_iter().enumerate() {
            // A random time in the second half of this client's share. So the only client of a server stays long enough
            // for load balancers to see that the server is not ready.
            let share = index as f64 + 0.5 + rand::random::<f64>() / 2.0;
            sleep_until(start + over.mul_f64(share / count)).await;
            queue.close(DisconnectCode::Shutdown);
        }
        while self.clients.stats().clients > 0 || self.has_arriving() {
            sleep(DRAIN_POLL_INTERVAL).await;
        }
        self.leaving.close();
        self.leaving.wait().await;
    }

    fn has_arriving(&self) -> bool {
        self.arriving.load(Ordering::SeqCst) > 0
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

    /// Periodically compares the positions of channels with the engine. Never returns.
    pub(crate) async fn run_position_check(&self) {
        // Not zero, which an interval must not be.
        let step = (self.config.timeouts.position_check / STEPS).max(Duration::from_millis(1));
        let mut interval = tokio::time::interval(step);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = PositionCheck::default();
        loop {
            interval.tick().await;
            let behind = check.step(&self.hub, &self.engine, Instant::now()).await;
            if behind > 0 {
                tracing::warn!(
                    behind,
                    "channels missed publications; delivering them, or telling their subscribers to recover"
                );
            }
        }
    }

    /// Periodically evicts expired history, checks the readiness if nobody else does, and logs the number of suppressed
    /// refusals and of failed calls to the engine. Never returns.
    pub(crate) async fn run_maintenance(&self) {
        let every = |period| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let (mut sweeps, mut reports) = (every(SWEEP_INTERVAL), every(engine_failures::REPORT_INTERVAL));
        let mut checks = every(READY_POLL_INTERVAL);
        loop {
            tokio::select! {
                _ = sweeps.tick() => {}
                _ = reports.tick() => {
                    self.engine_failures.report();
                    continue;
                }
                _ = checks.tick() => {
                    let checked_at = *self.ready_checked_at.lock();
                    if checked_at.is_none_or(|at| at.elapsed() >= READY_MAX_AGE)
                        && let Err(reason) = self.check_ready().await
                    {
                        tracing::debug!(reason, "not ready");
                    }
                    continue;
                }
            }
            if let Err(error) = self.engine.maintain().await {
                tracing::warn!(%error, "the engine could not free expired history");
            }
            self.refusals.report();
        }
    }
}

/// A client that is accepted, but not registered yet.
#[derive(Debug)]
pub(crate) struct Arrival(Arc<Node>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A new id of a node.
pub(crate) fn random_uid() -> Arc<str> {
    ClientId::from_random(rand::random()).to_string().into()
}

/// What happens to the publications of each channel while the engine is not reachable, by its namespace.
fn outage_policies(current: &SharedConfig) -> Arc<OutagePolicyOf> {
    let current = current.clone();
    Arc::new(move |channel: &ChannelName| {
        let config = current.read();
        match config.namespace(channel.as_str()).map(|options| options.outage_buffer) {
            None | Some(Duration::ZERO) => OutagePolicy::Refuse,
            Some(time) => OutagePolicy::Buffer(time),
        }
    })
}

/// The limits of each channel's history, by its namespace.
fn history_limits(current: &SharedConfig) -> Arc<HistoryLimitsOf> {
    let current = current.clone();
    Arc::new(move |channel: &ChannelName| {
        let config = current.read();
        let options = config.namespace(channel.as_str())?;
        options.has_history().then_some(HistoryLimits {
            count_max: options.history_size,
            bytes_max: config.limits.history_bytes_per_channel_max,
            ttl: options.history_ttl,
        })
    })
}
