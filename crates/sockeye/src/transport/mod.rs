//! The transport of a connection, such as a TCP stream, a TLS stream or an in-memory pipe.
//!
//! The rest of the crate reads and writes through the methods of [`Transport`]. To support a transport that does not
//! implement tokio's `AsyncRead` and `AsyncWrite`, add a variant here, or wrap it in a type that implements them.

#[cfg(all(unix, feature = "blocking"))]
pub(crate) mod blocking;
#[cfg(feature = "futures-io")]
pub(crate) mod futures_io;
pub(crate) mod socket;
#[cfg(target_os = "linux")]
mod tcp_info;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::any::Any;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Makes further reads in the current poll non-blocking. No effect on transports that never block.
pub(crate) fn stop_blocking_reads() {
    #[cfg(all(unix, feature = "blocking"))]
    blocking::stop_blocking_reads();
}

/// A byte stream on which a connection can run.
pub(crate) trait Io: AsyncRead + AsyncWrite + Any + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Any + Send + Unpin> Io for T {}

/// An [`Io`] that several threads may refer to.
pub(crate) trait SyncIo: Io + Sync {}

impl<T: Io + Sync> SyncIo for T {}

/// A transport. TCP is stored inline: a broadcast uses a thousand connections that are not in the cache, and a box
/// would be one more cache miss for each.
pub(crate) enum Transport {
    Tcp(TcpStream),
    /// Sockets and pipes of tokio, and TLS streams of tokio-rustls over TCP. Their reads never inspect the buffer.
    Known(Box<dyn SyncIo>),
    /// The mutex makes it `Sync`, as `WebSocket` has to be: hyper's transport, for example, is not. It is never
    /// contended.
    Other(Mutex<Box<dyn Io>>),
}

impl From<Box<dyn Io>> for Transport {
    fn from(io: Box<dyn Io>) -> Self {
        let mut io: Result<Box<dyn SyncIo>, _> = match downcast::<TcpStream>(io) {
            Ok(tcp) => return Self::Tcp(*tcp),
            Err(io) => Err(io),
        };
        macro_rules! try_types {
            ($($known:ty),*) => {
                io = io$(.or_else(|io| Ok(downcast::<$known>(io)? as Box<dyn SyncIo>)))*
            };
        }
        try_types!(tokio::io::DuplexStream);
        #[cfg(all(unix, feature = "blocking"))]
        try_types!(blocking::BlockingStream);
        #[cfg(unix)]
        try_types!(tokio::net::UnixStream);
        #[cfg(feature = "tls")]
        socket::with_tls_types!(try_types);
        match io {
            Ok(io) => Self::Known(io),
            Err(io) => Self::Other(Mutex::new(io)),
        }
    }
}

pub(crate) fn downcast<T: Io>(io: Box<dyn Io>) -> Result<Box<T>, Box<dyn Io>> {
    match (&*io as &dyn Any).is::<T>() {
        true => Ok((io as Box<dyn Any>).downcast().expect("type checked above")),
        false => Err(io),
    }
}

/// Calls a method of tokio's traits on the inner transport.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Transport::Tcp(tcp) => Pin::new(tcp).$method($($argument),*),
            Transport::Known(io) => Pin::new(io).$method($($argument),*),
            Transport::Other(io) => {
                Pin::new(io.get_mut().unwrap_or_else(PoisonError::into_inner)).$method($($argument),*)
            }
        }
    };
}

impl Transport {
    /// Whether reads only write to their buffer and never inspect it. Only such transports may get a buffer that
    /// contains bytes of other connections.
    #[inline]
    pub(crate) fn never_inspects_buffer(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Known(_))
    }

    /// The concrete transport, for downcasting in [`socket`]. `None` if its type is not known.
    pub(crate) fn as_any(&self) -> Option<&dyn Any> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Known(io) => Some(&**io),
            Self::Other(_) => None,
        }
    }

    /// The right edge of the peer's TCP receive window: see [`socket::window_edge`].
    pub(crate) fn window_edge(&self) -> Option<NonZeroU32> {
        socket::window_edge(self.as_any()?)
    }

    /// Pending if the runtime knows that the socket is not readable. Always ready for other transports.
    #[inline]
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Known(_) | Self::Other(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads into `buffer`. Returns the number of read bytes; 0 at the end.
    #[inline]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let start = buffer.as_ptr();
        let mut buffer = ReadBuf::new(buffer);
        let read = delegate!(self.poll_read(cx, &mut buffer));
        assert_eq!(
            buffer.filled().as_ptr(),
            start,
            "the transport replaced the read buffer"
        );
        read.map_ok(|()| buffer.filled().len())
    }

    /// Reads at most `len_max` bytes and appends them to `buffer`. The transport cannot see other content of its
    /// capacity.
    #[inline]
    pub(crate) fn poll_read_append(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        len_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => pin!(tcp.read_buf(&mut buffer.limit(len_max))).poll(cx),
            Self::Known(io) => pin!(io.read_buf(&mut buffer.limit(len_max))).poll(cx),
            Self::Other(io) => {
                let io = io.get_mut().unwrap_or_else(PoisonError::into_inner);
                pin!(io.read_buf(&mut buffer.limit(len_max))).poll(cx)
            }
        }
    }

    /// Reads from a TCP socket even if the runtime does not know that it is readable. Returns the number of read bytes:
    /// 0 at the end, on an error, and for other transports.
    #[cold]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Tcp(tcp) => (&*socket2::SockRef::from(tcp)).read(buffer).unwrap_or(0),
            Self::Known(_) | Self::Other(_) => 0,
        }
    }

    #[inline]
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, bytes))
    }

    #[inline]
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, slices))
    }

    /// Writes to a TCP socket even if the runtime does not know that it is writable: kernels report room only in large
    /// steps. Returns the number of written bytes: 0 on an error, and for other transports.
    #[cold]
    pub(crate) fn try_write(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Tcp(tcp) => (&*socket2::SockRef::from(tcp)).write(bytes).unwrap_or(0),
            Self::Known(_) | Self::Other(_) => 0,
        }
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    /// Shuts down the writing direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::TcpListener;

    use super::*;

    /// tokio-rustls has three types of TLS streams.
    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn tls_streams_of_tokio_rustls_are_known() {
        use std::sync::Arc;

        use rustls::pki_types::{PrivateKeyDer, ServerName};

        let key = rcgen::generate_simple_self_signed(vec!["h".into()]).unwrap();
        let certificate = key.cert.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = async || {
            let address = listener.local_addr().unwrap();
            let (tcp, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client.clone()));
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server.clone()));
            tokio::try_join!(
                connector.connect(ServerName::try_from("h").unwrap(), tcp.unwrap()),
                acceptor.accept(accepted.unwrap().0)
            )
            .unwrap()
        };
        let (client_stream, server_stream) = connect().await;
        let either = tokio_rustls::TlsStream::from(connect().await.1);
        let streams: [Box<dyn Io>; 3] = [Box::new(client_stream), Box::new(server_stream), Box::new(either)];
        for stream in streams {
            assert!(matches!(Transport::from(stream), Transport::Known(_)));
        }
    }

    #[tokio::test]
    async fn tcp_is_stored_inline_and_other_transports_boxed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (pipe, _far) = tokio::io::duplex(1);
        let foreign = tokio::io::join(tokio::io::empty(), tokio::io::sink());
        let [tcp, pipe, foreign] =
            [Box::new(tcp) as Box<dyn Io>, Box::new(pipe), Box::new(foreign)].map(Transport::from);
        assert!(matches!(tcp, Transport::Tcp(_)));
        assert!(matches!(pipe, Transport::Known(_)));
        assert!(matches!(foreign, Transport::Other(_)) && !foreign.never_inspects_buffer());
        // Nothing can be read from either, but only the TCP socket is known not to be ready.
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(tcp.poll_read_ready(cx).is_pending());
        assert!(pipe.poll_read_ready(cx).is_ready());
    }
}
