//! tokio-websockets, like its echo example. `feed` would gain nothing, because its `poll_next` flushes.

use std::process::ExitCode;

use bench_listen::{Can, Flags};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio_websockets::{Config, Error, Limits, ServerBuilder, WebSocketStream};

fn main() -> ExitCode {
    let flags = Flags::parse(Can::TLS);
    bench_listen::exit(match &flags.tls {
        None => bench_listen::serve(&flags, open),
        Some(files) => bench_listen::serve_tls(&flags, files, open),
    })
}

async fn open<S>(io: S) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (_, mut ws) = ServerBuilder::new()
        .config(Config::default().frame_size(usize::MAX))
        .limits(Limits::unlimited())
        .accept(io)
        .await?;
    tokio::spawn(unconstrained(async move { drop(echo(&mut ws).await) }));
    Ok(())
}

async fn echo<S>(ws: &mut WebSocketStream<S>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = ws.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            ws.send(message).await?;
        }
    }
    Ok(())
}
