//! The game: players join the arena, send inputs, and receive its state 30 times per second.
//!
//! Everything happens on one channel. The server publishes snapshots to it, and takes what clients publish there.

mod arena;
mod wire;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::{Audience, Idle, unstored};
use crate::channel::ChannelName;
use crate::config::namespace_of;
use crate::engine::{Content, Deliver as _};
use crate::node::Node;
use crate::presence::ClientInfo;
use arena::{Arena, TICK};
use wire::Message;

/// Ticks between two checks whether the clients of the players are still connected.
const PLAYERS_CHECK_TICKS: u64 = 10;

const CHANNEL: &str = "game:arena";

/// Whether a channel belongs to the game.
pub(super) fn owns(channel: &str) -> bool {
    namespace_of(channel) == namespace_of(CHANNEL)
}

#[derive(Debug, Default)]
pub(super) struct Game {
    audience: Audience,
    /// `None` while nobody watches.
    arena: Mutex<Option<Arena>>,
}

impl Game {
    pub(super) fn wake(&self) {
        self.audience.wake();
    }

    /// Handles a message of a player. Ignored while nobody is subscribed.
    pub(super) fn consume(&self, info: &ClientInfo, data: &[u8]) {
        let (Some(message), Some(arena)) = (wire::decode(data), &mut *self.arena.lock()) else {
            return;
        };
        match message {
            Message::Join(name) => arena.join(info.client, &name),
            Message::Leave => arena.leave(info.client),
            Message::Input(input) => arena.push_input(info.client, input),
        }
    }

    /// Simulates and publishes while there are subscribers. Never returns.
    pub(super) async fn run(&self, node: &Node) {
        loop {
            self.audience.arrives().await;
            self.run_arena(node).await;
        }
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.arena.lock().is_none()
    }

    async fn run_arena(&self, node: &Node) {
        let channel = ChannelName::new(CHANNEL).expect("the name is valid");
        *self.arena.lock() = Some(Arena::new(rand::random()));
        let mut interval = tokio::time::interval(TICK);
        // Late ticks are caught up with: players send an input for each.
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut idle = Idle::new();
        loop {
            interval.tick().await;
            let data = match &mut *self.arena.lock() {
                Some(arena) => {
                    if arena.tick().is_multiple_of(PLAYERS_CHECK_TICKS) {
                        arena.retain_players(|client| node.clients().queue(client).is_some());
                    }
                    arena.step();
                    wire::encode(arena)
                }
                None => return,
            };
            let is_watched = node.hub().has_subscribers(&channel);
            if is_watched {
                let content = Content {
                    data: data.into(),
                    info: None,
                    tags: None,
                };
                if let Err(error) = node.engine().publish(&channel, unstored(content)).await {
                    tracing::debug!(%channel, %error, "the engine did not take a snapshot of the game");
                }
            }
            if idle.is_over(is_watched) {
                break;
            }
        }
        *self.arena.lock() = None;
    }
}
