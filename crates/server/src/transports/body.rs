//! Bodies of responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;

/// The body of a response: complete, or the frames of a client.
pub(crate) type Body = Either<Full<Bytes>, Frames>;

/// A body whose parts are sent by a task. It ends when the task drops its sender.
#[derive(Debug)]
pub(crate) struct Frames(mpsc::Receiver<Bytes>);

impl Frames {
    /// Creates a body and the sender of its parts, which waits while one part is not yet written.
    pub(crate) fn channel() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver))
    }
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = ready!(self.0.poll_recv(cx));
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }
}
