//! Client and server on smol, without tokio's runtime: `smol serve ADDRESS` echoes messages, `smol URL TEXT` sends one.
//!
//! Another runtime needs the same two things: [`Runtime`], which is its timer and its spawn function, and sockets that
//! implement the traits of `futures-io`.

use std::error::Error;
use std::pin::Pin;
use std::time::{Duration, Instant};

use smol::Timer;
use smol::net::{TcpListener, TcpStream};
use sockeye::{Client, CloseCode, FuturesIo, Runtime, Server, WebSocket, WebSocketUrl};

/// Connects the deadlines of sockeye to the timers of smol.
enum Smol {}

impl Runtime for Smol {
    fn sleep_until(deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(async move {
            Timer::at(deadline).await;
        })
    }

    fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        smol::spawn(task).detach();
    }
}

/// Accepts connections forever. Each has its own task.
async fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let server = Server::builder().runtime::<Smol>().build();
    let listener = TcpListener::bind(address).await?;
    println!("ws://{}/", listener.local_addr()?);
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // For example no file descriptors: wait until connections end.
                eprintln!("{error}");
                Timer::after(Duration::from_millis(100)).await;
                continue;
            }
        };
        let server = server.clone();
        let echoing = async move {
            if let Err(error) = echo(&server, tcp).await {
                eprintln!("{peer}: {error}");
            }
        };
        smol::spawn(echoing).detach();
    }
}

/// Performs the opening handshake, within its timeout, and echoes messages.
async fn echo(server: &Server, tcp: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let mut ws = server.accept(FuturesIo::new(tcp)).await?.accept().await?;
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

/// Connects a socket of smol, and opens a WebSocket over it. For `wss://`, TLS runs over the socket.
async fn connect(url: &str) -> Result<WebSocket, Box<dyn Error>> {
    let client = Client::builder().runtime::<Smol>().build()?;
    let parsed = WebSocketUrl::parse(url)?;
    let tcp = TcpStream::connect((parsed.uri().host(), parsed.uri().port())).await?;
    tcp.set_nodelay(true)?;
    let (ws, _response) = client.request(url).connect_over(FuturesIo::new(tcp)).await?;
    Ok(ws)
}

/// Sends a message, prints the answer, and closes.
async fn talk(url: &str, text: String) -> Result<(), Box<dyn Error>> {
    let mut ws = connect(url).await?;
    ws.send(text).await?;
    let answer = ws.recv().await?;
    println!("{answer:?} after {:?}", ws.ping().await?);
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    match (args.next(), args.next()) {
        (Some(serves), Some(address)) if serves == "serve" => smol::block_on(serve(&address)),
        (Some(url), Some(text)) => smol::block_on(talk(&url, text)),
        _ => Err("usage: smol serve ADDRESS, or smol URL TEXT".into()),
    }
}
