//! The market: the channels of the feed, its snapshots, and slow links for clients that ask for one.
//!
//! `market:ticks` gets one publication per step with all trades of the step, `market:<symbol>` those of one symbol. A
//! page subscribes first, loads a snapshot by HTTP, and applies the publications whose number is higher than the
//! snapshot's.
//!
//! To compare policies towards slow clients, the trades are also published to `ticks` in the namespaces
//! `market_drop_oldest` and `market_latest`, if the configuration has them, as it does without a file. In a namespace
//! that keeps the latest publication of each key, every trade is a publication of its own, with its symbol as the key.

mod feed;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use super::{Audience, Idle, unstored};
use crate::channel::ChannelName;
use crate::config::{Config, SlowConsumerPolicy, namespace_of};
use crate::engine::{Content, Deliver as _, Tags};
use crate::ids::ClientId;
use crate::node::Node;
use crate::protocol::Data;
use crate::queue::Queue;
use feed::{Feed, INTERVAL_MS, STEP_MS, Step, Trade};

/// The channels with all trades.
const FEEDS: [&str; 3] = ["market:ticks", "market_drop_oldest:ticks", "market_latest:ticks"];

const SYMBOLS_PATH: &str = "/market/symbols.json";
const CANDLES_PATH: &str = "/market/candles.json";

/// Maximum number of clients with a slow link. Requests of further ones are ignored.
const SLOW_LINKS_MAX: usize = 1_000;

/// The range of the slowest and fastest link, in bytes per second.
const LINK_BYTES: std::ops::RangeInclusive<u32> = 500..=1_000_000;

/// A channel with all trades.
#[derive(Debug)]
struct FeedChannel {
    channel: ChannelName,
    /// The name of the policy towards slow clients.
    policy: &'static str,
    /// The tag with the symbol, if each trade is a publication of its own.
    key_tag: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Market {
    audience: Audience,
    /// `None` while nobody watches.
    feed: Mutex<Option<Feed>>,
    links: Mutex<HashMap<ClientId, SlowLink>>,
}

/// A client that has asked for a slow link.
#[derive(Debug)]
struct SlowLink {
    queue: Arc<Queue>,
    bytes_per_second: u32,
}

/// What a client publishes to the market.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Bytes per second that the client wants to receive at most; `null` ends the limit.
    link: Option<u32>,
}

impl Market {
    pub(super) fn wake(&self) {
        self.audience.wake();
    }

    /// Slows the link of a client down, or restores it.
    pub(super) fn consume(&self, node: &Node, client: ClientId, data: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(data) else {
            return;
        };
        let mut links = self.links.lock();
        let Some(bytes_per_second) = request.link else {
            if let Some(link) = links.remove(&client) {
                link.queue.set_credit(None);
            }
            return;
        };
        let bytes_per_second = bytes_per_second.clamp(*LINK_BYTES.start(), *LINK_BYTES.end());
        if let Some(link) = links.get_mut(&client) {
            link.bytes_per_second = bytes_per_second;
        } else if links.len() < SLOW_LINKS_MAX
            && let Some(queue) = node.clients().queue(client)
        {
            queue.set_credit(Some(0));
            let link = SlowLink {
                queue,
                bytes_per_second,
            };
            links.insert(client, link);
        }
    }

    pub(super) fn snapshot(&self, config: &Config, path: &str, query: Option<&str>) -> Option<String> {
        if path != SYMBOLS_PATH && path != CANDLES_PATH {
            return None;
        }
        let mut feed = self.feed.lock();
        let feed = feed.get_or_insert_with(|| Feed::new(SEED, now_ms()));
        // The task drops the feed again if nobody subscribes.
        self.audience.wake();
        if path == SYMBOLS_PATH {
            return Some(symbols_json(feed, &feeds(config)));
        }
        let symbol = query?.strip_prefix("symbol=")?;
        feed.find(symbol).map(|index| candles_json(feed, index))
    }

    /// Publishes trades while there are subscribers. Never returns.
    pub(super) async fn run(&self, node: &Node) {
        loop {
            self.audience.arrives().await;
            self.run_feed(node).await;
        }
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.feed.lock().is_none() && self.links.lock().is_empty()
    }

    async fn run_feed(&self, node: &Node) {
        let mut interval = tokio::time::interval(Duration::from_millis(STEP_MS));
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let all = feeds(node.startup_config());
        let mut idle = Idle::new();
        loop {
            interval.tick().await;
            let publications = {
                let mut feed = self.feed.lock();
                let feed = feed.get_or_insert_with(|| Feed::new(SEED, now_ms()));
                let step = feed.step(now_ms());
                let mut publications = watched_symbols(node, feed, &step);
                for to in all.iter().filter(|to| node.hub().has_subscribers(&to.channel)) {
                    publications.extend(to.publications(feed, &step));
                }
                publications
            };
            let is_watched = !publications.is_empty();
            for (channel, content) in publications {
                publish(node, &channel, content).await;
            }
            self.grant_credit();
            if idle.is_over(is_watched) {
                break;
            }
        }
        *self.feed.lock() = None;
        for (_, link) in self.links.lock().drain() {
            link.queue.set_credit(None);
        }
    }

    /// Lets the slow links send what they may in one step.
    fn grant_credit(&self) {
        self.links.lock().retain(|_, link| {
            let bytes = u64::from(link.bytes_per_second) * STEP_MS / 1_000;
            link.queue.add_credit(bytes as usize)
        });
    }
}

impl FeedChannel {
    /// The publications of one step.
    fn publications<'a>(
        &'a self,
        feed: &'a Feed,
        step: &'a Step,
    ) -> impl Iterator<Item = (ChannelName, Content)> + use<'a> {
        let batch = match &self.key_tag {
            None => Some(content(step_json(step, &step.trades), None)),
            Some(_) => None,
        };
        let keyed = self.key_tag.iter().flat_map(move |tag| {
            step.trades.iter().map(move |trade| {
                let ticker = feed.symbol(trade.index).ticker.clone();
                let tags = BTreeMap::from([(tag.clone(), ticker)]);
                content(step_json(step, std::slice::from_ref(trade)), Some(tags))
            })
        });
        batch
            .into_iter()
            .chain(keyed)
            .map(|content| (self.channel.clone(), content))
    }
}

/// Whether a channel belongs to the market.
pub(super) fn owns(channel: &str) -> bool {
    let namespace = namespace_of(channel);
    FEEDS.iter().any(|feed| namespace_of(feed) == namespace)
}

/// The channels with all trades whose namespaces exist.
fn feeds(config: &Config) -> Vec<FeedChannel> {
    let feed = |name: &&str| {
        let (policy, key_tag) = match &config.namespace(name)?.slow_consumer {
            SlowConsumerPolicy::Disconnect => ("disconnect", None),
            SlowConsumerPolicy::DropOldest => ("drop_oldest", None),
            SlowConsumerPolicy::Latest { key_tag } => ("latest", key_tag.clone()),
        };
        Some(FeedChannel {
            channel: channel(name),
            policy,
            key_tag,
        })
    };
    FEEDS.iter().filter_map(feed).collect()
}

/// The publications of the symbols that have subscribers.
fn watched_symbols(node: &Node, feed: &Feed, step: &Step) -> Vec<(ChannelName, Content)> {
    let publication = |trade: &Trade| {
        let channel = channel(&format!("market:{}", feed.symbol(trade.index).ticker));
        let (number, time, price, volume) = (step.number, step.time_ms, trade.price, trade.volume);
        node.hub().has_subscribers(&channel).then(|| {
            let json = format!(r#"{{"n":{number},"t":{time},"p":{price},"v":{volume}}}"#);
            (channel, content(json, None))
        })
    };
    step.trades.iter().filter_map(publication).collect()
}

/// The walk of the prices is the same after each start.
const SEED: u64 = 0x50c6_e7e5;

fn content(json: String, tags: Option<Tags>) -> Content {
    Content {
        data: Data::json(json).expect("numbers are JSON"),
        info: None,
        tags: tags.map(Arc::new),
    }
}

async fn publish(node: &Node, channel: &ChannelName, content: Content) {
    if let Err(error) = node.engine().publish(channel, unstored(content)).await {
        tracing::debug!(%channel, %error, "the engine did not take a publication of the market");
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("the names of the demonstrations are valid")
}

/// Unix time in milliseconds.
#[cfg(not(test))]
fn now_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

/// Virtual time in milliseconds, which follows the paused clock of tests.
#[cfg(test)]
fn now_ms() -> u64 {
    use std::sync::LazyLock;
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let elapsed = tokio::time::Instant::now().into_std().saturating_duration_since(*START);
    1_700_000_000_000 + elapsed.as_millis() as u64
}

fn step_json(step: &Step, trades: &[Trade]) -> String {
    let trades = trades
        .iter()
        .map(|trade| format!("[{},{},{}]", trade.index, trade.price, trade.volume));
    format!(r#"{{"n":{},"t":{},"x":[{}]}}"#, step.number, step.time_ms, join(trades))
}

fn symbols_json(feed: &Feed, feeds: &[FeedChannel]) -> String {
    let symbols = feed.symbols().map(|symbol| {
        format!(
            r#"["{}","{}",{},{}]"#,
            symbol.ticker,
            symbol.name,
            symbol.price(),
            symbol.open()
        )
    });
    let feeds = feeds
        .iter()
        .map(|FeedChannel { channel, policy, .. }| format!(r#"["{policy}","{channel}"]"#));
    format!(
        r#"{{"n":{},"t":{},"interval":{INTERVAL_MS},"feeds":[{}],"symbols":[{}]}}"#,
        feed.number(),
        feed.time_ms(),
        join(feeds),
        join(symbols)
    )
}

fn candles_json(feed: &Feed, index: usize) -> String {
    let candles = feed.symbol(index).candles().map(|candle| {
        let [open, high, low, close] = candle.prices();
        format!("[{},{open},{high},{low},{close},{}]", candle.start_ms, candle.volume)
    });
    format!(r#"{{"n":{},"candles":[{}]}}"#, feed.number(), join(candles))
}

fn join(items: impl IntoIterator<Item = String>) -> String {
    let mut joined = String::new();
    for item in items {
        let comma = if joined.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(joined, "{comma}{item}");
    }
    joined
}
