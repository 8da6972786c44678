//! A WebSocket as one route of a poem application.

use std::time::Duration;

use poem::listener::TcpAcceptor;
use poem::web::Data;
use poem::{EndpointExt, Request, Response, Route, Server, get, handler};
use sockeye::http;
use sockeye::hyper::Upgrader;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9007".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);

    let upgrader = Upgrader::new(sockeye::Server::builder().subprotocols(["v1.echo"]).build());
    let app = Route::new()
        .at("/", get(page))
        .at("/ws", get(websocket))
        .data(upgrader.clone());
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
    // poem waits for upgraded connections too, so close them first.
    let shutdown = async move {
        ctrl_c.await;
        upgrader.shutdown(Duration::from_secs(10)).await;
    };
    server
        .run_with_graceful_shutdown(app, shutdown, Some(Duration::from_secs(10)))
        .await
}

#[handler]
fn page() -> &'static str {
    "a WebSocket is at /ws\n"
}

/// Echoes messages.
#[handler]
fn websocket(request: &Request, Data(upgrader): Data<&Upgrader>) -> Response {
    let mut handshake = http::Request::new(());
    *handshake.method_mut() = request.method().clone();
    *handshake.uri_mut() = request.uri().clone();
    *handshake.headers_mut() = request.headers().clone();
    // Without an `Upgrade` header there is none, and the handshake is rejected with 426.
    let upgrade = request.take_upgrade();
    let upgrading = async { upgrade?.await };
    let response = upgrader.upgrade_over(&handshake, upgrading, async |mut ws| {
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    });
    // poem's responses have other bodies.
    let (head, body) = response.into_parts();
    let mut response = Response::from(body.into_inner().unwrap_or_default());
    response.set_status(head.status);
    *response.headers_mut() = head.headers;
    response
}
