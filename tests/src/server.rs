//! Tests of the Sockeye server against any client.
//!
//! Each function panics if anything unexpected happens.

use sockeye::{CloseCode, DeflateConfig, OriginPolicy, Server};
use tokio::{net::TcpListener, process::Command, time::timeout};

use crate::interop::{self, Role};
use crate::{Process, Report, patience};

/// The server receives the close code and reason of `client`, which gets the server's URL.
pub async fn receives_close(client: impl FnOnce(&str) -> Command) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound");
    let mut command = client(&format!("ws://{address}/"));
    command.env("PEER_ONLY", "close with code and reason");
    let mut client = Process::start(command);

    let server = Server::builder()
        .origins(OriginPolicy::Any)
        .subprotocols(["chat"])
        .build();
    let serving = async {
        let (tcp, _) = listener.accept().await.expect("the listener works");
        let mut ws = server.accept(tcp).await?.accept().await?;
        // An application's close code is reported as an error.
        let error = ws.recv().await.expect_err("the client closes with 3001");
        assert_eq!(error.close_code(), Some(CloseCode::from(3001)));
        Ok::<_, sockeye::Error>(ws.close_info().and_then(|close_info| close_info.received().cloned()))
    };
    let received = match timeout(patience(), serving).await {
        Ok(Ok(Some(received))) => received,
        other => client.fail(&format!("did not close as it should: {other:?}")),
    };
    assert_eq!((received.code, &*received.reason), (CloseCode::from(3001), "done here"));
    assert_eq!(
        Report::next(&mut client).await,
        Some(Report::Passed("close with code and reason".to_owned()))
    );
    client.exit_ok().await;
    interop::record(Role::Client, &["close"]);
}

/// The server negotiates compression with `client`, which gets the server's URL and `PEER_COMPRESS`, and exchanges
/// compressed messages with it.
pub async fn compresses(client: impl FnOnce(&str) -> Command) {
    exchange_compressed(async |address| (client(&format!("ws://{address}/")), ()), 1).await;
}

/// The same with a client that reads compressed messages but sends none.
pub async fn compresses_one_way(client: impl FnOnce(&str) -> Command) {
    exchange_compressed(async |address| (client(&format!("ws://{address}/")), ()), 0).await;
}

/// The same behind a proxy: `client` gets the server's address, and returns the client and the proxy.
pub async fn compresses_behind<P>(client: impl AsyncFnOnce(&str) -> (Command, P)) {
    exchange_compressed(client, 1).await;
}

/// `compressed` is how many of its messages the client compresses, which sends one.
async fn exchange_compressed<P>(client: impl AsyncFnOnce(&str) -> (Command, P), compressed: u64) {
    const CASE: &str = "text 1048576";
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound");
    let (mut command, _proxy) = client(&address.to_string()).await;
    command.env("PEER_COMPRESS", "1").env("PEER_ONLY", CASE);
    let mut client = Process::start(command);

    let server = Server::builder()
        .origins(OriginPolicy::Any)
        .subprotocols(["chat"])
        .compression(DeflateConfig::default())
        .build();
    let serving = async {
        let (tcp, _) = listener.accept().await.expect("the listener works");
        let mut ws = server.accept(tcp).await?.accept().await?;
        assert!(ws.negotiated_deflate().is_some(), "compression was not negotiated");
        let message = ws.recv().await?.expect("the client sends a message");
        ws.send(message).await?;
        Ok::<_, sockeye::Error>((ws.stats(), ws))
    };
    let (stats, mut ws) = match timeout(patience(), serving).await {
        Ok(Ok(served)) => served,
        other => client.fail(&format!("did not exchange a message: {other:?}")),
    };
    assert_eq!(
        (stats.received.compressed_messages, stats.sent.compressed_messages),
        (compressed, 1),
        "{stats:?}"
    );
    assert_eq!(Report::next(&mut client).await, Some(Report::Passed(CASE.to_owned())));
    // The client may be gone already.
    drop(timeout(patience(), ws.close(CloseCode::NORMAL, "")).await);
    client.exit_ok().await;
    interop::record(Role::Client, &["compression"]);
}
