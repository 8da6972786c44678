//! The conversation, from the open WebSocket to its end.
//!
//! When the input ends, replies are still on their way, and a server that has received a close frame need not send
//! them. So the end of input does not close. It sends a ping behind the last message; once the pong is there the server
//! has read everything; and once nothing has come for a while its replies have come too. Only then is it closed.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sockeye::{CloseCause, CloseCode, CloseInfo, Error, Message, ProtocolError, Receiver, Sender, WebSocket};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::escape::close_frame;
use super::input::{Input, InputError};
use super::output::{Output, Writer};
use crate::cli::{ConnectOptions, Failure, Signal, Signals, Wait};
use crate::log;

/// How long it may take to close and to write what was received when the program is to end now.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(1);

/// How long replies may pause once there is one for each message sent.
const ANSWERED_WAIT: Duration = Duration::from_secs(1);

/// How long a reply may take that is still missing.
const UNANSWERED_WAIT: Duration = Duration::from_secs(5);

/// How long the pong for the end of input may take while replies are missing. Less than the time after which the
/// connection counts as dead for want of a pong: some servers answer messages and no pings.
const PONG_WAIT: Duration = Duration::from_secs(8);

/// Why the conversation ends.
#[derive(Debug)]
enum End {
    /// The connection is over.
    Connection(Result<(), Error>),
    /// As many messages have come as were asked for.
    Count,
    /// Nothing has come for the time of the wait.
    Quiet,
    /// A line cannot be read or sent.
    Input(InputError),
    /// Standard output takes nothing any more.
    Output(io::Error),
    /// The program is to end.
    Signal(Signal),
}

/// Where the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Lines are sent.
    Sending,
    /// All is sent, and a ping behind it. Its pong changes the round-trip time, which was this before.
    AwaitingPong { before: Option<Duration> },
    /// The server has read everything; its replies may go on.
    AwaitingQuiet,
    /// Sending has failed, and receiving is about to tell why.
    Failing,
}

/// What became of sending.
enum Sent {
    /// Everything, and a ping behind it if there is one to wait for.
    All { phase: Phase },
    /// Everything up to a line that cannot be sent.
    BadLine(InputError),
}

/// What comes from the peer.
enum Heard {
    Message(Message),
    Pong,
    End(Result<(), Error>),
}

/// A conversation over an open WebSocket.
#[derive(Debug)]
pub(super) struct Session<'a> {
    options: &'a ConnectOptions,
    sender: Sender,
    receiver: Receiver,
    output: Output,
    input: Input,
    tally: Tally<'a>,
}

/// How many messages went each way, and what follows from it.
#[derive(Debug)]
struct Tally<'a> {
    options: &'a ConnectOptions,
    /// A person types, whose end of input is an end.
    is_typed: bool,
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl<'a> Session<'a> {
    /// Lines of `input` are sent, and what is received goes to `output`.
    pub(super) fn start(options: &'a ConnectOptions, ws: WebSocket, output: Output, input: Input) -> Self {
        let (sender, receiver) = ws.split();
        let tally = Tally {
            options,
            is_typed: io::stdin().is_terminal(),
            sent: Cell::new(0),
            received: Cell::new(0),
        };
        Self {
            options,
            sender,
            receiver,
            output,
            input,
            tally,
        }
    }

    /// Talks until it is over and everything received is written.
    pub(super) async fn talk(
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
            end = self.converse() => end,
        };
        let Self {
            options,
            sender,
            mut receiver,
            output,
            tally,
            ..
        } = self;
        // When the program is to end now, this is how long closing and writing may take together.
        let mut hurried_until = Instant::now() + HURRIED_TIMEOUT;
        let mut closed = None;
        if !matches!(end, End::Connection(_)) {
            let (code, is_hurried) = match end {
                End::Quiet => (CloseCode::NORMAL, false),
                // What was asked for is there, however the server closes.
                End::Count | End::Input(_) => (CloseCode::NORMAL, true),
                _ => (CloseCode::GOING_AWAY, true),
            };
            let closing = close(&sender, &mut receiver, &output, &tally, code);
            tokio::select! {
                ended = closing => closed = Some(ended),
                () = sleep_until(hurried_until), if is_hurried => {}
                error = failed(&mut writer), if !is_hurried => return ended_by_output(error),
                signal = signals.next() => match is_hurried {
                    // Of two signals the first tells the exit status; the second ends every wait.
                    true => hurried_until = Instant::now(),
                    false => {
                        hurried_until = Instant::now() + HURRIED_TIMEOUT;
                        end = End::Signal(signal);
                    }
                },
            }
        }
        // The writer ends when it has written everything.
        drop(output);
        let ended = match end {
            End::Output(error) => return ended_by_output(error),
            End::Signal(signal) => {
                let _ = timeout_at(hurried_until, writer).await;
                return Err(Failure::Interrupted(signal));
            }
            End::Input(error) => return finish(writer, signals).await.and(Err(Failure::Input(error))),
            End::Count => return finish(writer, signals).await,
            End::Connection(ended) => ended,
            End::Quiet => closed.unwrap_or(Ok(())),
        };
        finish(writer, signals).await?;
        match ended {
            // The close code alone says whether that is an error.
            Err(error) if !is_closed_by_frame(&error) => return Err(failure(error, options)),
            _ => {}
        }
        judge(receiver.close_info().as_ref(), options)?;
        tally.judge()
    }

    /// Sends lines and writes messages until the peer ends it, or the input does and the peer has nothing more to say.
    async fn converse(&mut self) -> End {
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
        let mut heard_at = Instant::now();
        loop {
            // No branch goes first: neither a peer nor an input that never pauses may keep the other waiting.
            tokio::select! {
                heard = hear(receiver, output, phase) => {
                    heard_at = Instant::now();
                    match heard {
                        Heard::Message(message) => {
                            tally.take(message, output);
                            if tally.is_complete() {
                                return End::Count;
                            }
                        }
                        Heard::Pong => phase = Phase::AwaitingQuiet,
                        Heard::End(ended) => return End::Connection(ended),
                    }
                }
                sent = sending.as_mut(), if phase == Phase::Sending => match sent {
                    Ok(Sent::All { phase: next }) => {
                        phase = next;
                        heard_at = Instant::now();
                    }
                    Ok(Sent::BadLine(error)) => return End::Input(error),
                    Err(_) => phase = Phase::Failing,
                },
                () = quiet(heard_at, tally.pong_wait()), if matches!(phase, Phase::AwaitingPong { .. }) => {
                    phase = Phase::AwaitingQuiet;
                }
                () = quiet(heard_at, tally.wait()), if phase == Phase::AwaitingQuiet => {
                    tally.note_silence();
                    return End::Quiet;
                }
            }
        }
    }
}

impl Tally<'_> {
    /// Has a message written, unless all that were asked for have been.
    fn take(&self, message: Message, output: &Output) {
        if !self.is_complete() {
            self.received.set(self.received.get() + 1);
            output.write(message);
        }
    }

    /// Whether as many messages have come as were asked for.
    fn is_complete(&self) -> bool {
        self.options
            .count
            .is_some_and(|count| self.received.get() >= count.get())
    }

    /// Whether no reply is missing, judged by the number of messages. At a terminal, Ctrl-D means the user has seen enough.
    fn is_answered(&self) -> bool {
        self.is_typed || self.received.get() >= self.sent.get()
    }

    /// How long nothing may come after the end of input.
    fn wait(&self) -> Wait {
        match self.options.wait {
            Some(wait) => wait,
            // An input that is empty from the start, such as /dev/null, is for receiving only.
            None if self.options.count.is_some() || (self.sent.get() == 0 && !self.is_typed) => Wait::Forever,
            None if self.is_answered() => Wait::For(ANSWERED_WAIT),
            None => Wait::For(UNANSWERED_WAIT),
        }
    }

    /// How long the pong for the end of input may take after the last sign of life.
    fn pong_wait(&self) -> Wait {
        match (self.wait(), self.is_answered()) {
            (Wait::For(wait), true) => Wait::For(wait.max(ANSWERED_WAIT).min(PONG_WAIT)),
            _ => Wait::For(PONG_WAIT),
        }
    }

    /// Whether it is worth knowing when the server has read everything: not if the wait is longer than for that.
    fn wants_pong(&self) -> bool {
        matches!(self.wait(), Wait::For(wait) if wait < PONG_WAIT)
    }

    /// Says that nothing came, if the length of the wait was not the user's choice.
    fn note_silence(&self) {
        let is_told = self.options.wait.is_none() && !self.options.quiet;
        if is_told && self.received.get() == 0 && !self.is_answered() {
            log::line(&format!(
                "sockeye: no message came within {} s of the end of input; --wait waits longer",
                UNANSWERED_WAIT.as_secs()
            ));
        }
    }

    /// Whether as many messages came as were asked for.
    fn judge(&self) -> Result<(), Failure> {
        match self.options.count {
            Some(count) if !self.is_complete() => Err(Failure::TooFew {
                received: self.received.get(),
                count: count.get(),
            }),
            _ => Ok(()),
        }
    }
}

/// Sends every line, then a ping if its pong is of use.
async fn send_lines(sender: &Sender, input: &mut Input, tally: &Tally<'_>) -> Result<Sent, Error> {
    loop {
        let line = match input.try_next() {
            Some(line) => Some(line),
            // Lines that come together leave together; before waiting for more, they leave.
            None => {
                sender.flush().await?;
                input.next().await
            }
        };
        match line {
            Some(Ok(line)) => {
                sender.feed(line).await?;
                tally.sent.set(tally.sent.get() + 1);
            }
            Some(Err(error)) => return Ok(Sent::BadLine(error)),
            None => break,
        }
    }
    if !tally.wants_pong() {
        return Ok(Sent::All {
            phase: Phase::AwaitingQuiet,
        });
    }
    let before = sender.rtt();
    sender.send_ping(b"end of input").await?;
    Ok(Sent::All {
        phase: Phase::AwaitingPong { before },
    })
}

/// Waits for the peer, but only when there is room for what it may say. Cancel-safe.
async fn hear(receiver: &mut Receiver, output: &Output, phase: Phase) -> Heard {
    output.room().await;
    let is_pong_there = |rtt: Option<Duration>| matches!(phase, Phase::AwaitingPong { before } if rtt != before);
    poll_fn(|cx| {
        let received = pin!(receiver.recv()).poll(cx);
        match received {
            Poll::Ready(Ok(Some(message))) => Poll::Ready(Heard::Message(message)),
            Poll::Ready(Ok(None)) => Poll::Ready(Heard::End(Ok(()))),
            Poll::Ready(Err(error)) => Poll::Ready(Heard::End(Err(error))),
            // A pong is dealt with while messages are looked for, and seen by what it changes.
            Poll::Pending if is_pong_there(receiver.rtt()) => Poll::Ready(Heard::Pong),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Ready when nothing was heard for as long as the wait is.
async fn quiet(heard_at: Instant, wait: Wait) {
    match wait {
        Wait::For(duration) => sleep_until(heard_at + duration).await,
        Wait::Forever => pending().await,
    }
}

/// Closes, and writes what the peer still says until it closes too.
async fn close(
    sender: &Sender,
    receiver: &mut Receiver,
    output: &Output,
    tally: &Tally<'_>,
    code: CloseCode,
) -> Result<(), Error> {
    let hearing = async {
        loop {
            match hear(receiver, output, Phase::AwaitingQuiet).await {
                Heard::Message(message) => tally.take(message, output),
                Heard::Pong => {}
                Heard::End(ended) => return ended,
            }
        }
    };
    // If the close frame cannot be sent, what is received tells why.
    tokio::join!(hearing, sender.close(code, "")).0
}

/// Who reads our output has enough of it, as `head` has; every other reason is a failure.
fn ended_by_output(error: io::Error) -> Result<(), Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::Output(error)),
    }
}

/// Ready when standard output takes nothing any more.
async fn failed(writer: &mut Writer) -> io::Error {
    match writer.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => io::ErrorKind::BrokenPipe.into(),
    }
}

/// Waits until everything is written, however long its reader takes.
async fn finish(writer: Writer, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Interrupted(signal)),
        written = writer => match written {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        },
    }
}

/// Whether an error reports no more than the close frame of the peer.
fn is_closed_by_frame(error: &Error) -> bool {
    error.close_info().is_some_and(|close_info| {
        matches!(close_info.cause(), CloseCause::Local | CloseCause::Peer) && close_info.received().is_some()
    })
}

/// What a bad end is called.
fn failure(error: Error, options: &ConnectOptions) -> Failure {
    match error.close_info().map(CloseInfo::cause) {
        // The limit is ours, and the peer may know nothing of it.
        Some(CloseCause::ProtocolError(ProtocolError::MessageTooBig)) => Failure::TooBig {
            size_max: options.max_message_size,
        },
        _ => Failure::connection(error),
    }
}

/// Whether the end was a good one: the peer's close code says.
fn judge(close_info: Option<&CloseInfo>, options: &ConnectOptions) -> Result<(), Failure> {
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
            Command::Connect(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn how_long_replies_are_awaited_follows_from_what_came() {
        let seconds = |seconds| Wait::For(Duration::from_secs(seconds));
        let (none, pipe, typed) = (&[][..], false, true);
        for (arguments, is_typed, sent, received, wait, pong_wait, wants_pong) in [
            // A reply for each message, or not yet.
            (none, pipe, 1, 1, seconds(1), seconds(1), true),
            (none, pipe, 2, 3, seconds(1), seconds(1), true),
            (none, pipe, 1, 0, seconds(5), seconds(8), true),
            (none, pipe, 100, 99, seconds(5), seconds(8), true),
            // An empty input receives only; an end that was typed is one.
            (none, pipe, 0, 0, Wait::Forever, seconds(8), false),
            (none, pipe, 0, 7, Wait::Forever, seconds(8), false),
            (none, typed, 0, 0, seconds(1), seconds(1), true),
            (none, typed, 1, 0, seconds(1), seconds(1), true),
            (&["-n", "3"], pipe, 1, 1, Wait::Forever, seconds(8), false),
            // What was asked for counts in every case.
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
