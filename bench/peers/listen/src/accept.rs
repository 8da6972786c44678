//! Accepting on a tokio runtime of one thread.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use crate::Flags;

/// Listens, announces itself and gives every connection, with TCP_NODELAY set, a task of its own. Runs until the
/// process ends.
///
/// How a connection ended is not looked at: the generator counts what it got back.
///
/// # Errors
///
/// The address cannot be listened on.
pub fn serve<F>(flags: &Flags, connection: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output: Send> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen).await?;
        crate::announce(listener.local_addr()?);
        loop {
            // It fails when a connection is gone before it is accepted, or when there are too many: both pass.
            let Ok((tcp, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if tcp.set_nodelay(true).is_ok() {
                let connection = connection(tcp);
                tokio::spawn(async { drop(connection.await) });
            }
        }
    })
}
