//! The usual design: one task per connection that selects over its WebSocket and a `tokio::sync::broadcast` channel.
//! Every subscriber encodes and flushes every message.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use bench_listen::{Can, Flags};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, Sender};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

const READ_BUFFER_SIZE: usize = 16 * 1024;

/// A subscriber that is further behind is disconnected.
const BEHIND_MAX: usize = 1024;

/// A message and the connection that sent it.
type Publication = (u64, Message);

fn main() -> ExitCode {
    let (sender, _) = broadcast::channel(BEHIND_MAX);
    let ids = AtomicU64::new(0);
    let open = move |tcp| open(tcp, ids.fetch_add(1, Ordering::Relaxed), sender.clone());
    bench_listen::exit(bench_listen::serve(&Flags::parse(Can::default()), open))
}

async fn open(tcp: TcpStream, id: u64, sender: Sender<Publication>) -> Result<(), Error> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_SIZE);
    let ws = tokio_tungstenite::accept_async_with_config(tcp, Some(config)).await?;
    tokio::spawn(async move { drop(serve(ws, id, sender).await) });
    Ok(())
}

async fn serve(mut ws: WebSocketStream<TcpStream>, id: u64, sender: Sender<Publication>) -> Result<(), Error> {
    let mut publications = sender.subscribe();
    loop {
        tokio::select! {
            message = ws.next() => match message.transpose()? {
                None => return Ok(()),
                Some(message) if message.is_text() || message.is_binary() => drop(sender.send((id, message))),
                Some(_) => {}
            },
            publication = publications.recv() => match publication {
                Ok((from, message)) if from != id => ws.send(message).await?,
                Ok(_) => {}
                // Too far behind: the subscriber would not notice the gap.
                Err(_) => return Ok(()),
            },
        }
    }
}
