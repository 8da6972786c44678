//! Expiry and refresh of connections and subscriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::VERSION;
use super::token::{Pending, TokenKind, verify};
use super::{Clock, CommandError, Session, State, Step, Subscribed};
use crate::auth::{ConnectToken, SubscribeToken};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::presence::ClientInfo;
use crate::protocol::{ExpiryResult, RefreshResult, ReplyBody, SubRefreshRequest};
use crate::queue::ServerRefresh;

/// SDKs request a new token exactly when the old one expires, so they need some time to present it.
const EXPIRY_GRACE: Duration = Duration::from_secs(25);

/// Longest time to live that is sent to clients: SDKs schedule the refresh with a 32-bit number of milliseconds.
const TTL_SECONDS_MAX: u64 = 24 * 24 * 60 * 60;

impl Session {
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

    pub(super) fn refresh(&mut self, token: &ConnectToken, clock: Clock) -> Result<Step, CommandError> {
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
        Ok(Step::Reply(ReplyBody::Refresh(RefreshResult {
            client: self.client.to_string(),
            version: VERSION,
            expiry,
        })))
    }

    pub(super) fn start_refresh_of_subscription(
        &mut self,
        request: &SubRefreshRequest<'_>,
    ) -> Result<Step, CommandError> {
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

    pub(super) fn refresh_subscription(
        &mut self,
        channel: &ChannelName,
        token: &SubscribeToken,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        self.check_owner(channel, token)?;
        let (expiry, expires_at) = expiry(token.expire_at, clock);
        let known = self.subscriptions.iter_mut().find(|known| known.channel() == channel);
        known.ok_or(ErrorCode::PermissionDenied)?.expires_at = expires_at;
        self.update_expiry();
        Ok(Step::Reply(ReplyBody::SubRefresh(expiry)))
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

/// What to tell a client about its expiry, and when the grace ends.
pub(super) fn expiry(expire_at: Option<u64>, clock: Clock) -> (ExpiryResult, Option<Instant>) {
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
