//! Transports with the traits of `futures-io`, which smol and async-std use.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

/// The least and the largest size of a read. The buffer has to be zeroed first, so it is only as large as the last read
/// suggests.
const READ_LEN_MIN: usize = 4 * 1024;
const READ_LEN_MAX: usize = 64 * 1024;

/// A transport that implements the traits of `futures-io`, such as a socket of smol, with those of tokio: for
/// [`connect_over`](crate::RequestBuilder::connect_over) and [`Server::accept`](crate::Server::accept).
///
/// Tokio's traits need no tokio runtime. [`Runtime`](crate::Runtime) has the other half: the timers.
///
/// Disable Nagle's algorithm of a TCP socket before (`set_nodelay`), because the type of the socket is not known here.
/// For the same reason [`peer_addr`](crate::WebSocket::peer_addr) and [`local_addr`](crate::WebSocket::local_addr) are
/// `None`. A read costs one copy more than from a socket of tokio.
///
/// ```
/// # use sockeye::{Client, Error, FuturesIo, WebSocket};
/// # async fn example(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
/// let tcp = smol::net::TcpStream::connect("127.0.0.1:9001").await?;
/// tcp.set_nodelay(true)?;
/// let (mut ws, _response) = client
///     .request("ws://127.0.0.1:9001/chat")
///     .connect_over(FuturesIo::new(tcp))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FuturesIo<S> {
    inner: S,
    read_len: usize,
}

impl<S> FuturesIo<S> {
    /// Wraps a transport.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            read_len: READ_LEN_MIN,
        }
    }

    /// The wrapped transport.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the wrapped transport. Nothing is buffered here.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn record_read(&mut self, len: usize, room: usize) {
        if len == room {
            self.read_len = (self.read_len * 2).min(READ_LEN_MAX);
        } else if len < self.read_len / 4 {
            self.read_len = READ_LEN_MIN;
        }
    }
}

impl<S: futures_io::AsyncRead + Unpin> tokio::io::AsyncRead for FuturesIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(self.read_len);
        let len = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled_to(room)))?;
        if len > room {
            return Poll::Ready(Err(io::Error::other(
                "the transport read more than fits into the buffer",
            )));
        }
        buffer.advance(len);
        self.record_read(len, room);
        Poll::Ready(Ok(()))
    }
}

impl<S: futures_io::AsyncWrite + Unpin> tokio::io::AsyncWrite for FuturesIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        check(Pin::new(&mut self.inner).poll_write(cx, bytes), bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        check(Pin::new(&mut self.inner).poll_write_vectored(cx, slices), len)
    }

    fn is_write_vectored(&self) -> bool {
        // Not known. The default of `futures-io` writes the first slice.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// Checks that a transport wrote no more than it was given.
fn check(written: Poll<io::Result<usize>>, len_max: usize) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Ok(len)) if len > len_max => {
            Poll::Ready(Err(io::Error::other("the transport wrote more than it was given")))
        }
        written => written,
    }
}
