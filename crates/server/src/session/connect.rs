//! The `connect` command, and the server-side subscriptions of its token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::grant::{self, Grant, Wish};
use super::token::{Pending, TokenKind, verify};
use super::{Clock, CommandError, Heartbeat, Pings, Session, State, Step, Subscribe, expiry};
use crate::auth::{ConnectToken, SubscribeOptions};
use crate::codes::{DisconnectCode, ErrorCode};
use crate::presence::ClientInfo;
use crate::protocol::{ConnectRequest, ConnectResult, Data, DataField, InvalidJson, ReplyBody};

/// The parts of a `connect` command that matter after the verification of the token.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) data: Option<DataField>,
    /// The server-side subscriptions that the client wants to recover.
    pub(super) wishes: BTreeMap<String, Wish>,
}

pub(super) const VERSION: &str = concat!("sockeye ", env!("CARGO_PKG_VERSION"));

/// The name of the node in replies to clients whose transport has one direction.
const NODE: &str = "sockeye";

impl Session {
    pub(super) fn start_connect(&mut self, request: ConnectRequest<'_>, now: Instant) -> Result<Step, CommandError> {
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
    pub(super) fn refuse(&mut self, code: ErrorCode) -> CommandError {
        if let State::Opening { deadline, .. } = self.state {
            self.state = State::Refused { deadline };
        }
        code.into()
    }

    pub(super) fn connect(
        &mut self,
        connect: Connect,
        token: Option<ConnectToken>,
        clock: Clock,
    ) -> Result<Step, CommandError> {
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
        let subscriptions = token.map(|token| token.subscriptions).unwrap_or_default();
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
        subscriptions: BTreeMap<String, SubscribeOptions>,
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
}
