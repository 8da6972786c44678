//! Messages on standard output, written by a thread of its own: writing may block for ever.
//!
//! Between the connection and that thread up to 16 MiB of messages wait. While there is room, the connection goes on
//! whatever standard output does: pings are answered, the close handshake is done. Without room nothing is read from the
//! peer, so TCP holds it back and no memory grows; a ping would then lie unread behind the messages in any case.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{mem, thread};

use sockeye::Message;
use std::sync::mpsc;
use tokio::sync::{Notify, oneshot};

use super::escape::escape;
use crate::cli::BinaryOut;

/// Bytes of messages that wait to be written.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Bytes of a binary message that a terminal shows.
const SHOWN_BYTES_MAX: usize = 64;

/// Takes messages to be written.
#[derive(Debug)]
pub(super) struct Output {
    messages: mpsc::Sender<Message>,
    waiting: Arc<Waiting>,
}

/// The end of the thread that writes: when all is written after [`Output`] is dropped, or at the first failure.
pub(super) type Writer = oneshot::Receiver<io::Result<()>>;

/// How messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Harmless, for a person.
    Terminal,
    /// Exact, for a program.
    Pipe(BinaryOut),
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    has_room: Notify,
}

impl Output {
    /// Starts the thread.
    pub(super) fn start(form: Form) -> io::Result<(Self, Writer)> {
        let (messages, queue) = mpsc::channel();
        let (end, writer) = oneshot::channel();
        let waiting = Arc::<Waiting>::default();
        let output = Self {
            messages,
            waiting: waiting.clone(),
        };
        thread::Builder::new().name("output".into()).spawn(move || {
            let written = standard_output().and_then(|out| write_messages(&queue, &waiting, form, out));
            let _ = end.send(written);
        })?;
        Ok((output, writer))
    }

    /// Waits until there is room for a message. Cancel-safe.
    pub(super) async fn room(&self) {
        while self.waiting.bytes.load(Ordering::Acquire) >= WAITING_BYTES_MAX {
            self.waiting.has_room.notified().await;
        }
    }

    /// Has a message written. If standard output has failed, the [`Writer`] says so.
    pub(super) fn write(&self, message: Message) {
        self.waiting.bytes.fetch_add(cost(&message), Ordering::AcqRel);
        let _ = self.messages.send(message);
    }
}

impl Form {
    /// As standard output is.
    pub(super) fn of_standard_output(binary: BinaryOut) -> Self {
        match io::stdout().is_terminal() {
            true => Self::Terminal,
            false => Self::Pipe(binary),
        }
    }

    fn write(self, message: &Message, out: &mut impl Write) -> io::Result<()> {
        match (self, message) {
            (Self::Terminal, Message::Text(text)) => out.write_all(escape(text).as_bytes())?,
            (Self::Terminal, Message::Binary(bytes)) => write_summary(bytes, out)?,
            (Self::Pipe(_), Message::Text(text)) => out.write_all(text.as_bytes())?,
            (Self::Pipe(BinaryOut::Raw), Message::Binary(bytes)) => out.write_all(bytes)?,
            (Self::Pipe(BinaryOut::Hex), Message::Binary(bytes)) => {
                for byte in bytes.iter() {
                    write!(out, "{byte:02x}")?;
                }
            }
        }
        out.write_all(b"\n")
    }
}

fn write_summary(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    write!(out, "[binary, {} bytes]", bytes.len())?;
    for byte in bytes.iter().take(SHOWN_BYTES_MAX) {
        write!(out, " {byte:02x}")?;
    }
    match bytes.len() > SHOWN_BYTES_MAX {
        true => write!(out, " ..."),
        false => Ok(()),
    }
}

/// Writes what comes, and hands it on when nothing more has come.
fn write_messages(queue: &mpsc::Receiver<Message>, waiting: &Waiting, form: Form, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            form.write(&message, &mut out)?;
            waiting.bytes.fetch_sub(cost(&message), Ordering::AcqRel);
            waiting.has_room.notify_one();
            next = queue.try_recv().ok();
        }
        out.flush()?;
    }
    Ok(())
}

/// What a waiting message counts; empty ones take memory too.
fn cost(message: &Message) -> usize {
    mem::size_of::<Message>() + message.len()
}

/// Standard output without the buffer that would make each line a write of its own.
#[cfg(unix)]
fn standard_output() -> io::Result<impl Write> {
    use std::os::fd::AsFd;
    Ok(std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

#[cfg(not(unix))]
fn standard_output() -> io::Result<impl Write> {
    Ok(io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, message: impl Into<Message>, line: &[u8]) {
        let mut out = Vec::new();
        form.write(&message.into(), &mut out).unwrap();
        assert_eq!(out, line, "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn a_pipe_gets_text_byte_for_byte() {
        check(
            Form::Pipe(BinaryOut::Raw),
            "a\u{1b}[31m\nb\u{202e}",
            "a\u{1b}[31m\nb\u{202e}\n".as_bytes(),
        );
        check(Form::Pipe(BinaryOut::Hex), "", b"\n");
    }

    #[test]
    fn a_pipe_gets_binary_raw_or_in_hex() {
        check(Form::Pipe(BinaryOut::Raw), &[0, 10, 255], &[0, 10, 255, 10]);
        check(Form::Pipe(BinaryOut::Hex), &[0, 10, 255], b"000aff\n");
    }

    #[test]
    fn a_terminal_gets_nothing_it_would_obey() {
        check(Form::Terminal, "a\u{1b}[31m\nb", b"a\\u001b[31m\\nb\n");
        check(Form::Terminal, &[27, 93, 48], b"[binary, 3 bytes] 1b 5d 30\n");
        let long = [0; SHOWN_BYTES_MAX + 1];
        let shown = format!("[binary, 65 bytes]{} ...\n", " 00".repeat(SHOWN_BYTES_MAX));
        check(Form::Terminal, &long, shown.as_bytes());
    }
}
