//! Tests of the Sockeye server against any client.
//!
//! Each function panics if anything unexpected happens.

use sockeye::{CloseCode, OriginPolicy, Server};
use tokio::{net::TcpListener, process::Command, time::timeout};

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
}
