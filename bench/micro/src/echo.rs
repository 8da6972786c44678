//! The echo loop of the README over an in-memory transport that delivers a burst of frames and then returns `Pending`
//! once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use sockeye::{Error, Server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cases::frame;

const REQUEST: &str = "GET / HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

struct Bursts {
    request: Option<&'static str>,
    burst: Vec<u8>,
    /// Number of bursts still to deliver.
    left: u64,
    waits: bool,
    written: usize,
}

impl AsyncRead for Bursts {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(request) = self.request.take() {
            buf.put_slice(request.as_bytes());
        } else if std::mem::replace(&mut self.waits, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        } else if self.left > 0 {
            self.left -= 1;
            self.waits = true;
            buf.put_slice(&self.burst);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bursts {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.written += len;
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Echoes `count` messages that arrive in bursts of `burst`.
pub(crate) fn echo(count: u64, burst: u64, payload_len: usize, is_text: bool) {
    let transport = Bursts {
        request: Some(REQUEST),
        burst: frame(payload_len, is_text).repeat(burst as usize),
        left: count / burst,
        waits: false,
        written: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be made");
    // In a task, as in a server; directly in `block_on`, the compiler would inline the loop into the runtime.
    let echoed = runtime.block_on(async { tokio::spawn(echo_all(transport)).await });
    let echoed = echoed
        .expect("the task does not panic")
        .expect("the connection is open");
    assert_eq!(echoed, count / burst * burst);
}

/// Runs until the transport ends without a close frame, which is reported as an error.
async fn echo_all(transport: Bursts) -> Result<u64, Error> {
    let mut ws = Server::default().accept(transport).await?.accept().await?;
    let mut echoed = 0;
    while let Ok(Some(message)) = ws.recv().await {
        ws.feed(message).await?;
        echoed += 1;
    }
    Ok(echoed)
}
