//! The exchange of messages, from the open WebSocket to its end.
//!
//! At the end of the input, replies may be outstanding, and a server that receives a close frame need not send them.
//! The session therefore sends a ping after the last message. The pong shows that the server has read everything. When
//! no message has arrived for a while after that, the session closes the connection.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sockeye::{CloseCause, CloseCode, CloseInfo, Error, Message, ProtocolError, Receiver, Sender, WebSocket};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::input::{self, Input, InputError};
use super::output::{Output, Writer};
use crate::cli::{ConnectOptions, Failure, Signal, Wait};
use crate::escape::close_frame;
use crate::log;
use crate::platform::Signals;

/// Time limit for closing and writing the remaining messages after a signal or error.
pub(super) const FAST_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Close timeout once the output is closed: the close frame is sent, and what the peer still sends is not needed.
pub(super) const UNREAD_CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// Default wait if at least as many messages were received as sent.
const ANSWERED_WAIT: Duration = Duration::from_secs(1);

/// Default wait if fewer messages were received than sent.
const UNANSWERED_WAIT: Duration = Duration::from_secs(5);

/// Maximum wait for the pong after the end of the input. Shorter than the pong timeout of the keepalive, because some
/// servers do not answer pings.
const PONG_WAIT: Duration = Duration::from_secs(8);

/// Why the exchange ends.
#[derive(Debug)]
enum End {
    /// The connection is over.
    Connection(Result<(), Error>),
    /// `--count` messages were received.
    Count,
    /// No message arrived for the time of `--wait`.
    Idle,
    /// A line could not be read.
    Input(InputError),
    /// Writing to standard output failed, or its reader closed it.
    Output(io::Error),
    /// A signal arrived.
    Signal(Signal),
}

/// The phases of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Lines are read and sent.
    Sending,
    /// All lines and a ping were sent. The pong is detected by a change of the round-trip time from `before`.
    AwaitingPong { before: Option<Duration> },
    /// The server has read everything. Waits until no more messages arrive.
    AwaitingIdle,
    /// Sending failed. Waits for the error of the receiver, which has the cause.
    Failing,
}

/// The result of sending.
enum Sent {
    /// All lines were sent. `phase` is the next phase.
    All { phase: Phase },
    /// All lines before an invalid one were sent.
    BadLine(InputError),
}

/// An event of the receiver.
enum PeerEvent {
    Message(Message),
    Pong,
    End(Result<(), Error>),
}

/// The session over an open WebSocket.
#[derive(Debug)]
pub(super) struct Session<'a> {
    options: &'a ConnectOptions,
    sender: Sender,
    receiver: Receiver,
    output: Output,
    input: Input,
    tally: Tally<'a>,
}

/// The numbers of messages, and the waits that depend on them.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    options: &'a ConnectOptions,
    /// Whether standard input is a terminal, where Ctrl-D means that the user has finished.
    is_typed: bool,
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl<'a> Session<'a> {
    /// Creates a session that sends the lines of `input`, and writes received messages to `output`.
    pub(super) fn start(options: &'a ConnectOptions, ws: WebSocket, output: Output, input: Input) -> Self {
        let (sender, receiver) = ws.split();
        let tally = Tally::new(options);
        Self {
            options,
            sender,
            receiver,
            output,
            input,
            tally,
        }
    }

    /// Exchanges messages until the end of the session, and waits until all received messages are written.
    pub(super) async fn run(
        mut self,
        mut writer: Writer,
        output_closed: impl Future<Output = ()>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let mut end = tokio::select! {
            biased;
            signal = signals.next() => End::Signal(signal),
            error = failed(&mut writer) => End::Output(error),
            () = output_closed => End::Output(io::ErrorKind::BrokenPipe.into()),
            end = self.exchange() => end,
        };
        let Self {
            options,
            sender,
            mut receiver,
            output,
            tally,
            ..
        } = self;
        // Deadline for closing and writing together, after a signal or error.
        let mut fast_close_deadline = Instant::now()
            + match end {
                End::Output(_) => UNREAD_CLOSE_TIMEOUT,
                _ => FAST_CLOSE_TIMEOUT,
            };
        let mut closed = None;
        if !matches!(end, End::Connection(_)) {
            let (code, is_fast) = match end {
                End::Idle => (CloseCode::NORMAL, false),
                // The exit status does not depend on how the server closes.
                End::Count | End::Input(_) => (CloseCode::NORMAL, true),
                _ => (CloseCode::GOING_AWAY, true),
            };
            let closing = close(&sender, &mut receiver, &output, &tally, code);
            tokio::select! {
                ended = closing => closed = Some(ended),
                () = sleep_until(fast_close_deadline), if is_fast => {}
                error = failed(&mut writer), if !is_fast => return ended_by_output(error),
                signal = signals.next() => match is_fast {
                    // The first signal determines the exit status; a second one ends all waits.
                    true => fast_close_deadline = Instant::now(),
                    false => {
                        fast_close_deadline = Instant::now() + FAST_CLOSE_TIMEOUT;
                        end = End::Signal(signal);
                    }
                },
            }
        }
        // Lets the writer end when it has written everything.
        drop(output);
        let ended = match end {
            End::Output(error) => return ended_by_output(error),
            End::Signal(signal) => {
                let _ = timeout_at(fast_close_deadline, writer).await;
                return Err(Failure::Interrupted(signal));
            }
            End::Input(error) => return finish(writer, signals).await.and(Err(Failure::Input(error))),
            End::Count => return finish(writer, signals).await,
            End::Connection(ended) => ended,
            End::Idle => closed.unwrap_or(Ok(())),
        };
        finish(writer, signals).await?;
        match ended {
            // An error that only reports a close frame is judged by its code below.
            Err(error) if !is_closed_by_frame(&error) => return Err(failure(error, options)),
            _ => {}
        }
        check_close_code(receiver.close_info().as_ref(), options)?;
        tally.check_count()
    }

    /// Sends lines and receives messages until the peer closes, or until no more messages arrive after the end of the
    /// input.
    async fn exchange(&mut self) -> End {
        let Self {
            sender,
            receiver,
            output,
            input,
            tally,
            ..
        } = self;
        let mut sending = pin!(send_lines(sender, input, tally));
        let mut phase = Phase::Sending;
        let mut last_event_at = Instant::now();
        loop {
            // Unbiased, so that neither a busy peer nor a busy input can starve the other.
            tokio::select! {
                event = next_event(receiver, output, phase) => {
                    last_event_at = Instant::now();
                    match event {
                        PeerEvent::Message(message) => {
                            tally.record(message, output);
                            if tally.is_complete() {
                                return End::Count;
                            }
                        }
                        PeerEvent::Pong => phase = Phase::AwaitingIdle,
                        PeerEvent::End(ended) => return End::Connection(ended),
                    }
                }
                sent = sending.as_mut(), if phase == Phase::Sending => match sent {
                    Ok(Sent::All { phase: next }) => {
                        phase = next;
                        last_event_at = Instant::now();
                    }
                    Ok(Sent::BadLine(error)) => return End::Input(error),
                    Err(_) => phase = Phase::Failing,
                },
                () = idle(last_event_at, tally.pong_wait()), if matches!(phase, Phase::AwaitingPong { .. }) => {
                    phase = Phase::AwaitingIdle;
                }
                () = idle(last_event_at, tally.wait()), if phase == Phase::AwaitingIdle => {
                    tally.report_no_reply();
                    return End::Idle;
                }
            }
        }
    }
}

impl<'a> Tally<'a> {
    /// Starts to count.
    pub(super) fn new(options: &'a ConnectOptions) -> Self {
        Self {
            options,
            is_typed: io::stdin().is_terminal(),
            sent: Cell::new(0),
            received: Cell::new(0),
        }
    }

    /// The message for the next line.
    ///
    /// # Errors
    /// Fails if the line is not in the format of `--binary-in`.
    pub(super) fn message(&self, line: String) -> Result<Message, InputError> {
        // Each line before it was sent.
        input::message(line, self.sent.get() + 1, self.options.binary_in)
    }

    /// Counts a sent message.
    pub(super) fn record_sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    /// Counts and writes a message, unless `--count` messages were already received.
    pub(super) fn record(&self, message: Message, output: &Output) {
        if !self.is_complete() {
            self.received.set(self.received.get() + 1);
            output.write(message);
        }
    }

    /// Whether `--count` messages were received.
    pub(super) fn is_complete(&self) -> bool {
        self.options
            .count
            .is_some_and(|count| self.received.get() >= count.get())
    }

    /// Whether at least as many messages were received as sent. Always true on a terminal, where Ctrl-D means that the
    /// user does not wait for replies.
    fn is_answered(&self) -> bool {
        self.is_typed || self.received.get() >= self.sent.get()
    }

    /// How long to wait for another message after the end of the input.
    pub(super) fn wait(&self) -> Wait {
        match self.options.wait {
            Some(wait) => wait,
            // An input that is empty from the start, such as /dev/null, means receive only.
            None if self.options.count.is_some() || (self.sent.get() == 0 && !self.is_typed) => Wait::Forever,
            None if self.is_answered() => Wait::For(ANSWERED_WAIT),
            None => Wait::For(UNANSWERED_WAIT),
        }
    }

    /// How long to wait for the pong since the last event.
    fn pong_wait(&self) -> Wait {
        match (self.wait(), self.is_answered()) {
            (Wait::For(wait), true) => Wait::For(wait.max(ANSWERED_WAIT).min(PONG_WAIT)),
            _ => Wait::For(PONG_WAIT),
        }
    }

    /// Whether to send a ping at the end of the input. It is not needed if the wait is longer than the wait for the
    /// pong.
    fn wants_pong(&self) -> bool {
        matches!(self.wait(), Wait::For(wait) if wait < PONG_WAIT)
    }

    /// Reports that no message arrived, unless the user has set the wait.
    pub(super) fn report_no_reply(&self) {
        let is_reported = self.options.wait.is_none() && !self.options.quiet;
        if is_reported && self.received.get() == 0 && !self.is_answered() {
            log::line(&format!(
                "sockeye: no message arrived within {} s after the end of the input; --wait sets the time",
                UNANSWERED_WAIT.as_secs()
            ));
        }
    }

    /// Returns an error if fewer than `--count` messages were received.
    pub(super) fn check_count(&self) -> Result<(), Failure> {
        match self.options.count {
            Some(count) if !self.is_complete() => Err(Failure::TooFew {
                received: self.received.get(),
                count: count.get(),
            }),
            _ => Ok(()),
        }
    }
}

/// Sends all lines, then a ping if one is needed.
async fn send_lines(sender: &Sender, input: &mut Input, tally: &Tally<'_>) -> Result<Sent, Error> {
    loop {
        let line = match input.try_next() {
            Some(line) => Some(line),
            // Flush only before waiting, so that available lines are sent in one write.
            None => {
                sender.flush().await?;
                input.next().await
            }
        };
        match line {
            Some(Ok(line)) => match tally.message(line) {
                Ok(message) => {
                    sender.feed(message).await?;
                    tally.record_sent();
                }
                Err(error) => return Ok(Sent::BadLine(error)),
            },
            Some(Err(error)) => return Ok(Sent::BadLine(error)),
            None => break,
        }
    }
    if !tally.wants_pong() {
        return Ok(Sent::All {
            phase: Phase::AwaitingIdle,
        });
    }
    let before = sender.rtt();
    sender.send_ping(b"end of input").await?;
    Ok(Sent::All {
        phase: Phase::AwaitingPong { before },
    })
}

/// Waits for room in the output queue, then for the next event of the receiver. Cancel-safe.
async fn next_event(receiver: &mut Receiver, output: &Output, phase: Phase) -> PeerEvent {
    output.wait_for_room().await;
    let is_pong_there = |rtt: Option<Duration>| matches!(phase, Phase::AwaitingPong { before } if rtt != before);
    poll_fn(|cx| {
        let received = pin!(receiver.recv()).poll(cx);
        match received {
            Poll::Ready(Ok(Some(message))) => Poll::Ready(PeerEvent::Message(message)),
            Poll::Ready(Ok(None)) => Poll::Ready(PeerEvent::End(Ok(()))),
            Poll::Ready(Err(error)) => Poll::Ready(PeerEvent::End(Err(error))),
            // The library processes pongs within `recv`; they only change the round-trip time.
            Poll::Pending if is_pong_there(receiver.rtt()) => Poll::Ready(PeerEvent::Pong),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits until the time of `wait` has passed since the last event.
pub(super) async fn idle(last_event_at: Instant, wait: Wait) {
    match wait {
        Wait::For(duration) => sleep_until(last_event_at + duration).await,
        Wait::Forever => pending().await,
    }
}

/// Closes the connection, and writes messages until the peer closes too.
async fn close(
    sender: &Sender,
    receiver: &mut Receiver,
    output: &Output,
    tally: &Tally<'_>,
    code: CloseCode,
) -> Result<(), Error> {
    let receiving = async {
        loop {
            match next_event(receiver, output, Phase::AwaitingIdle).await {
                PeerEvent::Message(message) => tally.record(message, output),
                PeerEvent::Pong => {}
                PeerEvent::End(ended) => return ended,
            }
        }
    };
    // If the close frame cannot be sent, the receiver returns the cause.
    tokio::join!(receiving, sender.close(code, "")).0
}

/// Treats a closed pipe as success, because readers such as `head` exit early. Other errors are failures.
pub(super) fn ended_by_output(error: io::Error) -> Result<(), Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::Output(error)),
    }
}

/// Waits until writing to standard output fails.
pub(super) async fn failed(writer: &mut Writer) -> io::Error {
    match writer.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => io::ErrorKind::BrokenPipe.into(),
    }
}

/// Waits without a time limit until everything is written.
pub(super) async fn finish(writer: Writer, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Interrupted(signal)),
        written = writer => match written {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        },
    }
}

/// Whether an error only reports the close frame of the peer.
fn is_closed_by_frame(error: &Error) -> bool {
    error.close_info().is_some_and(|close_info| {
        matches!(close_info.cause(), CloseCause::Local | CloseCause::Peer) && close_info.received().is_some()
    })
}

/// Converts an error of the connection.
pub(super) fn failure(error: Error, options: &ConnectOptions) -> Failure {
    match error.close_info().map(CloseInfo::cause) {
        // The limit is a local one, which the peer does not know.
        Some(CloseCause::ProtocolError(ProtocolError::MessageTooBig)) => Failure::TooBig {
            size_max: options.max_message_size,
        },
        _ => Failure::connection(error),
    }
}

/// Returns an error if the close code of the peer reports one.
pub(super) fn check_close_code(close_info: Option<&CloseInfo>, options: &ConnectOptions) -> Result<(), Failure> {
    let Some(frame) = close_info.and_then(CloseInfo::received) else {
        return Ok(());
    };
    match frame.code {
        CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS => {
            if options.verbose {
                log::line(&format!("* closed: {}", close_frame(frame)));
            }
            Ok(())
        }
        _ => Err(Failure::Closed(frame.clone())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Command, CommandLine};

    fn options(arguments: &[&str]) -> ConnectOptions {
        let arguments = [&["sockeye", "connect", "a.example"], arguments].concat();
        match CommandLine::parse_from(arguments).command {
            Command::Connect(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_depend_on_the_numbers_of_messages() {
        let seconds = |seconds| Wait::For(Duration::from_secs(seconds));
        let (none, pipe, typed) = (&[][..], false, true);
        for (arguments, is_typed, sent, received, wait, pong_wait, wants_pong) in [
            // With and without a reply for each message.
            (none, pipe, 1, 1, seconds(1), seconds(1), true),
            (none, pipe, 2, 3, seconds(1), seconds(1), true),
            (none, pipe, 1, 0, seconds(5), seconds(8), true),
            (none, pipe, 100, 99, seconds(5), seconds(8), true),
            // An empty input means receive only, except on a terminal.
            (none, pipe, 0, 0, Wait::Forever, seconds(8), false),
            (none, pipe, 0, 7, Wait::Forever, seconds(8), false),
            (none, typed, 0, 0, seconds(1), seconds(1), true),
            (none, typed, 1, 0, seconds(1), seconds(1), true),
            (&["-n", "3"], pipe, 1, 1, Wait::Forever, seconds(8), false),
            // An explicit --wait takes precedence.
            (&["-w", "0"], pipe, 0, 0, seconds(0), seconds(1), true),
            (&["-w", "0"], pipe, 2, 0, seconds(0), seconds(8), true),
            (&["-w", "2s", "-n", "3"], pipe, 2, 0, seconds(2), seconds(8), true),
            (&["-w", "3s"], pipe, 1, 1, seconds(3), seconds(3), true),
            (&["-w", "9s"], pipe, 1, 1, seconds(9), seconds(8), false),
            (&["-w", "forever"], pipe, 1, 1, Wait::Forever, seconds(8), false),
        ] {
            let options = options(arguments);
            let tally = Tally {
                options: &options,
                is_typed,
                sent: Cell::new(sent),
                received: Cell::new(received),
            };
            let case = format!("{arguments:?} typed {is_typed} sent {sent} received {received}");
            assert_eq!(tally.wait(), wait, "{case}");
            assert_eq!(tally.pong_wait(), pong_wait, "{case}");
            assert_eq!(tally.wants_pong(), wants_pong, "{case}");
        }
    }
}
