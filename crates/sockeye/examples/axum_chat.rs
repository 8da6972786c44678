//! A chat in an axum application: rooms and names in the path, a page that lists the rooms, limits before the handlers,
//! and a shutdown that closes every connection. Requires the feature `axum`.
//!
//! `cargo run -p sockeye --features axum --example axum_chat -- 127.0.0.1:9007`
//!
//! Connect to `/rooms/tea/ann`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use sockeye::axum::{Upgrader, WebSocketUpgrade};
use sockeye::tower::HandshakeLayer;
use sockeye::{Error, Limits, Message, PreparedMessage, Sender, Server, WebSocket};
use tokio::net::TcpListener;

/// The members of each room, by name.
type Rooms = Arc<Mutex<BTreeMap<String, HashMap<String, Sender>>>>;

#[derive(Clone)]
struct App {
    rooms: Rooms,
    upgrader: Upgrader,
}

impl FromRef<App> for Upgrader {
    fn from_ref(app: &App) -> Self {
        app.upgrader.clone()
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9007".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    let limits = Limits::default().message_size_max(4096);
    let server = Server::builder().limits(limits).build();
    let upgrader = Upgrader::new(server).on_error(|error| eprintln!("{error}"));
    let limited = HandshakeLayer::new()
        .connections_max(10_000)
        .handshakes_per_second_max(100)
        .on_reject(|rejection| eprintln!("{rejection}"));
    let app = Router::new()
        .route("/", get(page))
        .route("/rooms/{room}/{name}", any(join))
        .layer(limited)
        .with_state(App {
            rooms: Rooms::default(),
            upgrader: upgrader.clone(),
        });
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c).await?;
    upgrader.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn page(State(app): State<App>) -> String {
    let rooms = app.rooms.lock().unwrap();
    rooms
        .iter()
        .map(|(room, members)| format!("{room}: {}\n", members.len()))
        .collect()
}

async fn join(
    State(app): State<App>,
    Path((room, name)): Path<(String, String)>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let is_taken = app
        .rooms
        .lock()
        .unwrap()
        .get(&room)
        .is_some_and(|members| members.contains_key(&name));
    if is_taken {
        return (StatusCode::CONFLICT, "this name is taken\n").into_response();
    }
    upgrade.on_upgrade(move |ws| talk(ws, app.rooms, room, name))
}

async fn talk(ws: WebSocket, rooms: Rooms, room: String, name: String) -> Result<(), Error> {
    let (sender, mut receiver) = ws.split();
    match rooms
        .lock()
        .unwrap()
        .entry(room.clone())
        .or_default()
        .entry(name.clone())
    {
        Entry::Vacant(vacant) => {
            vacant.insert(sender);
        }
        // The name was taken between the handshake and now.
        Entry::Occupied(_) => return Err(Error::other("the name was taken by somebody else")),
    }
    say(&rooms, &room, format!("{name} is here"));
    let result = loop {
        match receiver.recv().await {
            Ok(Some(Message::Text(text))) => say(&rooms, &room, format!("{name}: {text}")),
            Ok(Some(Message::Binary(_))) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    leave(&rooms, &room, &name);
    result
}

fn leave(rooms: &Rooms, room: &str, name: &str) {
    let mut locked = rooms.lock().unwrap();
    if let Some(members) = locked.get_mut(room) {
        members.remove(name);
        if members.is_empty() {
            locked.remove(room);
            return;
        }
    }
    drop(locked);
    say(rooms, room, format!("{name} has left"));
}

/// Sends a line to everybody in the room. It is framed once; a member that does not read misses it.
fn say(rooms: &Rooms, room: &str, line: String) {
    let line = PreparedMessage::new(Message::text(line));
    let rooms = rooms.lock().unwrap();
    for member in rooms.get(room).into_iter().flat_map(HashMap::values) {
        let _ = member.try_send(&line);
    }
}
