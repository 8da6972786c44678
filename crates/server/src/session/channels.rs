//! Commands that publish into a channel or read from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Call, CommandError, Event, ReadHistory, Session, Step};
use crate::channel::ChannelName;
use crate::codes::ErrorCode;
use crate::config::Access;
use crate::engine::{Content, Epoch, Position};
use crate::hooks::Hook;
use crate::presence::ClientInfo;
use crate::protocol::{HistoryRequest, PublishRequest};
use crate::rate_limiter::{Rate, RateLimiter};

/// Publications into one channel are limited on average over this time.
const PUBLICATIONS_BURST: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn publish(&mut self, request: PublishRequest<'_>, now: Instant) -> Result<Step, CommandError> {
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
        let size_max = namespace.publication_size_max.unwrap_or(usize::MAX);
        let size_max = config.limits.publication_size_max.min(size_max);
        if data.len_bytes() > size_max {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let who = match namespace.publish_hook {
            true => Access::Anyone,
            false => namespace.allow_publish,
        };
        if !self.access_context(&channel).may_use(&channel, who) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if let Some(per_second_max) = namespace.publication_rate_max
            && !self.may_publish_now(&channel, per_second_max, now)
        {
            return Err(ErrorCode::TooManyRequests.into());
        }
        if namespace.publish_hook {
            return match config.hooks.has(Hook::Publish) {
                true => Ok(Step::Ask(Event::Publish(channel, data))),
                false => Err(ErrorCode::NotAvailable.into()),
            };
        }
        let content = Content {
            data,
            info: self.info_in(&channel),
            tags: None,
        };
        Ok(Step::Call(Call::Publish(channel, content.into())))
    }

    /// The information about the client, with that for this channel if there is any.
    pub(super) fn info_in(&self, channel: &ChannelName) -> Option<Arc<ClientInfo>> {
        let subscribed = self.subscribed(channel).map(|known| &known.membership.info);
        subscribed.or(self.info()).cloned()
    }

    fn may_publish_now(&mut self, channel: &ChannelName, per_second_max: u32, now: Instant) -> bool {
        let index = self.publications.iter().position(|(known, _)| known == channel);
        let index = index.unwrap_or_else(|| {
            self.publications.retain(|(_, rate)| !rate.is_idle(now));
            self.publications.push((channel.clone(), RateLimiter::default()));
            self.publications.len() - 1
        });
        let rate = Rate::per_second(per_second_max, PUBLICATIONS_BURST);
        self.publications[index].1.admit(now, rate).is_ok()
    }

    /// Checks that the client may read the presence of a channel.
    pub(super) fn presence(&self, channel: &str) -> Result<ChannelName, CommandError> {
        let (channel, namespace) = self.known_channel(channel)?;
        if !namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !self
            .access_context(&channel)
            .may_use(&channel, namespace.allow_presence)
        {
            return Err(ErrorCode::PermissionDenied.into());
        }
        Ok(channel)
    }

    pub(super) fn history(&self, request: &HistoryRequest<'_>) -> Result<Step, CommandError> {
        let (channel, namespace) = self.known_channel(&request.channel)?;
        if !namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !self.access_context(&channel).may_use(&channel, namespace.allow_history) {
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
}
