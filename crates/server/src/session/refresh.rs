//! Expiry and refresh of connections and subscriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::token::{TokenKind, UnverifiedCommand, verify};
use super::{Clock, CommandError, Event, Session, State, Step, Subscribed, grant};
use crate::auth::{ConnectionClaims, SubscriptionClaims};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::hooks::Hook;
use crate::presence::{ClientInfo, Membership};
use crate::protocol::{Data, ExpiryResult, ReplyBody, SubRefreshRequest};
use crate::queue::ServerRefresh;

/// SDKs request a new token exactly when the old one expires, so they need some time to present it.
const EXPIRY_GRACE: Duration = Duration::from_secs(25);

/// Longest time to live that is sent to clients: SDKs schedule the refresh with a 32-bit number of milliseconds.
const TTL_SECONDS_MAX: u64 = 24 * 24 * 60 * 60;

/// Who provides for a later expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The client, which presents a new token.
    Client,
    /// The backend, which the server asks at the expiry. The client is not told about it.
    Backend,
}

/// What has expired.
#[derive(Debug)]
pub(crate) enum Expired {
    /// This subscription, which the session has removed.
    Subscription(Subscribed),
    /// The backend decides.
    Ask(Event),
}

impl Session {
    /// Changes when the connection expires, and the information about the client, for the server API. Returns what to
    /// tell the client, and the memberships whose information changed. `None` if the client is not connected.
    pub(crate) fn refresh_by_server(
        &mut self,
        command: ServerRefresh,
        clock: Clock,
    ) -> Option<(ExpiryResult, Vec<Membership>)> {
        let renewal = self.connection_renewal();
        let State::Connected { expires_at, .. } = &mut self.state else {
            return None;
        };
        let (expiry, at) = expiry(command.expire_at.and_then(|at| at.try_into().ok()), renewal, clock);
        *expires_at = at;
        self.update_expiry();
        Some((expiry, self.set_conn_info(command.info)))
    }

    /// Returns what has expired; to be called until it returns `None`.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if the server started a subscription that has expired.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Result<Option<Expired>, DisconnectCode> {
        if self.expires_at.is_none_or(|expires_at| now < expires_at) {
            return Ok(None);
        }
        if let State::Connected { expires_at, .. } = &mut self.state
            && self.config.hooks.has(Hook::Refresh)
            && expires_at.is_some_and(|at| now >= at)
        {
            // Until the decision.
            *expires_at = None;
            self.update_expiry();
            return Ok(Some(Expired::Ask(Event::Refresh)));
        }
        let is_expired = |known: &Subscribed| known.expires_at.is_some_and(|expires_at| now >= expires_at);
        let Some(index) = self.subscriptions.iter().position(is_expired) else {
            return Ok(None);
        };
        if self.subscription_renewal(self.subscriptions[index].channel()) == Renewal::Backend {
            let expired = &mut self.subscriptions[index];
            expired.expires_at = None;
            let subscription = expired.membership.subscription.clone();
            self.update_expiry();
            return Ok(Some(Expired::Ask(Event::SubRefresh(subscription))));
        }
        let expired = self.remove(index);
        match expired.is_server_side {
            true => Err(self.fail(DisconnectCode::SubscriptionExpired)),
            false => Ok(Some(Expired::Subscription(expired))),
        }
    }

    pub(super) fn connection_renewal(&self) -> Renewal {
        match self.config.hooks.has(Hook::Refresh) {
            true => Renewal::Backend,
            false => Renewal::Client,
        }
    }

    pub(super) fn subscription_renewal(&self, channel: &ChannelName) -> Renewal {
        let namespace = self.config.namespace(channel.as_str());
        match namespace.is_some_and(|options| options.sub_refresh_hook) && self.config.hooks.has(Hook::SubRefresh) {
            true => Renewal::Backend,
            false => Renewal::Client,
        }
    }

    /// Replaces the information about the client, if there is a new one, also in its subscriptions. Returns the changed
    /// memberships.
    pub(super) fn set_conn_info(&mut self, new: Option<Data>) -> Vec<Membership> {
        let (Some(new), State::Connected { info, .. }) = (new, &mut self.state) else {
            return Vec::new();
        };
        let change = |info: &mut Arc<ClientInfo>| {
            *info = Arc::new(ClientInfo {
                conn_info: Some(new.clone()),
                ..(**info).clone()
            });
        };
        change(info);
        let subscriptions = self.subscriptions.iter_mut();
        subscriptions
            .map(|known| {
                change(&mut known.membership.info);
                known.membership.clone()
            })
            .collect()
    }

    /// Replaces the information about the client in one of its channels. Returns the changed membership.
    pub(super) fn set_chan_info(&mut self, index: usize, new: Option<Data>) -> Membership {
        let membership = &mut self.subscriptions[index].membership;
        membership.info = Arc::new(ClientInfo {
            chan_info: new,
            ..(*membership.info).clone()
        });
        membership.clone()
    }

    pub(super) fn start_refresh(&self, token: &str) -> Result<Step, CommandError> {
        match token {
            // As in Centrifugo: the client must not send this if the server refreshes the connection.
            _ if self.connection_renewal() == Renewal::Backend => {
                Err(CommandError::Disconnect(DisconnectCode::BadRequest))
            }
            "" => Err(ErrorCode::BadRequest.into()),
            token => Ok(verify(token, TokenKind::Connection, UnverifiedCommand::Refresh)),
        }
    }

    pub(super) fn refresh(&mut self, token: ConnectionClaims, clock: Clock) -> Result<Step, CommandError> {
        let State::Connected { info, expires_at, .. } = &mut self.state else {
            return Err(ErrorCode::Internal.into());
        };
        if *token.user != *info.user {
            return Err(CommandError::Disconnect(DisconnectCode::InvalidToken));
        }
        if token.expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(CommandError::Disconnect(DisconnectCode::Expired));
        }
        let new_info = token.info.as_ref().map(grant::payload).transpose()?;
        let (expiry, at) = expiry(token.expire_at, Renewal::Client, clock);
        *expires_at = at;
        self.update_expiry();
        if token.meta.is_some() {
            self.meta = token.meta;
        }
        let changed = self.set_conn_info(new_info);
        Ok(Step::Refreshed(Some(ReplyBody::Refresh(expiry)), changed))
    }

    pub(super) fn start_refresh_of_subscription(
        &mut self,
        request: &SubRefreshRequest<'_>,
    ) -> Result<Step, CommandError> {
        let channel = self.channel(&request.channel)?;
        if self.subscribed(&channel).is_none() {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if self.subscription_renewal(&channel) == Renewal::Backend {
            return Err(CommandError::Disconnect(DisconnectCode::BadRequest));
        }
        if request.token.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        let command = UnverifiedCommand::SubRefresh(channel);
        Ok(verify(&request.token, TokenKind::Subscription, command))
    }

    pub(super) fn refresh_subscription(
        &mut self,
        channel: &ChannelName,
        token: SubscriptionClaims,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        self.check_owner(channel, &token)?;
        let info = token.options.info.as_ref().map(grant::payload).transpose()?;
        let (expiry, expires_at) = expiry(token.expire_at, Renewal::Client, clock);
        let index = self.subscriptions.iter().position(|known| known.channel() == channel);
        let index = index.ok_or(ErrorCode::PermissionDenied)?;
        self.subscriptions[index].expires_at = expires_at;
        self.update_expiry();
        // As in Centrifugo, a token without information removes that of the previous one.
        let is_changed = self.subscriptions[index].membership.info.chan_info != info;
        let changed = is_changed.then(|| self.set_chan_info(index, info));
        let changed = changed.into_iter().collect();
        Ok(Step::Refreshed(Some(ReplyBody::SubRefresh(expiry)), changed))
    }

    pub(super) fn update_expiry(&mut self) {
        let of_connection = match self.state {
            State::Connected { expires_at, .. } => expires_at,
            State::Opening { .. } | State::Refused { .. } => None,
        };
        let of_subscriptions = self.subscriptions.iter().filter_map(|known| known.expires_at);
        self.expires_at = of_subscriptions.chain(of_connection).min();
    }
}

/// What to tell a client about its expiry, and when the grace ends. There is no grace if the backend is asked.
pub(super) fn expiry(expire_at: Option<u64>, renewal: Renewal, clock: Clock) -> (ExpiryResult, Option<Instant>) {
    let Some(expire_at) = expire_at else {
        return (ExpiryResult::default(), None);
    };
    let ttl = expire_at.saturating_sub(clock.unix).min(TTL_SECONDS_MAX);
    if renewal == Renewal::Backend {
        return (ExpiryResult::default(), Some(clock.now + Duration::from_secs(ttl)));
    }
    let expiry = ExpiryResult {
        expires: true,
        ttl: ttl as u32,
    };
    (expiry, Some(clock.now + Duration::from_secs(ttl) + EXPIRY_GRACE))
}
