//! Permissions and the options of subscriptions, as pure functions of the configuration, the token and the request.

use std::sync::Arc;

use super::Subscribe;
use crate::auth;
use crate::channel::{ChannelName, SubscriberOptions};
use crate::codes::ErrorCode;
use crate::config::{Access, NamespaceOptions, SlowConsumerPolicy};
use crate::engine::{Epoch, Position};
use crate::filter::Filter;
use crate::ids::Subscription;
use crate::presence::{ClientInfo, Membership};
use crate::protocol::{Data, ExpiryResult, SubscribeRequest};

/// What a client asks for with a subscription.
#[derive(Debug, Default)]
pub(crate) struct RequestedOptions {
    positioned: bool,
    recoverable: bool,
    recover_from: Option<Position>,
    join_leave: bool,
    delta: bool,
    filter: Option<Arc<Filter>>,
    rejects_unrecovered: bool,
    channel_id: bool,
}

impl RequestedOptions {
    /// # Errors
    /// 108 for kinds of subscriptions that are not supported, 107 for an invalid filter, an unknown delta format, and a
    /// combination that is not allowed. A plain stream instead would deliver publications that the client does not
    /// want.
    pub(super) fn new(request: &SubscribeRequest<'_>) -> Result<Self, ErrorCode> {
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable);
        }
        let filter = match &request.filter {
            None => None,
            Some(node) => Some(Arc::new(Filter::new(node).map_err(|_| ErrorCode::BadRequest)?)),
        };
        let delta = match &*request.delta {
            "" => false,
            "fossil" => true,
            _ => return Err(ErrorCode::BadRequest),
        };
        // A filtered subscriber does not have the publication that a delta is made from.
        if request.is_paged() || delta && filter.is_some() {
            return Err(ErrorCode::BadRequest);
        }
        Ok(Self {
            positioned: request.positioned,
            recoverable: request.recoverable || request.recover,
            recover_from: request.recover.then(|| Position {
                epoch: Epoch::new(&*request.epoch),
                offset: request.offset,
            }),
            join_leave: request.join_leave,
            delta,
            filter,
            rejects_unrecovered: request.rejects_unrecovered(),
            channel_id: request.accepts_channel_id(),
        })
    }

    /// The options of a client that the server subscribes.
    pub(super) fn recovering(from: Option<Position>) -> Self {
        Self {
            recover_from: from,
            ..Self::default()
        }
    }
}

/// What is known about a client for a decision about a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccessContext<'a> {
    /// Empty if anonymous.
    pub(super) user: &'a str,
    /// Whether the client is subscribed to the channel.
    pub(super) is_subscribed: bool,
    /// Whether a token, the backend or the server API granted the subscription.
    pub(super) has_token: bool,
    /// Whether permissions are not checked at all.
    pub(super) is_insecure: bool,
}

impl AccessContext<'_> {
    fn satisfies(self, access: Access) -> bool {
        match access {
            _ if self.is_insecure => true,
            Access::Nobody => false,
            Access::Anyone => true,
            Access::Authenticated => !self.user.is_empty(),
            Access::Subscriber => self.is_subscribed,
            Access::Token => self.has_token,
        }
    }

    /// Whether the client may subscribe with a token that is valid.
    pub(super) fn may_use_token(self, channel: &ChannelName, options: &NamespaceOptions) -> bool {
        // A hook decides instead of `allow_subscribe`.
        let is_open = options.allow_subscribe != Access::Nobody || options.subscribe_hook;
        is_open && channel.allows_user(self.user) != Some(false) || self.is_insecure
    }

    /// Whether the client may subscribe without a token.
    pub(super) fn may_subscribe(self, channel: &ChannelName, options: &NamespaceOptions) -> bool {
        if channel.is_private() || !self.may_use_token(channel, options) {
            return false;
        }
        match channel.allows_user(self.user) {
            Some(is_allowed) => is_allowed || self.is_insecure,
            None => self.satisfies(options.allow_subscribe),
        }
    }

    /// Whether the backend may decide about a subscription without a token. Private channels need a token, and
    /// user-limited ones a user.
    pub(super) fn may_ask(self, channel: &ChannelName) -> bool {
        !channel.is_private() && channel.allows_user(self.user).is_none()
    }

    /// Whether the client may publish into a channel or read from it, if the namespace allows it to `access`.
    pub(super) fn may_use(self, channel: &ChannelName, access: Access) -> bool {
        let is_reachable = !channel.is_private() && channel.allows_user(self.user) != Some(false);
        (is_reachable || self.is_subscribed || self.is_insecure && !channel.is_private()) && self.satisfies(access)
    }
}

/// What a token or the backend says about a subscription.
#[derive(Debug, Default)]
pub(super) struct Grant {
    /// Excludes publications, beside the filter of the client.
    pub(super) filter: Option<Filter>,
    pub(super) options: auth::SubscriptionGrant,
    pub(super) expiry: ExpiryResult,
    pub(super) has_token: bool,
    pub(super) is_server_side: bool,
}

/// Decides the options of a subscription.
///
/// # Errors
/// 107 if the client asks for a delta or filter that the channel does not offer.
pub(super) fn subscription(
    subscription: Subscription,
    info: &Arc<ClientInfo>,
    namespace: &NamespaceOptions,
    requested: RequestedOptions,
    grant: Grant,
) -> Result<Subscribe, ErrorCode> {
    let overrides = &grant.options.overrides;
    let choose = |overridden: Option<bool>, option: bool| overridden.unwrap_or(option);
    let has_history = namespace.has_history();
    let force_recovery = choose(overrides.force_recovery, namespace.force_recovery);
    let force_positioning = choose(overrides.force_positioning, namespace.force_positioning);
    let is_recoverable = has_history && (force_recovery || requested.recoverable && namespace.recovery);
    let positioned =
        is_recoverable || has_history && (force_positioning || requested.positioned && namespace.positioning);
    let join_leave = choose(overrides.join_leave, namespace.join_leave);
    let push_join_leave = choose(overrides.force_push_join_leave, namespace.force_push_join_leave);
    // A subscriber that does not receive every publication does not have the one that a delta is made from.
    let receives_all = namespace.slow_consumer == SlowConsumerPolicy::Disconnect && grant.filter.is_none();
    let delta = requested.delta && namespace.delta && positioned && receives_all;
    let filter = match (requested.filter, grant.filter) {
        (Some(wanted), Some(allowed)) => Some(Arc::new(wanted.and(&allowed))),
        (wanted, allowed) => wanted.or(allowed.map(Arc::new)),
    };
    let chan_info = grant.options.info.as_ref().map(payload).transpose()?;
    let data = grant.options.data.as_ref().map(payload).transpose()?;
    let info = match chan_info {
        None => info.clone(),
        Some(chan_info) => Arc::new(ClientInfo {
            chan_info: Some(chan_info),
            ..(**info).clone()
        }),
    };
    Ok(Subscribe {
        membership: Membership {
            subscription,
            info,
            presence: choose(overrides.presence, namespace.presence),
            join_leave,
        },
        options: SubscriberOptions {
            join_leave: join_leave && (requested.join_leave || push_join_leave),
            positioned,
            delta,
            filter,
            slow_consumer: match &namespace.slow_consumer {
                SlowConsumerPolicy::Disconnect => None,
                policy => Some(Arc::new(policy.clone())),
            },
            is_hidden: false,
            // SDKs find the channels that the server chose only by their names.
            by_id: requested.channel_id && namespace.channel_ids && !grant.is_server_side,
        },
        is_recoverable,
        is_cache: namespace.cache,
        recover_from: requested.recover_from.filter(|_| is_recoverable),
        rejects_unrecovered: requested.rejects_unrecovered,
        expiry: grant.expiry,
        data,
        is_server_side: grant.is_server_side,
    })
}

/// Converts data of a token.
///
/// # Errors
/// 107 if it is JSON that is nested too deep.
pub(super) fn payload(payload: &auth::Payload) -> Result<Data, ErrorCode> {
    match payload {
        auth::Payload::Json(json) => Data::json(json.get()).map_err(|_| ErrorCode::BadRequest),
        auth::Payload::Bytes(bytes) => Ok(Data::from(bytes.clone())),
    }
}
