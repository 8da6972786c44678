//! The client that Autobahn|Testsuite tests. Runs every case of a fuzzing server, echoes each message, then lets the
//! server write its report.
//!
//! Usage: `autobahn_client URL [CERTIFICATE]`, where the certificate is a PEM file, for `wss://`. The agent is called
//! `sockeye`.

use std::{env, error::Error};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use sockeye::{Client, DeflateConfig, Takeover, WebSocket};
use sockeye_tests::{autobahn::AGENT, trusting};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("the URL of a fuzzing server is missing")?;
    let client = client(arguments.next().as_deref())?;

    let count = case_count(client.connect(&format!("{url}/getCaseCount")).await?).await?;
    for case in 1..=count {
        let ws = client
            .connect(&format!("{url}/runCase?case={case}&agent={AGENT}"))
            .await?;
        // Most cases end with a protocol error on purpose; the server judges them.
        if let Err(error) = echo(ws).await {
            eprintln!("case {case}: {error}");
        }
    }
    let mut ws = client.connect(&format!("{url}/updateReports?agent={AGENT}")).await?;
    while ws.recv().await?.is_some() {}
    println!("{count} cases run");
    Ok(())
}

fn client(certificate: Option<&str>) -> Result<Client> {
    let mut deflate = DeflateConfig::default();
    // Sections 12 and 13 test compression, also of small messages. The offer leaves every choice to the server, so that
    // each case can restrict it.
    (deflate.takeover, deflate.peer_takeover, deflate.size_min) = (Takeover::Keep, Takeover::Keep, 0);
    let mut client = Client::builder().compression(deflate);
    if let Some(path) = certificate {
        client = client.tls_config(trusting(CertificateDer::from_pem_file(path)?));
    }
    Ok(client.build()?)
}

async fn case_count(mut ws: WebSocket) -> Result<u32> {
    let message = ws.recv().await?;
    let count = message.as_ref().and_then(|message| message.as_text()?.parse().ok());
    while ws.recv().await?.is_some() {}
    count.ok_or_else(|| "the server did not say how many cases there are".into())
}

async fn echo(mut ws: WebSocket) -> std::result::Result<(), sockeye::Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
