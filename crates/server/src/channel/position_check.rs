//! The check whether a channel has received all publications.
//!
//! The hub notices a missing publication when the next one arrives. If none arrives, or the history was evicted, only a
//! comparison with the engine shows it. Each step examines a part of the channels, so that the work per second is limited, and
//! all of them in turn.
//!
//! A publication that the engine has numbered may still be on its way. So a channel that is behind is examined again after
//! [`GRACE`], and only then its subscribers are told to recover.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ChannelName;
use super::hub::{Hub, SHARDS};
use crate::engine::{ChannelPositions, Engine, Position};

/// Maximum number of channels in a step. With more, a round takes longer.
const CHANNELS_PER_STEP_MAX: usize = 1_000;

/// Time for a numbered publication to arrive.
const GRACE: Duration = Duration::from_secs(5);

/// Number of steps in a round, if there are not too many channels.
pub(crate) const STEPS: u32 = SHARDS as u32;

#[derive(Debug, Default)]
pub(crate) struct PositionCheck {
    /// The part of the hub that is examined next.
    shard: usize,
    /// Channels of the current part that are not examined yet.
    waiting: Vec<(ChannelName, Position)>,
    /// Channels that were behind, where they were, and when they are examined again.
    suspects: VecDeque<(ChannelName, Position, Instant)>,
}

impl PositionCheck {
    /// Examines the next channels. Returns the number of those whose subscribers must recover.
    pub(crate) async fn step(&mut self, hub: &Hub, engine: &Engine, now: Instant) -> usize {
        let mut behind = 0;
        while self.suspects.front().is_some_and(|(_, _, due)| *due <= now)
            && let Some((name, seen, _)) = self.suspects.pop_front()
        {
            if let Ok(top) = engine.position(&name).await {
                let is_behind = seen.is_behind(&top) && hub.position(&name).as_ref() == Some(&seen);
                behind += usize::from(is_behind && (engine.repair(&name) || hub.catch_up(&name, &seen, &top)));
            }
        }
        if self.waiting.is_empty() {
            self.waiting = hub.shard_positions(self.shard);
            self.shard = (self.shard + 1) % SHARDS;
        }
        let left = self.waiting.len().saturating_sub(CHANNELS_PER_STEP_MAX);
        for (name, position) in self.waiting.split_off(left) {
            // Without an answer, or without history by now: examined again in the next round.
            let Ok(top) = engine.position(&name).await else {
                continue;
            };
            if position.is_behind(&top) {
                self.suspects.push_back((name, position, now + GRACE));
            }
            tokio::task::coop::consume_budget().await;
        }
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
        behind
    }
}
