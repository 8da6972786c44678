//! Accepts connections on a single-threaded tokio runtime.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use crate::Flags;

/// Listens, prints the address, and spawns a task for each connection, with TCP_NODELAY set. Runs until the process
/// ends.
///
/// How a connection ends is ignored, because the load generator checks the replies.
///
/// # Errors
///
/// If it cannot listen on the address.
pub fn serve<F>(flags: &Flags, connection: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen).await?;
        crate::announce(listener.local_addr()?);
        loop {
            // Accepting fails if the connection is already gone or too many are open; both are temporary.
            let Ok((tcp, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if tcp.set_nodelay(true).is_ok() {
                // Not wrapped in a block that awaits it: such a block has room for the future twice.
                drop(tokio::spawn(connection(tcp)));
            }
        }
    })
}
