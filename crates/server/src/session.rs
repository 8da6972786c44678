//! One client's side of the protocol as a state machine: what it may do now, what it is subscribed to, when it is
//! pinged and when it is given up.
//!
//! It does nothing itself. A command goes in through [`Session::handle_command`] and comes out as a [`Step`]: an
//! answer, or something that whoever drives the session carries out before the next command goes in. Time is an
//! argument. A reason to disconnect is an error and stays one: from then on every call returns it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{ChannelName, Wants};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::config::{Config, PublishPolicy};
use crate::engine::{Content, Epoch, Position};
use crate::presence::{ClientId, ClientInfo, Generation, Subscription};
use crate::protocol::{
    Command, ConnectRequest, ConnectResult, Data, Empty, HistoryRequest, InvalidJson, Json, Malformed, PublishRequest,
    ReplyBody, Request, SubscribeRequest,
};

#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    client: ClientId,
    state: State,
    /// Few enough, 128 by default, that looking through them is as quick as hashing.
    subscriptions: Vec<Subscription>,
    /// Of the newest subscription.
    generation: Generation,
    /// Why the client is being disconnected.
    failed: Option<DisconnectCode>,
}

#[derive(Debug)]
enum State {
    /// Nothing but `connect` is allowed, and only until the deadline.
    Opening { deadline: Instant, pings: Pings },
    /// `connect` was refused: nothing is allowed any more.
    Refused { deadline: Instant },
    Connected {
        info: Arc<ClientInfo>,
        heartbeat: Heartbeat,
    },
}

/// How a client that has connected is pinged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pings {
    /// By empty objects, which the client answers with the same. The first ping is sent after `first`, at most the ping
    /// interval.
    Commands {
        /// Spreads the pings of clients that arrive together.
        first: Duration,
    },
    /// By WebSocket ping frames, which the connection sends; the session sends none.
    Frames,
}

#[derive(Clone, Copy, Debug)]
enum Heartbeat {
    /// The session sends no pings.
    Off,
    /// The next ping goes out then.
    Resting { ping_at: Instant },
    /// A ping went out and its pong is due.
    Waiting { pong_by: Instant, ping_at: Instant },
}

/// What follows from a command.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing: the command wants no answer.
    Nothing,
    /// This answer.
    Reply(ReplyBody<'static>),
    /// The answer to this subscription, which is queued together with what the channel says.
    Subscribe(Subscribe),
    /// The answer to this call.
    Call(Call),
}

/// What the session needs done outside of it.
#[derive(Debug)]
pub(crate) enum Call {
    Unsubscribe(Subscription),
    Publish(ChannelName, Content),
    Presence(ChannelName),
    PresenceStats(ChannelName),
    History(ChannelName, ReadHistory),
}

/// A subscription that the session has granted. Should it fail, [`Session::handle_unsubscribed`] takes it back.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) subscription: Subscription,
    pub(crate) wants: Wants,
    /// Whether the client means to recover when it comes back.
    pub(crate) is_recoverable: bool,
    /// Where the client was before, if it asks to go on from there.
    pub(crate) recover_from: Option<Position>,
    /// Whether to fail rather than to begin anew.
    pub(crate) rejects_unrecovered: bool,
}

/// Which part of a channel's history a client asked for.
#[derive(Debug)]
pub(crate) struct ReadHistory {
    /// An empty epoch stands for whichever is current.
    pub(crate) since: Option<Position>,
    pub(crate) limit: usize,
    pub(crate) is_reversed: bool,
}

/// A ping is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PingDue;

/// Why a command is not carried out.
enum Refusal {
    Error(ErrorCode),
    Disconnect(DisconnectCode),
}

const VERSION: &str = concat!("sockeye ", env!("CARGO_PKG_VERSION"));

impl Session {
    /// Begins with the upgrade of a connection.
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

    /// Takes one command.
    ///
    /// # Errors
    /// The reason to disconnect, if the command is not allowed at all.
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
            Err(Malformed) => Err(Refusal::Disconnect(DisconnectCode::BadRequest)),
        };
        match step {
            Ok(step) => Ok(step),
            Err(Refusal::Error(code)) => Ok(Step::Reply(ReplyBody::Error(code))),
            Err(Refusal::Disconnect(code)) => Err(self.fail(code)),
        }
    }

    /// Takes note that a subscription has ended, or was granted and did not come about. Returns whether it was still
    /// there: the client may have ended it by itself, and may have subscribed to the channel again.
    pub(crate) fn handle_unsubscribed(&mut self, subscription: &Subscription) -> bool {
        let index = self.subscriptions.iter().position(|known| known == subscription);
        if let Some(index) = index {
            self.subscriptions.swap_remove(index);
        }
        index.is_some()
    }

    /// Takes the time, which may have come to ping or to give up. Early calls do nothing.
    ///
    /// # Errors
    /// The reason to disconnect, if a deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Option<PingDue>, DisconnectCode> {
        let timeouts = &self.config.timeouts;
        match &mut self.state {
            _ if let Some(code) = self.failed => Err(code),
            // On a slow network `connect` may still be in flight: close with a code after which SDKs reconnect.
            State::Opening { deadline, .. } if now >= *deadline => Err(self.fail(DisconnectCode::ConnectionClosed)),
            // `connect` was answered with an error, and the client did not close the connection.
            State::Refused { deadline } if now >= *deadline => Err(self.fail(DisconnectCode::Stale)),
            State::Connected {
                heartbeat: Heartbeat::Waiting { pong_by, .. },
                ..
            } if now >= *pong_by => Err(self.fail(DisconnectCode::NoPong)),
            State::Connected { heartbeat, .. } => match *heartbeat {
                Heartbeat::Resting { ping_at } if now >= ping_at => {
                    let (pong_by, ping_at) = (now + timeouts.pong, now + timeouts.ping_interval);
                    *heartbeat = Heartbeat::Waiting { pong_by, ping_at };
                    Ok(Some(PingDue))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening { deadline, .. } | State::Refused { deadline } => Some(deadline),
            State::Connected { heartbeat, .. } => match heartbeat {
                Heartbeat::Off => None,
                Heartbeat::Resting { ping_at } => Some(ping_at),
                Heartbeat::Waiting { pong_by, .. } => Some(pong_by),
            },
        }
    }

    /// What others may know about the client, once it is connected.
    pub(crate) fn info(&self) -> Option<&Arc<ClientInfo>> {
        match &self.state {
            State::Connected { info, .. } => Some(info),
            State::Opening { .. } | State::Refused { .. } => None,
        }
    }

    /// Ends all subscriptions and returns them, for whoever drives the session to take back elsewhere.
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.subscriptions)
    }

    fn fail(&mut self, code: DisconnectCode) -> DisconnectCode {
        *self.failed.get_or_insert(code)
    }

    fn command(&mut self, command: Command<'_>, now: Instant) -> Result<Step, Refusal> {
        match (&self.state, command.request) {
            (State::Opening { deadline, pings }, Some(Request::Connect(connect))) if command.id > 0 => {
                let (deadline, pings) = (*deadline, *pings);
                self.connect(&connect, deadline, pings, now)
            }
            (State::Opening { .. } | State::Refused { .. }, _) => Err(Refusal::Disconnect(DisconnectCode::BadRequest)),
            (State::Connected { .. }, None) if command.id == 0 => self.pong(),
            (State::Connected { .. }, None) => Err(ErrorCode::MethodNotFound.into()),
            (State::Connected { info, .. }, Some(request)) => {
                let info = info.clone();
                self.request(command.id, request, info)
            }
        }
    }

    /// Takes what a connected client asks for.
    fn request(&mut self, id: u32, request: Request<'_>, info: Arc<ClientInfo>) -> Result<Step, Refusal> {
        match request {
            Request::Connect(_) => Err(Refusal::Disconnect(DisconnectCode::BadRequest)),
            Request::Send => Ok(Step::Nothing),
            // It could not be answered.
            _ if id == 0 => Err(Refusal::Disconnect(DisconnectCode::BadRequest)),
            Request::Subscribe(subscribe) => self.subscribe(&subscribe),
            Request::Unsubscribe(request) => self.unsubscribe(&request.channel),
            Request::Publish(publish) => self.publish(publish, info),
            Request::Presence(request) => Ok(Step::Call(Call::Presence(self.presence(&request.channel)?))),
            Request::PresenceStats(request) => Ok(Step::Call(Call::PresenceStats(self.presence(&request.channel)?))),
            Request::History(history) => self.history(&history),
            Request::Ping => Ok(Step::Reply(ReplyBody::Ping(Empty {}))),
            Request::Unreadable => Err(ErrorCode::BadRequest.into()),
            // Nothing handles calls, and there are no tokens yet that could be refreshed.
            Request::Rpc | Request::Refresh | Request::SubRefresh => Err(ErrorCode::NotAvailable.into()),
        }
    }

    fn connect(
        &mut self,
        connect: &ConnectRequest<'_>,
        deadline: Instant,
        pings: Pings,
        now: Instant,
    ) -> Result<Step, Refusal> {
        // No key is configured that a token could be checked with, and an unchecked one must not pass for checked.
        if !connect.token.is_empty() {
            return Err(Refusal::Disconnect(DisconnectCode::InvalidToken));
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
                // Zero would tell the client that there are no pings.
                let seconds = self.config.timeouts.ping_interval.as_secs().max(1);
                (Heartbeat::Resting { ping_at }, Some(seconds))
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

    /// What the client says about itself, marked as such so that nobody takes it for more.
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

    fn pong(&mut self) -> Result<Step, Refusal> {
        match &mut self.state {
            State::Connected { heartbeat, .. } if let Heartbeat::Waiting { ping_at, .. } = *heartbeat => {
                *heartbeat = Heartbeat::Resting { ping_at };
                Ok(Step::Nothing)
            }
            _ => Err(Refusal::Disconnect(DisconnectCode::BadRequest)),
        }
    }

    fn subscribe(&mut self, request: &SubscribeRequest<'_>) -> Result<Step, Refusal> {
        // The numbers Centrifugo gives: 108 for a kind of subscription that is not there, 107 for a filter or a page that
        // the channel does not allow. Granting a plain stream instead would hand out what the client does not want.
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
        // As with the token of a connection: there is nothing yet to check it with.
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
            wants: Wants {
                join_leave: request.join_leave && options.join_leave,
                unbroken: (request.recoverable || request.positioned || request.recover) && has_history,
            },
            is_recoverable: (request.recoverable || request.recover) && has_history,
            recover_from: (request.recover && has_history).then(|| Position {
                epoch: Epoch::new(&*request.epoch),
                offset: request.offset,
            }),
            rejects_unrecovered: request.rejects_unrecovered(),
        }))
    }

    fn unsubscribe(&mut self, channel: &str) -> Result<Step, Refusal> {
        let channel = self.channel(channel)?;
        let Some(index) = self.subscriptions.iter().position(|known| known.channel == channel) else {
            // The client wanted to be out of it, and it is.
            return Ok(Step::Reply(ReplyBody::Unsubscribe(Empty {})));
        };
        Ok(Step::Call(Call::Unsubscribe(self.subscriptions.swap_remove(index))))
    }

    fn publish(&mut self, request: PublishRequest<'_>, info: Arc<ClientInfo>) -> Result<Step, Refusal> {
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
        Ok(Step::Call(Call::Publish(channel, Content { data, info: Some(info) })))
    }

    /// The channel whose presence may be asked for.
    fn presence(&self, channel: &str) -> Result<ChannelName, Refusal> {
        let channel = self.subscribed_channel(channel)?;
        if !self.config.channels.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok(channel)
    }

    fn history(&self, request: &HistoryRequest<'_>) -> Result<Step, Refusal> {
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
            // A negative limit asks for everything there is.
            limit: usize::try_from(request.limit).unwrap_or(count_max).min(count_max),
            is_reversed: request.reverse,
        };
        Ok(Step::Call(Call::History(channel, read)))
    }

    fn subscribed_channel(&self, name: &str) -> Result<ChannelName, Refusal> {
        let channel = self.channel(name)?;
        if !self.is_subscribed(&channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok(channel)
    }

    /// The channel of this name, sharing the name where the client is subscribed to it.
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

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

#[cfg(test)]
mod tests;
