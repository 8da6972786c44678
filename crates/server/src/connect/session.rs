//! The talk itself, from the open WebSocket to its end.
//!
//! When the input ends, replies are still on their way, and a server that has received a close frame need not send
//! them. So the end of input does not close. It sends a ping behind the last message; once the pong is there the server
//! has read everything; and once nothing has come for a while its replies have come too. Only then is it closed.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sockeye::{Cause, CloseCode, Closure, Error, Fault, Message, Receiver, Sender, WebSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::escape::close_frame;
use super::input::{self, InputError};
use super::output::{Output, Writer};
use crate::cli::{ConnectOptions, Failure, Signal, Signals, Wait};
use crate::log;

/// How long the peer may take to answer a close frame when the program is to end now.
const HURRIED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the talk ends.
#[derive(Debug)]
enum End {
    /// The connection is over.
    Connection(Result<(), Error>),
    /// A line cannot be read or sent.
    Input(InputError),
    /// Standard output takes nothing any more.
    Output(io::Error),
    /// The program is to end.
    Signal(Signal),
}

/// Where the talk is.
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

/// What comes from the peer.
enum Heard {
    Message(Message),
    Pong,
    End(Result<(), Error>),
}

/// Talks until it is over and everything received is written.
pub(super) async fn talk(
    ws: WebSocket,
    output: Output,
    mut writer: Writer,
    options: &ConnectOptions,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let lines = input::lines()?;
    let (sender, mut receiver) = ws.split();
    let end = tokio::select! {
        biased;
        signal = signals.next() => End::Signal(signal),
        error = failed(&mut writer) => End::Output(error),
        end = converse(&sender, &mut receiver, &output, lines, options.wait) => end,
    };
    let code = match end {
        End::Connection(_) | End::Input(_) => CloseCode::NORMAL,
        End::Output(_) | End::Signal(_) => CloseCode::GOING_AWAY,
    };
    if !matches!(end, End::Connection(_)) {
        let closing = timeout(HURRIED_CLOSE_TIMEOUT, close(&sender, &mut receiver, &output, code));
        tokio::select! {
            _ = closing => {}
            _ = signals.next() => {}
        }
    }
    // The writer ends when it has written everything.
    drop(output);
    match end {
        // Who reads our output has enough of it, as `head` has.
        End::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        End::Output(error) => Err(Failure::Output(error)),
        End::Signal(signal) => {
            let _ = timeout(HURRIED_CLOSE_TIMEOUT, writer).await;
            Err(Failure::Interrupted(signal))
        }
        End::Input(error) => finish(writer, signals).await.and(Err(Failure::Input(error))),
        End::Connection(ended) => {
            finish(writer, signals).await?;
            ended.map_err(|error| failure(error, options))?;
            judge(receiver.closure().as_ref(), options)
        }
    }
}

/// Sends lines and writes messages until the peer ends it, or the input does and the peer has nothing more to say.
async fn converse(
    sender: &Sender,
    receiver: &mut Receiver,
    output: &Output,
    lines: mpsc::Receiver<Result<String, InputError>>,
    wait: Wait,
) -> End {
    let mut sending = pin!(send_lines(sender, lines));
    let mut phase = Phase::Sending;
    let mut heard_at = Instant::now();
    loop {
        // No branch goes first: neither a peer nor an input that never pauses may keep the other waiting.
        tokio::select! {
            heard = hear(receiver, output, phase) => {
                heard_at = Instant::now();
                match heard {
                    Heard::Message(message) => output.write(message),
                    Heard::Pong => phase = Phase::AwaitingQuiet,
                    Heard::End(ended) => return End::Connection(ended),
                }
            }
            sent = sending.as_mut(), if phase == Phase::Sending => match sent {
                Ok(Ok(before)) => phase = Phase::AwaitingPong { before },
                Ok(Err(error)) => return End::Input(error),
                Err(_) => phase = Phase::Failing,
            },
            () = quiet(heard_at, wait), if phase == Phase::AwaitingQuiet => {
                return End::Connection(close(sender, receiver, output, CloseCode::NORMAL).await);
            }
        }
    }
}

/// Sends every line, then a ping; gives the round-trip time as it was before the ping.
async fn send_lines(
    sender: &Sender,
    mut lines: mpsc::Receiver<Result<String, InputError>>,
) -> Result<Result<Option<Duration>, InputError>, Error> {
    loop {
        let line = match lines.try_recv() {
            Ok(line) => Some(line),
            // Lines that come together leave together; before waiting for more, they leave.
            Err(_) => {
                sender.flush().await?;
                lines.recv().await
            }
        };
        match line {
            Some(Ok(line)) => sender.feed(line).await?,
            Some(Err(error)) => return Ok(Err(error)),
            None => break,
        }
    }
    let before = sender.rtt();
    sender.ping(b"end of input").await?;
    Ok(Ok(before))
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
async fn close(sender: &Sender, receiver: &mut Receiver, output: &Output, code: CloseCode) -> Result<(), Error> {
    let hearing = async {
        loop {
            match hear(receiver, output, Phase::AwaitingQuiet).await {
                Heard::Message(message) => output.write(message),
                Heard::Pong => {}
                Heard::End(ended) => return ended,
            }
        }
    };
    // If the close frame cannot be sent, what is received tells why.
    tokio::join!(hearing, sender.close(code, "")).0
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

/// What a bad end is called.
fn failure(error: Error, options: &ConnectOptions) -> Failure {
    match error.closure().map(Closure::cause) {
        // The limit is ours, and the peer may know nothing of it.
        Some(Cause::Fault(Fault::MessageTooBig)) => Failure::TooBig {
            size_max: options.max_message_size,
        },
        _ => Failure::connection(error),
    }
}

/// Whether the end was a good one: the peer's close code says.
fn judge(closure: Option<&Closure>, options: &ConnectOptions) -> Result<(), Failure> {
    let Some(frame) = closure.and_then(Closure::received) else {
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
