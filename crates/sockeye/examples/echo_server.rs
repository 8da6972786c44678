//! Echoes every message.
//!
//! `cargo run -p sockeye --example echo_server -- 127.0.0.1:9001`

use sockeye::{Error, Server};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let server = Server::default();
    loop {
        let (tcp, peer) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            if let Err(error) = echo(&server, tcp).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn echo(server: &Server, tcp: TcpStream) -> Result<(), Error> {
    let mut ws = server.accept(tcp).await?.accept().await?;
    while let Some(message) = ws.recv().await? {
        // What is fed leaves when recv waits: one write for all that came at once.
        ws.feed(message).await?;
    }
    Ok(())
}
