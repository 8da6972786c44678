//! Testing an application: connected WebSockets in memory, and a peer that misbehaves on command.
//!
//! Nothing here uses a network, so tests run with tokio's paused clock: a timeout of 30 s takes no time.
//!
//! ```
//! use sockeye::{CloseCode, Error, Server, WebSocket, test_util};
//!
//! /// The code under test.
//! async fn greet(mut ws: WebSocket) -> Result<(), Error> {
//!     while let Some(name) = ws.recv().await? {
//!         ws.send(format!("Hello, {}!", name.as_text().unwrap_or("stranger"))).await?;
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Error> {
//! // A peer that behaves.
//! let (mut client, server) = test_util::pair().await;
//! let greeting = tokio::spawn(greet(server));
//! client.send("Ada").await?;
//! assert_eq!(client.recv().await?.unwrap().as_text(), Some("Hello, Ada!"));
//! client.close(CloseCode::NORMAL, "").await?;
//! greeting.await.unwrap()?;
//!
//! // One that does not: it sends a frame without a mask.
//! let (server, mut peer) = test_util::scripted_client(&Server::default()).await?;
//! let greeting = tokio::spawn(greet(server));
//! peer.send_wrongly_masked("Eve").await;
//! assert_eq!(peer.recv().await.unwrap().close_code(), Some(1002));
//! assert!(greeting.await.unwrap().unwrap_err().is_protocol());
//! # Ok(())
//! # }
//! ```

mod frame;
mod peer;

use crate::client::Client;
use crate::error::Error;
use crate::server::Server;
use crate::websocket::WebSocket;

pub use frame::Frame;
pub use peer::{ScriptedPeer, scripted_client, scripted_server};

/// How many bytes a connection in memory buffers in each direction: as much as sockets do.
const CAPACITY: usize = 256 * 1024;

/// A client and a server with default settings, connected in memory.
///
/// # Panics
///
/// Outside a tokio runtime.
pub async fn pair() -> (WebSocket, WebSocket) {
    match pair_with(&Client::default(), &Server::default()).await {
        Ok(pair) => pair,
        Err(error) => unreachable!("two default endpoints agree: {error}"),
    }
}

/// A client and a server with these settings, connected in memory, after an opening handshake for `ws://localhost/`.
/// Each buffers 256 KiB, as sockets do.
///
/// # Errors
///
/// The two do not agree: for example, the client offers no subprotocol that the server requires.
pub async fn pair_with(client: &Client, server: &Server) -> Result<(WebSocket, WebSocket), Error> {
    let (near, far) = tokio::io::duplex(CAPACITY);
    let accepting = async { server.accept(far).await?.accept().await };
    let (client, server) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    Ok((client?.0, server?))
}
