//! A simulated exchange: 200 symbols whose prices follow a seeded random walk. Independent of clocks and channels.

use std::collections::VecDeque;

use crate::demo::random::Random;

/// Time between two steps, in milliseconds.
pub(super) const STEP_MS: u64 = 100;

/// Time that one candle covers, in milliseconds.
pub(super) const INTERVAL_MS: u64 = 5_000;

/// Number of candles kept per symbol: 20 minutes. All symbols together take about 1.5 MB.
const CANDLES_MAX: usize = 240;

/// Steps per candle in the simulated past, which need not be as fine as the present.
const PAST_STEPS: u64 = 10;

/// The first and second half of the symbols' names. Their first two letters are unique and form the ticker.
const NAMES: [&str; 20] = [
    "Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper", "Kelp", "Larch", "Maple",
    "Nettle", "Oak", "Pine", "Quince", "Rowan", "Spruce", "Thorn",
];
const SECTORS: [&str; 10] = [
    "Air", "Bank", "Chemical", "Data", "Energy", "Foods", "Grid", "Health", "Labs", "Rail",
];

/// The state of the exchange.
#[derive(Debug)]
pub(super) struct Feed {
    random: Random,
    symbols: Vec<Symbol>,
    number: u64,
    time_ms: u64,
}

/// A traded symbol. Prices are in cents.
#[derive(Debug)]
pub(super) struct Symbol {
    pub(super) ticker: String,
    pub(super) name: String,
    /// The logarithm of the price that the walk returns to.
    anchor: f64,
    log_price: f64,
    /// Standard deviation of the logarithm per square root of a second.
    volatility: f64,
    /// Probability of a trade in one step.
    activity: f64,
    open: u64,
    candles: VecDeque<Candle>,
}

/// The prices of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) start_ms: u64,
    open: u64,
    high: u64,
    low: u64,
    close: u64,
    pub(super) volume: u64,
}

/// The trades of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Increases by one with each step.
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) trades: Vec<Trade>,
}

/// A trade. The index is that of the symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trade {
    pub(super) index: usize,
    pub(super) price: u64,
    pub(super) volume: u64,
}

impl Feed {
    /// Creates an exchange with a simulated past of [`CANDLES_MAX`] candles.
    pub(super) fn new(seed: u64, now_ms: u64) -> Self {
        let mut random = Random::new(seed);
        let start_ms = (now_ms - now_ms % INTERVAL_MS).saturating_sub((CANDLES_MAX as u64 - 1) * INTERVAL_MS);
        let names = NAMES
            .iter()
            .flat_map(|name| SECTORS.iter().map(move |sector| (name, sector)));
        let symbols = names
            .map(|(name, sector)| Symbol::new(name, sector, &mut random, start_ms))
            .collect();
        let mut feed = Self {
            random,
            symbols,
            number: 0,
            time_ms: start_ms,
        };
        let step_ms = INTERVAL_MS / PAST_STEPS;
        while feed.time_ms + step_ms <= now_ms {
            feed.step(feed.time_ms + step_ms);
        }
        feed.number = 0;
        feed
    }

    /// Advances to `now_ms`, and returns the trades. A clock that was set back does not move the exchange back.
    pub(super) fn step(&mut self, now_ms: u64) -> Step {
        let elapsed_ms = now_ms.saturating_sub(self.time_ms);
        self.time_ms = self.time_ms.max(now_ms);
        self.number += 1;
        let (time_ms, random) = (self.time_ms, &mut self.random);
        // At most a minute, so that a suspended machine does not make the prices jump.
        let scale = (elapsed_ms.min(60_000) as f64 / 1_000.0).sqrt();
        let mut trades = Vec::new();
        for (index, symbol) in self.symbols.iter_mut().enumerate() {
            if let Some((price, volume)) = symbol.step(time_ms, elapsed_ms, scale, random) {
                trades.push(Trade { index, price, volume });
            }
        }
        Step {
            number: self.number,
            time_ms,
            trades,
        }
    }

    pub(super) fn find(&self, ticker: &str) -> Option<usize> {
        self.symbols.iter().position(|symbol| symbol.ticker == ticker)
    }

    pub(super) fn symbol(&self, index: usize) -> &Symbol {
        &self.symbols[index]
    }

    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter()
    }

    /// The number of the last step.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The time of the last step.
    pub(super) fn time_ms(&self) -> u64 {
        self.time_ms
    }
}

impl Symbol {
    fn new(name: &str, sector: &str, random: &mut Random, start_ms: u64) -> Self {
        let ticker = format!("{}{}", &name[..2], &sector[..2]).to_uppercase();
        let anchor = random.between(2_500.0_f64.ln(), 80_000.0_f64.ln());
        let mut symbol = Self {
            ticker,
            name: format!("{name} {sector}"),
            anchor,
            log_price: anchor,
            volatility: random.between(0.000_2, 0.000_9),
            activity: random.between(0.05, 0.6),
            open: 0,
            candles: VecDeque::with_capacity(CANDLES_MAX),
        };
        symbol.open = symbol.price();
        symbol.candles.push_back(Candle::new(start_ms, symbol.open));
        symbol
    }

    /// Returns the price and volume of a trade, if there is one in this step.
    fn step(&mut self, time_ms: u64, elapsed_ms: u64, scale: f64, random: &mut Random) -> Option<(u64, u64)> {
        self.open_candles(time_ms);
        let expected = self.activity * elapsed_ms as f64 / STEP_MS as f64;
        let chance = expected.min(1.0);
        if random.unit() >= chance {
            return None;
        }
        let pull = (self.anchor - self.log_price) * 0.000_2;
        // Rare trades move the price by as much per second as frequent ones.
        self.log_price += pull + random.normal() * self.volatility * scale / chance.sqrt();
        // A long step has one trade with the volume of several.
        let volume = 1 + (random.unit().powi(3) * 900.0 * expected.max(1.0)) as u64;
        let price = self.price();
        if let Some(candle) = self.candles.back_mut() {
            candle.add(price, volume);
        }
        Some((price, volume))
    }

    /// Closes the candles that ended before `time_ms`. Intervals without a trade keep the last price.
    fn open_candles(&mut self, time_ms: u64) {
        let start_ms = time_ms - time_ms % INTERVAL_MS;
        let Some(last) = self.candles.back().copied() else {
            return;
        };
        let missing = (start_ms.saturating_sub(last.start_ms) / INTERVAL_MS).min(CANDLES_MAX as u64);
        for back in (0..missing).rev() {
            if self.candles.len() == CANDLES_MAX {
                self.candles.pop_front();
            }
            self.candles
                .push_back(Candle::new(start_ms - back * INTERVAL_MS, last.close));
        }
    }

    /// The last price in cents, at least one.
    pub(super) fn price(&self) -> u64 {
        self.log_price.exp().round().max(1.0) as u64
    }

    /// The price at which the simulation began.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// From the oldest to the current one.
    pub(super) fn candles(&self) -> impl Iterator<Item = &Candle> {
        self.candles.iter()
    }
}

impl Candle {
    fn new(start_ms: u64, price: u64) -> Self {
        Self {
            start_ms,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 0,
        }
    }

    fn add(&mut self, price: u64, volume: u64) {
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.close = price;
        self.volume += volume;
    }

    /// Open, high, low, and close.
    pub(super) fn prices(&self) -> [u64; 4] {
        [self.open, self.high, self.low, self.close]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: u64 = 1_700_000_001_234;

    #[test]
    fn two_hundred_tickers_are_distinct() {
        let feed = Feed::new(1, NOW);
        let tickers: HashSet<_> = feed.symbols().map(|symbol| &symbol.ticker).collect();
        assert_eq!(tickers.len(), 200);
        assert!(tickers.iter().all(|ticker| ticker.len() == 4));
        assert_eq!(feed.find("ALAI"), Some(0));
        assert_eq!(feed.find("alai"), None);
    }

    #[test]
    fn the_same_seed_and_clock_give_the_same_trades() {
        let trades = |seed| {
            let mut feed = Feed::new(seed, NOW);
            (1..50).map(|at| feed.step(NOW + at * STEP_MS)).collect::<Vec<_>>()
        };
        assert_eq!(trades(7), trades(7));
        assert_ne!(trades(7), trades(8));
    }

    #[test]
    fn candles_cover_the_past_without_a_gap_and_contain_their_prices() {
        let mut feed = Feed::new(3, NOW);
        for at in 1..200 {
            feed.step(NOW + at * STEP_MS);
        }
        for symbol in feed.symbols() {
            let candles: Vec<_> = symbol.candles().collect();
            assert_eq!(candles.len(), CANDLES_MAX);
            for pair in candles.windows(2) {
                assert_eq!(pair[1].start_ms, pair[0].start_ms + INTERVAL_MS);
                assert_eq!(pair[1].open, pair[0].close);
            }
            for candle in &candles {
                assert_eq!(candle.start_ms % INTERVAL_MS, 0);
                assert!(candle.low <= candle.open.min(candle.close), "{candle:?}");
                assert!(candle.high >= candle.open.max(candle.close), "{candle:?}");
            }
            assert_eq!(candles.last().unwrap().close, symbol.price());
        }
    }

    #[test]
    fn prices_stay_near_their_anchor_for_a_day() {
        let mut feed = Feed::new(11, NOW);
        for second in 1..86_400 / 10 {
            feed.step(NOW + second * 10_000);
        }
        for symbol in feed.symbols() {
            let ratio = symbol.price() as f64 / symbol.anchor.exp();
            assert!((0.3..3.0).contains(&ratio), "{}: {ratio}", symbol.ticker);
        }
    }

    #[test]
    fn the_simulated_past_trades_as_much_as_the_present() {
        let mut feed = Feed::new(3, NOW);
        let volume = |feed: &Feed| -> u64 {
            let candles = feed.symbols().flat_map(Symbol::candles);
            candles.map(|candle| candle.volume).sum()
        };
        let past = volume(&feed) as f64;
        let steps = CANDLES_MAX as u64 * INTERVAL_MS / STEP_MS;
        for at in 1..=steps {
            feed.step(NOW + at * STEP_MS);
        }
        let ratio = volume(&feed) as f64 / past;
        assert!((0.8..1.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn about_a_third_of_the_symbols_trade_in_a_step() {
        let mut feed = Feed::new(5, NOW);
        let trades: usize = (1..=100).map(|at| feed.step(NOW + at * STEP_MS).trades.len()).sum();
        assert!((4_000..9_000).contains(&trades), "{trades}");
    }

    #[test]
    fn a_clock_that_was_set_back_or_far_ahead_does_no_harm() {
        let mut feed = Feed::new(5, NOW);
        let back = feed.step(NOW - 3_600_000);
        assert!(back.time_ms >= NOW - STEP_MS * 10 && back.number == 1);
        let ahead = feed.step(NOW + 30 * 86_400_000);
        assert_eq!(ahead.time_ms, NOW + 30 * 86_400_000);
        assert_eq!(feed.symbol(0).candles().count(), CANDLES_MAX);
    }
}
