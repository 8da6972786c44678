//! Tests of `sockeye connect` against any server.
//!
//! Each function panics if anything unexpected happens.

use tokio::process::Command;

use crate::{ForeignServer, Sockeye};

/// Input lines are sent as text messages and replies printed as lines. End of input closes normally and exits with
/// status 0.
pub async fn exchanges_lines(server: Command) {
    let mut server = ForeignServer::start(server).await;
    let mut client = Sockeye::connect(&server.url("/echo"));
    let long = "x".repeat(100_000);
    for line in ["hello", "", "Grüße, 世界 🐟", &long] {
        client.write_line(line).await;
        assert_eq!(client.line().await.as_deref(), Some(line));
    }
    // Replies to the last lines before the end of input must still arrive.
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

/// A close with another code: exits with a nonzero status and prints code and reason.
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

/// A rejected handshake: exits with a nonzero status and prints the HTTP status.
pub async fn fails_when_refused_with_403(server: Command) {
    let server = ForeignServer::start(server).await;
    let mut client = Sockeye::connect(&server.url("/refuse"));
    let status = client.exit().await;
    assert_eq!(client.line().await, None);
    let log = client.log();
    assert!(!status.success() && log.contains("403"), "{status}\n{log}");
}
