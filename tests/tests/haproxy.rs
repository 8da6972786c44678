//! HAProxy as a reverse proxy in front of `sockeye echo`, with and without TLS.

use std::fs;
use std::time::Duration;

use sockeye::{Client, ClientTls, CloseCode, Error, Message};
use sockeye_tests::{Certificate, Process, SIZES, Sockeye, free_address, patience, tool};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{interval, timeout},
};

#[tokio::test]
#[ignore = "needs HAProxy: run `cargo xtask test`"]
async fn client_talks_to_echo_through_haproxy() {
    let server = Sockeye::echo(&[]).await;
    let certificate = Certificate::generate();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, content: String| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("the folder is writable");
        path
    };
    let pem = |path| fs::read_to_string(path).expect("the certificate was written");
    let both = write("both.pem", pem(certificate.cert_path()) + &pem(certificate.key_path()));
    let (plain, tls) = (free_address(), free_address());
    let config = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  timeout tunnel 1h\n\
         frontend websocket\n  bind {plain}\n  bind {tls} ssl crt {}\n  default_backend echo\n\
         backend echo\n  server echo {}\n",
        both.display(),
        server.address(),
    );
    let mut command = Command::new(tool("haproxy"));
    command.args(["-db", "-f"]).arg(write("haproxy.cfg", config));
    let process = Process::start(command);
    // It prints nothing when it is ready.
    let listening = async {
        let mut attempts = interval(Duration::from_millis(20));
        while TcpStream::connect(&tls).await.is_err() {
            attempts.tick().await;
        }
    };
    if timeout(patience(), listening).await.is_err() {
        process.fail("does not listen");
    }
    for url in [format!("ws://{plain}/"), format!("wss://{tls}/")] {
        if let Err(error) = timeout(patience(), talk(&url, &certificate))
            .await
            .expect("an answer in time")
        {
            process.fail(&format!("{url}: {error}"));
        }
    }
}

/// Messages of all sizes, a burst, a ping, and the closing handshake.
async fn talk(url: &str, certificate: &Certificate) -> Result<(), Error> {
    let tls = ClientTls::new().without_roots().trust(certificate.der.clone().into());
    let client = Client::builder().tls(tls).subprotocols(["superchat", "chat"]).build()?;
    let mut ws = client.connect(url).await?;
    assert_eq!(ws.subprotocol(), Some("chat"));
    for size in SIZES {
        let message = Message::binary(vec![7; size]);
        ws.send(message.clone()).await?;
        assert_eq!(ws.recv().await?, Some(message));
    }
    for number in 0..200 {
        ws.feed(format!("{number}")).await?;
    }
    for number in 0..200 {
        assert_eq!(ws.recv().await?, Some(Message::text(format!("{number}"))));
    }
    ws.ping().await?;
    ws.close(CloseCode::from(3001), "done here").await?;
    let received = ws.close_info().and_then(|info| info.received().cloned());
    assert_eq!(received.map(|frame| frame.code), Some(CloseCode::from(3001)));
    Ok(())
}
