//! One client on its node: its session, carried out. It still knows no socket: frames go in, and what is to be
//! written comes out of its queue.

use std::sync::Arc;
use std::time::Duration;

use sockeye::{PreparedMessage, Sender, Text};
use tokio::time::Instant;

use crate::channel::{ChannelName, Gap};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::engine::{EngineError, History, HistoryQuery, is_recovered};
use crate::node::Node;
use crate::presence::{ClientId, Subscription};
use crate::protocol::{
    Command, Empty, HistoryResult, Malformed, PING, PresenceResult, PresenceStatsResult, Reply, ReplyBody,
    SubscribeResult, encode,
};
use crate::queue::{Item, Outgoing, Queue};
use crate::session::{Call, PingDue, Pings, ReadHistory, Session, Step, Subscribe};

/// A client, on the node's list from when it is made until it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    node: Arc<Node>,
    id: ClientId,
    session: Session,
    queue: Arc<Queue>,
    /// Subscriptions that the hub has ended, and that the engine is not told about yet.
    ended: Vec<Subscription>,
}

/// How the server detects that a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingedBy {
    /// Pings of the client protocol: the application answers them, so a frozen page is not taken for a live one.
    Commands,
    /// WebSocket ping frames, requested by `cf_ws_frame_ping_pong=true`: for terminals and test tools, whose WebSocket
    /// library answers.
    Frames,
}

/// Why a subscription did not come about.
enum SubscribeFailure {
    Refused(ErrorCode),
    Gap,
}

impl Client {
    /// A client over the WebSocket of `sender`; without one, all that is for it is in [`next_frame`](Self::next_frame).
    pub(crate) fn new(node: Arc<Node>, sender: Option<Sender>, pinged_by: PingedBy) -> Self {
        let id = ClientId::from_random(rand::random());
        let pings = match pinged_by {
            PingedBy::Frames => Pings::Frames,
            PingedBy::Commands => {
                let interval = node.config().timeouts.ping_interval;
                // The upper half of the interval: pings are spread, and none follows hard on the connect.
                let spread = Duration::from_secs_f64(interval.as_secs_f64() / 2.0 * rand::random::<f64>());
                Pings::Commands {
                    first: interval / 2 + spread,
                }
            }
        };
        let session = Session::new(node.config().clone(), id, pings, Instant::now().into_std());
        let queue = Arc::new(Queue::new(node.config().limits.queue_bytes_max, sender));
        node.register(id, &queue);
        Self {
            node,
            id,
            session,
            queue,
            ended: Vec::new(),
        }
    }

    /// Takes one command and carries it out; the answer, if it wants one, is in the queue afterwards.
    ///
    /// # Errors
    /// The reason to disconnect the client.
    pub(crate) async fn handle_command(
        &mut self,
        command: Result<Command<'_>, Malformed>,
    ) -> Result<(), DisconnectCode> {
        let id = command.as_ref().map_or(0, |command| command.id);
        // Others hear that the client left before they hear that it is there again.
        self.finish_leaving().await;
        match self.session.handle_command(command, Instant::now().into_std())? {
            Step::Nothing => {}
            Step::Reply(body) => {
                if let ReplyBody::Error(code) = body
                    && self.session.info().is_none()
                {
                    // SDKs do not connect again after most errors, so the operator has to see this.
                    let log = || tracing::info!(%code, "refused the connect command of a client");
                    self.node.refusals().log(log);
                }
                self.reply(id, body);
            }
            Step::Subscribe(call) => self.subscribe(id, call).await?,
            Step::Call(call) => {
                if let Err(code) = self.carry_out(id, call).await {
                    self.reply(id, ReplyBody::Error(code));
                }
            }
        }
        Ok(())
    }

    /// Takes the time; see [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// The reason to disconnect the client.
    pub(crate) fn handle_timeout(&mut self) -> Result<(), DisconnectCode> {
        if let Some(PingDue) = self.session.handle_timeout(Instant::now().into_std())? {
            self.queue.push(Item::Push(PreparedMessage::new(PING)));
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.session.deadline().map(Instant::from_std)
    }

    /// The next text frame to write.
    ///
    /// # Errors
    /// The reason to disconnect the client instead.
    pub(crate) fn next_frame(&mut self) -> Result<Option<PreparedMessage>, DisconnectCode> {
        loop {
            match self.queue.take() {
                None => return Ok(None),
                Some(Outgoing::Frame(frame)) => return Ok(Some(frame)),
                Some(Outgoing::Close(code)) => return Err(code),
                Some(Outgoing::Unsubscribe(subscription, frame)) => {
                    if self.session.handle_unsubscribed(&subscription) {
                        self.ended.push(subscription);
                        return Ok(Some(frame));
                    }
                    // The client has ended it by itself, and what it is told about that comes next.
                }
            }
        }
    }

    /// Whether [`finish_leaving`](Self::finish_leaving) has something to do.
    pub(crate) fn is_leaving(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Tells the engine, and through it the others, of the subscriptions that the hub has ended.
    ///
    /// # Cancel safety
    /// What was not told yet is told later, when the client is dropped at the latest.
    pub(crate) async fn finish_leaving(&mut self) {
        while let Some(subscription) = self.ended.last()
            && let Some(info) = self.session.info()
        {
            self.node.tell_left(subscription, info).await;
            self.ended.pop();
        }
    }

    /// How long the close handshake may take.
    pub(crate) fn close_timeout(&self) -> Duration {
        self.node.config().timeouts.close
    }

    /// How long the client may take for what is being written to it.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.node.config().timeouts.write
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    async fn subscribe(&mut self, id: u32, call: Subscribe) -> Result<(), DisconnectCode> {
        let Err(failure) = self.try_subscribe(id, &call).await else {
            return Ok(());
        };
        // Nobody was told that the client came, so nobody is told that it left.
        self.session.handle_unsubscribed(&call.subscription);
        self.node.hub().leave(&call.subscription, self.id);
        if let Some(info) = self.session.info() {
            self.node.forget(&call.subscription, info).await;
        }
        match failure {
            SubscribeFailure::Gap => Err(DisconnectCode::InsufficientState),
            SubscribeFailure::Refused(code) => {
                self.reply(id, ReplyBody::Error(code));
                Ok(())
            }
        }
    }

    /// The order matters: publications are kept aside first, so that none can slip between history and hub.
    async fn try_subscribe(&self, id: u32, call: &Subscribe) -> Result<(), SubscribeFailure> {
        let Subscribe {
            subscription, wants, ..
        } = call;
        let channel = &subscription.channel;
        let (engine, options) = (self.node.engine(), &self.node.config().channels);
        let info = self.session.info().ok_or(ErrorCode::Internal)?;
        self.node.hub().join(subscription, self.id, self.queue.clone(), *wants);
        engine.interest_changed(channel).await?;
        if options.presence {
            engine.presence_add(subscription, info.clone()).await?;
        }
        let mut history = None;
        if wants.unbroken {
            let since = call.recover_from.as_ref().map(|from| from.offset);
            let query = HistoryQuery {
                since,
                limit: since.map_or(0, |_| usize::MAX),
                is_reversed: false,
            };
            history = Some(engine.history(channel, query).await?);
        }
        let result = subscribe_result(call, history.as_ref())?;
        let reply = self.encode(id, ReplyBody::Subscribe(result))?;
        self.node
            .hub()
            .release(channel, self.id, reply, history.as_ref().map(|history| &history.top))?;
        if options.join_leave
            && let Err(error) = engine.publish_join(channel, info.clone()).await
        {
            tracing::warn!(%channel, %error, "a client came, and the engine did not tell");
        }
        Ok(())
    }

    async fn leave(&self, subscription: &Subscription) {
        self.node.hub().leave(subscription, self.id);
        if let Some(info) = self.session.info() {
            self.node.tell_left(subscription, info).await;
        }
    }

    async fn carry_out(&self, id: u32, call: Call) -> Result<(), ErrorCode> {
        let engine = self.node.engine();
        match call {
            Call::Unsubscribe(subscription) => {
                self.leave(&subscription).await;
                self.reply(id, ReplyBody::Unsubscribe(Empty {}));
            }
            Call::Publish(channel, content) => {
                engine.publish(&channel, content).await?;
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

/// What a client is told about its subscription, given the history since it was last there.
///
/// # Errors
/// It cannot recover, and does not want to begin anew.
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
            // The client counts up from where it was as it takes the publications.
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
        // However the client's task ends, by a panic too, nobody goes on counting it as present.
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
