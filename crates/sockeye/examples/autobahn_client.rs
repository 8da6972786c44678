//! The client side of Autobahn|Testsuite: runs every case of a fuzzing server, echoing each message, then has the
//! server write its report.
//!
//! `AB_URL` is the server's address, `ws://127.0.0.1:9001` by default; the agent is called `sockeye`.

use sockeye::{Client, DeflateConfig, Error, Limits, Takeover, WebSocket};

const AGENT: &str = "sockeye";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::var("AB_URL").unwrap_or_else(|_| "ws://127.0.0.1:9001".into());
    let mut limits = Limits::default();
    // Section 9 sends messages of 16 MiB.
    limits.message_size_max = 16 * 1024 * 1024;
    let mut deflate = DeflateConfig::default();
    // Sections 12 and 13 are about compression, of small messages too.
    (deflate.takeover, deflate.peer_takeover, deflate.size_min) = (Takeover::Keep, Takeover::Keep, 0);
    let client = Client::builder().limits(limits).compression(deflate).build()?;

    let count = case_count(client.connect(&format!("{url}/getCaseCount")).await?).await?;
    for case in 1..=count {
        let ws = client
            .connect(&format!("{url}/runCase?case={case}&agent={AGENT}"))
            .await?;
        // Most cases end in a fault, which is their point: the server judges.
        if let Err(error) = echo(ws).await {
            eprintln!("case {case}: {error}");
        }
    }
    let mut ws = client.connect(&format!("{url}/updateReports?agent={AGENT}")).await?;
    while ws.recv().await?.is_some() {}
    println!("{count} cases run");
    Ok(())
}

async fn case_count(mut ws: WebSocket) -> Result<u32, Error> {
    let message = ws.recv().await?;
    let count = message.as_ref().and_then(|message| message.as_text()?.parse().ok());
    while ws.recv().await?.is_some() {}
    Ok(count.unwrap_or(0))
}

async fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
