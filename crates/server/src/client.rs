//! Executes the commands of one client: drives its [`Session`] and calls the hub and the engine. Independent of
//! sockets: frames go in, and the frames to write come out of the queue.

mod events;
mod input;
mod publishing;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use sockeye::{Message, PreparedMessage, Sender};
use tokio::time::Instant;

use self::events::PendingEvent;
use self::input::{Input, next_command};
use self::publishing::PendingPublications;
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::engine::{EngineError, HistoryQuery, Publication};
use crate::ids::ClientId;
use crate::metrics::{Source, Transport};
use crate::node::{Node, unix_seconds};
use crate::presence::Membership;
use crate::protocol::{
    Command, Empty, Encoding, HistoryResult, Malformed, PresenceResult, PresenceStatsResult, Push, PushTarget, Reply,
    ReplyBody, Request,
};
use crate::queue::{Answer, Item, Outgoing, Queue, ServerCommand};
use crate::request_id::{RequestContext, RequestId};
use crate::session::{Call, Clock, Event, Expired, Handled, PingDue, Pings, ReadHistory, Session, Step, Stream};

/// A connected client. It is registered with the node from construction until it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    node: Arc<Node>,
    id: ClientId,
    /// The request that opened the connection.
    request: RequestId,
    transport: Transport,
    session: Session,
    queue: Arc<Queue>,
    /// Subscriptions that the hub has ended and that are not yet removed from the engine.
    ended: Vec<Membership>,
    /// The reload of the configuration that the session knows.
    generation: u64,
    /// Commands of the server API that are not executed yet.
    commands: Vec<ServerCommand>,
    input: Input,
    /// Events without a decision.
    pending: Vec<PendingEvent>,
    /// Number of events so far.
    tickets: u64,
    /// Decisions that are not executed yet.
    answers: Vec<Answer>,
    /// Headers of the client's request, for the backend.
    headers: Option<Arc<HeaderMap>>,
    /// Publications waiting for the log. `None` until the first.
    pending_publications: Option<PendingPublications>,
    /// How many publications were pending when a command was last held back. Once fewer are pending, it is retried.
    blocked_with: Option<usize>,
}

/// How the server detects that a client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingedBy {
    /// Pings of the client protocol. The client application answers them, so a frozen page is detected.
    Commands,
    /// WebSocket ping frames, requested by `cf_ws_frame_ping_pong=true`. The WebSocket library answers them, which
    /// suits terminals and test tools.
    Frames,
}

/// What a client's transport decides about its session.
#[derive(Clone, Debug)]
pub(crate) struct TransportOptions {
    pub(crate) pinged_by: PingedBy,
    pub(crate) encoding: Encoding,
    pub(crate) transport: Transport,
    /// The request that opened the connection; `None` in tests.
    pub(crate) context: Option<RequestContext>,
    /// Secret with which the client sends commands over other requests; empty if it sends them over this connection.
    pub(crate) secret: String,
    /// Headers of the client's request, for the backend.
    pub(crate) headers: Option<Arc<HeaderMap>>,
}

impl From<PingedBy> for TransportOptions {
    fn from(pinged_by: PingedBy) -> Self {
        Self {
            pinged_by,
            encoding: Encoding::Json,
            transport: Transport::WebSocket,
            context: None,
            secret: String::new(),
            headers: None,
        }
    }
}

/// How late a timeout may be noticed.
const TICK: Duration = Duration::from_millis(100);

impl Client {
    /// Creates and registers a client. Without a `sender`, all frames are queued for [`next_frame`](Self::next_frame).
    pub(crate) fn new(node: Arc<Node>, sender: Option<Sender>, options: impl Into<TransportOptions>) -> Self {
        let options = options.into();
        let id = ClientId::from_random(rand::random());
        let pings = match options.pinged_by {
            PingedBy::Frames => Pings::Frames,
            PingedBy::Commands => {
                let interval = node.startup_config().timeouts.ping_interval;
                // A random time in the second half of the interval spreads the pings of clients that connect together.
                let spread = Duration::from_secs_f64(interval.as_secs_f64() / 2.0 * rand::random::<f64>());
                Pings::Commands {
                    first: interval / 2 + spread,
                }
            }
        };
        let generation = node.generation();
        let mut session = Session::new(node.config(), id, pings, Instant::now().into_std());
        if !options.secret.is_empty() {
            session.set_stream(Stream {
                secret: options.secret.into(),
                node: node.uid().into(),
            });
        }
        let handlers = node.handlers();
        session.set_handled(Handled {
            rpc: handlers.rpc.is_some(),
            message: handlers.message.is_some(),
        });
        let queue = Queue::new(node.config().limits.queue_bytes_max, sender);
        let queue = Arc::new(queue.with_encoding(options.encoding));
        node.register(id, &queue);
        node.metrics().client_opened(options.transport, options.encoding);
        let request = match options.context {
            Some(RequestContext { peer, request }) => {
                let (transport, format) = (options.transport, options.encoding);
                tracing::debug!(client = %id, request_id = %request, %peer, ?transport, ?format, "a client arrived");
                request
            }
            None => RequestId::random(),
        };
        Self {
            node,
            id,
            request,
            transport: options.transport,
            session,
            queue,
            ended: Vec::new(),
            generation,
            commands: Vec::new(),
            input: Input::default(),
            pending: Vec::new(),
            tickets: 0,
            answers: Vec::new(),
            headers: options.headers,
            pending_publications: None,
            blocked_with: None,
        }
    }

    /// Adds a message of the client, for [`handle_next`](Self::handle_next).
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if the message cannot contain a command.
    pub(crate) fn receive(&mut self, message: Message) -> Result<(), DisconnectCode> {
        self.input.push(self.queue.encoding(), message)
    }

    /// Whether further messages should be received. Not while many of them wait for a decision of the backend.
    pub(crate) fn wants_input(&self) -> bool {
        !self.input.is_full()
    }

    /// Executes the client's next command. Returns `false` if there is none, or if it must wait for an earlier
    /// command's decision or publication. Once [`has_pending`](Self::has_pending) returns true, call
    /// [`run_pending`](Self::run_pending), then this again.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) async fn handle_next(&mut self) -> Result<bool, DisconnectCode> {
        let Some((message, at)) = self.input.take() else {
            return Ok(false);
        };
        let Some((command, next)) = next_command(self.queue.encoding(), &message, at) else {
            let end = message.len();
            self.input.put_back(message, end);
            return Ok(true);
        };
        // Before the decision, so that none that ends in the meantime is overlooked.
        let publishing = self.pending_publication_count();
        if !self.may_start(&command) {
            self.blocked_with = Some(publishing);
            self.input.put_back(message, at);
            return Ok(false);
        }
        self.handle_command(command).await?;
        self.input.put_back(message, next);
        Ok(true)
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
        self.update_config();
        // Announce earlier leaves first, in case the client subscribes again.
        self.run_pending().await?;
        if let Ok(Command {
            request: Some(Request::Connect(connect)),
            ..
        }) = &command
            && !connect.headers.is_empty()
        {
            self.node.hooks().add_emulated(&mut self.headers, &connect.headers);
        }
        let mut step = self.session.handle_command(command, Instant::now().into_std())?;
        if let Step::Verify(check) = step {
            step = match self.node.verifiers().try_verify(&check) {
                Some(result) => self.session.handle_token(*check, result, clock())?,
                None => Step::Ask(Event::Verify(check)),
            };
        }
        self.execute_step(id, step).await
    }

    /// Passes the configuration to the session if it was reloaded.
    fn update_config(&mut self) {
        if let Some(config) = self.node.reloaded_config(&mut self.generation) {
            self.session.set_config(config);
        }
    }

    /// Executes the result of a command or of a decision.
    async fn execute_step(&mut self, id: u32, step: Step) -> Result<(), DisconnectCode> {
        if let (Step::Reply(ReplyBody::Connect(_)) | Step::Connect(..), Some(info)) = (&step, self.session.info()) {
            self.node.set_user(self.id, &info.user)?;
        }
        match step {
            Step::Nothing => {}
            Step::Reply(body) => {
                if self.session.info().is_none() {
                    self.log_refusal(&body);
                }
                self.reply(id, body);
            }
            Step::Ask(event) => self.ask(id, event),
            Step::Refreshed(body, changed) => {
                if let Some(body) = body {
                    self.reply(id, body);
                }
                Box::pin(self.update_presence(changed)).await;
            }
            Step::Expire(membership) => self.end(membership, UnsubscribeCode::Expired),
            Step::Close(close) => {
                self.queue.close_with(close.code, close.reason);
                return Err(DisconnectCode::ForceDisconnect);
            }
            Step::Connect(result, subscriptions) => Box::pin(self.connect(id, result, subscriptions)).await?,
            Step::Subscribe(call) => self.subscribe(id, *call).await?,
            Step::Call(call) => {
                if let Err(code) = self.execute(id, call).await {
                    self.reply(id, ReplyBody::Error(code));
                }
            }
            // A verification never needs another one.
            Step::Verify(_) => return Err(DisconnectCode::ServerError),
        }
        Ok(())
    }

    /// Handles expired timeouts; to be called at [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) fn handle_timeout(&mut self) -> Result<(), DisconnectCode> {
        let now = Instant::now().into_std();
        if !self.input.is_empty() {
            // The pong may be among what is not processed yet.
            self.session.extend_pong(now);
        }
        if let Some(PingDue) = self.session.handle_timeout(now)? {
            self.queue
                .push(Item::Push(PreparedMessage::new(self.queue.encoding().ping())));
        }
        while let Some(expired) = self.session.take_expired(now)? {
            match expired {
                Expired::Subscription(expired) => self.end(expired.membership, UnsubscribeCode::Expired),
                Expired::Ask(event) => self.ask(0, event),
            }
        }
        Ok(())
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called.
    ///
    /// Rounded up to a tick that all clients share, so that ten thousand idle clients wake the process ten times per
    /// second and not at the time of each.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = Instant::from_std(self.session.deadline()?);
        let started = self.node.started();
        let ticks = deadline
            .saturating_duration_since(started)
            .as_nanos()
            .div_ceil(TICK.as_nanos());
        // Four billion ticks are 13 years.
        Some(started + TICK * u32::try_from(ticks).ok()?)
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
                Some(Outgoing::Command(command)) => self.commands.push(*command),
                Some(Outgoing::Answer(answer)) => self.answers.push(*answer),
                Some(Outgoing::Unsubscribe(subscription, code, frame)) => {
                    // The queue ended it (`drop_oldest`), so the hub still lists it. The hub ends all others itself.
                    if self.queue.has_ended(&subscription) {
                        self.node.hub().unsubscribe(&subscription, self.id);
                        self.queue.forget_ended(&subscription);
                    }
                    match self.session.handle_unsubscribed(&subscription) {
                        // The client cannot resubscribe to a channel that the server chose; it recovers when it
                        // reconnects.
                        Some(ended) if ended.is_server_side && code == UnsubscribeCode::InsufficientState => {
                            self.ended.push(ended.membership);
                            return Err(DisconnectCode::InsufficientState);
                        }
                        Some(ended) => {
                            self.ended.push(ended.membership);
                            return Ok(Some(frame));
                        }
                        // The client has already unsubscribed, and the reply to that is queued.
                        None => {}
                    }
                }
            }
        }
    }

    /// Whether [`run_pending`](Self::run_pending) must be called.
    pub(crate) fn has_pending(&self) -> bool {
        !self.ended.is_empty()
            || !self.commands.is_empty()
            || !self.answers.is_empty()
            || self
                .blocked_with
                .is_some_and(|count| self.pending_publication_count() < count)
    }

    /// Number of publications that wait for the log.
    fn pending_publication_count(&self) -> usize {
        self.pending_publications.as_ref().map_or(0, PendingPublications::len)
    }

    /// Removes the subscriptions that have ended from the engine, announces that the client left, and executes commands
    /// of the server API and decisions of the backend.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    ///
    /// # Cancel safety
    /// The remaining subscriptions are announced by the next call, or when the client is dropped.
    pub(crate) async fn run_pending(&mut self) -> Result<(), DisconnectCode> {
        if !self.has_pending() {
            return Ok(());
        }
        self.blocked_with = None;
        while let Some(membership) = self.ended.last() {
            self.node.announce_leave(membership).await;
            self.ended.pop();
        }
        for command in std::mem::take(&mut self.commands) {
            Box::pin(self.execute_server_command(command)).await?;
        }
        for answer in std::mem::take(&mut self.answers) {
            Box::pin(self.handle_answer(answer)).await?;
        }
        Ok(())
    }

    /// Timeout of the closing handshake.
    pub(crate) fn close_timeout(&self) -> Duration {
        self.node.startup_config().timeouts.close
    }

    /// Timeout for a slow client.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.node.startup_config().timeouts.write
    }

    /// Why the client may not connect, for log lines: the setting that decides. Empty if there is nothing to say.
    pub(crate) fn refusal_reason(&self) -> &'static str {
        self.session.refusal_reason()
    }

    /// The id of the client and of the request that opened its connection, for log lines.
    pub(crate) fn ids(&self) -> (ClientId, RequestId) {
        (self.id, self.request.clone())
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    async fn execute_server_command(&mut self, command: ServerCommand) -> Result<(), DisconnectCode> {
        match command {
            ServerCommand::Subscribe(subscribe) => {
                if let Some(call) = self.session.subscribe_by_server(subscribe, clock())? {
                    self.subscribe_by_server(call).await?;
                }
            }
            ServerCommand::CancelSubscribe(channel) => self.cancel_subscribe(Some(&channel)),
            ServerCommand::UnsubscribeAll => {
                self.cancel_subscribe(None);
                for channel in self.session.channels() {
                    self.node
                        .hub()
                        .end_subscription(channel, self.id, UnsubscribeCode::Server);
                }
            }
            ServerCommand::CheckSubscriptions(count) => {
                self.update_config();
                let revoked = self.session.revoked();
                count.add(revoked.len());
                for (channel, code) in revoked {
                    self.node.hub().end_subscription(&channel, self.id, code);
                }
            }
            ServerCommand::Refresh(refresh) if refresh.is_expired => return Err(DisconnectCode::Expired),
            ServerCommand::Refresh(refresh) => {
                if let Some((expiry, changed)) = self.session.refresh_by_server(refresh, clock()) {
                    self.push(PushTarget::connection(), &Push::Refresh(expiry));
                    self.update_presence(changed).await;
                }
            }
        }
        Ok(())
    }

    /// Replaces the information about the client in the presence of its channels.
    async fn update_presence(&self, changed: Vec<Membership>) {
        for Membership {
            subscription,
            info,
            presence,
            join_leave,
        } in changed
        {
            let engine = self.node.engine();
            if presence && let Err(error) = engine.presence_add(&subscription, info, join_leave).await {
                let what = "the engine could not replace the information about a client";
                self.node.engine_failures().log(&subscription.channel, error, what);
            }
        }
    }

    /// Logs a `connect` command that is refused. SDKs do not reconnect after most errors, so the operator should see
    /// them.
    fn log_refusal(&self, body: &ReplyBody<'_>) {
        let code = match body {
            ReplyBody::Error(code) => code.to_string(),
            ReplyBody::Custom(error) => format!("{} ({})", error.message, error.code),
            _ => return,
        };
        let (client, request_id) = (self.id, &self.request);
        let log = || tracing::info!(%client, %request_id, %code, "refused the connect command of a client");
        self.node.refusals().log(log);
    }

    /// Ends a subscription that the session has removed, and tells the client.
    fn end(&mut self, membership: Membership, code: UnsubscribeCode) {
        let subscription = &membership.subscription;
        self.node.hub().unsubscribe(subscription, self.id);
        let target = PushTarget::channel(subscription.channel.as_str());
        self.push(target, &Push::Unsubscribe(code));
        self.ended.push(membership);
    }

    fn push(&self, target: PushTarget<'_>, push: &Push<'_>) {
        let push = self.queue.encoding().push(target, push);
        self.queue.push(Item::Push(PreparedMessage::new(push)));
    }

    async fn execute(&mut self, id: u32, call: Call) -> Result<(), ErrorCode> {
        let engine = self.node.engine();
        match call {
            Call::Unsubscribe(membership) => {
                self.node.hub().unsubscribe(&membership.subscription, self.id);
                self.node.announce_leave(&membership).await;
                self.reply(id, ReplyBody::Unsubscribe(Empty {}));
            }
            #[cfg(feature = "__faults")]
            Call::Publish(channel, _) if channel.as_str() == "__panic" => panic!("asked for by a fault test"),
            Call::Publish(channel, publish) => {
                if let Some(published) = self.node.publish_from_client(&channel, publish).await? {
                    let new = || PendingPublications::new(self.node.clone(), self.queue.clone());
                    self.pending_publications
                        .get_or_insert_with(new)
                        .add(id, channel, published);
                    return Ok(());
                }
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
            publications: history.publications.iter().map(Publication::wire).collect(),
            epoch: history.top.epoch.as_str(),
            offset: history.top.offset,
        };
        self.reply(id, ReplyBody::History(result));
        Ok(())
    }

    fn reply(&self, id: u32, body: ReplyBody<'_>) {
        let reply = encode_reply(&self.node, &self.queue, id, body);
        self.queue.push(Item::Reply(reply));
    }

    fn encode(&self, id: u32, body: ReplyBody<'_>) -> Result<Message, ErrorCode> {
        encode_within_limit(&self.node, &self.queue, id, body)
    }
}

/// Encodes a reply, or the error that it is too large. Counts errors.
fn encode_reply(node: &Node, queue: &Queue, id: u32, body: ReplyBody<'_>) -> Message {
    match &body {
        ReplyBody::Error(code) => node.metrics().error(code.code()),
        ReplyBody::Custom(error) => node.metrics().error(error.code),
        _ => {}
    }
    encode_within_limit(node, queue, id, body).unwrap_or_else(|code| {
        let body = ReplyBody::Error(code);
        queue.encoding().reply(&Reply { id, body })
    })
}

fn encode_within_limit(node: &Node, queue: &Queue, id: u32, body: ReplyBody<'_>) -> Result<Message, ErrorCode> {
    let reply = queue.encoding().reply(&Reply { id, body });
    if reply.len() > node.config().limits.reply_size_max {
        return Err(ErrorCode::LimitExceeded);
    }
    Ok(reply)
}

fn clock() -> Clock {
    Clock {
        now: Instant::now().into_std(),
        unix: unix_seconds(),
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.node.metrics().panic();
        }
        // In the destructor, so that the client is removed even after a panic in its task.
        let mut left = self.session.take_subscriptions();
        left.append(&mut self.ended);
        self.node.unregister(self.id, left);
        self.node.metrics().client_closed(self.transport, self.queue.encoding());
    }
}

impl From<EngineError> for ErrorCode {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NoHistory => Self::NotAvailable,
            EngineError::TooLarge => Self::LimitExceeded,
            // Temporary: the log may have room again, or the server may be restarted.
            EngineError::Full | EngineError::Unavailable | EngineError::Unreachable => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests;
