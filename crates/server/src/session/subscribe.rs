//! Subscriptions of a client: granted by the namespace, a token or the server API, and ended.

use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, SubscribeEvent};
use super::grant::{self, AccessContext, Grant, RequestedOptions};
use super::token::{TokenKind, UnverifiedCommand, verify};
use super::{Call, Clock, CommandError, Session, Step, Subscribe, Subscribed, expiry};
use crate::auth::{Subscriber, SubscriptionClaims, SubscriptionGrant};
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::config::NamespaceOptions;
use crate::hooks::Hook;
use crate::ids::Subscription;
use crate::protocol::{Empty, ReplyBody, SubscribeRequest};
use crate::queue::ServerSubscribe;

impl Session {
    /// Subscribes the client for the server API. `None` if it is already subscribed or not connected, or the channel
    /// does not exist.
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
        let options = SubscriptionGrant {
            overrides: command.overrides,
            ..Default::default()
        };
        let renewal = self.subscription_renewal(&command.channel);
        let (expiry, expires_at) = expiry(command.expire_at.and_then(|at| at.try_into().ok()), renewal, clock);
        let grant = Grant {
            options,
            expiry,
            has_token: true,
            is_server_side: true,
            filter: None,
        };
        let requested = RequestedOptions::recovering(command.recover_since);
        match self.grant(command.channel, requested, grant, expires_at) {
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

    /// The subscriptions that the configuration does not allow any more, each with the code for the client. The caller
    /// ends them in the hub.
    pub(crate) fn revoked(&self) -> Vec<(ChannelName, UnsubscribeCode)> {
        let revoked = self.subscriptions.iter().filter_map(|known| {
            let channel = known.channel();
            let code = match self.config.namespace(channel.as_str()) {
                // Subscribing again would fail with 102.
                None => UnsubscribeCode::Server,
                Some(_) if known.is_server_side => return None,
                // The client may come back with a token.
                Some(options) if !self.is_still_allowed(known, options) => UnsubscribeCode::StateInvalidated,
                Some(_) => return None,
            };
            Some((channel.clone(), code))
        });
        revoked.collect()
    }

    /// The channels that the client is subscribed to.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.subscriptions.iter().map(Subscribed::channel)
    }

    fn is_still_allowed(&self, known: &Subscribed, options: &NamespaceOptions) -> bool {
        let channel = known.channel();
        let access_context = AccessContext {
            is_subscribed: false,
            has_token: false,
            ..self.access_context(channel)
        };
        // What the backend has allowed stays allowed.
        let asks = options.subscribe_hook && access_context.may_ask(channel);
        asks || match known.has_token {
            true => access_context.may_use_token(channel, options),
            false => access_context.may_subscribe(channel, options),
        }
    }

    /// Removes a subscription that was ended by the server or failed. `None` if it no longer existed: the client may
    /// have unsubscribed in the meantime, and may have subscribed to the channel again.
    pub(crate) fn handle_unsubscribed(&mut self, subscription: &Subscription) -> Option<Subscribed> {
        let is_meant = |known: &Subscribed| known.membership.subscription == *subscription;
        let index = self.subscriptions.iter().position(is_meant)?;
        Some(self.remove(index))
    }

    pub(super) fn subscribe(&mut self, request: &SubscribeRequest<'_>) -> Result<Step, CommandError> {
        let requested = RequestedOptions::new(request)?;
        let (channel, namespace) = self.known_channel(&request.channel)?;
        let access_context = self.access_context(&channel);
        let is_allowed = access_context.may_subscribe(&channel, namespace);
        let asks = namespace.subscribe_hook && access_context.may_ask(&channel);
        self.check_new(&channel)?;
        if !request.token.is_empty() && !access_context.may_use_token(&channel, namespace) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if !request.token.is_empty() {
            let command = UnverifiedCommand::Subscribe(channel, requested.into());
            return Ok(verify(&request.token, TokenKind::Subscription, command));
        }
        if asks {
            if !self.config.hooks.has(Hook::Subscribe) {
                return Err(ErrorCode::NotAvailable.into());
            }
            let data = request.data.clone().transpose().map_err(|_| ErrorCode::BadRequest)?;
            let event = SubscribeEvent {
                channel,
                data,
                requested,
            };
            return Ok(Step::Ask(Event::Subscribe(event.into())));
        }
        if !is_allowed {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let subscribe = self.grant(channel, requested, Grant::default(), None)?;
        Ok(Step::Subscribe(subscribe.into()))
    }

    pub(super) fn subscribe_with_token(
        &mut self,
        channel: ChannelName,
        requested: RequestedOptions,
        token: SubscriptionClaims,
        clock: Clock,
    ) -> Result<Step, CommandError> {
        self.check_owner(&channel, &token)?;
        if token.expire_at.is_some_and(|expire_at| expire_at <= clock.unix) {
            return Err(ErrorCode::Expired.into());
        }
        let (expiry, expires_at) = expiry(token.expire_at, self.subscription_renewal(&channel), clock);
        let grant = Grant {
            options: token.options,
            expiry,
            has_token: true,
            is_server_side: false,
            filter: None,
        };
        let subscribe = self.grant(channel, requested, grant, expires_at)?;
        Ok(Step::Subscribe(subscribe.into()))
    }

    pub(super) fn check_owner(&self, channel: &ChannelName, token: &SubscriptionClaims) -> Result<(), ErrorCode> {
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

    pub(super) fn check_new(&self, channel: &ChannelName) -> Result<(), ErrorCode> {
        if self.subscribed(channel).is_some() {
            return Err(ErrorCode::AlreadySubscribed);
        }
        if self.subscriptions.len() >= self.config.limits.channels_per_client_max {
            return Err(ErrorCode::LimitExceeded);
        }
        Ok(())
    }

    /// Adds a subscription that is allowed.
    pub(super) fn grant(
        &mut self,
        channel: ChannelName,
        requested: RequestedOptions,
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
        let subscribe = grant::subscription(subscription, info, namespace, requested, grant)?;
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

    pub(super) fn remove(&mut self, index: usize) -> Subscribed {
        let removed = self.subscriptions.swap_remove(index);
        self.update_expiry();
        removed
    }

    pub(super) fn unsubscribe(&mut self, channel: &str) -> Result<Step, CommandError> {
        let channel = self.channel(channel)?;
        let Some(index) = self.subscriptions.iter().position(|known| *known.channel() == channel) else {
            // Not subscribed: succeed, as unsubscribing is idempotent.
            return Ok(Step::Reply(ReplyBody::Unsubscribe(Empty {})));
        };
        let membership = self.remove(index).membership;
        Ok(Step::Call(Call::Unsubscribe(membership)))
    }
}
