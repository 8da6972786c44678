//! A WebSocket as one route of a salvo application.

use std::time::Duration;

use salvo::conn::tcp::TcpAcceptor;
use salvo::prelude::*;
use sockeye::http;
use sockeye::hyper::Upgrader;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9006".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);

    let upgrader = Upgrader::new(sockeye::Server::builder().subprotocols(["v1.echo"]).build());
    let sockets = Sockets(upgrader.clone());
    let router = Router::new().get(page).push(Router::with_path("ws").goal(sockets));
    let server = Server::new(TcpAcceptor::try_from(listener)?);
    let handle = server.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            upgrader.shutdown(Duration::from_secs(10)).await;
            handle.stop_graceful(Duration::from_secs(10));
        }
    });
    server.try_serve(router).await
}

#[handler]
async fn page() -> &'static str {
    "a WebSocket is at /ws\n"
}

/// Echoes messages.
struct Sockets(Upgrader);

#[async_trait]
impl Handler for Sockets {
    async fn handle(&self, request: &mut Request, _: &mut Depot, response: &mut Response, _: &mut FlowCtrl) {
        let mut upgrading = http::Request::new(());
        *upgrading.method_mut() = request.method().clone();
        *upgrading.uri_mut() = request.uri().clone();
        *upgrading.headers_mut() = request.headers().clone();
        *upgrading.extensions_mut() = std::mem::take(request.extensions_mut());
        let accepted = self.0.upgrade(&mut upgrading, async |mut ws| {
            while let Some(message) = ws.recv().await? {
                ws.feed(message).await?;
            }
            Ok(())
        });
        // salvo's responses have other bodies.
        response.merge_hyper(accepted.map(|body| body.into_inner().unwrap_or_default()));
    }
}
