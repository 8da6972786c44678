//! The state of a connection: what the events of the browser change, and what the application sees of it.
//!
//! All changes go through the `handle_*` methods for events and through `start_close` and `fail` for commands. A method
//! that wakes a task has released every borrow before, because a waker may run that task at once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use sockeye_proto::{CloseCause, CloseCode, CloseFrame, CloseInfo, ProtocolError, Side};

use crate::browser::close::close_frame;
use crate::error::try_recv::TryRecvError;
use crate::error::{Error, Kind};
use crate::message::Message;

/// What a waiting message counts besides its payload: its place in the queue and its allocation.
const MESSAGE_OVERHEAD: usize = 64;

/// The state of one connection, shared by the handlers of its events and its owners.
#[derive(Debug)]
pub(crate) struct State {
    message_size_max: u64,
    read_ahead_max: usize,
    /// Whether the opening handshake is complete.
    is_open: Cell<bool>,
    /// Set when this side begins to close.
    closing: OnceCell<CloseInfo>,
    /// Set when the connection has ended, and then never changed.
    end: OnceCell<Error>,
    received: RefCell<Received>,
    /// The task that waits for the opening handshake, for a message or for the end.
    receiver: RefCell<Option<Waker>>,
    closed: RefCell<Watchers>,
}

/// Messages that wait for the application.
#[derive(Debug, Default)]
struct Received {
    messages: VecDeque<Message>,
    /// The sum of what they count.
    size: usize,
    /// Whether a `Stream` has returned the error at the end.
    has_yielded_error: bool,
}

/// Tasks that wait until nothing can be sent any more.
#[derive(Debug, Default)]
struct Watchers {
    tasks: Vec<(u64, Waker)>,
    next_id: u64,
}

impl State {
    pub(crate) fn new(message_size_max: u64, read_ahead_max: usize) -> Self {
        Self {
            message_size_max,
            read_ahead_max,
            is_open: Cell::new(false),
            closing: OnceCell::new(),
            end: OnceCell::new(),
            received: RefCell::default(),
            receiver: RefCell::default(),
            closed: RefCell::default(),
        }
    }

    /// The opening handshake is complete.
    pub(crate) fn handle_open(&self) {
        self.is_open.set(true);
        self.wake_receiver();
    }

    /// A message of at least `size_min` bytes has arrived; `read` copies it out of the browser. Returns the close frame
    /// to send if the message exceeds a limit.
    #[must_use]
    pub(crate) fn handle_message(&self, size_min: u64, read: impl FnOnce() -> Message) -> Option<CloseFrame> {
        if self.end.get().is_some() {
            return None;
        }
        let message = (size_min <= self.message_size_max)
            .then(read)
            .filter(|message| message.len() as u64 <= self.message_size_max);
        let Some(message) = message else {
            let violation = ProtocolError::MessageTooBig;
            let frame = close_frame(violation.close_code(), violation.reason()).0;
            let cause = CloseCause::ProtocolError(violation);
            let close_info = CloseInfo::from_parts(Side::Local, cause, Some(frame.clone()), None);
            return self.fail_with(Error::new(Kind::Closed(close_info)), frame);
        };
        let mut received = self.received.borrow_mut();
        let size = received.size + MESSAGE_OVERHEAD + message.len();
        // The oldest one does not count, so that each message may have the maximum size.
        let oldest = received.messages.front();
        if oldest.is_some_and(|oldest| size - MESSAGE_OVERHEAD - oldest.len() > self.read_ahead_max) {
            drop(received);
            let frame = close_frame(CloseCode::TRY_AGAIN_LATER, "too many messages wait").0;
            return self.fail_with(Error::new(Kind::ReadTooSlowly), frame);
        }
        received.size = size;
        received.messages.push_back(message);
        drop(received);
        self.wake_receiver();
        None
    }

    /// The browser has closed the connection: the values of its `close` event. It reports 1006 if the opening handshake
    /// failed, and if the connection ended without a close frame of the peer.
    pub(crate) fn handle_close(&self, code: u16, reason: String) {
        let code = CloseCode(code);
        let received = (code != CloseCode::ABNORMAL).then_some(CloseFrame { code, reason });
        let close_info = match (self.closing.get(), received) {
            (Some(closing), received) => {
                CloseInfo::from_parts(Side::Local, CloseCause::Local, closing.sent().cloned(), received)
            }
            (None, Some(received)) => {
                // RFC 6455 §5.5.1: the answer repeats the code.
                let reason = String::new();
                let answer = CloseFrame { code, reason };
                CloseInfo::from_parts(Side::Peer, CloseCause::Peer, Some(answer), Some(received))
            }
            (None, None) => CloseInfo::from_parts(Side::Local, CloseCause::TransportEnd, None, None),
        };
        self.fail(Error::new(Kind::Closed(close_info)));
    }

    /// The peer has not answered the close frame in time.
    pub(crate) fn handle_close_timeout(&self) {
        let sent = self.closing.get().and_then(CloseInfo::sent).cloned();
        let close_info = CloseInfo::from_parts(Side::Local, CloseCause::CloseTimeout, sent, None);
        self.fail(Error::new(Kind::Closed(close_info)));
    }

    /// Begins to close. Returns whether the browser must send the close frame: it does not if the connection is closing
    /// or has ended.
    pub(crate) fn start_close(&self, frame: &CloseFrame) -> bool {
        if self.end.get().is_some() || self.closing.get().is_some() {
            return false;
        }
        let close_info = CloseInfo::from_parts(Side::Local, CloseCause::Local, Some(frame.clone()), None);
        let is_first = self.closing.set(close_info).is_ok();
        self.wake_closed();
        is_first
    }

    /// Ends the connection with an error, unless it has ended.
    pub(crate) fn fail(&self, error: Error) {
        if self.end.set(error).is_ok() {
            self.wake_receiver();
            self.wake_closed();
        }
    }

    /// Ends the connection with an error, and returns the close frame to send.
    fn fail_with(&self, error: Error, frame: CloseFrame) -> Option<CloseFrame> {
        let is_first = self.start_close(&frame);
        self.fail(error);
        is_first.then_some(frame)
    }

    /// Waits for the opening handshake.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        // First, because the connection may have opened and closed since the last poll. Receiving then tells how.
        if self.is_open.get() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.end.get() {
            return Poll::Ready(Err(error.clone()));
        }
        self.receiver.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        match self.try_recv() {
            Ok(message) => Poll::Ready(Ok(Some(message))),
            Err(TryRecvError::Ended) => Poll::Ready(Ok(None)),
            Err(TryRecvError::Failed(error)) => Poll::Ready(Err(error)),
            Err(TryRecvError::Empty) => {
                self.receiver.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// The next item of a `Stream`: an error is returned once, then `None`.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        self.poll_recv(cx).map(|result| match result {
            Err(_) if std::mem::replace(&mut self.received.borrow_mut().has_yielded_error, true) => None,
            result => result.transpose(),
        })
    }

    pub(crate) fn try_recv(&self) -> Result<Message, TryRecvError> {
        let mut received = self.received.borrow_mut();
        if let Some(message) = received.messages.pop_front() {
            received.size -= MESSAGE_OVERHEAD + message.len();
            return Ok(message);
        }
        Err(match self.end.get() {
            Some(error) if error.is_normal_close() => TryRecvError::Ended,
            Some(error) => TryRecvError::Failed(error.clone()),
            None => TryRecvError::Empty,
        })
    }

    /// Drops received messages until the connection has ended.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match self.poll_recv(cx) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits until nothing can be sent any more. `id` identifies the waiting task from its first poll on, until
    /// [`forget`](Self::forget).
    pub(crate) fn poll_closed(&self, cx: &Context<'_>, id: &mut Option<u64>) -> Poll<()> {
        if self.send_error().is_some() {
            return Poll::Ready(());
        }
        let mut watchers = self.closed.borrow_mut();
        let id = *id.get_or_insert_with(|| {
            watchers.next_id += 1;
            watchers.next_id
        });
        let waker = cx.waker().clone();
        match watchers.tasks.iter_mut().find(|(task, _)| *task == id) {
            Some((_, known)) => *known = waker,
            None => watchers.tasks.push((id, waker)),
        }
        Poll::Pending
    }

    /// Removes a task that waited in [`poll_closed`](Self::poll_closed).
    pub(crate) fn forget(&self, id: u64) {
        let mut watchers = self.closed.borrow_mut();
        watchers.tasks.retain(|(task, _)| *task != id);
    }

    /// Why nothing can be sent.
    pub(crate) fn send_error(&self) -> Option<Error> {
        let closing = || Some(Error::new(Kind::Closed(self.closing.get()?.clone())));
        self.end.get().cloned().or_else(closing)
    }

    /// Whether the connection has ended.
    pub(crate) fn end(&self) -> Option<&Error> {
        self.end.get()
    }

    pub(crate) fn close_info(&self) -> Option<&CloseInfo> {
        let end = self.end.get().and_then(Error::close_info);
        end.or(self.closing.get())
    }

    fn wake_receiver(&self) {
        let waker = self.receiver.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_closed(&self) {
        let tasks = std::mem::take(&mut self.closed.borrow_mut().tasks);
        tasks.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;

    use super::*;

    /// A waker that counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn open(message_size_max: u64, read_ahead_max: usize) -> State {
        let state = State::new(message_size_max, read_ahead_max);
        state.handle_open();
        state
    }

    #[track_caller]
    fn arrives(state: &State, text: &str) {
        assert_eq!(state.handle_message(text.len() as u64, || text.into()), None);
    }

    #[test]
    fn messages_are_returned_in_order_before_the_end() {
        let state = open(100, 1000);
        arrives(&state, "one");
        arrives(&state, "two");
        state.handle_close(4000, "bye".into());
        assert_eq!(state.try_recv().unwrap(), Message::from("one"));
        assert_eq!(state.try_recv().unwrap(), Message::from("two"));
        let Err(TryRecvError::Failed(error)) = state.try_recv() else {
            panic!()
        };
        assert_eq!(error.close_code(), Some(CloseCode(4000)));
        assert_eq!(error.to_string(), "closed by the peer: 4000 \"bye\"");
        assert_eq!(state.received.borrow().size, 0);
    }

    #[test]
    fn normal_close_of_the_peer_is_no_error() {
        for code in [1000, 1001, 1005] {
            let state = open(100, 1000);
            state.handle_close(code, String::new());
            assert!(matches!(state.try_recv(), Err(TryRecvError::Ended)));
            assert!(state.send_error().unwrap().is_normal_close());
            assert!(state.close_info().unwrap().is_clean());
        }
    }

    #[test]
    fn end_without_a_close_frame_is_an_error_that_may_be_retried() {
        let state = open(100, 1000);
        state.handle_close(1006, String::new());
        let error = state.send_error().unwrap();
        assert!(error.is_retryable() && error.is_closed() && !error.is_normal_close());
        assert_eq!(state.close_info().unwrap().code(), CloseCode::ABNORMAL);
    }

    #[test]
    fn local_close_has_both_frames_and_is_normal() {
        let state = open(100, 1000);
        let (frame, _) = close_frame(CloseCode(3001), "done");
        assert!(state.start_close(&frame));
        assert!(!state.start_close(&frame), "only one close frame is sent");
        assert_eq!(state.close_info().unwrap().sent(), Some(&frame));
        assert!(state.send_error().unwrap().is_normal_close());
        state.handle_close(3001, "done".into());
        let close_info = state.close_info().unwrap();
        assert!(close_info.is_clean() && close_info.initiator() == Side::Local);
        assert_eq!((close_info.sent(), close_info.received()), (Some(&frame), Some(&frame)));
        assert!(matches!(state.try_recv(), Err(TryRecvError::Ended)));
    }

    #[test]
    fn peer_that_does_not_answer_the_close_frame_is_a_timeout() {
        let state = open(100, 1000);
        assert!(state.start_close(&close_frame(CloseCode::NORMAL, "").0));
        state.handle_close_timeout();
        // The browser gives up later.
        state.handle_close(1006, String::new());
        assert!(state.send_error().unwrap().is_timeout());
    }

    #[test]
    fn messages_beyond_the_limit_end_the_connection_after_those_before() {
        let state = open(1000, 2 * MESSAGE_OVERHEAD + 20);
        // The oldest one does not count.
        arrives(&state, &"x".repeat(1000));
        arrives(&state, "ten bytes.");
        arrives(&state, "ten bytes.");
        let frame = state.handle_message(0, || "".into()).unwrap();
        assert_eq!(frame.code, CloseCode(4013));
        arrives(&state, "ignored");
        for _ in 0..3 {
            assert!(state.try_recv().is_ok());
        }
        let Err(TryRecvError::Failed(error)) = state.try_recv() else {
            panic!()
        };
        assert!(error.is_closed() && !error.is_retryable() && !error.is_normal_close());
        assert!(error.to_string().contains("read_ahead_max"), "{error}");
        assert_eq!(state.close_info().unwrap().sent(), Some(&frame));
        // The browser reports the answer, which changes nothing.
        state.handle_close(4013, String::new());
        assert!(state.send_error().unwrap().to_string().contains("read_ahead_max"));
    }

    #[test]
    fn message_that_waits_alone_may_exceed_the_limit() {
        let state = open(1000, 10);
        for _ in 0..3 {
            arrives(&state, &"x".repeat(1000));
            assert!(state.try_recv().is_ok());
        }
    }

    #[test]
    fn connection_that_opened_and_closed_since_the_last_poll_has_opened() {
        let state = open(1000, 1000);
        arrives(&state, "last words");
        state.handle_close(4001, "token expired".into());
        let cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(state.poll_open(&cx), Poll::Ready(Ok(()))));
        assert!(state.try_recv().is_ok());
        assert_eq!(state.close_info().unwrap().code(), CloseCode(4001));
    }

    #[test]
    fn too_big_message_is_not_copied_and_ends_the_connection() {
        let state = open(10, 1000);
        let frame = state.handle_message(11, || unreachable!()).unwrap();
        assert_eq!(frame.code, CloseCode(4009));
        let error = state.send_error().unwrap();
        assert!(
            error.is_protocol() && error.to_string().contains("message_size_max"),
            "{error}"
        );

        // Three UTF-16 units may be nine bytes.
        let state = open(8, 1000);
        assert!(state.handle_message(3, || "\u{20ac}\u{20ac}\u{20ac}".into()).is_some());
    }

    #[test]
    fn waiting_tasks_are_woken_once() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let state = State::new(100, 1000);
        assert!(state.poll_open(&cx).is_pending());
        state.handle_open();
        assert!(state.poll_open(&cx).is_ready());
        assert!(state.poll_recv(&cx).is_pending());
        arrives(&state, "x");
        arrives(&state, "y");
        assert_eq!(woken.0.load(Relaxed), 2);

        let (mut one, mut two) = (None, None);
        for _ in 0..2 {
            assert!(state.poll_closed(&cx, &mut one).is_pending());
            assert!(state.poll_closed(&cx, &mut two).is_pending());
        }
        state.forget(two.unwrap());
        assert!(state.start_close(&close_frame(CloseCode::NORMAL, "").0));
        assert_eq!(woken.0.load(Relaxed), 3);
        assert!(state.poll_closed(&cx, &mut one).is_ready());
    }

    #[test]
    fn failed_opening_handshake_ends_the_wait() {
        let state = State::new(100, 1000);
        state.handle_close(1006, String::new());
        let cx = Context::from_waker(Waker::noop());
        assert!(matches!(state.poll_open(&cx), Poll::Ready(Err(_))));
    }

    #[test]
    fn stream_yields_an_error_once() {
        let cx = Context::from_waker(Waker::noop());
        let state = open(100, 1000);
        state.handle_close(4000, String::new());
        assert!(matches!(state.poll_next(&cx), Poll::Ready(Some(Err(_)))));
        assert!(matches!(state.poll_next(&cx), Poll::Ready(None)));
    }
}
