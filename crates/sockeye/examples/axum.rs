//! A WebSocket as one route of an axum application. Requires the feature `hyper`.
//!
//! `cargo run -p sockeye --features hyper --example axum -- 127.0.0.1:9003`

use axum::extract::{Request, State};
use axum::{Router, routing::get};
use sockeye::hyper::HttpResponse;
use sockeye::{Error, Server, WebSocket};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    let server = Server::builder().subprotocols(["v1.echo"]).build();
    let app = Router::new()
        .route("/", get(async || "a WebSocket is at /ws\n"))
        .route("/ws", get(websocket))
        .with_state(server);
    axum::serve(listener, app).await
}

async fn websocket(State(server): State<Server>, mut request: Request) -> HttpResponse {
    match sockeye::hyper::upgrade(&server, &mut request) {
        Ok((response, upgrade)) => {
            tokio::spawn(async move {
                if let Err(error) = echo(upgrade.await?).await {
                    eprintln!("{error}");
                }
                Ok::<_, Error>(())
            });
            response
        }
        Err(error) => {
            eprintln!("{error}");
            error.into_response()
        }
    }
}

async fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
