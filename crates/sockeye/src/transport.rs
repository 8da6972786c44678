//! What can be known of a transport that the caller connected: its TCP socket, and the protocol that its TLS agreed on.

use std::any::Any;
use std::io;

use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::{TlsStream, client, server};

use crate::error::Error;

/// Makes a transport ready for an opening handshake.
///
/// # Errors
///
/// The socket is dead, or TLS agreed on HTTP/2, where an HTTP/1.1 request would be nonsense.
pub(crate) fn prepare(io: &dyn Any) -> Result<(), Error> {
    set_nodelay(io)?;
    #[cfg(feature = "tls")]
    crate::tls::check_alpn(alpn(io))?;
    Ok(())
}

/// Switches off Nagle's algorithm on the TCP socket in a transport, if there is one that is known: a message is to leave
/// when it is sent, not when the peer has acknowledged the one before.
pub(crate) fn set_nodelay(io: &dyn Any) -> io::Result<()> {
    match tcp(io) {
        Some(tcp) => tcp.set_nodelay(true),
        None => Ok(()),
    }
}

/// The TCP socket of a `TcpStream`, or of a TLS stream of tokio-rustls over one.
fn tcp(io: &dyn Any) -> Option<&TcpStream> {
    if let Some(tcp) = io.downcast_ref() {
        return Some(tcp);
    }
    #[cfg(feature = "tls")]
    {
        if let Some(tls) = io.downcast_ref::<server::TlsStream<TcpStream>>() {
            return Some(tls.get_ref().0);
        }
        if let Some(tls) = io.downcast_ref::<client::TlsStream<TcpStream>>() {
            return Some(tls.get_ref().0);
        }
        if let Some(tls) = io.downcast_ref::<TlsStream<TcpStream>>() {
            return Some(tls.get_ref().0);
        }
    }
    None
}

/// What a TLS stream of tokio-rustls over TCP agreed on (ALPN, RFC 7301).
#[cfg(feature = "tls")]
fn alpn(io: &dyn Any) -> Option<&[u8]> {
    if let Some(tls) = io.downcast_ref::<server::TlsStream<TcpStream>>() {
        return tls.get_ref().1.alpn_protocol();
    }
    if let Some(tls) = io.downcast_ref::<client::TlsStream<TcpStream>>() {
        return tls.get_ref().1.alpn_protocol();
    }
    io.downcast_ref::<TlsStream<TcpStream>>()?.get_ref().1.alpn_protocol()
}
