//! What can be known of a transport that the caller connected: its TCP socket, and the protocol that its TLS agreed on.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use super::tcp_info;
use crate::error::Error;

/// Makes a transport ready for an opening handshake.
///
/// # Errors
///
/// The socket is dead, or TLS agreed on HTTP/2, where an HTTP/1.1 request would be nonsense.
pub(crate) fn prepare(io: &dyn Any) -> Result<(), Error> {
    prepare_socket(io)?;
    #[cfg(feature = "tls")]
    crate::transport::tls::check_alpn(alpn(io))?;
    Ok(())
}

/// [`prepare_tcp`] for the TCP socket in a transport, if there is one that is known.
pub(crate) fn prepare_socket(io: &dyn Any) -> io::Result<()> {
    tcp(io).map_or(Ok(()), prepare_tcp)
}

/// The address of the TCP peer, where the transport is TCP or TLS of tokio-rustls over it.
pub(crate) fn peer_addr(io: &dyn Any) -> Option<SocketAddr> {
    tcp(io)?.peer_addr().ok()
}

/// The local address, where the transport is TCP or TLS of tokio-rustls over it.
pub(crate) fn local_addr(io: &dyn Any) -> Option<SocketAddr> {
    tcp(io)?.local_addr().ok()
}

/// How many bytes the kernel keeps that it has not sent yet. It reports room when less than half of this is left. Without
/// this limit it keeps megabytes and reports room only when a third of them has left (a peer that takes 60 KB/s showed no
/// progress in 14 s), and a ping waits behind them all.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_MAX: u32 = 128 * 1024;

/// Sets the options of a TCP socket: each message leaves when it is sent, not when the peer has acknowledged the one before
/// (`TCP_NODELAY`), and the kernel reports soon that the peer takes bytes (`TCP_NOTSENT_LOWAT`, on Linux).
pub(crate) fn prepare_tcp(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    // A kernel without this option is none the worse.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_MAX);
    Ok(())
}

/// The right edge of the peer's TCP receive window, in bytes since the connection began, modulo 2³². It moves when the
/// peer's application reads. `None` where the transport is not TCP, or the system does not say.
pub(crate) fn window_edge(io: &dyn Any) -> Option<NonZeroU32> {
    #[cfg(target_os = "linux")]
    return tcp_info::window_edge(tcp(io)?);
    #[cfg(not(target_os = "linux"))]
    return tcp(io).and(None);
}

/// Expands `$visit!` with the TLS streams over TCP that are known: those of tokio-rustls.
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

/// What a TLS stream of tokio-rustls over TCP agreed on (ALPN, RFC 7301).
#[cfg(feature = "tls")]
fn alpn(io: &dyn Any) -> Option<&[u8]> {
    macro_rules! protocol {
        ($($tls:ty),*) => { None$(.or_else(|| io.downcast_ref::<$tls>()?.get_ref().1.alpn_protocol()))* };
    }
    with_tls_types!(protocol)
}

/// The certificates of the peer, where the transport is TLS of tokio-rustls over TCP.
#[cfg(feature = "tls")]
pub(crate) fn peer_certificates(io: &dyn Any) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
    macro_rules! certificates {
        ($($tls:ty),*) => { None$(.or_else(|| io.downcast_ref::<$tls>()?.get_ref().1.peer_certificates()))* };
    }
    with_tls_types!(certificates)
}
