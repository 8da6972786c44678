//! The tower layer that limits opening handshakes, before axum's own upgrade and before this crate's.
#![cfg(feature = "axum")]

mod common;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use common::{text_of, within};
use sockeye::axum::{Upgrader, WebSocketUpgrade};
use sockeye::http::StatusCode;
use sockeye::tower::{ConnectionPermit, HandshakeLayer, serve_in_memory};
use sockeye::{Client, CloseCode, Error, Origin, OriginPolicy, Server, WebSocket};

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut ws: WebSocket| {
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    })
}

fn app(layer: &HandshakeLayer) -> Router {
    Router::new()
        .route("/ws", any(echo))
        .with_state(Upgrader::new(Server::builder().origins(OriginPolicy::Any).build()))
        .route("/page", any(async || "page"))
        .layer(layer.clone())
}

async fn connect(app: &Router, origin: Option<&str>) -> Result<WebSocket, Error> {
    let mut request = Client::default().request("ws://test/ws");
    if let Some(origin) = origin {
        request = request.origin(origin);
    }
    let (ws, _) = within(30, request.connect_over(serve_in_memory(app.clone()))).await?;
    Ok(ws)
}

fn status_of(result: Result<WebSocket, Error>) -> u16 {
    result.unwrap_err().response().unwrap().status().as_u16()
}

#[tokio::test]
async fn layer_rejects_origins_and_reports_them() {
    let rejected = Arc::new(Mutex::new(vec![]));
    let lines = rejected.clone();
    let origins = OriginPolicy::List(vec![Origin::parse("https://good.example").unwrap()]);
    let layer = HandshakeLayer::new()
        .origins(origins)
        .on_reject(move |rejection| lines.lock().unwrap().push((rejection.status(), rejection.to_string())));
    let app = app(&layer);
    let mut ws = connect(&app, Some("https://good.example")).await.unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
    let error = connect(&app, Some("https://evil.example")).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(response.body()).contains("https://evil.example"));
    let rejected = rejected.lock().unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].0, StatusCode::FORBIDDEN);
    assert!(rejected[0].1.contains("https://evil.example"), "{rejected:?}");
}

#[tokio::test]
async fn layer_limits_open_connections_and_frees_their_places() {
    let layer = HandshakeLayer::new().connections_max(2);
    let app = app(&layer);
    let mut first = connect(&app, None).await.unwrap();
    let second = connect(&app, None).await.unwrap();
    assert_eq!(layer.connection_count(), 2);
    let error = connect(&app, None).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(&response.body()[..], b"2 connections are open, as many as allowed\n");
    within(30, first.close(CloseCode::NORMAL, "")).await.unwrap();
    within(30, async {
        while layer.connection_count() == 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let third = connect(&app, None).await.unwrap();
    drop((second, third));
    within(30, async {
        while layer.connection_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn layer_limits_handshakes_per_second() {
    let layer = HandshakeLayer::new().handshakes_per_second_max(2);
    let app = app(&layer);
    for _ in 0..4 {
        connect(&app, None).await.unwrap();
    }
    let error = connect(&app, None).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    // Rejected for another reason, so it does not count.
    assert_eq!(status_of(connect(&app, Some("https://evil.example")).await), 403);
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    connect(&app, None).await.unwrap();
    assert_eq!(status_of(connect(&app, None).await), 503);
}

#[tokio::test]
async fn other_requests_pass_and_invalid_handshakes_do_not() {
    use axum::body::Body;
    use tower::ServiceExt;
    let layer = HandshakeLayer::new().connections_max(0);
    let request = |path: &str| Request::get(path).header("host", "test");
    let page = request("/page").body(Body::empty()).unwrap();
    assert_eq!(app(&layer).oneshot(page).await.unwrap().status(), StatusCode::OK);
    let h2c = request("/page").header("upgrade", "h2c").body(Body::empty()).unwrap();
    assert_eq!(app(&layer).oneshot(h2c).await.unwrap().status(), StatusCode::OK);
    let invalid = request("/page")
        .header("upgrade", "foo, WebSocket")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        app(&layer).oneshot(invalid).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
}

/// The place is taken as long as a service of another kind keeps the permit, and freed if it drops the request.
#[tokio::test]
async fn service_that_keeps_the_permit_is_counted() {
    let kept = Arc::new(Mutex::new(vec![]));
    let keeper = kept.clone();
    let layer = HandshakeLayer::new();
    let handler = async move |mut request: Request| {
        let permit = request
            .extensions_mut()
            .remove::<ConnectionPermit>()
            .expect("the layer adds it");
        if request.uri().path() == "/keep" {
            keeper.lock().unwrap().push(permit);
        }
        StatusCode::NOT_FOUND
    };
    let app = Router::new().fallback(handler).layer(layer.clone());
    for (path, count) in [("/drop", 0), ("/keep", 1)] {
        let request = Client::default().request(format!("ws://test{path}"));
        let error = request.connect_over(serve_in_memory(app.clone())).await.unwrap_err();
        assert_eq!(error.response().unwrap().status(), StatusCode::NOT_FOUND);
        assert_eq!(layer.connection_count(), count, "{path}");
    }
    kept.lock().unwrap().clear();
    assert_eq!(layer.connection_count(), 0);
}
