//! Sends what anyone says to everyone, and does not wait for those who do not listen.
//!
//! `cargo run -p sockeye --example chat -- 127.0.0.1:9002`

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sockeye::{Error, Message, PreparedMessage, Sender, Server, TrySendError};
use tokio::net::{TcpListener, TcpStream};

type Room = Arc<Mutex<HashMap<SocketAddr, Sender>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let (server, room) = (Server::default(), Room::default());
    loop {
        let (tcp, peer) = listener.accept().await?;
        let (server, room) = (server.clone(), room.clone());
        tokio::spawn(async move {
            if let Err(error) = take_part(&server, tcp, peer, &room).await {
                eprintln!("{peer}: {error}");
            }
            room.lock().expect("nobody panics").remove(&peer);
        });
    }
}

async fn take_part(server: &Server, tcp: TcpStream, peer: SocketAddr, room: &Room) -> Result<(), Error> {
    let (sender, mut receiver) = server.accept(tcp).await?.accept().await?.split();
    room.lock().expect("nobody panics").insert(peer, sender);
    while let Some(message) = receiver.recv().await? {
        if let Some(text) = message.as_text() {
            say(room, &PreparedMessage::new(Message::text(format!("{peer}: {text}"))));
        }
    }
    Ok(())
}

fn say(room: &Room, message: &PreparedMessage) {
    room.lock().expect("nobody panics").retain(|peer, listener| {
        // It was framed once for all.
        match listener.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Full { .. }) => {
                eprintln!("{peer}: does not listen, misses a message");
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    });
}
