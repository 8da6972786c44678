//! The task of an open connection, which runs the application's handler.

use std::any::Any;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::error::Error;
use crate::server::serve_error::ServeError;
use crate::server::tasks::TaskToken;

/// The application's hook for errors.
///
/// The box makes the pointer thin, of which each connection has one.
pub(crate) type OnError = Arc<Box<dyn Fn(ServeError) + Send + Sync>>;

pin_project! {
    /// The task of an open connection: runs the handler until it returns or is aborted.
    ///
    /// Not an async block, which would reserve space for the handler twice. The context is boxed: tokio rounds a task
    /// up to a multiple of 128 bytes, and next to an echo handler only 16 bytes are left.
    pub(crate) struct HandlerTask<R> {
        context: Box<HandlerContext>,
        #[pin]
        handler: R,
    }
}

struct HandlerContext {
    task: TaskToken,
    peer_addr: PeerAddr,
    on_error: Option<OnError>,
    /// Dropped when the handler ends.
    guard: Option<Box<dyn Any + Send>>,
}

/// The address of a peer in 16 bytes instead of 32.
enum PeerAddr {
    Unknown,
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl PeerAddr {
    fn get(&self) -> Option<SocketAddr> {
        match self {
            Self::Unknown => None,
            Self::V4(address) => Some((*address).into()),
            Self::V6(address) => Some((**address).into()),
        }
    }
}

impl From<Option<SocketAddr>> for PeerAddr {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::Unknown,
            Some(SocketAddr::V4(address)) => Self::V4(address),
            Some(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
        }
    }
}

impl<R> HandlerTask<R> {
    /// The task of `handler`, which takes over the registration of the task that received the request.
    pub(crate) fn new(handler: R, task: TaskToken, peer_addr: Option<SocketAddr>, on_error: Option<OnError>) -> Self {
        let context = Box::new(HandlerContext {
            task: task.transfer(),
            peer_addr: PeerAddr::from(peer_addr),
            on_error,
            guard: None,
        });
        Self { context, handler }
    }

    /// Keeps `guard` until the handler ends.
    #[cfg(feature = "hyper")]
    pub(crate) fn with_guard(mut self, guard: Option<Box<dyn Any + Send>>) -> Self {
        self.context.guard = guard;
        self
    }
}

impl<R> Future for HandlerTask<R>
where
    R: Future<Output = Result<(), Error>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let context = &mut **this.context;
        let result = ready!(context.task.poll_until_aborted(this.handler, cx));
        context.guard = None;
        if let (Some(Err(error)), Some(on_error)) = (result, &context.on_error)
            && !error.is_normal_close()
        {
            let peer_addr = context.peer_addr.get();
            on_error(ServeError::Handler { peer_addr, error });
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Incoming;

    #[test]
    fn context_fits_an_allocation_of_64_bytes() {
        // glibc adds 8 bytes and rounds up to a multiple of 16.
        let size = size_of::<HandlerContext>();
        assert!(size <= 56, "{size}");
        for address in [None, Some("127.0.0.1:9"), Some("[fe80::1%3]:9")] {
            let address = address.map(|address| address.parse::<SocketAddr>().unwrap());
            assert_eq!(PeerAddr::from(address).get(), address);
        }
    }

    async fn echo(incoming: Incoming) -> Result<(), Error> {
        let mut ws = incoming.accept().await?;
        while let Some(message) = ws.recv().await? {
            ws.feed(message).await?;
        }
        Ok(())
    }

    /// tokio adds 112 bytes and rounds up to a multiple of 128: one byte more would cost every connection 128, as the
    /// features `tracing` and `metrics` do.
    #[test]
    fn echo_handler_fits_its_task() {
        fn size_of_task<R>(_: impl Fn(Incoming) -> R) -> usize {
            size_of::<HandlerTask<R>>()
        }
        let size = size_of_task(echo);
        let is_observed = cfg!(any(feature = "metrics", feature = "tracing"));
        assert!(size <= if is_observed { 536 } else { 528 }, "{size} bytes");
    }
}
