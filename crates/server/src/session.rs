//! The state machine of one client: permissions, subscriptions, pings and timeouts.
//!
//! It performs no I/O. [`Session::handle_command`] turns a command into a [`Step`]: a reply, a token to verify, or a call
//! that the caller must execute before it passes the next command. The time is an argument. An error is the code with which
//! to disconnect the client, and every later call returns the same error.

mod grant;
mod rate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::grant::{Grant, Standing, Wish};
use self::rate::Rate;
use crate::auth::{ConnectToken, SubscribeToken, Subscriber, TokenError};
use crate::channel::{ChannelName, SubscriberOptions};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::config::{Config, NamespaceOptions};
use crate::engine::{Content, Epoch, Position};
use crate::presence::{ClientId, ClientInfo, Generation, Membership, Subscription};
use crate::protocol::{
    Command, ConnectRequest, ConnectResult, Data, DataField, Empty, ExpiryResult, HistoryRequest, InvalidJson,
    Malformed, PublishRequest, ReplyBody, Request, SubRefreshRequest, SubscribeRequest,
};
use crate::queue::{ServerRefresh, ServerSubscribe};

/// The session of one client.
#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    client: ClientId,
    /// Secret with which the client sends commands, if its transport has one direction. Empty for others.
    secret: Box<str>,
    state: State,
    /// A list, because a linear search of 128 entries (the default limit) is as fast as hashing.
    subscriptions: Vec<Subscribed>,
    /// The generation of the newest subscription.
    generation: Generation,
    commands: Rate,
    /// Rates of publications, of channels whose namespace limits them.
    publications: Vec<(ChannelName, Rate)>,
    /// The first time at which the connection or a subscription expires, with the grace.
    expires_at: Option<Instant>,
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

/// How a connected client is pinged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pings {
    /// Pings of the client protocol: empty replies, which the client sends back.
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
    /// The reply to `connect`, with server-side subscriptions to execute first.
    Connect(ConnectResult<'static>, Vec<Subscribe>),
    /// A subscription to execute. Its reply is queued together with the pushes of the channel.
    Subscribe(Box<Subscribe>),
    /// A call to execute, which produces the reply.
    Call(Call),
    /// A token to verify. The result goes to [`Session::handle_token`].
    Verify(Box<Unverified>),
}

/// A call to the hub or the engine.
#[derive(Debug)]
pub(crate) enum Call {
    Unsubscribe(Membership),
    Publish(ChannelName, Content),
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

/// A command whose token must be verified.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub(crate) token: String,
    pub(crate) kind: TokenKind,
    command: Pending,
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Connection,
    Subscription,
}

/// A command without its token.
#[derive(Debug)]
enum Pending {
    Connect(Box<Connect>),
    Subscribe(ChannelName, Box<Wish>),
    Refresh,
    SubRefresh(ChannelName),
}

/// The parts of a `connect` command that matter after the verification of the token.
#[derive(Debug)]
struct Connect {
    data: Option<DataField>,
    /// The server-side subscriptions that the client wants to recover.
    wishes: BTreeMap<String, Wish>,
}

/// A verified token.
#[derive(Debug)]
pub(crate) enum Verified {
    Connection(ConnectToken),
    Subscription(SubscribeToken),
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

/// The time of a verification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// Seconds since the Unix epoch at the same time.
    pub(crate) unix: u64,
}

const VERSION: &str = concat!("sockeye ", env!("CARGO_PKG_VERSION"));

/// The name of the node in replies to clients whose transport has one direction.
const NODE: &str = "sockeye";

/// SDKs request a new token exactly when the old one expires, so they need some time to present it.
const EXPIRY_GRACE: Duration = Duration::from_secs(25);

/// Commands are limited on average over this time.
const COMMANDS_BURST: Duration = Duration::from_secs(4);

/// Publications into one channel are limited on average over this time.
const PUBLICATIONS_BURST: Duration = Duration::from_secs(1);

/// Longest time to live that is sent to clients: SDKs schedule the refresh with a 32-bit number of milliseconds.
const TTL_SECONDS_MAX: u64 = 24 * 24 * 60 * 60;

impl Session {
    /// Starts a session when the connection was opened.
    pub(crate) fn new(config: Arc<Config>, client: ClientId, pings: Pings, now: Instant) -> Self {
        let deadline = now + config.timeouts.connect;
        let state = State::Opening { deadline, pings };
        Self {
            config,
            client,
            secret: Box::default(),
            state,
            subscriptions: Vec::new(),
            generation: Generation::default(),
            commands: Rate::new(now),
            publications: Vec::new(),
            expires_at: None,
            failed: None,
        }
    }

    /// Replaces the configuration. It applies from the next command on.
    pub(crate) fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Sets the secret with which the client sends commands over other requests.
    pub(crate) fn set_secret(&mut self, secret: &str) {
        self.secret = secret.into();
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
            _ if !self.commands.allows(now, per_second_max, COMMANDS_BURST) => {
                Err(CommandError::Disconnect(DisconnectCode::TooManyRequests))
            }
            Ok(command) => self.command(command, now),
            Err(Malformed) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
        };
        self.finish(step)
    }

    /// Continues a command after the verification of its token.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, such as for an invalid connection token.
    pub(crate) fn handle_token(
        &mut self,
        unverified: Unverified,
        result: Result<Verified, TokenError>,
        clock: Clock,
    ) -> Result<Step, DisconnectCode> {
        if let Some(code) = self.failed {
            return Err(code);
        }
        let step = match (unverified.command, result) {
            // SDKs give up a subscription whose refresh fails. Without an error they keep it until it expires, and then
            // subscribe again with a new token. Centrifugo answers in the same way.
            (Pending::SubRefresh(_), Err(TokenError::Expired | TokenError::NotYetValid)) => {
                Ok(Step::Reply(ReplyBody::SubRefresh(ExpiryResult::default())))
            }
            (command, Err(error)) => Err(self.refuse_token(&command, error)),
            (Pending::Connect(connect), Ok(Verified::Connection(token))) => self.connect(*connect, Some(token), clock),
            (Pending::Subscribe(channel, wish), Ok(Verified::Subscription(token))) => {
                self.subscribe_with_token(channel, *wish, token, clock)
            }
            (Pending::Refresh, Ok(Verified::Connection(token))) => self.refresh(&token, clock),
            (Pending::SubRefresh(channel), Ok(Verified::Subscription(token))) => {
                self.refresh_subscription(&channel, &token, clock)
            }
            _ => Err(ErrorCode::Internal.into()),
        };
        self.finish(step)
    }

    /// Subscribes the client for the server API. `None` if it is already subscribed or not connected, or the channel does not
    /// exist.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it is subscribed to too many channels.
    pub(crate) fn subscribe_by_server(
        &mut self,
        command: ServerSubscribe,
        clock: Clock,
    ) -> Result<Option<Subscribe>, DisconnectCode> {
        if self.info().is_none() || self.failed.is_some() {
            return Ok(None);
        }
        let options = crate::auth::SubscribeOptions {
            overrides: command.overrides,
            ..Default::default()
        };
        let (expiry, expires_at) = expiry(command.expire_at.and_then(|at| at.try_into().ok()), clock);
        let grant = Grant {
            options,
            expiry,
            has_token: true,
            is_server_side: true,
        };
        let wish = Wish::recovering(command.recover_since);
        match self.grant(command.channel, wish, grant, expires_at) {
            Ok(mut subscribe) => {
                subscribe.data = command.data;
                if command.info.is_some() {
                    let mut info = (*subscribe.membership.info).clone();
                    info.chan_info = command.info;
                    subscribe.membership.info = Arc::new(info);
                    if let Some(known) = self.subscriptions.last_mut() {
                        known.membership.info = subscribe.membership.info.clone();
                    }
                }
                Ok(Some(subscribe))
            }
            Err(ErrorCode::LimitExceeded) => Err(self.fail(DisconnectCode::ChannelLimit)),
            Err(_) => Ok(None),
        }
    }

    /// Changes when the connection expires, and the information about the client, for the server API. `None` if the client is
    /// not connected. Earlier subscriptions keep the earlier information.
    pub(crate) fn refresh_by_server(&mut self, command: ServerRefresh, clock: Clock) -> Option<ExpiryResult> {
        let State::Connected { info, expires_at, .. } = &mut self.state else {
            return None;
        };
        let (expiry, at) = expiry(command.expire_at.and_then(|at| at.try_into().ok()), clock);
        *expires_at = at;
        if command.info.is_some() {
            *info = Arc::new(ClientInfo {
                conn_info: command.info,
                ..(**info).clone()
            });
        }
        self.update_expiry();
        Some(expiry)
    }

    /// Removes a subscription that was ended by the server or failed. `None` if it no longer existed: the client may have
    /// unsubscribed in the meantime, and may have subscribed to the channel again.
    pub(crate) fn handle_unsubscribed(&mut self, subscription: &Subscription) -> Option<Subscribed> {
        let is_meant = |known: &Subscribed| known.membership.subscription == *subscription;
        let index = self.subscriptions.iter().position(is_meant)?;
        Some(self.remove(index))
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
            State::Connected {
                expires_at: Some(expires_at),
                ..
            } if now >= *expires_at => Err(self.fail(DisconnectCode::Expired)),
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

    /// Removes and returns a subscription that has expired; to be called until it returns `None`.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if the server started the subscription.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Result<Option<Subscribed>, DisconnectCode> {
        if self.expires_at.is_none_or(|expires_at| now < expires_at) {
            return Ok(None);
        }
        let is_expired = |known: &Subscribed| known.expires_at.is_some_and(|expires_at| now >= expires_at);
        let expired = self.subscriptions.iter().position(is_expired);
        let expired = expired.map(|index| self.remove(index));
        match expired {
            Some(expired) if expired.is_server_side => Err(self.fail(DisconnectCode::SubscriptionExpired)),
            expired => Ok(expired),
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening { deadline, .. } | State::Refused { deadline } => Some(deadline),
            State::Connected { heartbeat, .. } => {
                let heartbeat = match heartbeat {
                    Heartbeat::Off => None,
                    Heartbeat::Idle { ping_at } => Some(ping_at),
                    Heartbeat::AwaitingPong { pong_by, .. } => Some(pong_by),
                };
                heartbeat.into_iter().chain(self.expires_at).min()
            }
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
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Membership> {
        let subscriptions = std::mem::take(&mut self.subscriptions);
        subscriptions.into_iter().map(|known| known.membership).collect()
    }

    fn finish(&mut self, step: Result<Step, CommandError>) -> Result<Step, DisconnectCode> {
        match step {
            Ok(step) => Ok(step),
            Err(CommandError::Error(code)) => Ok(Step::Reply(ReplyBody::Error(code))),
            Err(CommandError::Disconnect(code)) => Err(self.fail(code)),
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
            (State::Connected { info, .. }, Some(request)) => {
                let info = info.clone();
                self.request(command.id, request, &info, now)
            }
        }
    }

    /// Handles a request of a connected client.
    fn request(
        &mut self,
        id: u32,
        request: Request<'_>,
        info: &Arc<ClientInfo>,
        now: Instant,
    ) -> Result<Step, CommandError> {
        match request {
            Request::Connect(_) => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            // No handler is registered.
            Request::Send(_) => Ok(Step::Nothing),
            // Without an id there can be no reply.
            _ if id == 0 => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe(request) => self.unsubscribe(&request.channel),
            Request::Publish(publish) => self.publish(publish, info, now),
            Request::Presence(request) => Ok(Step::Call(Call::Presence(self.presence(&request.channel)?))),
            Request::PresenceStats(request) => Ok(Step::Call(Call::PresenceStats(self.presence(&request.channel)?))),
            Request::History(history) => self.history(&history),
            Request::Ping => Ok(Step::Reply(ReplyBody::Ping(Empty {}))),
            Request::Invalid => Err(ErrorCode::BadRequest.into()),
            // No handler is registered.
            Request::Rpc(_) => Err(ErrorCode::NotAvailable.into()),
            Request::Refresh(request) => match &*request.token {
                "" => Err(ErrorCode::BadRequest.into()),
                token => Ok(verify(token, TokenKind::Connection, Pending::Refresh)),
            },
            Request::SubRefresh(request) => self.start_refresh_of_subscription(&request),
        }
    }

    fn start_connect(&mut self, request: ConnectRequest<'_>, now: Instant) -> Result<Step, CommandError> {
        let wishes = request
            .subs
            .iter()
            .map(|(channel, wish)| Ok((channel.to_string(), Wish::new(wish)?)));
        let connect = Connect {
            wishes: wishes
                .collect::<Result<_, ErrorCode>>()
                .map_err(|code| self.refuse(code))?,
            data: request.data,
        };
        match &*request.token {
            "" if self.config.anonymous || self.config.insecure_clients => {
                self.connect(connect, None, Clock { now, unix: 0 })
            }
            // As Centrifugo: a client without credentials may not retry.
            "" => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            token => Ok(verify(token, TokenKind::Connection, Pending::Connect(connect.into()))),
        }
    }

    /// Refuses the `connect` command, after which no command is allowed.
    fn refuse(&mut self, code: ErrorCode) -> CommandError {
        if let State::Opening { deadline, .. } = self.state {
            self.state = State::Refused { deadline };
        }
        code.into()
    }

    fn refuse_token(&mut self, command: &Pending, error: TokenError) -> CommandError {
        tracing::debug!(%error, client = %self.client, "refused a token");
        let code = match (command, error) {
            (_, TokenError::KeysUnavailable) => ErrorCode::Internal,
            (Pending::Connect(_) | Pending::Subscribe(..), TokenError::Expired | TokenError::NotYetValid) => {
                ErrorCode::TokenExpired
            }
            (Pending::Refresh, TokenError::Expired | TokenError::NotYetValid) => {
                return CommandError::Disconnect(DisconnectCode::Expired);
            }
            (Pending::Connect(_) | Pending::Refresh, _) => {
                return CommandError::Disconnect(DisconnectCode::InvalidToken);
            }
            (Pending::Subscribe(..) | Pending::SubRefresh(_), _) => ErrorCode::PermissionDenied,
        };
        match command {
            Pending::Connect(_) => self.refuse(code),
            _ => code.into(),
        }
    }

    fn connect(&mut self, connect: Connect, token: Option<ConnectToken>, clock: Clock) -> Result<Step, CommandError> {
        let State::Opening { pings, .. } = self.state else {
            return Err(ErrorCode::Internal.into());
        };
        let conn_info = match token.as_ref().and_then(|token| token.info.as_ref()) {
            Some(info) => grant::payload(info).map(Some),
            None => self.unverified_info(connect.data.as_ref()),
        };
        let info = Arc::new(ClientInfo {
            client: self.client,
            user: token
                .as_ref()
                .map_or_else(Arc::default, |token| token.user.as_str().into()),
            conn_info: conn_info.map_err(|code| self.refuse(code))?,
            chan_info: None,
        });
        let (heartbeat, ping) = match pings {
            Pings::Frames => (Heartbeat::Off, None),
            Pings::Commands { first } => {
                let ping_at = clock.now + first;
                // Zero would mean that there are no pings.
                let seconds = self.config.timeouts.ping_interval.as_secs().max(1);
                (
                    Heartbeat::Idle { ping_at },
                    Some(seconds.try_into().unwrap_or(u32::MAX)),
                )
            }
        };
        let expire_at = token.as_ref().and_then(|token| token.expire_at);
        // As in Centrifugo, insecure clients do not expire.
        let expire_at = expire_at.filter(|_| !self.config.insecure_clients);
        let (expiry, expires_at) = expiry(expire_at, clock);
        if expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(self.refuse(ErrorCode::Expired));
        }
        self.state = State::Connected {
            info,
            heartbeat,
            expires_at,
        };
        self.update_expiry();
        let mut subscriptions = token.map(|token| token.subscriptions).unwrap_or_default();
        if let Some(channel) = self.config.personal_channel(self.user()) {
            subscriptions.entry(channel).or_default();
        }
        let subscriptions = self.subscribe_server_side(subscriptions, connect.wishes)?;
        let result = ConnectResult {
            client: self.client.to_string(),
            version: VERSION,
            expiry,
            subs: BTreeMap::new(),
            ping,
            pong: ping.is_some(),
            session: self.secret.to_string(),
            node: if self.secret.is_empty() { "" } else { NODE },
        };
        Ok(match subscriptions.is_empty() {
            true => Step::Reply(ReplyBody::Connect(result)),
            false => Step::Connect(result, subscriptions),
        })
    }

    /// Grants the server-side subscriptions of a connection token.
    fn subscribe_server_side(
        &mut self,
        subscriptions: BTreeMap<String, crate::auth::SubscribeOptions>,
        mut wishes: BTreeMap<String, Wish>,
    ) -> Result<Vec<Subscribe>, CommandError> {
        let mut granted = Vec::with_capacity(subscriptions.len());
        for (name, options) in subscriptions {
            let wish = wishes.remove(&name).unwrap_or_default();
            let grant = Grant {
                options,
                has_token: true,
                is_server_side: true,
                ..Grant::default()
            };
            let channel = self.channel(&name)?;
            match self.grant(channel, wish, grant, None) {
                Ok(subscribe) => granted.push(subscribe),
                Err(ErrorCode::LimitExceeded) => return Err(CommandError::Disconnect(DisconnectCode::ChannelLimit)),
                Err(code) => {
                    tracing::warn!(channel = name, %code, "a connection token subscribes to an invalid channel");
                    return Err(CommandError::Disconnect(DisconnectCode::BadRequest));
                }
            }
        }
        Ok(granted)
    }

    /// Wraps the `data` of `connect` in an object that marks it as unverified.
    fn unverified_info(&self, data: Option<&DataField>) -> Result<Option<Data>, ErrorCode> {
        let size_max = self.config.limits.client_info_size_max;
        match data {
            None => Ok(None),
            Some(_) if size_max == 0 => Ok(None),
            Some(Err(InvalidJson)) => Err(ErrorCode::BadRequest),
            Some(Ok(data)) if data.len_bytes() > size_max => Err(ErrorCode::LimitExceeded),
            Some(Ok(data)) => Data::json(format!("{{\"unverified\":{}}}", data.to_json()))
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

    fn refresh(&mut self, token: &ConnectToken, clock: Clock) -> Result<Step, CommandError> {
        let State::Connected { info, expires_at, .. } = &mut self.state else {
            return Err(ErrorCode::Internal.into());
        };
        if *token.user != *info.user {
            return Err(CommandError::Disconnect(DisconnectCode::InvalidToken));
        }
        if token.expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(CommandError::Disconnect(DisconnectCode::Expired));
        }
        let (expiry, at) = expiry(token.expire_at, clock);
        *expires_at = at;
        self.update_expiry();
        Ok(Step::Reply(ReplyBody::Refresh(expiry)))
    }

    fn start_refresh_of_subscription(&mut self, request: &SubRefreshRequest<'_>) -> Result<Step, CommandError> {
        let channel = self.channel(&request.channel)?;
        if request.token.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        if self.subscribed(&channel).is_none() {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let command = Pending::SubRefresh(channel);
        Ok(verify(&request.token, TokenKind::Subscription, command))
    }

    fn refresh_subscription(
        &mut self,
        channel: &ChannelName,
        token: &SubscribeToken,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        self.check_owner(channel, token)?;
        let (expiry, expires_at) = expiry(token.expire_at, clock);
        let chan_info = token.options.info.as_ref().map(grant::payload).transpose()?;
        let known = self.subscriptions.iter_mut().find(|known| known.channel() == channel);
        let known = known.ok_or(ErrorCode::PermissionDenied)?;
        known.expires_at = expires_at;
        Arc::make_mut(&mut known.membership.info).chan_info = chan_info;
        self.update_expiry();
        Ok(Step::Reply(ReplyBody::SubRefresh(expiry)))
    }

    fn subscribe(&mut self, request: &SubscribeRequest<'_>) -> Result<Step, CommandError> {
        let wish = Wish::new(request)?;
        let (channel, namespace) = self.known_channel(&request.channel)?;
        let is_allowed = self.standing(&channel).may_subscribe(&channel, namespace);
        self.check_new(&channel)?;
        if !request.token.is_empty() {
            let command = Pending::Subscribe(channel, wish.into());
            return Ok(verify(&request.token, TokenKind::Subscription, command));
        }
        if !is_allowed {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let subscribe = self.grant(channel, wish, Grant::default(), None)?;
        Ok(Step::Subscribe(subscribe.into()))
    }

    fn subscribe_with_token(
        &mut self,
        channel: ChannelName,
        wish: Wish,
        token: SubscribeToken,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        self.check_owner(&channel, &token)?;
        if token.expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(ErrorCode::Expired.into());
        }
        let (expiry, expires_at) = expiry(token.expire_at, clock);
        let grant = Grant {
            options: token.options,
            expiry,
            has_token: true,
            is_server_side: false,
        };
        let subscribe = self.grant(channel, wish, grant, expires_at)?;
        Ok(Step::Subscribe(subscribe.into()))
    }

    fn check_owner(&self, channel: &ChannelName, token: &SubscribeToken) -> Result<(), ErrorCode> {
        let subscriber = Subscriber {
            channel: channel.as_str(),
            user: self.user(),
            client: &self.client.to_string(),
        };
        match token.permits(&subscriber) {
            true => Ok(()),
            false => Err(ErrorCode::PermissionDenied),
        }
    }

    fn check_new(&self, channel: &ChannelName) -> Result<(), ErrorCode> {
        if self.subscribed(channel).is_some() {
            return Err(ErrorCode::AlreadySubscribed);
        }
        if self.subscriptions.len() >= self.config.limits.channels_per_client_max {
            return Err(ErrorCode::LimitExceeded);
        }
        Ok(())
    }

    /// Adds a subscription that is allowed.
    fn grant(
        &mut self,
        channel: ChannelName,
        wish: Wish,
        grant: Grant,
        expires_at: Option<Instant>,
    ) -> Result<Subscribe, ErrorCode> {
        let config = self.config.clone();
        let namespace = config.namespace(channel.as_str()).ok_or(ErrorCode::UnknownChannel)?;
        self.check_new(&channel)?;
        let generation = self.generation.next();
        let subscription = Subscription { channel, generation };
        let info = self.info().ok_or(ErrorCode::Internal)?;
        let has_token = grant.has_token;
        let subscribe = grant::subscription(subscription, info, namespace, wish, grant)?;
        self.generation = generation;
        // Most clients have few subscriptions, and the default growth would reserve four at once.
        if self.subscriptions.len() < 4 {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(Subscribed {
            membership: subscribe.membership.clone(),
            is_server_side: subscribe.is_server_side,
            has_token,
            expires_at,
        });
        self.update_expiry();
        Ok(subscribe)
    }

    fn remove(&mut self, index: usize) -> Subscribed {
        let removed = self.subscriptions.swap_remove(index);
        self.update_expiry();
        removed
    }

    fn update_expiry(&mut self) {
        let of_connection = match self.state {
            State::Connected { expires_at, .. } => expires_at,
            State::Opening { .. } | State::Refused { .. } => None,
        };
        let of_subscriptions = self.subscriptions.iter().filter_map(|known| known.expires_at);
        self.expires_at = of_subscriptions.chain(of_connection).min();
    }

    fn unsubscribe(&mut self, channel: &str) -> Result<Step, CommandError> {
        let channel = self.channel(channel)?;
        let Some(index) = self.subscriptions.iter().position(|known| *known.channel() == channel) else {
            // Not subscribed: succeed, as unsubscribing is idempotent.
            return Ok(Step::Reply(ReplyBody::Unsubscribe(Empty {})));
        };
        let membership = self.remove(index).membership;
        Ok(Step::Call(Call::Unsubscribe(membership)))
    }

    fn publish(
        &mut self,
        request: PublishRequest<'_>,
        info: &Arc<ClientInfo>,
        now: Instant,
    ) -> Result<Step, CommandError> {
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if request.is_keyed() {
            return Err(ErrorCode::BadRequest.into());
        }
        let config = self.config.clone();
        let channel = self.channel(&request.channel)?;
        let namespace = config.namespace(channel.as_str()).ok_or(ErrorCode::UnknownChannel)?;
        let data = request.data.ok_or(ErrorCode::BadRequest)?;
        let data = data.map_err(|_| ErrorCode::BadRequest)?;
        let size_max = config.limits.publication_size_max.min(namespace.publication_size_max);
        if data.len_bytes() > size_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        if !self.standing(&channel).may_use(&channel, namespace.allow_publish) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if let Some(per_second_max) = namespace.publication_rate_max
            && !self.may_publish_now(&channel, per_second_max, now)
        {
            return Err(ErrorCode::TooManyRequests.into());
        }
        // With the data of the client in this channel, if there is any.
        let info = self.subscribed(&channel).map_or(info, |known| &known.membership.info);
        let content = Content {
            data,
            info: Some(info.clone()),
            tags: None,
        };
        Ok(Step::Call(Call::Publish(channel, content)))
    }

    fn may_publish_now(&mut self, channel: &ChannelName, per_second_max: u32, now: Instant) -> bool {
        let index = self.publications.iter().position(|(known, _)| known == channel);
        let index = index.unwrap_or_else(|| {
            self.publications.retain(|(_, rate)| !rate.is_idle(now));
            self.publications.push((channel.clone(), Rate::new(now)));
            self.publications.len() - 1
        });
        self.publications[index]
            .1
            .allows(now, per_second_max, PUBLICATIONS_BURST)
    }

    /// Checks that the client may read the presence of a channel.
    fn presence(&self, channel: &str) -> Result<ChannelName, CommandError> {
        let (channel, namespace) = self.known_channel(channel)?;
        if !namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !self.standing(&channel).may_use(&channel, namespace.allow_presence) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok(channel)
    }

    fn history(&self, request: &HistoryRequest<'_>) -> Result<Step, CommandError> {
        let (channel, namespace) = self.known_channel(&request.channel)?;
        if !namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !self.standing(&channel).may_use(&channel, namespace.allow_history) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let count_max = namespace.history_size;
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

    fn standing(&self, channel: &ChannelName) -> Standing<'_> {
        let subscribed = self.subscribed(channel);
        Standing {
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

fn verify(token: &str, kind: TokenKind, command: Pending) -> Step {
    Step::Verify(Box::new(Unverified {
        token: token.to_owned(),
        kind,
        command,
    }))
}

/// What to tell a client about its expiry, and when the grace ends.
fn expiry(expire_at: Option<u64>, clock: Clock) -> (ExpiryResult, Option<Instant>) {
    let Some(expire_at) = expire_at else {
        return (ExpiryResult::default(), None);
    };
    let ttl = expire_at.saturating_sub(clock.unix).min(TTL_SECONDS_MAX);
    let expiry = ExpiryResult {
        expires: true,
        ttl: ttl as u32,
    };
    (expiry, Some(clock.now + Duration::from_secs(ttl) + EXPIRY_GRACE))
}

impl From<ErrorCode> for CommandError {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

#[cfg(test)]
mod tests;
