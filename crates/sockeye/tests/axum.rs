//! The extractor for axum, in memory and under `axum::serve`.
#![cfg(feature = "axum")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRef;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, middleware};
use common::{text_of, within};
use http_body_util::BodyExt;
use sockeye::axum::{UpgradeError, Upgrader, WebSocketUpgrade};
use sockeye::http::{Request, StatusCode};
use sockeye::tower::serve_in_memory;
use sockeye::{Acceptance, Client, CloseCode, DeflateConfig, Error, Limits, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::ServiceExt;

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut ws: WebSocket| {
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    })
}

fn app(upgrader: &Upgrader) -> Router {
    Router::new().route("/ws", any(echo)).with_state(upgrader.clone())
}

async fn connect(app: &Router, client: &Client) -> Result<WebSocket, Error> {
    let request = client.request("ws://test/ws");
    let (ws, _) = within(30, request.connect_over(serve_in_memory(app.clone()))).await?;
    Ok(ws)
}

/// An opening handshake as axum sees it.
fn handshake() -> http::request::Builder {
    Request::get("/ws")
        .header("host", "test")
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
}

async fn body_of(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// An upgrader whose errors are collected as lines.
fn logging(server: Server) -> (Upgrader, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(vec![]));
    let lines = log.clone();
    let upgrader = Upgrader::new(server).on_error(move |error| lines.lock().unwrap().push(error.to_string()));
    (upgrader, log)
}

#[tokio::test]
async fn extractor_negotiates_subprotocol_and_compression_in_memory() {
    let server = Server::builder()
        .subprotocols(["v2", "v1"])
        .compression(DeflateConfig::default());
    let app = app(&Upgrader::new(server.build()));
    let client = Client::builder()
        .subprotocols(["v1", "v2"])
        .compression(DeflateConfig::default());
    let mut ws = connect(&app, &client.build().unwrap()).await.unwrap();
    assert_eq!(ws.subprotocol(), Some("v2"));
    let text = "hello ".repeat(1000);
    ws.send(text.as_str()).await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), text);
    assert!(ws.stats().received.bytes < 1000, "{:?}", ws.stats());
    within(30, ws.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[tokio::test]
async fn routes_have_settings_of_their_own_and_one_shutdown() {
    let upgrader = Upgrader::new(Server::default());
    let mut limits = Limits::default();
    limits.message_size_max = 10;
    let small = upgrader.with_server(Server::builder().limits(limits).build());
    let app = Router::new()
        .merge(app(&upgrader))
        .merge(Router::new().route("/small", any(echo)).with_state(small));
    let request = Client::default().request("ws://test/small");
    let (mut small, _) = request.connect_over(serve_in_memory(app.clone())).await.unwrap();
    small.send("0123456789").await.unwrap();
    assert_eq!(text_of(within(30, small.recv()).await), "0123456789");
    small.send("0123456789a").await.unwrap();
    let error = within(30, small.recv()).await.unwrap_err();
    assert_eq!(error.close_code(), Some(CloseCode::MESSAGE_TOO_BIG));
    drop(small);

    let request = Client::default().request("ws://test/small");
    let (mut small, _) = request.connect_over(serve_in_memory(app.clone())).await.unwrap();
    let mut large = connect(&app, &Client::default()).await.unwrap();
    large.send("0123456789a").await.unwrap();
    assert_eq!(text_of(within(30, large.recv()).await), "0123456789a");
    let (aborted, ..) = tokio::join!(
        upgrader.shutdown(Duration::from_secs(30)),
        receives_going_away(&mut small),
        receives_going_away(&mut large),
    );
    assert_eq!(aborted, 0);
}

async fn receives_going_away(ws: &mut WebSocket) {
    assert_eq!(within(30, ws.recv()).await.unwrap(), None);
    let close_info = ws.close_info().unwrap();
    assert_eq!(close_info.received().unwrap().code, CloseCode::GOING_AWAY);
}

#[tokio::test]
async fn foreign_origin_gets_a_readable_403_that_is_logged() {
    let (upgrader, log) = logging(Server::default());
    let request = handshake().header("origin", "https://evil.example");
    let response = app(&upgrader)
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body = body_of(response).await;
    assert!(body.contains("https://evil.example"), "{body}");
    let log = log.lock().unwrap();
    assert!(log.len() == 1 && log[0].contains("https://evil.example"), "{log:?}");
    assert_eq!(upgrader.connection_count(), 0);
}

#[tokio::test]
async fn plain_request_gets_426() {
    let (upgrader, _) = logging(Server::default());
    let request = Request::get("/ws").header("host", "test").body(Body::empty()).unwrap();
    let response = app(&upgrader).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(response.headers()["upgrade"], "websocket");
}

#[tokio::test]
async fn optional_extractor_lets_a_route_serve_a_page_too() {
    async fn both(upgrade: Option<WebSocketUpgrade>) -> Response {
        match upgrade {
            None => "the page".into_response(),
            Some(upgrade) => upgrade.on_upgrade(async |mut ws: WebSocket| ws.send("the socket").await),
        }
    }
    let app = Router::new()
        .route("/ws", any(both))
        .with_state(Upgrader::new(Server::default()));
    let request = Request::get("/ws").body(Body::empty()).unwrap();
    assert_eq!(body_of(app.clone().oneshot(request).await.unwrap()).await, "the page");
    let mut ws = connect(&app, &Client::default()).await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "the socket");
    let request = Request::get("/ws")
        .header("upgrade", "WebSocket")
        .body(Body::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn handler_answers_rejections_itself() {
    async fn own(upgrade: Result<WebSocketUpgrade, UpgradeError>) -> Response {
        match upgrade {
            Ok(upgrade) => upgrade.on_upgrade(async |_| Ok(())),
            Err(error) => (StatusCode::IM_A_TEAPOT, format!("not so: {error}")).into_response(),
        }
    }
    let app = Router::new()
        .route("/ws", any(own))
        .with_state(Upgrader::new(Server::default()));
    let request = handshake().header("origin", "https://evil.example").body(Body::empty());
    let response = app.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let body = body_of(response).await;
    assert!(body.starts_with("not so: upgrade rejected with status 403"), "{body}");
}

#[tokio::test]
async fn handler_chooses_subprotocol_and_headers() {
    async fn choose(upgrade: WebSocketUpgrade) -> Response {
        assert_eq!(upgrade.origin(), Some("https://test"));
        let acceptance = match upgrade.subprotocols().find(|name| name.starts_with("v1.")) {
            Some(name) => Acceptance::new().subprotocol(name).header("x-user", "7"),
            None => return StatusCode::NOT_ACCEPTABLE.into_response(),
        };
        upgrade.on_upgrade_with(acceptance, async |_| Ok(()))
    }
    let app = Router::new()
        .route("/ws", any(choose))
        .with_state(Upgrader::new(Server::default()));
    let request = |subprotocols: &str| {
        let request = handshake().header("origin", "https://test");
        request
            .header("sec-websocket-protocol", subprotocols)
            .body(Body::empty())
            .unwrap()
    };
    let response = app.clone().oneshot(request("v2.a, v1.b")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v1.b");
    assert_eq!(response.headers()["x-user"], "7");
    let response = app.oneshot(request("v2.a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn subprotocol_that_was_not_offered_is_an_error_of_the_application() {
    async fn wrong(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade_with(Acceptance::new().subprotocol("v9"), async |_| Ok(()))
    }
    let (upgrader, log) = logging(Server::default());
    let app = Router::new().route("/ws", any(wrong)).with_state(upgrader);
    let response = app.oneshot(handshake().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body_of(response).await, "internal server error\n");
    let log = log.lock().unwrap();
    assert!(log.len() == 1 && log[0].contains("v9"), "{log:?}");
}

/// With `oneshot` the response can be checked, but no transport exists: the task ends and reports it.
#[tokio::test]
async fn upgrade_that_never_happens_is_reported() {
    let (upgrader, log) = logging(Server::default());
    let app = app(&upgrader);
    let request = || handshake().body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);

    // A middleware replaces the response, so hyper never upgrades.
    let replaced = app.layer(middleware::map_response(async |_: Response| {
        StatusCode::PAYMENT_REQUIRED
    }));
    let error = connect(&replaced, &Client::default()).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(within(30, upgrader.shutdown(Duration::from_secs(30))).await, 0);
    assert_eq!(log.lock().unwrap().len(), 2, "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn handler_that_does_not_return_is_aborted_at_the_deadline() {
    async fn stubborn(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async |_ws| std::future::pending().await)
    }
    let upgrader = Upgrader::new(Server::default());
    let app = Router::new().merge(app(&upgrader)).merge(
        Router::new()
            .route("/stubborn", any(stubborn))
            .with_state(upgrader.clone()),
    );
    let request = Client::default().request("ws://test/stubborn");
    let (mut stubborn, _) = request.connect_over(serve_in_memory(app.clone())).await.unwrap();
    let mut polite = connect(&app, &Client::default()).await.unwrap();
    assert_eq!(upgrader.connection_count(), 2);
    let second = upgrader.clone();
    let (first, second, ()) = tokio::join!(
        upgrader.shutdown(Duration::from_secs(10)),
        second.shutdown(Duration::from_secs(60)),
        receives_going_away(&mut polite),
    );
    assert_eq!((first, second), (1, 0));
    assert!(within(30, stubborn.recv()).await.unwrap_err().is_closed());
    assert_eq!(upgrader.connection_count(), 0);

    let error = connect(&app, &Client::default()).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(&response.body()[..], b"the server is shutting down\n");
}

#[tokio::test]
async fn shutdown_while_the_handler_is_deciding_rejects_nothing_and_loses_nothing() {
    #[derive(Clone)]
    struct Slow {
        upgrader: Upgrader,
        entered: Arc<Notify>,
        decided: Arc<Notify>,
    }
    impl FromRef<Slow> for Upgrader {
        fn from_ref(state: &Slow) -> Self {
            state.upgrader.clone()
        }
    }
    async fn slow(axum::extract::State(slow): axum::extract::State<Slow>, upgrade: WebSocketUpgrade) -> Response {
        slow.entered.notify_one();
        slow.decided.notified().await;
        upgrade.on_upgrade(async |mut ws: WebSocket| ws.recv().await.map(drop))
    }
    let upgrader = Upgrader::new(Server::default());
    let (entered, decided) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let state = Slow {
        upgrader: upgrader.clone(),
        entered: entered.clone(),
        decided: decided.clone(),
    };
    let app = Router::new().route("/ws", any(slow)).with_state(state);
    let client = tokio::spawn(async move {
        let mut ws = connect(&app, &Client::default()).await.unwrap();
        receives_going_away(&mut ws).await;
    });
    within(30, entered.notified()).await;
    let mut shutdown = std::pin::pin!(upgrader.shutdown(Duration::from_secs(30)));
    let first_poll = std::future::poll_fn(|cx| std::task::Poll::Ready(shutdown.as_mut().poll(cx)));
    assert!(first_poll.await.is_pending());
    decided.notify_one();
    assert_eq!(within(30, shutdown).await, 0);
    within(30, client).await.unwrap();
}

#[tokio::test]
async fn panic_in_a_handler_ends_only_its_connection() {
    async fn panicking(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async |mut ws: WebSocket| match ws.recv().await? {
            Some(_) => panic!("on purpose"),
            None => Ok(()),
        })
    }
    let upgrader = Upgrader::new(Server::default());
    let app = Router::new().route("/ws", any(panicking)).with_state(upgrader.clone());
    let mut first = connect(&app, &Client::default()).await.unwrap();
    let mut second = connect(&app, &Client::default()).await.unwrap();
    first.send("now").await.unwrap();
    assert!(within(30, first.recv()).await.unwrap_err().is_closed());
    let (aborted, ()) = tokio::join!(
        upgrader.shutdown(Duration::from_secs(30)),
        receives_going_away(&mut second),
    );
    assert_eq!(aborted, 0);
}

/// axum's graceful shutdown does not wait for WebSockets; the upgrader's does.
#[tokio::test]
async fn connections_end_at_the_graceful_shutdown_of_axum() {
    let upgrader = Upgrader::new(Server::default());
    let app = Router::new().route("/", get(async || "page")).merge(app(&upgrader));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let closing = upgrader.clone();
    let serving = tokio::spawn(async move {
        let shutdown = async move { stopped.notified().await };
        axum::serve(listener, app)
            .with_graceful_shutdown(shutdown)
            .await
            .unwrap();
        closing.shutdown(Duration::from_secs(30)).await
    });
    let mut ws = within(30, sockeye::connect(&url)).await.unwrap();
    ws.send("hello").await.unwrap();
    assert_eq!(text_of(within(30, ws.recv()).await), "hello");
    stop.notify_one();
    receives_going_away(&mut ws).await;
    assert_eq!(within(30, serving).await.unwrap(), 0);
    assert!(within(30, sockeye::connect(&url)).await.is_err());
}
