//! A client that loses no order: numbers what it sends, and sends again what may not have arrived after a connection
//! was lost.
//!
//! `cargo run -p sockeye --example reconnecting -- ws://127.0.0.1:9001/`

use std::pin::pin;
use std::time::Duration;

use sockeye::{Backoff, Client, CloseCode, Error, ReconnectEvent};
use tokio::time::interval;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    // The longest delay in milliseconds; 60 s by default.
    let max = std::env::args()
        .nth(2)
        .and_then(|text| text.parse().ok())
        .unwrap_or(60_000);

    let client = Client::builder().proxy_from_env().build()?;
    let mut orders = client
        .request(url)
        .timeout(Duration::from_secs(5))
        .reconnecting()
        .backoff(Backoff::default().max(Duration::from_millis(max)))
        .on_connect(|mut ws| async move {
            ws.send("subscribe fills").await?;
            Ok(ws)
        });

    let (mut tick, mut number) = (interval(Duration::from_millis(200)), 0);
    let mut again = Vec::new();
    let mut shutdown = pin!(tokio::signal::ctrl_c());
    loop {
        let is_connected = orders.websocket().is_some();
        tokio::select! {
            event = orders.recv() => match event? {
                Some(ReconnectEvent::Message(message)) => println!("{}", message.as_text().unwrap_or("(binary)")),
                Some(ReconnectEvent::Connected { .. }) => eprintln!("connected"),
                Some(ReconnectEvent::Disconnected { error, undelivered, retry_in, .. }) => {
                    eprintln!("{error}; {} orders may be lost; connecting in {retry_in:.1?}", undelivered.count);
                    // Each order has a number, so the server ignores one that it has received before.
                    again.extend(undelivered.messages);
                }
                Some(ReconnectEvent::ConnectFailed { error, retry_in, .. }) => {
                    eprintln!("{error}; connecting in {retry_in:.1?}");
                }
                Some(_) => {}
                None => return Ok(()), // the server closed normally
            },
            _ = tick.tick(), if is_connected => {
                for order in again.drain(..) {
                    orders.feed(order).await?;
                }
                number += 1;
                orders.send(format!("order {number}")).await?;
            }
            _ = &mut shutdown => return orders.close(CloseCode::NORMAL, "done").await,
        }
    }
}
