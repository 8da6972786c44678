//! Measures a broadcast to 1,000 members of which 10 keep their receivers busy: they continuously send messages of 8
//! MiB that compress to a few KiB.
//!
//! The members are in-memory transports, so that clients take no processor time: a hostile one replays the bytes of a
//! real client forever, the others are silent. One thread runs the receivers, another broadcasts.
//!
//! ```console
//! $ cargo run --release -p bench-micro --example hostile_broadcast
//! ```

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sockeye::{Client, DeflateConfig, PreparedMessage, Sender, Server, TrySendError};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::Builder;

const MEMBERS: usize = 1_000;
const BROADCASTS: usize = 500;
const MESSAGE_LEN: usize = 8 * 1024 * 1024;

/// A duplex stream that records what is read.
struct Recorder {
    io: DuplexStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorder {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Reads a request, then the same frames repeatedly, or nothing. Takes everything that is written.
struct Replay {
    request: Arc<[u8]>,
    frames: Arc<[u8]>,
    request_pos: usize,
    frames_pos: usize,
}

impl AsyncRead for Replay {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.request_pos < self.request.len() {
            let rest = &self.request[self.request_pos..];
            let len = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..len]);
            self.request_pos += len;
            return Poll::Ready(Ok(()));
        }
        if self.frames.is_empty() {
            return Poll::Pending;
        }
        while buf.remaining() > 0 {
            let rest = &self.frames[self.frames_pos..];
            let len = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..len]);
            self.frames_pos = (self.frames_pos + len) % self.frames.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The bytes that a client sends: its request, and one message.
async fn record(server: &Server) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error + Send + Sync>> {
    let (near, far) = duplex(1024 * 1024);
    let read = Arc::<Mutex<Vec<u8>>>::default();
    let io = Recorder {
        io: far,
        read: read.clone(),
    };
    let client = Client::builder().compression(DeflateConfig::default()).build()?;
    let accepting = async { server.accept(io).await?.accept().await };
    let (connected, accepted) = tokio::join!(client.request("ws://localhost/").connect_over(near), accepting);
    let (mut client, mut ws) = (connected?.0, accepted?);
    let request = std::mem::take(&mut *read.lock().unwrap());
    let (sent, received) = tokio::join!(client.send("a".repeat(MESSAGE_LEN)), ws.recv());
    sent?;
    assert_eq!(received?.map(|message| message.len()), Some(MESSAGE_LEN));
    let frames = std::mem::take(&mut *read.lock().unwrap());
    Ok((request, frames))
}

fn broadcast(senders: &[Sender]) -> (Vec<Duration>, usize) {
    let mut full = 0;
    let times = (0..BROADCASTS)
        .map(|number| {
            let message = PreparedMessage::new(format!("broadcast {number:0200}"));
            let start = Instant::now();
            for sender in senders {
                match sender.try_send(&message) {
                    Ok(()) => {}
                    Err(TrySendError::Full { .. }) => full += 1,
                    Err(TrySendError::Closed(error)) => panic!("{error:?}"),
                }
            }
            let time = start.elapsed();
            std::thread::sleep(Duration::from_millis(5));
            time
        })
        .collect();
    (times, full)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Server::builder().compression(DeflateConfig::default()).build();
    for hostile in [0, 10] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let senders = runtime.block_on(async {
            let (request, frames) = record(&server).await?;
            let (request, frames): (Arc<[u8]>, Arc<[u8]>) = (request.into(), frames.into());
            let mut senders = Vec::new();
            for number in 0..MEMBERS {
                let is_hostile = number % (MEMBERS / 10) == 50 && hostile > 0;
                let io = Replay {
                    request: request.clone(),
                    frames: if is_hostile { frames.clone() } else { Arc::default() },
                    request_pos: 0,
                    frames_pos: 0,
                };
                let (sender, mut receiver) = server.accept(io).await?.accept().await?.split();
                tokio::spawn(async move { while let Ok(Some(_)) = receiver.recv().await {} });
                senders.push(sender);
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(senders)
        })?;
        let (mut times, full) = broadcast(&senders);
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{hostile} of {MEMBERS} hostile: p50 {:?}, p99 {:?}, max {:?}; {full} messages found no room",
            at(50),
            at(99),
            at(100)
        );
        runtime.shutdown_background();
    }
    Ok(())
}
