//! A WebSocket as one route of a warp application.

use std::convert::Infallible;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use sockeye::Server;
use sockeye::http::{HeaderMap, Method, Request};
use sockeye::hyper::Upgrader;
use tokio::net::TcpListener;
use warp::filters::path::FullPath;
use warp::{Filter, Reply};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9005".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);

    let upgrader = Upgrader::new(Server::builder().subprotocols(["v1.echo"]).build());
    let sockets = upgrader.clone();
    let websocket = warp::path("ws")
        .and(request())
        .map(move |request| echo(&sockets, request));
    let page = warp::path::end().map(|| "a WebSocket is at /ws\n");
    warp::serve(page.or(websocket))
        .incoming(listener)
        .graceful(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .run()
        .await;
    upgrader.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

fn echo(upgrader: &Upgrader, mut request: Request<()>) -> impl Reply + use<> {
    let response = upgrader.upgrade(&mut request, async |mut ws| {
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    });
    // warp's replies have other bodies.
    response.map(|body| body.into_inner().unwrap_or_default())
}

/// The parts of a request that an upgrade needs.
fn request() -> impl Filter<Extract = (Request<()>,), Error = Infallible> + Clone {
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(
            |method: Method, path: FullPath, headers: HeaderMap, upgrade: Option<OnUpgrade>| {
                let mut request = Request::new(());
                *request.method_mut() = method;
                *request.uri_mut() = path.as_str().parse().unwrap_or_default();
                *request.headers_mut() = headers;
                // `None` for a request without an `Upgrade` header, which is rejected with 426.
                if let Some(upgrade) = upgrade {
                    request.extensions_mut().insert(upgrade);
                }
                request
            },
        )
}
