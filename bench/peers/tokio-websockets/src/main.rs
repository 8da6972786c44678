//! tokio-websockets, as its echo example. There is nothing to gain from `feed`: its `poll_next` flushes.

use std::process::ExitCode;

use bench_listen::{Can, Flags};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_websockets::{Config, Error, Limits, ServerBuilder, WebSocketStream};

fn main() -> ExitCode {
    bench_listen::exit(bench_listen::serve(&Flags::parse(Can::default()), open))
}

async fn open(tcp: TcpStream) -> Result<(), Error> {
    let (_, mut ws) = ServerBuilder::new()
        .config(Config::default().frame_size(usize::MAX))
        .limits(Limits::unlimited())
        .accept(tcp)
        .await?;
    tokio::spawn(unconstrained(async move { drop(echo(&mut ws).await) }));
    Ok(())
}

async fn echo(ws: &mut WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = ws.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            ws.send(message).await?;
        }
    }
    Ok(())
}
