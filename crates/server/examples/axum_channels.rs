//! An axum application with channels inside: browsers and SDKs connect to `/connection/websocket`, the application
//! publishes into `orders`, and answers their calls.
//!
//! `cargo run -p sockeye-server --example axum_channels -- 127.0.0.1:9004`
//!
//! ```sh
//! curl -d '{"item":"tea"}' http://127.0.0.1:9004/orders
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use sockeye::hyper::HttpResponse;
use sockeye_server::codes::ErrorCode;
use sockeye_server::{Endpoint, PublishOptions, RpcCall, Server, ServerHandle};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9004".into());
    let orders = Arc::new(AtomicU64::new(0));
    let counted = orders.clone();
    let server = Server::builder()
        .on_rpc(move |call: RpcCall| {
            let count = counted.load(Ordering::Relaxed);
            async move {
                match &*call.method {
                    "count" => Ok(count.to_string().into_bytes()),
                    _ => Err(ErrorCode::MethodNotFound.into()),
                }
            }
        })
        .build()?;
    let app = Router::new()
        .route("/orders", post(order))
        .with_state((server.handle(), orders))
        .route("/connection/websocket", get(websocket))
        .with_state(server.endpoint());
    tokio::spawn(server.run());

    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Publishes the order that is the body of the request, for all clients that are subscribed to `orders`.
async fn order(State((channels, orders)): State<(ServerHandle, Arc<AtomicU64>)>, body: String) -> (StatusCode, String) {
    match channels.publish("orders", PublishOptions::new(body)).await {
        Ok(position) => {
            orders.fetch_add(1, Ordering::Relaxed);
            (StatusCode::CREATED, format!("order {}\n", position.offset))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// A client of the channels.
async fn websocket(
    State(endpoint): State<Endpoint>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> HttpResponse {
    endpoint.upgrade(&mut request, peer)
}
