//! Socket options.

use std::io;

use tokio::net::TcpStream;

/// How many bytes the kernel keeps that it has not sent yet. It says that there is room when less than half of this is
/// left. Without a limit it keeps megabytes, says so only when a third of them has left (a peer that takes 60 KB/s
/// showed no progress in 14 s), and a ping waits behind them all.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_MAX: u32 = 128 * 1024;

/// Prepares a socket for messages: each leaves when it is sent, not when the peer has acknowledged the one before, and the
/// kernel tells soon when the peer takes bytes.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        // A kernel without this option is none the worse.
        let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_MAX);
    }
    Ok(())
}
