//! The `connect` command, and the server-side subscriptions of a client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::event::{ConnectEvent, Event};
use super::grant::{self, Grant, RequestedOptions};
use super::token::{TokenKind, UnverifiedCommand, verify};
use super::{Clock, CommandError, Heartbeat, Pings, Session, State, Step, Subscribe, expiry};
use crate::auth::{ConnectionClaims, SubscriptionGrant};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::filter::Filter;
use crate::hooks::Hook;
use crate::presence::ClientInfo;
use crate::protocol::{ConnectRequest, ConnectResult, Data, DataField, InvalidJson, ReplyBody};

/// The parts of a `connect` command that matter after the decision about it.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) data: Option<DataField>,
    /// The server-side subscriptions that the client wants to recover.
    pub(super) requested: BTreeMap<String, RequestedOptions>,
}

/// Who a client is, and what it is subscribed to by the server.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) info: Option<Data>,
    pub(super) expire_at: Option<u64>,
    pub(super) subscriptions: BTreeMap<String, SubscriptionGrant>,
    /// Filters of some of the subscriptions.
    pub(super) filters: BTreeMap<String, Filter>,
    /// Data for the backend, which is never sent to clients.
    pub(super) meta: Option<Box<RawValue>>,
    /// Data for the client.
    pub(super) data: Option<Data>,
}

impl TryFrom<ConnectionClaims> for Credentials {
    type Error = ErrorCode;

    fn try_from(token: ConnectionClaims) -> Result<Self, ErrorCode> {
        Ok(Self {
            user: token.user,
            info: token.info.as_ref().map(grant::payload).transpose()?,
            expire_at: token.expire_at,
            subscriptions: token.subscriptions,
            filters: BTreeMap::new(),
            meta: token.meta,
            data: None,
        })
    }
}

pub(super) const VERSION: &str = concat!("sockeye ", env!("CARGO_PKG_VERSION"));

impl Session {
    pub(super) fn start_connect(&mut self, request: ConnectRequest<'_>, now: Instant) -> Result<Step, CommandError> {
        let requested = request
            .subs
            .iter()
            .map(|(channel, requested)| Ok((channel.to_string(), RequestedOptions::new(requested)?)));
        let connect = Connect {
            requested: requested
                .collect::<Result<_, ErrorCode>>()
                .map_err(|code| self.refuse(code))?,
            data: request.data,
        };
        match &*request.token {
            "" if self.config.hooks.has(Hook::Connect) => {
                let data = connect.data.as_ref().and_then(|data| data.as_ref().ok()).cloned();
                if data.is_none() && connect.data.is_some() {
                    return Err(self.refuse(ErrorCode::BadRequest));
                }
                let event = ConnectEvent {
                    connect,
                    data,
                    name: request.name.into_owned(),
                    version: request.version.into_owned(),
                };
                Ok(Step::Ask(Event::Connect(event.into())))
            }
            "" if self.config.anonymous || self.config.insecure_clients => {
                let clock = Clock { now, unix: 0 };
                self.connect(connect.requested, Credentials::default(), connect.data.as_ref(), clock)
            }
            // As Centrifugo: a client without credentials may not retry.
            "" => {
                self.lacks_token = true;
                Err(CommandError::Disconnect(DisconnectCode::BadRequest))
            }
            token => Ok(verify(
                token,
                TokenKind::Connection,
                UnverifiedCommand::Connect(connect.into()),
            )),
        }
    }

    /// Refuses the `connect` command, after which no command is allowed.
    pub(super) fn refuse(&mut self, code: ErrorCode) -> CommandError {
        self.refuse_connect(code.into())
    }

    pub(super) fn refuse_connect(&mut self, error: CommandError) -> CommandError {
        if let State::Opening { deadline, .. } = self.state {
            self.state = State::Refused { deadline };
        }
        error
    }

    pub(super) fn connect_with_token(
        &mut self,
        connect: Connect,
        token: ConnectionClaims,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        let credentials = Credentials::try_from(token).map_err(|code| self.refuse(code))?;
        self.connect(connect.requested, credentials, connect.data.as_ref(), clock)
    }

    /// Connects the client. Without information about it, others see `unverified`.
    pub(super) fn connect(
        &mut self,
        requested: BTreeMap<String, RequestedOptions>,
        credentials: Credentials,
        unverified: Option<&DataField>,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        let State::Opening { pings, .. } = self.state else {
            return Err(ErrorCode::Internal.into());
        };
        let conn_info = match credentials.info {
            Some(info) => Ok(Some(info)),
            None => self.unverified_info(unverified),
        };
        let info = Arc::new(ClientInfo {
            client: self.client,
            user: credentials.user.into(),
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
        // As in Centrifugo, insecure clients do not expire.
        let expire_at = credentials.expire_at.filter(|_| !self.config.insecure_clients);
        let (expiry, expires_at) = expiry(expire_at, self.connection_renewal(), clock);
        if expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(self.refuse(ErrorCode::Expired));
        }
        self.state = State::Connected {
            info,
            heartbeat,
            expires_at,
        };
        self.meta = credentials.meta;
        self.update_expiry();
        let mut channels = credentials.subscriptions;
        if let Some(channel) = self.config.personal_channel(self.user()) {
            channels.entry(channel).or_default();
        }
        let subscriptions = self.subscribe_server_side(channels, credentials.filters, requested)?;
        let result = ConnectResult {
            client: self.client.to_string(),
            version: VERSION,
            expiry,
            data: credentials.data,
            subs: BTreeMap::new(),
            ping,
            pong: ping.is_some(),
            session: self
                .stream
                .as_ref()
                .map(|stream| stream.secret.to_string())
                .unwrap_or_default(),
            node: self
                .stream
                .as_ref()
                .map(|stream| stream.node.to_string())
                .unwrap_or_default(),
        };
        Ok(match subscriptions.is_empty() {
            true => Step::Reply(ReplyBody::Connect(result)),
            false => Step::Connect(result, subscriptions),
        })
    }

    /// Grants the server-side subscriptions of a connection token or of the backend.
    fn subscribe_server_side(
        &mut self,
        subscriptions: BTreeMap<String, SubscriptionGrant>,
        mut filters: BTreeMap<String, Filter>,
        mut requested: BTreeMap<String, RequestedOptions>,
    ) -> Result<Vec<Subscribe>, CommandError> {
        let mut granted = Vec::with_capacity(subscriptions.len());
        for (name, options) in subscriptions {
            let requested = requested.remove(&name).unwrap_or_default();
            let grant = Grant {
                options,
                filter: filters.remove(&name),
                has_token: true,
                is_server_side: true,
                ..Grant::default()
            };
            let channel = self.channel(&name)?;
            match self.grant(channel, requested, grant, None) {
                Ok(subscribe) => granted.push(subscribe),
                Err(ErrorCode::LimitExceeded) => return Err(CommandError::Disconnect(DisconnectCode::ChannelLimit)),
                Err(code) => {
                    tracing::warn!(channel = name, %code, "a connection token or the backend subscribes a client to an invalid channel");
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
}
