//! The state machine of one client: permissions, subscriptions, pings and timeouts.
//!
//! It performs no I/O. [`Session::handle_command`] turns a command into a [`Step`]: a reply, a token to verify, or a
//! call that the caller must execute before it passes the next command. The time is an argument. An error is the code
//! with which to disconnect the client, and every later call returns the same error.

mod channels;
mod connect;
mod event;
mod grant;
mod heartbeat;
mod refresh;
mod subscribe;
mod token;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

pub(crate) use self::event::{Decision, Event};
use self::grant::AccessContext;
use self::heartbeat::Heartbeat;
pub(crate) use self::heartbeat::{PingDue, Pings};
pub(crate) use self::refresh::Expired;
use self::refresh::expiry;
pub(crate) use self::token::{TokenCheck, TokenKind, Verified};
use crate::channel::{ChannelName, SubscriberOptions};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::config::{Config, NamespaceOptions};
use crate::engine::{Position, Publish};
use crate::hooks::{Hook, ReplyDisconnect};
use crate::ids::{ClientId, Generation};
use crate::presence::{ClientInfo, Membership};
use crate::protocol::{Command, ConnectResult, CustomError, Data, Empty, ExpiryResult, Malformed, ReplyBody, Request};
use crate::rate_limiter::{Rate, RateLimiter};

/// How a client sends commands whose transport has one direction. The reply to `connect` contains both.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Names the session, and proves that the client may send.
    pub(crate) secret: Box<str>,
    /// The id of the node that has the session.
    pub(crate) node: Box<str>,
}

/// The session of one client.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    client: ClientId,
    /// Set if the transport has one direction.
    stream: Option<Box<Stream>>,
    /// Which calls the embedding program handles.
    handled: Handled,
    state: State,
    /// Data for the backend, from the token or the backend.
    meta: Option<Box<RawValue>>,
    /// A list, because a linear search of 128 entries (the default limit) is as fast as hashing.
    subscriptions: Vec<Subscribed>,
    /// The generation of the newest subscription.
    generation: Generation,
    commands: RateLimiter,
    /// Rates of publications, of channels whose namespace limits them.
    publications: Vec<(ChannelName, RateLimiter)>,
    /// The first time at which the connection or a subscription expires, with the grace.
    expires_at: Option<Instant>,
    /// The code with which the client is disconnected.
    failed: Option<DisconnectCode>,
    /// Whether the client may not connect because it has no token.
    lacks_token: bool,
}

/// Which calls of clients the embedding program handles.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handled {
    pub(crate) rpc: bool,
    pub(crate) message: bool,
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
        /// When the connection expires, with the grace.
        expires_at: Option<Instant>,
    },
}

/// A subscription of the client.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) membership: Membership,
    pub(crate) is_server_side: bool,
    has_token: bool,
    /// When the subscription expires, with the grace.
    expires_at: Option<Instant>,
}

impl Subscribed {
    fn channel(&self) -> &ChannelName {
        &self.membership.subscription.channel
    }
}

/// The result of a command.
#[derive(Debug)]
pub(crate) enum Step {
    /// No reply.
    Nothing,
    /// A reply.
    Reply(ReplyBody<'static>),
    /// The reply to `connect`, with server-side subscriptions to execute first.
    Connect(ConnectResult<'static>, Vec<Subscribe>),
    /// A subscription to execute. Its reply is queued together with the pushes of the channel.
    Subscribe(Box<Subscribe>),
    /// A call to execute, which produces the reply.
    Call(Call),
    /// A token to verify. The result goes to [`Session::handle_token`].
    Verify(Box<TokenCheck>),
    /// An event to decide about. The decision goes to [`Session::handle_decision`], possibly after other commands.
    Ask(Event),
    /// A reply, if there is one, and the memberships whose information has changed.
    Refreshed(Option<ReplyBody<'static>>, Vec<Membership>),
    /// A subscription that has expired, which the session has removed.
    Expire(Membership),
    /// Disconnects the client with a code and reason of the backend.
    Close(ReplyDisconnect),
}

/// A call to the hub or the engine.
#[derive(Debug)]
pub(crate) enum Call {
    Unsubscribe(Membership),
    Publish(ChannelName, Publish),
    Presence(ChannelName),
    PresenceStats(ChannelName),
    History(ChannelName, ReadHistory),
}

/// A granted subscription. If its execution fails, [`Session::handle_unsubscribed`] must be called.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) membership: Membership,
    pub(crate) options: SubscriberOptions,
    /// Whether the client will recover after a reconnect.
    pub(crate) is_recoverable: bool,
    /// Whether recovery returns only the newest publication.
    pub(crate) is_cache: bool,
    /// The position to recover from, if the client requests it.
    pub(crate) recover_from: Option<Position>,
    /// Whether the subscription fails if recovery is impossible.
    pub(crate) rejects_unrecovered: bool,
    pub(crate) expiry: ExpiryResult,
    /// Data for the client, from its token.
    pub(crate) data: Option<Data>,
    pub(crate) is_server_side: bool,
}

/// The part of a channel's history that a client requested.
#[derive(Debug)]
pub(crate) struct ReadHistory {
    /// An empty epoch means the current epoch.
    pub(crate) since: Option<Position>,
    pub(crate) limit: usize,
    pub(crate) is_reversed: bool,
}

/// Why a command fails.
enum CommandError {
    Error(ErrorCode),
    /// An error of the backend or a handler.
    Custom(CustomError),
    Disconnect(DisconnectCode),
    /// A close code and reason of the backend.
    Close(ReplyDisconnect),
}

/// The time of a verification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// Seconds since the Unix epoch at the same time.
    pub(crate) unix: u64,
}

/// Commands are limited on average over this time.
const COMMANDS_BURST: Duration = Duration::from_secs(4);

impl Session {
    /// Starts a session when the connection was opened.
    pub(crate) fn new(config: Arc<Config>, client: ClientId, pings: Pings, now: Instant) -> Self {
        let deadline = now + config.timeouts.connect;
        let state = State::Opening { deadline, pings };
        Self {
            config,
            client,
            stream: None,
            handled: Handled::default(),
            state,
            meta: None,
            subscriptions: Vec::new(),
            generation: Generation::default(),
            commands: RateLimiter::default(),
            publications: Vec::new(),
            expires_at: None,
            failed: None,
            lacks_token: false,
        }
    }

    /// Replaces the configuration. It applies from the next command on.
    pub(crate) fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Why the client may not connect, for the log of the server. Empty if there is nothing to say.
    pub(crate) fn refusal_reason(&self) -> &'static str {
        match self.lacks_token {
            true => "it has no token, and the setting `anonymous` is false",
            false => "",
        }
    }

    /// Sets how the client sends commands over other requests.
    pub(crate) fn set_stream(&mut self, stream: Stream) {
        self.stream = Some(Box::new(stream));
    }

    /// Sets which calls the embedding program handles.
    pub(crate) fn set_handled(&mut self, handled: Handled) {
        self.handled = handled;
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
        let per_second_max = self.config.limits.commands_per_second_max;
        let step = match command {
            _ if self
                .commands
                .admit(now, Rate::per_second(per_second_max, COMMANDS_BURST))
                .is_err() =>
            {
                Err(CommandError::Disconnect(DisconnectCode::TooManyRequests))
            }
            Ok(command) => self.command(command, now),
            Err(Malformed) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
        };
        self.finish(step)
    }

    /// The public information about the client, once it is connected.
    pub(crate) fn info(&self) -> Option<&Arc<ClientInfo>> {
        match &self.state {
            State::Connected { info, .. } => Some(info),
            State::Opening { .. } | State::Refused { .. } => None,
        }
    }

    /// Data for the backend, from the token or the backend.
    pub(crate) fn meta(&self) -> Option<&RawValue> {
        self.meta.as_deref()
    }

    /// Removes and returns all subscriptions. The caller must end them in the hub and the engine.
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Membership> {
        let subscriptions = std::mem::take(&mut self.subscriptions);
        subscriptions.into_iter().map(|known| known.membership).collect()
    }

    fn finish(&mut self, step: Result<Step, CommandError>) -> Result<Step, DisconnectCode> {
        match step {
            Ok(step) => Ok(step),
            Err(CommandError::Error(code)) => Ok(Step::Reply(ReplyBody::Error(code))),
            Err(CommandError::Custom(error)) => Ok(Step::Reply(ReplyBody::Custom(error))),
            Err(CommandError::Disconnect(code)) => Err(self.fail(code)),
            Err(CommandError::Close(close)) => {
                self.fail(DisconnectCode::ForceDisconnect);
                Ok(Step::Close(close))
            }
        }
    }

    fn fail(&mut self, code: DisconnectCode) -> DisconnectCode {
        *self.failed.get_or_insert(code)
    }

    fn command(&mut self, command: Command<'_>, now: Instant) -> Result<Step, CommandError> {
        match (&self.state, command.request) {
            (State::Opening { .. }, Some(Request::Connect(connect))) if command.id > 0 => {
                self.start_connect(connect, now)
            }
            (State::Opening { .. } | State::Refused { .. }, _) => {
                Err(CommandError::Disconnect(DisconnectCode::BadRequest))
            }
            (State::Connected { .. }, None) if command.id == 0 => self.pong(),
            (State::Connected { .. }, None) => Err(ErrorCode::MethodNotFound.into()),
            (State::Connected { .. }, Some(request)) => self.request(command.id, request, now),
        }
    }

    /// Handles a request of a connected client.
    fn request(&mut self, id: u32, request: Request<'_>, now: Instant) -> Result<Step, CommandError> {
        match request {
            Request::Connect(_) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            Request::Send(send) if self.handled.message => {
                let data = send.data.transpose().map_err(|_| ErrorCode::BadRequest);
                // There is no reply, so invalid data can only be ignored.
                Ok(data.map_or(Step::Nothing, |data| Step::Ask(Event::Message(data))))
            }
            Request::Send(_) => Ok(Step::Nothing),
            // Without an id there can be no reply.
            _ if id == 0 => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe(request) => self.unsubscribe(&request.channel),
            Request::Publish(publish) => self.publish(publish, now),
            Request::Presence(request) => Ok(Step::Call(Call::Presence(self.presence(&request.channel)?))),
            Request::PresenceStats(request) => Ok(Step::Call(Call::PresenceStats(self.presence(&request.channel)?))),
            Request::History(history) => self.history(&history),
            Request::Ping => Ok(Step::Reply(ReplyBody::Ping(Empty {}))),
            Request::Invalid => Err(ErrorCode::BadRequest.into()),
            Request::Rpc(rpc) if self.handled.rpc || self.config.hooks.has(Hook::Rpc) => {
                let data = rpc.data.transpose().map_err(|_| ErrorCode::BadRequest)?;
                Ok(Step::Ask(Event::Rpc(rpc.method.into_owned(), data)))
            }
            Request::Rpc(_) => Err(ErrorCode::NotAvailable.into()),
            Request::Refresh(request) => self.start_refresh(&request.token),
            Request::SubRefresh(request) => self.start_refresh_of_subscription(&request),
        }
    }

    /// Validates a channel name and finds the options of its namespace.
    fn known_channel(&self, name: &str) -> Result<(ChannelName, &NamespaceOptions), ErrorCode> {
        let channel = self.channel(name)?;
        let namespace = self.config.namespace(name).ok_or(ErrorCode::UnknownChannel)?;
        Ok((channel, namespace))
    }

    /// Validates a channel name. Shares the allocation with the subscription, if there is one.
    fn channel(&self, name: &str) -> Result<ChannelName, ErrorCode> {
        match self.subscriptions.iter().find(|known| known.channel().as_str() == name) {
            Some(known) => Ok(known.channel().clone()),
            None => ChannelName::new(name).map_err(|_| ErrorCode::BadRequest),
        }
    }

    fn subscribed(&self, channel: &ChannelName) -> Option<&Subscribed> {
        self.subscriptions.iter().find(|known| known.channel() == channel)
    }

    fn access_context(&self, channel: &ChannelName) -> AccessContext<'_> {
        let subscribed = self.subscribed(channel);
        AccessContext {
            user: self.user(),
            is_subscribed: subscribed.is_some(),
            has_token: subscribed.is_some_and(|known| known.has_token),
            is_insecure: self.config.insecure_clients,
        }
    }

    fn user(&self) -> &str {
        self.info().map_or("", |info| &info.user)
    }
}

impl From<ErrorCode> for CommandError {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

#[cfg(test)]
mod tests;
