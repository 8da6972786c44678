//! The transport of a connection: a TCP stream, a TLS stream, a pipe in memory, a stream of HTTP/2.
//!
//! The rest of the crate reads and writes through the methods of [`Transport`]. To support a transport that does not implement
//! tokio's `AsyncRead` and `AsyncWrite`, add a variant here, or wrap it in a type that implements them.

pub(crate) mod socket;
#[cfg(target_os = "linux")]
mod tcp_info;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::any::Any;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream on which a connection can run.
pub(crate) trait Io: AsyncRead + AsyncWrite + Any + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Any + Send + Unpin> Io for T {}

/// A transport. TCP is stored inline: a broadcast visits a thousand connections that are not in the cache, and a box would
/// be one more cache miss for each.
pub(crate) enum Transport {
    Tcp(TcpStream),
    /// Another type whose reads only write to their buffer: see [`socket::reads_blindly`].
    Known(Box<dyn Io>),
    Other(Box<dyn Io>),
}

impl From<Box<dyn Io>> for Transport {
    fn from(io: Box<dyn Io>) -> Self {
        if !(&*io as &dyn Any).is::<TcpStream>() {
            return match socket::reads_blindly(&*io as &dyn Any) {
                true => Self::Known(io),
                false => Self::Other(io),
            };
        }
        let tcp = (io as Box<dyn Any>).downcast().expect("checked above");
        Self::Tcp(*tcp)
    }
}

/// Calls a method of tokio's traits.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Transport::Tcp(tcp) => Pin::new(tcp).$method($($argument),*),
            Transport::Known(io) | Transport::Other(io) => Pin::new(io).$method($($argument),*),
        }
    };
}

impl Transport {
    /// Whether reads only write to their buffer and never look at what is in it. Only such a transport may be given a buffer
    /// that holds bytes of other connections.
    #[inline]
    pub(crate) fn reads_blindly(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Known(_))
    }

    /// The right edge of the peer's TCP receive window: see [`socket::window_edge`].
    pub(crate) fn window_edge(&self) -> Option<NonZeroU32> {
        match self {
            Self::Tcp(tcp) => socket::window_edge(tcp),
            Self::Known(io) | Self::Other(io) => socket::window_edge(&**io as &dyn Any),
        }
    }

    /// Pending if the runtime knows that the socket is not readable. Ready for transports of which that is not known.
    #[inline]
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Known(_) | Self::Other(_) => Poll::Ready(Ok(())),
        }
    }

    /// Reads into `buffer`. Returns how many bytes were read; 0 at the end.
    #[inline]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let start = buffer.as_ptr();
        let mut buffer = ReadBuf::new(buffer);
        let read = delegate!(self.poll_read(cx, &mut buffer));
        assert_eq!(
            buffer.filled().as_ptr(),
            start,
            "a transport reads into the buffer that it is given"
        );
        read.map_ok(|()| buffer.filled().len())
    }

    /// Reads at most `len_max` bytes and appends them to `buffer`. The transport sees no other content of its capacity.
    #[inline]
    pub(crate) fn poll_read_append(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        len_max: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => pin!(tcp.read_buf(&mut buffer.limit(len_max))).poll(cx),
            Self::Known(io) | Self::Other(io) => pin!(io.read_buf(&mut buffer.limit(len_max))).poll(cx),
        }
    }

    /// Reads from a TCP socket even if the runtime does not know that it is readable. Returns how many bytes were read: 0 also
    /// at the end, on an error, and for other transports.
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

    /// Writes to a TCP socket even if the runtime does not know that it is writable: a kernel reports room only in large
    /// steps. Returns how many bytes were written: 0 also on an error, and for other transports.
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

    /// Ends the writing direction.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::TcpListener;

    use super::*;

    /// tokio-rustls has three types for a TLS stream.
    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn every_type_of_tls_stream_is_known() {
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
    async fn tcp_is_in_place_and_all_else_in_a_box() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (pipe, _far) = tokio::io::duplex(1);
        let foreign = tokio::io::join(tokio::io::empty(), tokio::io::sink());
        let [tcp, pipe, foreign] =
            [Box::new(tcp) as Box<dyn Io>, Box::new(pipe), Box::new(foreign)].map(Transport::from);
        assert!(matches!(tcp, Transport::Tcp(_)));
        assert!(matches!(pipe, Transport::Known(_)));
        assert!(matches!(foreign, Transport::Other(_)) && !foreign.reads_blindly());
        // Of both nothing can be read; of the second, only trying would tell.
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(tcp.poll_read_ready(cx).is_pending());
        assert!(pipe.poll_read_ready(cx).is_ready());
    }
}
