//! A client of an exchange feed: subscribes, prints messages and a rate each second, reconnects when the connection is
//! lost, and closes on Ctrl+C.
//!
//! `cargo run -p sockeye --example feed -- wss://feed.example/ BTC-USD`

use std::time::{Duration, Instant};

use sockeye::{Client, CloseCode, Error};
use tokio::time::{interval, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    let symbol = args.next().unwrap_or_else(|| "BTC-USD".into());
    let client = Client::new();
    let mut failures = 0;
    loop {
        let started = Instant::now();
        match follow(&client, &url, &symbol).await {
            Ok(End::Done) => return Ok(()),
            Ok(End::ServerLeaves) => eprint!("the server restarts"),
            Err(error) if error.is_retryable() => eprint!("{error}"),
            Err(error) => return Err(error),
        }
        // The delay is short again after a connection that has worked, and random, so that clients do not return at
        // once.
        let has_worked = started.elapsed() > Duration::from_secs(60);
        failures = if has_worked { 0 } else { (failures + 1).min(6) };
        let delay = Duration::from_secs(1 << failures).mul_f64(rand::random());
        eprintln!("; trying again in {delay:.1?}");
        sleep(delay).await;
    }
}

enum End {
    Done,
    ServerLeaves,
}

async fn follow(client: &Client, url: &str, symbol: &str) -> Result<End, Error> {
    let request = client.request(url).subprotocols(["v1.feed"]);
    let mut ws = request.timeout(Duration::from_secs(5)).await?;
    ws.send(format!("subscribe {symbol}")).await?;
    let (mut second, mut count) = (interval(Duration::from_secs(1)), 0);
    loop {
        tokio::select! {
            message = ws.recv() => match message? {
                Some(message) => {
                    println!("{}", message.as_text().unwrap_or("(binary)"));
                    count += 1;
                }
                None if ws.close_info().is_some_and(|info| info.code() == CloseCode::GOING_AWAY) => {
                    return Ok(End::ServerLeaves);
                }
                None => return Ok(End::Done),
            },
            _ = second.tick() => eprintln!("{} messages/s", std::mem::take(&mut count)),
            _ = tokio::signal::ctrl_c() => {
                ws.close(CloseCode::NORMAL, "done").await?;
                return Ok(End::Done);
            }
        }
    }
}
