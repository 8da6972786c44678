//! Sends a message, prints the reply and the round-trip time, and closes.
//!
//! `cargo run -p sockeye --example client -- ws://127.0.0.1:9001/ hello`

use std::time::Instant;

use sockeye::{CloseCode, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    let greeting = args.next().unwrap_or_else(|| "hello".into());
    let mut ws = sockeye::connect(&url).await?;
    let start = Instant::now();
    ws.send(greeting).await?;
    if let Some(message) = ws.recv().await? {
        println!("{message:?} after {:?}", start.elapsed());
    }
    ws.close(CloseCode::NORMAL, "done").await
}
