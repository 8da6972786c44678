//! tokio-tungstenite: feeds every message that has been decoded, then flushes once. The read buffer is 16 KiB, because
//! it is zeroed before each read: the default of 128 KiB quadruples the processor time of a small message.

use std::process::ExitCode;

use bench_listen::{Can, Flags};
use futures_util::future::poll_immediate;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const READ_BUFFER_SIZE: usize = 16 * 1024;

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
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_SIZE);
    let mut ws = tokio_tungstenite::accept_async_with_config(io, Some(config)).await?;
    tokio::spawn(async move { drop(echo(&mut ws).await) });
    Ok(())
}

async fn echo<S>(ws: &mut WebSocketStream<S>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(first) = ws.next().await {
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message?;
            if message.is_text() || message.is_binary() {
                ws.feed(message).await?;
            }
            // Nothing further has arrived: flush before waiting.
            next = poll_immediate(ws.next()).await.flatten();
        }
        ws.flush().await?;
    }
    Ok(())
}
