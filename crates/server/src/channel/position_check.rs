//! The check whether a channel has received all publications.
//!
//! The hub notices a missing publication when the next one arrives. If none arrives, or the history was evicted, only a
//! comparison with the engine shows it. Each step examines a part of the channels, so that the work per second is
//! limited, and all of them in turn. The engine is asked for many positions at once.
//!
//! A publication that the engine has numbered may still be on its way. So a channel that is behind is examined again
//! after [`GRACE`], and its subscribers must recover only if it is still behind.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ChannelName;
use super::hub::{Hub, SHARDS};
use crate::engine::{ChannelPositions, Engine, POSITIONS_PER_CALL, Position};

/// Maximum number of channels in a step. With more, a round takes longer.
const CHANNELS_PER_STEP_MAX: usize = 4_096;

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
        let due = self.suspects.partition_point(|(_, _, due)| *due <= now);
        let due = self.suspects.drain(..due.min(CHANNELS_PER_STEP_MAX));
        let due: Vec<_> = due.map(|(name, seen, _)| (name, seen)).collect();
        let mut behind = 0;
        for (name, seen, top) in with_tops(engine, due).await {
            let is_behind = seen.is_behind(&top) && hub.position(&name).as_ref() == Some(&seen);
            behind += usize::from(is_behind && (engine.repair(&name) || hub.catch_up(&name, &seen, &top)));
        }
        if self.waiting.is_empty() {
            self.waiting = hub.shard_positions(self.shard);
            self.shard = (self.shard + 1) % SHARDS;
        }
        let left = self.waiting.len().saturating_sub(CHANNELS_PER_STEP_MAX);
        let next = self.waiting.split_off(left);
        for (name, seen, top) in with_tops(engine, next).await {
            if seen.is_behind(&top) {
                self.suspects.push_back((name, seen, now + GRACE));
            }
        }
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
        behind
    }
}

/// Adds the newest positions of channels. Leaves out those without an answer, which are examined again in the next
/// round, and those without a history.
async fn with_tops(engine: &Engine, channels: Vec<(ChannelName, Position)>) -> Vec<(ChannelName, Position, Position)> {
    let mut all = Vec::new();
    for part in channels.chunks(POSITIONS_PER_CALL) {
        let names: Vec<_> = part.iter().map(|(name, _)| name.clone()).collect();
        // The others would have no answer either, or only after as much time.
        let Ok(tops) = engine.positions(&names).await else {
            break;
        };
        let known = part.iter().zip(tops);
        all.extend(known.filter_map(|((name, seen), top)| Some((name.clone(), seen.clone(), top?))));
        tokio::task::coop::consume_budget().await;
    }
    all
}
