//! A chat with one room per path. A slow member never delays the others, and Ctrl+C closes every connection.
//!
//! `cargo run -p sockeye --example chat -- 127.0.0.1:9002`

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::{Error, Incoming, Message, PreparedMessage, Sender, Server, TrySendError};
use tokio::net::TcpListener;

/// The members of each room, by number.
type Rooms = Arc<Mutex<HashMap<String, HashMap<u64, Sender>>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let rooms = Rooms::default();
    Server::default()
        .serve(listener)
        .on_error(|error| eprintln!("{error}"))
        .graceful_shutdown(tokio::signal::ctrl_c(), Duration::from_secs(5))
        .run(move |incoming| join(incoming, rooms.clone()))
        .await;
    Ok(())
}

async fn join(incoming: Incoming, rooms: Rooms) -> Result<(), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = incoming.request().uri().path().to_owned();
    let (sender, mut receiver) = incoming.accept().await?.split();
    rooms
        .lock()
        .unwrap()
        .entry(name.clone())
        .or_default()
        .insert(number, sender);
    let result = loop {
        match receiver.recv().await {
            Ok(Some(Message::Text(text))) => say(&rooms, &name, format!("{number}: {text}")),
            Ok(Some(Message::Binary(_))) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let mut rooms = rooms.lock().unwrap();
    let members = rooms
        .get_mut(&name)
        .expect("a room is there until its last member leaves");
    members.remove(&number);
    if members.is_empty() {
        rooms.remove(&name);
    }
    result
}

fn say(rooms: &Rooms, name: &str, text: String) {
    // Framed once for all members.
    let message = PreparedMessage::new(Message::text(text));
    for (number, member) in &rooms.lock().unwrap()[name] {
        if let Err(TrySendError::Full { .. }) = member.try_send(&message) {
            eprintln!("{number} does not read, and misses a message");
        }
    }
}
