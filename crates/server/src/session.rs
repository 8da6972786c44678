//! The state machine of one client: permissions, subscriptions, pings and timeouts.
//!
//! It performs no I/O. [`Session::handle_command`] turns a command into a [`Step`]: a reply, or a call that the caller must
//! execute before it passes the next command. The time is an argument. An error is the code with which to disconnect the
//! client, and every later call returns the same error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{ChannelName, SubscriberOptions};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::config::{Config, PublishPolicy};
use crate::engine::{Content, Epoch, Position};
use crate::presence::{ClientId, ClientInfo, Generation, Subscription};
use crate::protocol::{
    Command, ConnectRequest, ConnectResult, Data, Empty, HistoryRequest, InvalidJson, Json, Malformed, PublishRequest,
    ReplyBody, Request, SubscribeRequest,
};
use crate::queue::ServerSubscribe;

/// The session of one client.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    client: ClientId,
    state: State,
    /// A list, because a linear search of 128 entries (the default limit) is as fast as hashing.
    subscriptions: Vec<Subscription>,
    /// The generation of the newest subscription.
    generation: Generation,
    /// The code with which the client is disconnected.
    failed: Option<DisconnectCode>,
}

#[derive(Debug)]
enum State {
    /// Only `connect` is allowed, until the deadline.
    Opening { deadline: Instant, pings: Pings },
    /// `connect` failed; no command is allowed.
    Refused { deadline: Instant },
    Connected {
        info: Arc<ClientInfo>,
        heartbeat: Heartbeat,
    },
}

/// How a connected client is pinged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pings {
    /// Pings of the client protocol: empty objects, which the client sends back.
    Commands {
        /// Delay of the first ping, at most the ping interval. Randomized, to spread the pings of clients that connect
        /// together.
        first: Duration,
    },
    /// WebSocket ping frames, which are sent by the connection and not by the session.
    Frames,
}

#[derive(Clone, Copy, Debug)]
enum Heartbeat {
    /// The session sends no pings.
    Off,
    /// No ping is unanswered; the next one is sent at `ping_at`.
    Idle { ping_at: Instant },
    /// A ping is unanswered.
    AwaitingPong { pong_by: Instant, ping_at: Instant },
}

/// The result of a command.
#[derive(Debug)]
pub(crate) enum Step {
    /// No reply.
    Nothing,
    /// A reply.
    Reply(ReplyBody<'static>),
    /// A subscription to execute. Its reply is queued together with the pushes of the channel.
    Subscribe(Subscribe),
    /// A call to execute, which produces the reply.
    Call(Call),
}

/// A call to the hub or the engine.
#[derive(Debug)]
pub(crate) enum Call {
    Unsubscribe(Subscription),
    Publish(ChannelName, Content),
    Presence(ChannelName),
    PresenceStats(ChannelName),
    History(ChannelName, ReadHistory),
}

/// A granted subscription. If its execution fails, [`Session::handle_unsubscribed`] must be called.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) subscription: Subscription,
    pub(crate) options: SubscriberOptions,
    /// Whether the client will recover after a reconnect.
    pub(crate) is_recoverable: bool,
    /// The position to recover from, if the client requests it.
    pub(crate) recover_from: Option<Position>,
    /// Whether the subscription fails if recovery is impossible.
    pub(crate) rejects_unrecovered: bool,
}

/// The part of a channel's history that a client requested.
#[derive(Debug)]
pub(crate) struct ReadHistory {
    /// An empty epoch means the current epoch.
    pub(crate) since: Option<Position>,
    pub(crate) limit: usize,
    pub(crate) is_reversed: bool,
}

/// Tells the caller to send a ping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PingDue;

/// Why a command is rejected.
enum CommandError {
    Error(ErrorCode),
    Disconnect(DisconnectCode),
}

const VERSION: &str = concat!("sockeye ", env!("CARGO_PKG_VERSION"));

impl Session {
    /// Starts a session when the connection was upgraded.
    pub(crate) fn new(config: Arc<Config>, client: ClientId, pings: Pings, now: Instant) -> Self {
        let deadline = now + config.timeouts.connect;
        let state = State::Opening { deadline, pings };
        Self {
            config,
            client,
            state,
            subscriptions: Vec::new(),
            generation: Generation::default(),
            failed: None,
        }
    }

    /// Replaces the configuration. It applies from the next command on.
    pub(crate) fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Handles one command.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it violated the protocol.
    pub(crate) fn handle_command(
        &mut self,
        command: Result<Command<'_>, Malformed>,
        now: Instant,
    ) -> Result<Step, DisconnectCode> {
        if let Some(code) = self.failed {
            return Err(code);
        }
        let step = match command {
            Ok(command) => self.command(command, now),
            Err(Malformed) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
        };
        match step {
            Ok(step) => Ok(step),
            Err(CommandError::Error(code)) => Ok(Step::Reply(ReplyBody::Error(code))),
            Err(CommandError::Disconnect(code)) => Err(self.fail(code)),
        }
    }

    /// Removes a subscription that was ended by the server or failed. Returns whether it still existed: the client may have
    /// unsubscribed in the meantime, and may have subscribed to the channel again.
    pub(crate) fn handle_unsubscribed(&mut self, subscription: &Subscription) -> bool {
        let index = self.subscriptions.iter().position(|known| known == subscription);
        if let Some(index) = index {
            self.subscriptions.swap_remove(index);
        }
        index.is_some()
    }

    /// Handles expired deadlines. Has no effect before [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it missed a deadline.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Option<PingDue>, DisconnectCode> {
        let timeouts = &self.config.timeouts;
        match &mut self.state {
            _ if let Some(code) = self.failed => Err(code),
            // `connect` may be in flight on a slow network, so use a code after which SDKs reconnect.
            State::Opening { deadline, .. } if now >= *deadline => Err(self.fail(DisconnectCode::ConnectionClosed)),
            // `connect` failed, and the client did not close the connection.
            State::Refused { deadline } if now >= *deadline => Err(self.fail(DisconnectCode::Stale)),
            State::Connected {
                heartbeat: Heartbeat::AwaitingPong { pong_by, .. },
                ..
            } if now >= *pong_by => Err(self.fail(DisconnectCode::NoPong)),
            State::Connected { heartbeat, .. } => match *heartbeat {
                Heartbeat::Idle { ping_at } if now >= ping_at => {
                    let (pong_by, ping_at) = (now + timeouts.pong, now + timeouts.ping_interval);
                    *heartbeat = Heartbeat::AwaitingPong { pong_by, ping_at };
                    Ok(Some(PingDue))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening { deadline, .. } | State::Refused { deadline } => Some(deadline),
            State::Connected { heartbeat, .. } => match heartbeat {
                Heartbeat::Off => None,
                Heartbeat::Idle { ping_at } => Some(ping_at),
                Heartbeat::AwaitingPong { pong_by, .. } => Some(pong_by),
            },
        }
    }

    /// The public information about the client, once it is connected.
    pub(crate) fn info(&self) -> Option<&Arc<ClientInfo>> {
        match &self.state {
            State::Connected { info, .. } => Some(info),
            State::Opening { .. } | State::Refused { .. } => None,
        }
    }

    /// Removes and returns all subscriptions. The caller must end them in the hub and the engine.
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.subscriptions)
    }

    fn fail(&mut self, code: DisconnectCode) -> DisconnectCode {
        *self.failed.get_or_insert(code)
    }

    fn command(&mut self, command: Command<'_>, now: Instant) -> Result<Step, CommandError> {
        match (&self.state, command.request) {
            (State::Opening { deadline, pings }, Some(Request::Connect(connect))) if command.id > 0 => {
                let (deadline, pings) = (*deadline, *pings);
                self.connect(&connect, deadline, pings, now)
            }
            (State::Opening { .. } | State::Refused { .. }, _) => {
                Err(CommandError::Disconnect(DisconnectCode::BadRequest))
            }
            (State::Connected { .. }, None) if command.id == 0 => self.pong(),
            (State::Connected { .. }, None) => Err(ErrorCode::MethodNotFound.into()),
            (State::Connected { info, .. }, Some(request)) => {
                let info = info.clone();
                self.request(command.id, request, info)
            }
        }
    }

    /// Handles a request of a connected client.
    fn request(&mut self, id: u32, request: Request<'_>, info: Arc<ClientInfo>) -> Result<Step, CommandError> {
        match request {
            Request::Connect(_) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            Request::Send => Ok(Step::Nothing),
            // Without an id there can be no reply.
            _ if id == 0 => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe(request) => self.unsubscribe(&request.channel),
            Request::Publish(publish) => self.publish(publish, info),
            Request::Presence(request) => Ok(Step::Call(Call::Presence(self.presence(&request.channel)?))),
            Request::PresenceStats(request) => Ok(Step::Call(Call::PresenceStats(self.presence(&request.channel)?))),
            Request::History(history) => self.history(&history),
            Request::Ping => Ok(Step::Reply(ReplyBody::Ping(Empty {}))),
            Request::Invalid => Err(ErrorCode::BadRequest.into()),
            // Calls and tokens are not supported.
            Request::Rpc | Request::Refresh | Request::SubRefresh => Err(ErrorCode::NotAvailable.into()),
        }
    }

    fn connect(
        &mut self,
        connect: &ConnectRequest<'_>,
        deadline: Instant,
        pings: Pings,
        now: Instant,
    ) -> Result<Step, CommandError> {
        // Tokens cannot be verified yet, and an unverified token must not be accepted.
        if !connect.token.is_empty() {
            return Err(CommandError::Disconnect(DisconnectCode::InvalidToken));
        }
        let conn_info = match self.unverified_info(connect.data.as_ref()) {
            Ok(conn_info) => conn_info,
            Err(code) => {
                self.state = State::Refused { deadline };
                return Err(code.into());
            }
        };
        let info = Arc::new(ClientInfo {
            client: self.client,
            user: Arc::default(),
            conn_info,
        });
        let (heartbeat, ping) = match pings {
            Pings::Frames => (Heartbeat::Off, None),
            Pings::Commands { first } => {
                let ping_at = now + first;
                // Zero would mean that there are no pings.
                let seconds = self.config.timeouts.ping_interval.as_secs().max(1);
                (Heartbeat::Idle { ping_at }, Some(seconds))
            }
        };
        self.state = State::Connected { info, heartbeat };
        Ok(Step::Reply(ReplyBody::Connect(ConnectResult {
            client: self.client.to_string(),
            version: VERSION,
            ping,
            pong: ping.is_some(),
        })))
    }

    /// Wraps the `data` of `connect` in an object that marks it as unverified.
    fn unverified_info(&self, data: Option<&Data>) -> Result<Option<Json>, ErrorCode> {
        let size_max = self.config.limits.client_info_size_max;
        match data {
            None => Ok(None),
            Some(_) if size_max == 0 => Ok(None),
            Some(Err(InvalidJson)) => Err(ErrorCode::BadRequest),
            Some(Ok(data)) if data.len_bytes() > size_max => Err(ErrorCode::LimitExceeded),
            Some(Ok(data)) => Json::parse(format!("{{\"unverified\":{}}}", data.as_str()))
                .map(Some)
                .map_err(|_| ErrorCode::BadRequest),
        }
    }

    fn pong(&mut self) -> Result<Step, CommandError> {
        match &mut self.state {
            State::Connected { heartbeat, .. } if let Heartbeat::AwaitingPong { ping_at, .. } = *heartbeat => {
                *heartbeat = Heartbeat::Idle { ping_at };
                Ok(Step::Nothing)
            }
            _ => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
        }
    }

    fn subscribe(&mut self, request: &SubscribeRequest<'_>) -> Result<Step, CommandError> {
        // The same codes as Centrifugo: 108 for unsupported kinds of subscriptions, 107 for filters and pages that the channel
        // does not allow. A plain stream instead would deliver publications that the client does not want.
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        let is_delta_known = matches!(&*request.delta, "" | "fossil");
        if request.filter.is_some() || request.is_paged() || !is_delta_known {
            return Err(ErrorCode::BadRequest.into());
        }
        let channel = self.channel(&request.channel)?;
        if self.is_subscribed(&channel) {
            return Err(ErrorCode::AlreadySubscribed.into());
        }
        if self.subscriptions.len() >= self.config.limits.channels_per_client_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        // Tokens cannot be verified yet.
        if channel.is_restricted() || !request.token.is_empty() {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let options = &self.config.channels;
        let has_history = options.history_count_max > 0;
        self.generation = self.generation.next();
        let generation = self.generation;
        let subscription = Subscription { channel, generation };
        self.subscriptions.push(subscription.clone());
        Ok(Step::Subscribe(Subscribe {
            subscription,
            options: SubscriberOptions {
                join_leave: request.join_leave && options.join_leave,
                positioned: (request.recoverable || request.positioned || request.recover) && has_history,
            },
            is_recoverable: (request.recoverable || request.recover) && has_history,
            recover_from: (request.recover && has_history).then(|| Position {
                epoch: Epoch::new(&*request.epoch),
                offset: request.offset,
            }),
            rejects_unrecovered: request.rejects_unrecovered(),
        }))
    }

    /// Subscribes the client for the server API. Returns `None` if it is already subscribed or not connected.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it is subscribed to too many channels.
    pub(crate) fn subscribe_by_server(
        &mut self,
        command: &ServerSubscribe,
    ) -> Result<Option<Subscribe>, DisconnectCode> {
        if self.info().is_none() || self.is_subscribed(&command.channel) {
            return Ok(None);
        }
        if self.subscriptions.len() >= self.config.limits.channels_per_client_max {
            return Err(self.fail(DisconnectCode::ChannelLimit));
        }
        let Some(options) = self.config.namespace(command.channel.as_str()) else {
            return Ok(None);
        };
        let overrides = &command.overrides;
        let has_history = options.has_history();
        let recovers = overrides.force_recovery.unwrap_or(options.force_recovery) && has_history;
        let positioned = overrides.force_positioning.unwrap_or(options.force_positioning) && has_history;
        let pushes = overrides.force_push_join_leave.unwrap_or(options.force_push_join_leave);
        self.generation = self.generation.next();
        let subscription = Subscription {
            channel: command.channel.clone(),
            generation: self.generation,
        };
        self.subscriptions.push(subscription.clone());
        Ok(Some(Subscribe {
            subscription,
            options: SubscriberOptions {
                join_leave: pushes && overrides.join_leave.unwrap_or(options.join_leave),
                positioned: recovers || positioned,
            },
            is_recoverable: recovers,
            recover_from: command.recover_since.clone().filter(|_| has_history),
            rejects_unrecovered: false,
        }))
    }

    fn unsubscribe(&mut self, channel: &str) -> Result<Step, CommandError> {
        let channel = self.channel(channel)?;
        let Some(index) = self.subscriptions.iter().position(|known| known.channel == channel) else {
            // Not subscribed: succeed, as unsubscribing is idempotent.
            return Ok(Step::Reply(ReplyBody::Unsubscribe(Empty {})));
        };
        Ok(Step::Call(Call::Unsubscribe(self.subscriptions.swap_remove(index))))
    }

    fn publish(&mut self, request: PublishRequest<'_>, info: Arc<ClientInfo>) -> Result<Step, CommandError> {
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if request.is_keyed() {
            return Err(ErrorCode::BadRequest.into());
        }
        let channel = self.channel(&request.channel)?;
        let data = request.data.ok_or(ErrorCode::BadRequest)?;
        let data = data.map_err(|_| ErrorCode::BadRequest)?;
        if data.len_bytes() > self.config.limits.publication_size_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let is_allowed = match self.config.channels.publish {
            PublishPolicy::Nobody => false,
            PublishPolicy::Subscribers => self.is_subscribed(&channel),
            PublishPolicy::Everyone => !channel.is_restricted(),
        };
        if !is_allowed {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok(Step::Call(Call::Publish(
            channel,
            Content {
                data,
                info: Some(info),
                tags: None,
            },
        )))
    }

    /// Checks that the client may read the presence of a channel.
    fn presence(&self, channel: &str) -> Result<ChannelName, CommandError> {
        let channel = self.subscribed_channel(channel)?;
        if !self.config.channels.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok(channel)
    }

    fn history(&self, request: &HistoryRequest<'_>) -> Result<Step, CommandError> {
        let channel = self.subscribed_channel(&request.channel)?;
        let count_max = self.config.channels.history_count_max;
        if count_max == 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        let since = request.since.as_ref();
        let read = ReadHistory {
            since: since.map(|since| Position {
                epoch: Epoch::new(&*since.epoch),
                offset: since.offset,
            }),
            // A negative limit means no limit.
            limit: usize::try_from(request.limit).unwrap_or(count_max).min(count_max),
            is_reversed: request.reverse,
        };
        Ok(Step::Call(Call::History(channel, read)))
    }

    fn subscribed_channel(&self, name: &str) -> Result<ChannelName, CommandError> {
        let channel = self.channel(name)?;
        if !self.is_subscribed(&channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok(channel)
    }

    /// Validates a channel name. Shares the allocation with the subscription, if there is one.
    fn channel(&self, name: &str) -> Result<ChannelName, ErrorCode> {
        match self.subscriptions.iter().find(|known| known.channel.as_str() == name) {
            Some(known) => Ok(known.channel.clone()),
            None => ChannelName::new(name).map_err(|_| ErrorCode::BadRequest),
        }
    }

    fn is_subscribed(&self, channel: &ChannelName) -> bool {
        self.subscriptions.iter().any(|known| known.channel == *channel)
    }
}

impl From<ErrorCode> for CommandError {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

#[cfg(test)]
mod tests;
