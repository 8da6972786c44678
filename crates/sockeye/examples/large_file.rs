//! Sends one message of any size, as from a file, and receives it in constant memory: `large_file [MiB]`, default 64.
//!
//! The server stores nothing: it counts the bytes and computes a checksum. Replace [`Source`] and the loop in `receive`
//! by a `tokio::fs::File`.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use sockeye::{Client, CloseCode, DeflateConfig, MessageKind, Server, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpListener;

const MIB: u64 = 1024 * 1024;

/// Stands for a file: lines with a number.
struct Source {
    number: u64,
}

impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        while buffer.remaining() > 0 {
            let line = format!("{:30}\n", self.number);
            buffer.put_slice(&line.as_bytes()[..line.len().min(buffer.remaining())]);
            self.number += 1;
        }
        Poll::Ready(Ok(()))
    }
}

async fn send(mut ws: WebSocket, len: u64) -> Result<()> {
    let mut message = ws.send_stream(MessageKind::Binary);
    tokio::io::copy_buf(
        &mut tokio::io::BufReader::with_capacity(128 * 1024, Source { number: 0 }.take(len)),
        &mut message,
    )
    .await?;
    // Without this, the peer would get an error instead of the end of the message.
    message.finish().await?;
    // The answer is a small message, received as usual.
    let answer = ws.recv().await?.ok_or(ErrorKind::UnexpectedEof)?;
    println!("{}", answer.as_text().unwrap_or_default());
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn receive(mut ws: WebSocket) -> Result<()> {
    let mut message = ws.recv_stream().await?.ok_or(ErrorKind::UnexpectedEof)?;
    let (mut len, mut checksum) = (0, 0_u64);
    let mut bytes = vec![0; 64 * 1024];
    while let read @ 1.. = message.read(&mut bytes).await? {
        len += read as u64;
        checksum = bytes[..read]
            .iter()
            .fold(checksum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    }
    drop(message);
    ws.send(format!("received {len} bytes, checksum {checksum:016x}"))
        .await?;
    while ws.recv().await?.is_some() {}
    Ok(())
}

/// The most memory that this process has used, on Linux.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let mib: u64 = match std::env::args().nth(1) {
        Some(mib) => mib.parse().map_err(Error::other)?,
        None => 64,
    };
    let deflate = std::env::args().nth(2).is_some_and(|option| option == "--deflate");
    let (mut client, mut server) = (Client::builder(), Server::builder());
    if deflate {
        client = client.compression(DeflateConfig::default());
        server = server.compression(DeflateConfig::default());
    }
    let (client, server) = (client.build()?, server.build());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let receiver = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        receive(server.accept(tcp).await?.accept().await?).await
    });
    let start = Instant::now();
    send(client.connect(&url).await?, mib * MIB).await?;
    let rate = mib as f64 / start.elapsed().as_secs_f64();
    receiver.await??;
    println!("{rate:.0} MiB/s, peak memory {}", peak_memory().unwrap_or_default());
    Ok(())
}
