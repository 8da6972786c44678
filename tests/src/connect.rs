//! What `sockeye connect` does with any server, whoever wrote it.
//!
//! Each of these fails the test, by a panic, when something else happens.

use tokio::process::Command;

use crate::{ForeignServer, Sockeye};

/// Lines go out as text messages and come back as lines; the end of input ends in a normal close and status 0.
pub async fn exchanges_lines(server: Command) {
    let mut server = ForeignServer::start(server).await;
    let mut client = Sockeye::connect(&server.url("/echo"));
    let long = "x".repeat(100_000);
    for line in ["hello", "", "Grüße, 世界 🐟", &long] {
        client.write_line(line).await;
        assert_eq!(client.line().await.as_deref(), Some(line));
    }
    // The replies to what was written just before the end of input still arrive.
    for at in 0..100 {
        client.write_line(&format!("message {at}")).await;
    }
    client.close_stdin();
    for at in 0..100 {
        assert_eq!(client.line().await, Some(format!("message {at}")));
    }
    assert_eq!(client.line().await, None);
    client.exit_ok().await;
    assert_eq!(server.closed().await.0, 1000);
}

/// A close that is not normal: a non-zero status, and the code and reason for a person to read.
pub async fn fails_when_closed_with_3005(server: Command) {
    let mut server = ForeignServer::start(server).await;
    let mut client = Sockeye::connect(&server.url("/close"));
    client.write_line("go").await;
    let status = client.exit().await;
    assert_eq!(client.line().await, None);
    let log = client.log();
    assert!(
        !status.success() && log.contains("3005") && log.contains("that is all"),
        "{status}\n{log}"
    );
    assert_eq!(server.closed().await.0, 3005);
}

/// A server that says no: a non-zero status, and its HTTP status for a person to read.
pub async fn fails_when_refused_with_403(server: Command) {
    let server = ForeignServer::start(server).await;
    let mut client = Sockeye::connect(&server.url("/refuse"));
    let status = client.exit().await;
    assert_eq!(client.line().await, None);
    let log = client.log();
    assert!(!status.success() && log.contains("403"), "{status}\n{log}");
}
