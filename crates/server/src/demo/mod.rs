//! The demonstrations behind the pages: a market feed and a game, both simulated in the server.
//!
//! They are ordinary publishers: they publish through the engine, and clients subscribe to their channels as to any
//! other. Clients publish to them too. [`Demos::consume`] takes these publications before they reach the engine, so
//! that no client can publish a price or a game state of its own.
//!
//! A simulation runs while its channels have subscribers. Otherwise its task waits for [`Demos::interest_changed`].

mod game;
mod market;
mod random;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::channel::ChannelName;
use crate::config::Config;
use crate::engine::{Content, Publish};
use crate::node::Node;
use game::Game;
use market::Market;

/// The demonstrations of one node.
#[derive(Debug, Default)]
pub(crate) struct Demos {
    market: Market,
    game: Game,
}

/// Maximum size of a publication that a demonstration reads, in bytes. Larger ones are discarded.
const INPUT_BYTES_MAX: usize = 256;

/// How long a simulation continues after its last subscriber left, so that a reconnecting client finds it as it was.
const LINGER: Duration = Duration::from_secs(20);

impl Demos {
    /// Takes a publication of a client if a demonstration owns the channel. Returns whether it was taken; invalid ones
    /// are taken and discarded.
    pub(crate) fn consume(&self, node: &Node, channel: &ChannelName, content: &Content) -> bool {
        let channel = channel.as_str();
        let (is_market, is_game) = (market::owns(channel), game::owns(channel));
        if let Some(info) = &content.info
            && content.data.len_bytes() <= INPUT_BYTES_MAX
        {
            if is_market {
                self.market.consume(node, info.client, content.data.as_bytes());
            } else if is_game {
                self.game.consume(info, content.data.as_bytes());
            }
        }
        is_market || is_game
    }

    /// Starts the simulation of a channel that may have gained its first subscriber.
    pub(crate) fn interest_changed(&self, channel: &ChannelName) {
        if market::owns(channel.as_str()) {
            self.market.wake();
        } else if game::owns(channel.as_str()) {
            self.game.wake();
        }
    }

    /// Returns the JSON that a page loads before it follows a channel, or `None` if the path is unknown.
    pub(crate) fn snapshot(&self, config: &Config, path: &str, query: Option<&str>) -> Option<String> {
        self.market.snapshot(config, path, query)
    }

    /// Whether no simulation holds any state.
    #[cfg(test)]
    fn is_asleep(&self) -> bool {
        self.market.is_asleep() && self.game.is_asleep()
    }

    /// Runs the simulations. Never returns.
    pub(crate) async fn run(&self, node: &Node) {
        tokio::join!(self.market.run(node), self.game.run(node));
    }
}

/// A publication that is only delivered: of a simulation, only the newest state matters, and snapshots contain it.
fn unstored(content: Content) -> Publish {
    let mut publish = Publish::from(content);
    publish.skips_history = true;
    publish
}

/// Starts and stops a simulation with the interest in it.
#[derive(Debug, Default)]
struct Audience {
    changed: Notify,
}

impl Audience {
    /// Ends [`arrives`](Self::arrives). Remembered if nobody waits.
    fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits for the next call of [`wake`](Self::wake). Cancel-safe.
    async fn arrives(&self) {
        self.changed.notified().await;
    }
}

/// Measures how long a simulation has had no subscribers.
#[derive(Debug)]
struct Idle {
    since: Option<Instant>,
}

impl Idle {
    const fn new() -> Self {
        Self { since: None }
    }

    /// Records whether there are subscribers. Returns whether the simulation should stop.
    fn is_over(&mut self, has_subscribers: bool) -> bool {
        if has_subscribers {
            self.since = None;
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() >= LINGER
    }
}

#[cfg(test)]
mod tests;
