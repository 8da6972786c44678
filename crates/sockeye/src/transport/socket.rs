//! Socket options, addresses and TLS data of a transport, found by downcasting.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use socket2::SockRef;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use super::tcp_info;
use crate::error::Error;

/// Prepares a transport for the opening handshake.
///
/// # Errors
///
/// The socket is closed, or TLS negotiated HTTP/2, over which an HTTP/1.1 request cannot be sent.
pub(crate) fn prepare(io: &dyn Any) -> Result<(), Error> {
    set_options(io).map_err(Error::io)?;
    #[cfg(feature = "tls")]
    crate::transport::tls::check_alpn(alpn(io))?;
    Ok(())
}

/// Calls [`set_tcp_options`] on the TCP socket of a transport, if it has a known one.
pub(crate) fn set_options(io: &dyn Any) -> io::Result<()> {
    tcp(io).map_or(Ok(()), set_tcp_options)
}

/// The address of the peer, if the transport is TCP or TLS of tokio-rustls over it.
pub(crate) fn peer_addr(io: &dyn Any) -> Option<SocketAddr> {
    tcp(io)?.peer_addr().ok()
}

/// The local address, if the transport is TCP or TLS of tokio-rustls over it.
pub(crate) fn local_addr(io: &dyn Any) -> Option<SocketAddr> {
    tcp(io)?.local_addr().ok()
}

/// Maximum number of unsent bytes that the kernel buffers. It reports room once less than half of this is left. Without
/// this limit it buffers megabytes and reports room only when a third of them was sent (a peer that took 60 KB/s showed
/// no progress in 14 s), and a ping waits behind all of them.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_MAX: u32 = 128 * 1024;

/// Sets the options of a TCP socket: send each message immediately instead of waiting for an acknowledgement
/// (`TCP_NODELAY`), and let the kernel report progress early (`TCP_NOTSENT_LOWAT`, on Linux).
pub(crate) fn set_tcp_options<'a>(tcp: impl Into<SockRef<'a>>) -> io::Result<()> {
    let tcp = tcp.into();
    tcp.set_tcp_nodelay(true)?;
    // Optional: older kernels do not support it.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = tcp.set_tcp_notsent_lowat(UNSENT_MAX);
    Ok(())
}

/// The right edge of the peer's TCP receive window, in bytes since the connection began, modulo 2³². It moves when the
/// peer's application reads. `None` if the transport is not TCP, or the system does not report it.
pub(crate) fn window_edge(io: &dyn Any) -> Option<NonZeroU32> {
    #[cfg(target_os = "linux")]
    return tcp_info::window_edge(tcp(io)?);
    #[cfg(not(target_os = "linux"))]
    return tcp(io).and(None);
}

/// Expands `$visit!` with the known types of TLS streams over TCP: those of tokio-rustls.
#[cfg(feature = "tls")]
macro_rules! with_tls_types {
    ($visit:ident) => {
        $visit!(
            tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
            tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
            tokio_rustls::TlsStream<tokio::net::TcpStream>
        )
    };
}
#[cfg(feature = "tls")]
pub(crate) use with_tls_types;

/// The TCP socket of a `TcpStream`, or of a TLS stream of tokio-rustls over one.
fn tcp(io: &dyn Any) -> Option<&TcpStream> {
    let tcp = io.downcast_ref();
    #[cfg(feature = "tls")]
    let tcp = {
        macro_rules! socket {
            ($($tls:ty),*) => { tcp$(.or_else(|| Some(io.downcast_ref::<$tls>()?.get_ref().0)))* };
        }
        with_tls_types!(socket)
    };
    tcp
}

/// The ALPN protocol (RFC 7301) that a TLS stream of tokio-rustls over TCP negotiated.
#[cfg(feature = "tls")]
fn alpn(io: &dyn Any) -> Option<&[u8]> {
    macro_rules! protocol {
        ($($tls:ty),*) => { None$(.or_else(|| io.downcast_ref::<$tls>()?.get_ref().1.alpn_protocol()))* };
    }
    with_tls_types!(protocol)
}

/// The certificates of the peer, if the transport is TLS of tokio-rustls over TCP.
#[cfg(feature = "tls")]
pub(crate) fn peer_certificates(io: &dyn Any) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
    macro_rules! certificates {
        ($($tls:ty),*) => { None$(.or_else(|| io.downcast_ref::<$tls>()?.get_ref().1.peer_certificates()))* };
    }
    with_tls_types!(certificates)
}
