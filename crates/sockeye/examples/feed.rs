//! A client of an exchange feed: subscribes, prints messages and a rate each second, reconnects when the connection is
//! lost, and closes on Ctrl+C.
//!
//! `cargo run -p sockeye --example feed -- wss://feed.example/ BTC-USD`

use std::{pin::pin, time::Duration};

use sockeye::{Client, CloseCode, Error, ReconnectEvent};
use tokio::{signal::ctrl_c, time::interval};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    let symbol = args.next().unwrap_or_else(|| "BTC-USD".into());
    let request = Client::new().request(url).subprotocols(["v1.feed"]);
    let mut feed = request
        .timeout(Duration::from_secs(5))
        .reconnecting()
        .on_connect(move |mut ws| {
            let subscribe = format!("subscribe {symbol}");
            async move {
                ws.send(subscribe).await?;
                Ok(ws)
            }
        });
    let (mut second, mut count) = (interval(Duration::from_secs(1)), 0);
    // One listener for the whole program: a new one in each round would miss a Ctrl+C between two rounds.
    let mut shutdown = pin!(ctrl_c());
    loop {
        tokio::select! {
            event = feed.recv() => match event? {
                Some(ReconnectEvent::Message(message)) => {
                    println!("{}", message.as_text().unwrap_or("(binary)"));
                    count += 1;
                }
                Some(
                    ReconnectEvent::Disconnected { error, retry_in, .. }
                    | ReconnectEvent::ConnectFailed { error, retry_in, .. },
                ) => eprintln!("{error}; trying again in {retry_in:.1?}"),
                Some(_) => {}
                None => return Ok(()), // the server closed normally
            },
            _ = second.tick() => eprintln!("{} messages/s", std::mem::take(&mut count)),
            _ = &mut shutdown => return feed.close(CloseCode::NORMAL, "done").await,
        }
    }
}
