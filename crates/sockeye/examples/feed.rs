//! A client of an exchange feed: subscribes, prints messages and a rate each second, reconnects when the connection is
//! lost, and closes on Ctrl+C.
//!
//! `cargo run -p sockeye --example feed -- wss://feed.example/ BTC-USD`

use std::time::Duration;

use sockeye::{Client, CloseCode, Error};
use tokio::time::{interval, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    let symbol = args.next().unwrap_or_else(|| "BTC-USD".into());
    let client = Client::new();
    let mut wait = Duration::from_secs(1);
    loop {
        match follow(&client, &url, &symbol).await {
            Err(error) if error.is_retryable() => eprintln!("{error}; trying again in {wait:?}"),
            result => return result,
        }
        sleep(wait).await;
        wait = (2 * wait).min(Duration::from_secs(60));
    }
}

async fn follow(client: &Client, url: &str, symbol: &str) -> Result<(), Error> {
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
                None => return Ok(()),
            },
            _ = second.tick() => eprintln!("{} messages/s", std::mem::take(&mut count)),
            _ = tokio::signal::ctrl_c() => return ws.close(CloseCode::NORMAL, "done").await,
        }
    }
}
