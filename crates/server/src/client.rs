//! Executes the commands of one client: drives its [`Session`] and calls the hub and the engine. Independent of sockets:
//! frames go in, and the frames to write come out of the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sockeye::{PreparedMessage, Sender, Text};
use tokio::time::Instant;

use crate::channel::{ChannelName, Gap};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::engine::{EngineError, History, HistoryQuery, is_recovered};
use crate::metrics::Source;
use crate::node::Node;
use crate::presence::{ClientId, Subscription};
use crate::protocol::{
    Command, Empty, HistoryResult, Json, Malformed, PING, PresenceResult, PresenceStatsResult, Push, Reply, ReplyBody,
    SubscribeResult, encode,
};
use crate::queue::{Item, Outgoing, Queue, ServerCommand};
use crate::session::{Call, PingDue, Pings, ReadHistory, Session, Step, Subscribe};

/// A connected client. It is registered with the node from construction until it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    node: Arc<Node>,
    id: ClientId,
    session: Session,
    queue: Arc<Queue>,
    /// Subscriptions that the hub has ended and that are not yet removed from the engine.
    ended: Vec<Subscription>,
    /// The reload of the configuration that the session knows.
    generation: u64,
    /// Commands of the server API that are not executed yet.
    commands: VecDeque<ServerCommand>,
}

/// How the server detects that a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingedBy {
    /// Pings of the client protocol. The client application answers them, so a frozen page is detected.
    Commands,
    /// WebSocket ping frames, requested by `cf_ws_frame_ping_pong=true`. The WebSocket library answers them, which suits
    /// terminals and test tools.
    Frames,
}

/// How a client learns that it is subscribed.
enum SubscribeTo<'a> {
    /// By the reply to its command with this id.
    Reply(u32),
    /// By a push with this data, because the server subscribed it.
    Push(Option<&'a Json>),
}

/// Why a subscription failed.
enum SubscribeFailure {
    Refused(ErrorCode),
    Gap,
}

impl Client {
    /// Creates and registers a client. Without a `sender`, all frames are queued for [`next_frame`](Self::next_frame).
    pub(crate) fn new(node: Arc<Node>, sender: Option<Sender>, pinged_by: PingedBy) -> Self {
        let id = ClientId::from_random(rand::random());
        let pings = match pinged_by {
            PingedBy::Frames => Pings::Frames,
            PingedBy::Commands => {
                let interval = node.config().timeouts.ping_interval;
                // A random time in the second half of the interval spreads the pings of clients that connect together.
                let spread = Duration::from_secs_f64(interval.as_secs_f64() / 2.0 * rand::random::<f64>());
                Pings::Commands {
                    first: interval / 2 + spread,
                }
            }
        };
        let generation = node.generation();
        let session = Session::new(node.current_config(), id, pings, Instant::now().into_std());
        let queue = Arc::new(Queue::new(node.config().limits.queue_bytes_max, sender));
        node.register(id, &queue);
        Self {
            node,
            id,
            session,
            queue,
            ended: Vec::new(),
            generation,
            commands: VecDeque::new(),
        }
    }

    /// Executes one command and queues the reply.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) async fn handle_command(
        &mut self,
        command: Result<Command<'_>, Malformed>,
    ) -> Result<(), DisconnectCode> {
        let id = command.as_ref().map_or(0, |command| command.id);
        self.node.metrics().command();
        if let Some(config) = self.node.reloaded_config(&mut self.generation) {
            self.session.set_config(config);
        }
        // Announce earlier leaves first, in case the client subscribes again.
        self.announce_ended_subscriptions().await;
        match self.session.handle_command(command, Instant::now().into_std())? {
            Step::Nothing => {}
            Step::Reply(body) => {
                if let (ReplyBody::Connect(_), Some(info)) = (&body, self.session.info()) {
                    self.node.set_user(self.id, &info.user)?;
                }
                if let ReplyBody::Error(code) = body
                    && self.session.info().is_none()
                {
                    // SDKs do not reconnect after most errors, so the operator should see them.
                    let log = || tracing::info!(%code, "refused the connect command of a client");
                    self.node.refusals().log(log);
                }
                self.reply(id, body);
            }
            Step::Subscribe(call) => self.subscribe(&SubscribeTo::Reply(id), call).await?,
            Step::Call(call) => {
                if let Err(code) = self.execute(id, call).await {
                    self.reply(id, ReplyBody::Error(code));
                }
            }
        }
        Ok(())
    }

    /// Handles expired timeouts; to be called at [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) fn handle_timeout(&mut self) -> Result<(), DisconnectCode> {
        if let Some(PingDue) = self.session.handle_timeout(Instant::now().into_std())? {
            self.queue.push(Item::Push(PreparedMessage::new(PING)));
        }
        Ok(())
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.session.deadline().map(Instant::from_std)
    }

    /// Returns the next frame to write.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) fn next_frame(&mut self) -> Result<Option<PreparedMessage>, DisconnectCode> {
        loop {
            match self.queue.take() {
                None => return Ok(None),
                Some(Outgoing::Frame(frame)) => return Ok(Some(frame)),
                Some(Outgoing::Close(code)) => return Err(code),
                Some(Outgoing::Command(command)) => self.commands.push_back(*command),
                Some(Outgoing::Unsubscribe(subscription, frame)) => {
                    if self.session.handle_unsubscribed(&subscription) {
                        self.ended.push(subscription);
                        return Ok(Some(frame));
                    }
                    // The client has already unsubscribed, and the reply to that is queued.
                }
            }
        }
    }

    /// Whether [`announce_ended_subscriptions`](Self::announce_ended_subscriptions) must be called.
    pub(crate) fn has_ended_subscriptions(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Removes the subscriptions that the hub has ended from the engine, and announces that the client left.
    ///
    /// # Cancel safety
    /// The remaining subscriptions are announced by the next call, or when the client is dropped.
    pub(crate) async fn announce_ended_subscriptions(&mut self) {
        while let Some(subscription) = self.ended.last()
            && let Some(info) = self.session.info()
        {
            self.node.announce_leave(subscription, info).await;
            self.ended.pop();
        }
    }

    /// Whether [`execute_server_commands`](Self::execute_server_commands) must be called.
    pub(crate) fn has_server_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Executes commands of the server API.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) async fn execute_server_commands(&mut self) -> Result<(), DisconnectCode> {
        while let Some(command) = self.commands.pop_front() {
            match command {
                ServerCommand::Subscribe(subscribe) => {
                    if let Some(call) = self.session.subscribe_by_server(&subscribe)? {
                        let to = SubscribeTo::Push(subscribe.data.as_ref());
                        self.subscribe(&to, call).await?;
                    }
                }
                ServerCommand::Refresh(refresh) if refresh.is_expired => return Err(DisconnectCode::Expired),
                // Connections without a token do not expire.
                ServerCommand::Refresh(_) => {}
            }
        }
        Ok(())
    }

    /// Timeout of the closing handshake.
    pub(crate) fn close_timeout(&self) -> Duration {
        self.node.config().timeouts.close
    }

    /// Timeout for a slow client.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.node.config().timeouts.write
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    async fn subscribe(&mut self, to: &SubscribeTo<'_>, call: Subscribe) -> Result<(), DisconnectCode> {
        let Err(failure) = self.try_subscribe(to, &call).await else {
            return Ok(());
        };
        // The join was not announced, so the leave is not announced either.
        self.session.handle_unsubscribed(&call.subscription);
        self.node.hub().unsubscribe(&call.subscription, self.id);
        if let Some(info) = self.session.info() {
            self.node.remove_presence(&call.subscription, info).await;
        }
        match failure {
            SubscribeFailure::Gap => Err(DisconnectCode::InsufficientState),
            SubscribeFailure::Refused(code) => {
                match to {
                    SubscribeTo::Reply(id) => self.reply(*id, ReplyBody::Error(code)),
                    SubscribeTo::Push(_) => tracing::warn!(
                        channel = %call.subscription.channel, %code, "the server could not subscribe a client"
                    ),
                }
                Ok(())
            }
        }
    }

    /// Starts to buffer publications before it reads the history, so that none is lost in between.
    async fn try_subscribe(&self, to: &SubscribeTo<'_>, call: &Subscribe) -> Result<(), SubscribeFailure> {
        let subscription = &call.subscription;
        let channel = &subscription.channel;
        let (engine, options) = (self.node.engine(), &self.node.config().channels);
        let info = self.session.info().ok_or(ErrorCode::Internal)?;
        self.node
            .hub()
            .subscribe(subscription, self.id, self.queue.clone(), call.options);
        self.node.interest_changed(channel).await?;
        if options.presence {
            engine.presence_add(subscription, info.clone()).await?;
        }
        let mut history = None;
        if call.options.positioned {
            let since = call.recover_from.as_ref().map(|from| from.offset);
            let query = HistoryQuery {
                since,
                limit: since.map_or(0, |_| usize::MAX),
                is_reversed: false,
            };
            history = Some(engine.history(channel, query).await?);
        }
        let mut result = subscribe_result(call, history.as_ref())?;
        if result.was_recovering {
            self.node.metrics().recovery(result.recovered);
        }
        let reply = match to {
            SubscribeTo::Reply(id) => self.encode(*id, ReplyBody::Subscribe(result))?,
            SubscribeTo::Push(data) => {
                result.data = *data;
                Push::Subscribe(result).encode(channel.as_str()).into()
            }
        };
        self.node
            .hub()
            .activate(channel, self.id, reply, history.as_ref().map(|history| &history.top))?;
        if options.join_leave
            && let Err(error) = engine.publish_join(channel, info.clone()).await
        {
            tracing::warn!(%channel, %error, "the engine could not announce that a client joined");
        }
        Ok(())
    }

    async fn leave(&self, subscription: &Subscription) {
        self.node.hub().unsubscribe(subscription, self.id);
        if let Some(info) = self.session.info() {
            self.node.announce_leave(subscription, info).await;
        }
    }

    async fn execute(&self, id: u32, call: Call) -> Result<(), ErrorCode> {
        let engine = self.node.engine();
        match call {
            Call::Unsubscribe(subscription) => {
                self.leave(&subscription).await;
                self.reply(id, ReplyBody::Unsubscribe(Empty {}));
            }
            Call::Publish(channel, content) => {
                self.node.publish_from_client(&channel, content).await?;
                self.node.metrics().publication(Source::client);
                self.reply(id, ReplyBody::Publish(Empty {}));
            }
            Call::Presence(channel) => {
                let clients_max = self.node.config().limits.presence_clients_max;
                let clients = engine
                    .presence(&channel, clients_max)
                    .await?
                    .ok_or(ErrorCode::LimitExceeded)?;
                let clients = clients.iter().map(|info| info.wire()).collect();
                self.reply(id, ReplyBody::Presence(PresenceResult { clients }));
            }
            Call::PresenceStats(channel) => {
                let stats = engine.presence_stats(&channel).await?;
                let result = PresenceStatsResult {
                    num_clients: stats.clients,
                    num_users: stats.users,
                };
                self.reply(id, ReplyBody::PresenceStats(result));
            }
            Call::History(channel, read) => self.history(id, &channel, read).await?,
        }
        Ok(())
    }

    async fn history(&self, id: u32, channel: &ChannelName, read: ReadHistory) -> Result<(), ErrorCode> {
        let ReadHistory {
            since,
            limit,
            is_reversed,
        } = read;
        let query = HistoryQuery {
            since: since.as_ref().map(|since| since.offset),
            limit,
            is_reversed,
        };
        let history = self.node.engine().history(channel, query).await?;
        if let Some(since) = since
            && !since.epoch.as_str().is_empty()
            && since.epoch != history.top.epoch
        {
            return Err(ErrorCode::UnrecoverablePosition);
        }
        let result = HistoryResult {
            publications: history
                .publications
                .iter()
                .map(|publication| publication.wire())
                .collect(),
            epoch: history.top.epoch.as_str(),
            offset: history.top.offset,
        };
        self.reply(id, ReplyBody::History(result));
        Ok(())
    }

    fn reply(&self, id: u32, body: ReplyBody<'_>) {
        if let ReplyBody::Error(code) = body {
            self.node.metrics().error(code);
        }
        let reply = self.encode(id, body).unwrap_or_else(|code| {
            let body = ReplyBody::Error(code);
            encode(&Reply { id, body }).into()
        });
        self.queue.push(Item::Reply(reply));
    }

    fn encode(&self, id: u32, body: ReplyBody<'_>) -> Result<Text, ErrorCode> {
        let reply = encode(&Reply { id, body });
        if reply.len() > self.node.config().limits.reply_size_max {
            return Err(ErrorCode::LimitExceeded);
        }
        Ok(reply.into())
    }
}

/// Builds the reply to a subscription from the history since the position of the client.
///
/// # Errors
/// Fails if recovery is impossible and the client rejects a subscription without it.
fn subscribe_result<'a>(call: &Subscribe, history: Option<&'a History>) -> Result<SubscribeResult<'a>, ErrorCode> {
    let Some(history) = history else {
        return Ok(SubscribeResult::default());
    };
    let mut result = SubscribeResult {
        positioned: true,
        recoverable: call.is_recoverable,
        epoch: history.top.epoch.as_str(),
        offset: Some(history.top.offset),
        ..Default::default()
    };
    if let Some(from) = &call.recover_from {
        result.was_recovering = true;
        result.recovered = is_recovered(from, history);
        if result.recovered {
            // The client advances the offset as it processes the publications.
            result.offset = Some(from.offset);
            result.publications = history
                .publications
                .iter()
                .map(|publication| publication.wire())
                .collect();
        } else if call.rejects_unrecovered {
            return Err(ErrorCode::UnrecoverablePosition);
        }
    }
    Ok(result)
}

impl Drop for Client {
    fn drop(&mut self) {
        // In the destructor, so that the client is removed even after a panic in its task.
        let mut left = self.session.take_subscriptions();
        left.append(&mut self.ended);
        self.node.unregister(self.id, self.session.info(), left);
    }
}

impl From<ErrorCode> for SubscribeFailure {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code)
    }
}

impl From<EngineError> for SubscribeFailure {
    fn from(error: EngineError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Gap> for SubscribeFailure {
    fn from(Gap: Gap) -> Self {
        Self::Gap
    }
}

impl From<EngineError> for ErrorCode {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NoHistory => Self::NotAvailable,
        }
    }
}

#[cfg(test)]
mod tests;
