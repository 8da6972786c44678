//! What a connection runs over: TCP in place, all else in a box.
//!
//! A broadcast visits a thousand connections that nothing has touched since the last, and the box of each would be one
//! more wait for memory.

use std::any::Any;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Io;

/// A transport.
pub(super) enum Carrier {
    Tcp(TcpStream),
    Other(Box<dyn Io>),
}

impl From<Box<dyn Io>> for Carrier {
    fn from(io: Box<dyn Io>) -> Self {
        if !(&*io as &dyn Any).is::<TcpStream>() {
            return Self::Other(io);
        }
        let tcp = (io as Box<dyn Any>).downcast().expect("looked at above");
        Self::Tcp(*tcp)
    }
}

impl Carrier {
    /// Pending where it is known, without trying, that nothing can be read.
    #[inline]
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Other(_) => Poll::Ready(Ok(())),
        }
    }
}

macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Carrier::Tcp(tcp) => Pin::new(tcp).$method($($argument),*),
            Carrier::Other(io) => Pin::new(io).$method($($argument),*),
        }
    };
}

impl AsyncRead for Carrier {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, pieces))
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Other(io) => io.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn tcp_is_in_place_and_all_else_in_a_box() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (pipe, _far) = tokio::io::duplex(1);
        let [tcp, pipe] = [Box::new(tcp) as Box<dyn Io>, Box::new(pipe)].map(Carrier::from);
        assert!(matches!(tcp, Carrier::Tcp(_)));
        assert!(matches!(pipe, Carrier::Other(_)));
        // Of both nothing can be read; of the second, only trying would tell.
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(tcp.poll_read_ready(cx).is_pending());
        assert!(pipe.poll_read_ready(cx).is_ready());
    }
}
