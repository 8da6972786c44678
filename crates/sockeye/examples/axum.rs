//! A WebSocket as one route of an axum application. Requires the feature `axum`.
//!
//! `cargo run -p sockeye --features axum --example axum -- 127.0.0.1:9003`

use std::time::Duration;

use axum::response::Response;
use axum::routing::{any, get};
use axum::{Router, serve};
use sockeye::Server;
use sockeye::axum::{Upgrader, WebSocketUpgrade};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    let server = Server::builder().subprotocols(["v1.echo"]).build();
    let upgrader = Upgrader::new(server).on_error(|error| eprintln!("{error}"));
    let app = Router::new()
        .route("/", get(async || "a WebSocket is at /ws\n"))
        .route("/ws", any(echo))
        .with_state(upgrader.clone());
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    serve(listener, app).with_graceful_shutdown(ctrl_c).await?;
    upgrader.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut ws| {
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    })
}
