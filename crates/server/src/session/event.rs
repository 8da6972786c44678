//! Events that the backend or the embedding program decides about, and tokens whose keys have to be fetched.
//!
//! The session returns [`Step::Ask`] and continues with other commands. The caller passes the decision to
//! [`Session::handle_decision`], which checks again whatever may have changed in the meantime.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::connect::{Connect, Credentials};
use super::grant::{self, Grant, RequestedOptions};
use super::{Call, Clock, CommandError, Session, State, Step, TokenCheck, Verified, expiry};
use crate::auth::{Overrides, Payload, SubscriptionGrant, TokenError};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::engine::{Content, Publish, Version};
use crate::filter::Filter;
use crate::hooks::{
    BoolValue, ConnectDecision, Hook, HookError, HookReply, PublishDecision, RefreshDecision, ReplyError, RpcDecision,
    SubRefreshDecision, SubscribeDecision,
};
use crate::ids::Subscription;
use crate::protocol::{CustomError, Data, DataResult, ReplyBody};

/// An event that the backend or the embedding program decides about.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client without a token connects.
    Connect(Box<ConnectEvent>),
    /// The connection has expired.
    Refresh,
    Subscribe(Box<SubscribeEvent>),
    /// A subscription has expired.
    SubRefresh(Subscription),
    Publish(ChannelName, Data),
    /// A call of this method.
    Rpc(String, Option<Data>),
    /// A message without a reply.
    Message(Option<Data>),
    /// A token whose key has to be fetched.
    Verify(Box<TokenCheck>),
}

#[derive(Debug)]
pub(crate) struct ConnectEvent {
    pub(super) connect: Connect,
    pub(crate) data: Option<Data>,
    pub(crate) name: String,
    pub(crate) version: String,
}

impl ConnectEvent {
    /// The server-side channels that the client asks for.
    pub(crate) fn channels(&self) -> Vec<&str> {
        self.connect.requested.keys().map(String::as_str).collect()
    }
}

#[derive(Debug)]
pub(crate) struct SubscribeEvent {
    pub(crate) channel: ChannelName,
    pub(crate) data: Option<Data>,
    pub(super) requested: RequestedOptions,
}

/// What the backend or a handler of the embedding program answered.
#[derive(Debug)]
pub(crate) enum Decision {
    Connect(HookReply<ConnectDecision>),
    Refresh(HookReply<RefreshDecision>),
    Subscribe(HookReply<SubscribeDecision>),
    SubRefresh(HookReply<SubRefreshDecision>),
    Publish(HookReply<PublishDecision>),
    Rpc(HookReply<RpcDecision>),
    Verified(Result<Verified, TokenError>),
    /// The result of a handler. That of a message is ignored.
    Handled(Result<Option<Data>, CustomError>),
}

/// How long a connection or subscription stays if its refresh failed, before the backend is asked again. As in
/// Centrifugo.
const RETRY_SECONDS: u64 = 60;

impl Event {
    /// The channel of the event. Later commands for the same channel must wait for the decision.
    pub(crate) fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Subscribe(event) => Some(&event.channel),
            Self::SubRefresh(subscription) => Some(&subscription.channel),
            Self::Publish(channel, _) => Some(channel),
            Self::Verify(check) => check.channel(),
            Self::Connect(_) | Self::Refresh | Self::Rpc(..) | Self::Message(_) => None,
        }
    }

    /// Whether all later commands must wait for the decision.
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Verify(check) => check.is_connect(),
            _ => false,
        }
    }

    /// Whether this is a new subscription.
    pub(crate) fn is_subscribe(&self) -> bool {
        match self {
            Self::Subscribe(_) => true,
            Self::Verify(check) => check.is_subscribe(),
            _ => false,
        }
    }

    /// Whether this is a call or a message: a client may have only a limited number of them in progress.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self, Self::Rpc(..) | Self::Message(_))
    }

    /// The hook of the event; `None` for messages and tokens.
    pub(crate) fn hook(&self) -> Option<Hook> {
        Some(match self {
            Self::Connect(_) => Hook::Connect,
            Self::Refresh => Hook::Refresh,
            Self::Subscribe(_) => Hook::Subscribe,
            Self::SubRefresh(_) => Hook::SubRefresh,
            Self::Publish(..) => Hook::Publish,
            Self::Rpc(..) => Hook::Rpc,
            Self::Message(_) | Self::Verify(_) => return None,
        })
    }
}

impl Session {
    /// Continues an event after the decision about it. A decision that failed is a temporary error (100), or for a
    /// refresh another minute.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client.
    pub(crate) fn handle_decision(
        &mut self,
        event: Event,
        decision: Result<Decision, HookError>,
        clock: Clock,
    ) -> Result<Step, DisconnectCode> {
        if let Some(code) = self.failed {
            return Err(code);
        }
        let step = match (event, decision) {
            (Event::Verify(check), Ok(Decision::Verified(result))) => return self.handle_token(*check, result, clock),
            (Event::Verify(check), _) => return self.handle_token(*check, Err(TokenError::KeysUnavailable), clock),
            (Event::Connect(event), decision) => self.decide_connect(event.connect, decision, clock),
            (Event::Refresh, decision) => self.decide_refresh(decision, clock),
            (Event::SubRefresh(subscription), decision) => self.decide_sub_refresh(&subscription, decision, clock),
            (_, Err(_)) => Err(ErrorCode::Internal.into()),
            (Event::Subscribe(event), Ok(Decision::Subscribe(reply))) => self.decide_subscribe(*event, reply, clock),
            (Event::Publish(channel, data), Ok(Decision::Publish(reply))) => self.decide_publish(channel, data, reply),
            (Event::Rpc(..), Ok(Decision::Rpc(reply))) => rpc_result(reply),
            (Event::Rpc(..), Ok(Decision::Handled(Ok(data)))) => Ok(Step::Reply(ReplyBody::Rpc(DataResult { data }))),
            (Event::Rpc(..), Ok(Decision::Handled(Err(error)))) => Err(CommandError::Custom(error)),
            (Event::Message(_), Ok(_)) => Ok(Step::Nothing),
            _ => Err(ErrorCode::Internal.into()),
        };
        self.finish(step)
    }

    fn decide_connect(
        &mut self,
        connect: Connect,
        decision: Result<Decision, HookError>,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        let credentials = match decision {
            Ok(Decision::Connect(reply)) => decided(reply).and_then(|decision| match decision {
                Some(decision) => Ok(Credentials::try_from(decision)?),
                None if self.config.anonymous || self.config.insecure_clients => Ok(Credentials::default()),
                // As in Centrifugo: a client without credentials may not retry.
                None => Err(CommandError::Disconnect(DisconnectCode::BadRequest)),
            }),
            _ => Err(ErrorCode::Internal.into()),
        };
        // The only way to this code.
        self.lacks_token = matches!(credentials, Err(CommandError::Disconnect(DisconnectCode::BadRequest)));
        match credentials {
            // The data was for the backend, and may be secret: it is never shown to others.
            Ok(credentials) => self.connect(connect.requested, credentials, None, clock),
            Err(error) => Err(self.refuse_connect(error)),
        }
    }

    fn decide_refresh(&mut self, decision: Result<Decision, HookError>, clock: Clock) -> Result<Step, CommandError> {
        let expired = CommandError::Disconnect(DisconnectCode::Expired);
        let retry = RefreshDecision {
            expire_at: (clock.unix + RETRY_SECONDS) as i64,
            ..Default::default()
        };
        let decision = match decision {
            Err(_) => retry,
            Ok(Decision::Refresh(HookReply::Disconnect(close))) => return Err(CommandError::Close(close)),
            // As in Centrifugo, any answer without a result means that the connection has expired.
            Ok(Decision::Refresh(HookReply::Result(Some(decision)))) if !decision.expired => decision,
            Ok(_) => return Err(expired),
        };
        let Some(expire_at) = future(decision.expire_at, clock) else {
            return Err(expired);
        };
        if let Some(meta) = decision.meta {
            self.meta = Some(meta);
        }
        let info = data(decision.info, decision.b64info)?;
        let (_, at) = expiry(Some(expire_at), self.connection_renewal(), clock);
        if let State::Connected { expires_at, .. } = &mut self.state {
            *expires_at = at;
        }
        self.update_expiry();
        Ok(Step::Refreshed(None, self.set_conn_info(info)))
    }

    fn decide_subscribe(
        &mut self,
        event: SubscribeEvent,
        reply: HookReply<SubscribeDecision>,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        let mut decision = decided(reply)?.unwrap_or_default();
        let expire_at = u64::try_from(decision.expire_at).ok().filter(|at| *at > 0);
        if expire_at.is_some_and(|at| at <= clock.unix) {
            return Err(ErrorCode::Expired.into());
        }
        let (expiry, expires_at) = expiry(expire_at, self.subscription_renewal(&event.channel), clock);
        let grant = Grant {
            filter: take_filter(&mut decision)?,
            options: SubscriptionGrant::try_from(decision)?,
            expiry,
            has_token: true,
            is_server_side: false,
        };
        let subscribe = self.grant(event.channel, event.requested, grant, expires_at)?;
        Ok(Step::Subscribe(subscribe.into()))
    }

    fn decide_sub_refresh(
        &mut self,
        subscription: &Subscription,
        decision: Result<Decision, HookError>,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        let is_meant = |known: &super::Subscribed| known.membership.subscription == *subscription;
        let Some(index) = self.subscriptions.iter().position(is_meant) else {
            // The client has unsubscribed in the meantime.
            return Ok(Step::Nothing);
        };
        let retry = SubRefreshDecision {
            expire_at: (clock.unix + RETRY_SECONDS) as i64,
            ..Default::default()
        };
        let decision = match decision {
            Err(_) => Some(retry),
            Ok(Decision::SubRefresh(HookReply::Disconnect(close))) => return Err(CommandError::Close(close)),
            Ok(Decision::SubRefresh(HookReply::Result(decision))) => decision.filter(|decision| !decision.expired),
            Ok(_) => None,
        };
        let decision = decision.and_then(|decision| Some((future(decision.expire_at, clock)?, decision)));
        let Some((expire_at, decision)) = decision else {
            let expired = self.remove(index);
            return match expired.is_server_side {
                true => Err(CommandError::Disconnect(DisconnectCode::SubscriptionExpired)),
                false => Ok(Step::Expire(expired.membership)),
            };
        };
        let info = data(decision.info, decision.b64info)?;
        let (_, at) = expiry(Some(expire_at), self.subscription_renewal(&subscription.channel), clock);
        self.subscriptions[index].expires_at = at;
        self.update_expiry();
        let changed = info.map(|info| self.set_chan_info(index, Some(info)));
        Ok(Step::Refreshed(None, changed.into_iter().collect()))
    }

    fn decide_publish(
        &self,
        channel: ChannelName,
        requested: Data,
        reply: HookReply<PublishDecision>,
    ) -> Result<Step, CommandError> {
        let decision = decided(reply)?.unwrap_or_default();
        // JSON comes before base64 here, as in Centrifugo.
        let replaced = match decision.data {
            Some(json) => data(Some(json), String::new())?,
            None => data(None, decision.b64data)?,
        };
        let data = replaced.unwrap_or(requested);
        if data.len_bytes() > self.config.limits.publication_size_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let content = Content {
            data,
            info: self.info_in(&channel),
            tags: (!decision.tags.is_empty()).then(|| Arc::new(decision.tags)),
        };
        let key = Some(decision.idempotency_key).filter(|key| !key.is_empty());
        let publish = Publish {
            content,
            idempotency_key: key.map(Into::into),
            version: (decision.version > 0).then(|| Version {
                number: decision.version,
                epoch: decision.version_epoch.into(),
            }),
            skips_history: decision.skip_history,
        };
        Ok(Step::Call(Call::Publish(channel, publish)))
    }
}

fn rpc_result(reply: HookReply<RpcDecision>) -> Result<Step, CommandError> {
    let decision = decided(reply)?.unwrap_or_default();
    let data = data(decision.data, decision.b64data)?;
    Ok(Step::Reply(ReplyBody::Rpc(DataResult { data })))
}

/// The result of an answer, if it has one.
fn decided<T>(reply: HookReply<T>) -> Result<Option<T>, CommandError> {
    match reply {
        HookReply::Result(result) => Ok(result),
        HookReply::Error(ReplyError {
            code,
            message,
            temporary,
        }) => Err(CommandError::Custom(CustomError {
            code,
            message,
            temporary,
        })),
        HookReply::Disconnect(close) => Err(CommandError::Close(close)),
    }
}

/// The filter of a subscription.
///
/// # Errors
/// 100 if the filter is not valid. Without it, the client would receive what it must not.
fn take_filter(decision: &mut SubscribeDecision) -> Result<Option<Filter>, ErrorCode> {
    let node = decision.server_tags_filter.take();
    let filter = node.as_ref().map(Filter::new).transpose();
    filter.map_err(|_| ErrorCode::Internal)
}

/// A time in the future, or `None`.
fn future(expire_at: i64, clock: Clock) -> Option<u64> {
    u64::try_from(expire_at).ok().filter(|at| *at > clock.unix)
}

/// Data of the backend. Base64 comes before JSON, as in tokens.
///
/// # Errors
/// 100 if the base64 is not valid: the backend is at fault, and not the client.
fn payload(json: Option<Box<RawValue>>, base64: String) -> Result<Option<Payload>, ErrorCode> {
    match base64.is_empty() {
        true => Ok(json.map(Payload::Json)),
        false => match BASE64_STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(Payload::Bytes(bytes))),
            Err(_) => Err(ErrorCode::Internal),
        },
    }
}

fn data(json: Option<Box<RawValue>>, base64: String) -> Result<Option<Data>, ErrorCode> {
    let payload = payload(json, base64)?;
    let data = payload.as_ref().map(grant::payload).transpose();
    data.map_err(|_| ErrorCode::Internal)
}

impl TryFrom<ConnectDecision> for Credentials {
    type Error = ErrorCode;

    fn try_from(decision: ConnectDecision) -> Result<Self, ErrorCode> {
        let channels = decision.channels.into_iter();
        let mut subscriptions: BTreeMap<_, _> = channels
            .map(|channel| (channel, SubscriptionGrant::default()))
            .collect();
        let mut filters = BTreeMap::new();
        for (channel, mut options) in decision.subs {
            if let Some(filter) = take_filter(&mut options)? {
                filters.insert(channel.clone(), filter);
            }
            subscriptions.insert(channel, options.try_into()?);
        }
        Ok(Self {
            user: decision.user,
            info: data(decision.info, decision.b64info)?,
            expire_at: u64::try_from(decision.expire_at).ok().filter(|at| *at > 0),
            subscriptions,
            filters,
            meta: decision.meta,
            data: data(decision.data, decision.b64data)?,
        })
    }
}

impl TryFrom<SubscribeDecision> for SubscriptionGrant {
    type Error = ErrorCode;

    fn try_from(decision: SubscribeDecision) -> Result<Self, ErrorCode> {
        let overrides = decision.overrides.unwrap_or_default();
        let value = |value: Option<BoolValue>| value.map(|value| value.value);
        Ok(Self {
            info: payload(decision.info, decision.b64info)?,
            data: payload(decision.data, decision.b64data)?,
            overrides: Overrides {
                presence: value(overrides.presence),
                join_leave: value(overrides.join_leave),
                force_push_join_leave: value(overrides.force_push_join_leave),
                force_positioning: value(overrides.force_positioning),
                force_recovery: value(overrides.force_recovery),
            },
        })
    }
}
