//! Echoes every message, and answers health checks on the same port.
//!
//! `cargo run -p sockeye --example echo_server -- 127.0.0.1:9001`

use sockeye::{Server, http::Response};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    Server::default()
        .serve(listener)
        .on_http(|_| async { Response::new("ok\n") })
        .on_error(|error| eprintln!("{error}"))
        .run(|incoming| async move {
            let mut ws = incoming.accept().await?;
            while let Some(message) = ws.recv().await? {
                // `recv` writes queued messages before it waits: one write per burst.
                ws.feed(message).await?;
            }
            Ok(())
        })
        .await;
    Ok(())
}
