//! A price feed: many symbols, each price framed once for all clients. A client that reads slowly gets only the latest
//! price of each symbol, and never an old one.
//!
//! `cargo run -p sockeye --example trading -- 127.0.0.1:9004 10`
//!
//! The second argument is the time between two ticks in milliseconds. A text is a comma-separated list of symbols to
//! follow; before the first, a client follows all.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use sockeye::{Error, Incoming, Message, PreparedMessage, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::watch;

const SYMBOLS: usize = 50;

/// The latest price of each symbol. Old prices are forgotten, so a slow client cannot make the server remember them.
struct Market {
    prices: Mutex<Vec<Price>>,
    /// The number of the last tick.
    tick: watch::Sender<u64>,
}

struct Price {
    tick: u64,
    bid: f64,
    message: PreparedMessage,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9004".into());
    let interval = args.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let prices = (0..SYMBOLS).map(|symbol| Price::new(symbol, 0, 100.0)).collect();
    let market = Arc::new(Market {
        prices: Mutex::new(prices),
        tick: watch::Sender::new(0),
    });
    tokio::spawn(trade(market.clone(), Duration::from_millis(interval)));
    Server::default()
        .serve(listener)
        .on_error(|error| eprintln!("{error}"))
        .graceful_shutdown(tokio::signal::ctrl_c(), Duration::from_secs(5))
        .run(move |incoming| follow(incoming, market.clone()))
        .await;
    Ok(())
}

impl Price {
    fn new(symbol: usize, tick: u64, bid: f64) -> Self {
        let ask = bid + 0.02;
        let text = format!(r#"{{"symbol":"S{symbol}","tick":{tick},"bid":{bid:.2},"ask":{ask:.2}}}"#);
        // Framed here, once for all clients.
        let message = PreparedMessage::new(Message::text(text));
        Self { tick, bid, message }
    }
}

/// Changes about half of the prices at each tick.
async fn trade(market: Arc<Market>, interval: Duration) {
    let mut interval = tokio::time::interval(interval);
    for tick in 1.. {
        interval.tick().await;
        let mut prices = market.prices.lock().unwrap();
        for (symbol, price) in prices.iter_mut().enumerate() {
            if rand::rng().random() {
                let change = rand::rng().random_range(-0.05..0.05);
                *price = Price::new(symbol, tick, (price.bid + change).max(1.0));
            }
        }
        drop(prices);
        market.tick.send_replace(tick);
    }
}

async fn follow(incoming: Incoming, market: Arc<Market>) -> Result<(), Error> {
    let mut ws = incoming.accept().await?;
    let mut tick = market.tick.subscribe();
    let mut sent = [None; SYMBOLS];
    let mut chosen: Option<HashSet<usize>> = None;
    tick.mark_changed();
    loop {
        tokio::select! {
            message = ws.recv() => match message? {
                Some(message) => {
                    chosen = message.as_text().map(parse);
                    tick.mark_changed();
                }
                None => return Ok(()),
            },
            // The market lives as long as its connections.
            _ = tick.changed() => send_news(&mut ws, &market, &mut sent, &chosen).await?,
        }
    }
}

/// Sends each price that has changed since this client got it. While `flush` waits for a slow client, prices change
/// without being queued, so the next call sends only the latest.
async fn send_news(
    ws: &mut WebSocket,
    market: &Market,
    sent: &mut [Option<u64>; SYMBOLS],
    chosen: &Option<HashSet<usize>>,
) -> Result<(), Error> {
    for (symbol, sent) in sent.iter_mut().enumerate() {
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&symbol)) {
            continue;
        }
        let message = {
            let price = &market.prices.lock().unwrap()[symbol];
            if *sent == Some(price.tick) {
                continue;
            }
            *sent = Some(price.tick);
            price.message.clone()
        };
        ws.feed(message).await?;
    }
    ws.flush().await
}

fn parse(list: &str) -> HashSet<usize> {
    let symbols = list.split(',').filter_map(|name| name.trim().strip_prefix('S'));
    symbols.filter_map(|number| number.parse().ok()).collect()
}
