//! The task of an open connection, which runs the application's handler.

use std::any::Any;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::error::Error;
use crate::server::serve::ServeError;
use crate::server::tasks::TaskToken;

/// The application's hook for errors.
pub(crate) type OnError = Arc<dyn Fn(ServeError) + Send + Sync>;

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
    peer_addr: Option<SocketAddr>,
    on_error: Option<OnError>,
    /// Dropped when the handler ends.
    guard: Option<Box<dyn Any + Send>>,
}

impl<R> HandlerTask<R> {
    /// The task of `handler`, which takes over the registration of the task that received the request.
    pub(crate) fn new(handler: R, task: TaskToken, peer_addr: Option<SocketAddr>, on_error: Option<OnError>) -> Self {
        let context = Box::new(HandlerContext {
            task: task.transfer(),
            peer_addr,
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
            let peer_addr = context.peer_addr;
            on_error(ServeError::Handler { peer_addr, error });
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Incoming;

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
