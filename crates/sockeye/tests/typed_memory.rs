//! The JSON layer copies nothing: sending allocates only the encoded message, and receiving decodes in place.
#![cfg(feature = "json")]

#[allow(dead_code, reason = "only the memory is compared")]
#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize as _;
use serde::de::IgnoredAny;
use sockeye::{Encode, Json, Message, Server, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Larger than all buffers of a connection together.
const LEN: usize = 8 << 20;

/// A quarter of the payload: what buffers and rounding may take.
const TOLERANCE: usize = LEN / 4;

/// A transport that delivers bytes, then nothing, and discards what is written.
struct Canned(&'static [u8]);

impl AsyncRead for Canned {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let (now, later) = self.0.split_at(self.0.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A server's connection whose client has sent this frame after its request.
async fn server(frame: &[u8]) -> WebSocket {
    let limits = sockeye::Limits::default().message_size_max(2 * LEN as u64);
    let server = Server::builder().limits(limits).build();
    let bytes = [common::REQUEST.as_bytes(), frame].concat().leak();
    server.accept(Canned(bytes)).await.unwrap().accept().await.unwrap()
}

/// Runs a test while no other one of this program allocates.
fn run_alone(test: impl Future<Output = ()>) {
    let _counters = allocations::lock_counters();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test);
}

/// The most memory that was allocated at one time while `future` ran.
async fn memory_during(future: impl Future<Output = ()>) -> usize {
    allocations::count_during(future).await.memory_max
}

#[test]
fn encoded_value_is_sent_without_a_copy() {
    run_alone(async {
        let value = "x".repeat(LEN);
        // A buffer that grows is larger than its content, so the comparison is with the encoder alone.
        let encoding = memory_during(async { drop(Json.encode(&value).unwrap()) }).await;
        assert!(encoding >= LEN, "{encoding}");
        let mut ws = server(b"").await.json();
        let sending = memory_during(async { ws.send(&value).await.unwrap() }).await;
        assert!(
            sending < encoding + TOLERANCE,
            "{sending} beside {encoding} of the encoder"
        );
        // The same through a sender, and for a codec that gives its buffer away.
        let (sender, _receiver) = server(b"").await.json().split();
        let sending = memory_during(async { sender.send(&value).await.unwrap() }).await;
        assert!(
            sending < encoding + TOLERANCE,
            "{sending} beside {encoding} of the encoder"
        );
        let mut ws = server(b"").await.typed(Exact);
        let sending = memory_during(async { ws.send(value.as_str()).await.unwrap() }).await;
        assert!((LEN..LEN + TOLERANCE).contains(&sending), "{sending}");
    });
}

/// Encodes into a buffer of exactly the right size.
struct Exact;

impl Encode<str> for Exact {
    fn encode(&self, value: &str) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
        let mut buffer = Vec::with_capacity(LEN + 2);
        value.serialize(&mut serde_json::Serializer::new(&mut buffer))?;
        Ok(Message::binary(buffer))
    }
}

#[test]
fn message_is_decoded_in_place() {
    run_alone(async {
        let mut frame = vec![0x81, 0x80 | 127];
        frame.extend_from_slice(&(LEN as u64 + 2).to_be_bytes());
        // A mask of zeros changes nothing.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(format!("\"{}\"", "x".repeat(LEN)).as_bytes());
        // The first message is received into a new buffer. The later ones get that of the pool, so what they allocate is
        // what decoding needs.
        let mut ws = server(&frame).await;
        let receiving = memory_during(async { assert_eq!(ws.recv().await.unwrap().unwrap().len(), LEN + 2) }).await;
        assert!(receiving >= LEN, "{receiving}");
        let mut ws = server(&frame).await;
        let pooled = memory_during(async { assert_eq!(ws.recv().await.unwrap().unwrap().len(), LEN + 2) }).await;
        assert!(pooled < TOLERANCE, "{pooled}");
        // This value keeps nothing of the message.
        let mut ws = server(&frame).await.json();
        let decoding = memory_during(async { assert!(ws.recv::<IgnoredAny>().await.unwrap().is_some()) }).await;
        assert!(decoding < TOLERANCE, "{decoding}");
        // A string is the only copy.
        let mut ws = server(&frame).await.json();
        let decoding =
            memory_during(async { assert_eq!(ws.recv::<String>().await.unwrap().unwrap().len(), LEN) }).await;
        assert!((LEN..LEN + TOLERANCE).contains(&decoding), "{decoding}");
    });
}
