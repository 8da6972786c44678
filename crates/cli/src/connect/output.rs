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

use crate::cli::{BinaryOut, Escape};
use crate::escape::escape;
use crate::platform::{Blocking, terminal};

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
pub(super) struct Form {
    is_text_escaped: bool,
    binary: Binary,
    /// Before each message.
    prefix: &'static str,
}

/// How binary messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Raw,
    Hex,
    /// The length and the first bytes.
    Summary,
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
    /// For standard output as it is. With a prompt on the terminal, messages are told from lines that were sent.
    pub(super) fn new(escape: Escape, binary: BinaryOut, has_prompt: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            prefix: if has_prompt && is_terminal { "< " } else { "" },
            ..Self::of(escape, binary, is_terminal)
        }
    }

    fn of(escape: Escape, binary: BinaryOut, is_terminal: bool) -> Self {
        let is_escaped = match escape {
            Escape::Auto => is_terminal,
            Escape::Always => true,
            Escape::Never => false,
        };
        let binary = match (is_escaped, is_terminal, binary) {
            (true, true, _) => Binary::Summary,
            (true, false, _) | (false, _, BinaryOut::Hex) => Binary::Hex,
            (false, _, BinaryOut::Raw) => Binary::Raw,
        };
        Self {
            is_text_escaped: is_escaped,
            binary,
            prefix: "",
        }
    }

    fn write(self, message: &Message, out: &mut impl Write) -> io::Result<()> {
        out.write_all(self.prefix.as_bytes())?;
        match (message, self.binary) {
            (Message::Text(text), _) if self.is_text_escaped => out.write_all(escape(text).as_bytes())?,
            (Message::Text(text), _) => out.write_all(text.as_bytes())?,
            (Message::Binary(bytes), Binary::Summary) => write_summary(bytes, out)?,
            (Message::Binary(bytes), Binary::Raw) => out.write_all(bytes)?,
            (Message::Binary(bytes), Binary::Hex) => {
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

/// Standard output without a buffer.
fn standard_output() -> io::Result<Box<dyn Write>> {
    let out = Blocking::stdout()?;
    Ok(match io::stdout().is_terminal() {
        true => Box::new(AbovePrompt(out)),
        false => Box::new(out),
    })
}

/// A terminal that may have a prompt on it.
struct AbovePrompt<W>(W);

impl<W: Write> Write for AbovePrompt<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        terminal::print(bytes, |bytes| self.0.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Form = Form {
        is_text_escaped: false,
        binary: Binary::Raw,
        prefix: "",
    };

    #[track_caller]
    fn check(form: Form, message: impl Into<Message>, line: &[u8]) {
        let mut out = Vec::new();
        form.write(&message.into(), &mut out).unwrap();
        assert_eq!(out, line, "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn a_pipe_gets_text_byte_for_byte() {
        check(PIPE, "a\u{1b}[31m\nb\u{202e}", "a\u{1b}[31m\nb\u{202e}\n".as_bytes());
        check(PIPE, "", b"\n");
    }

    #[test]
    fn a_pipe_gets_binary_raw_or_in_hex() {
        check(PIPE, &[0, 10, 255], &[0, 10, 255, 10]);
        let form = Form::of(Escape::Auto, BinaryOut::Hex, false);
        check(form, &[0, 10, 255], b"000aff\n");
    }

    #[test]
    fn a_terminal_gets_nothing_it_would_obey() {
        let form = Form::of(Escape::Auto, BinaryOut::Raw, true);
        check(form, "a\u{1b}[31m\nb", b"a\\u001b[31m\\nb\n");
        check(form, &[27, 93, 48], b"[binary, 3 bytes] 1b 5d 30\n");
        let long = [0; SHOWN_BYTES_MAX + 1];
        let shown = format!("[binary, 65 bytes]{} ...\n", " 00".repeat(SHOWN_BYTES_MAX));
        check(form, &long, shown.as_bytes());
        check(Form { prefix: "< ", ..form }, "a", b"< a\n");
    }

    #[test]
    fn escaping_can_be_chosen() {
        let (always, never) = (Escape::Always, Escape::Never);
        for (escape, is_terminal, binary) in [
            (Escape::Auto, true, Binary::Summary),
            (Escape::Auto, false, Binary::Raw),
            (always, true, Binary::Summary),
            (always, false, Binary::Hex),
            (never, true, Binary::Raw),
            (never, false, Binary::Raw),
        ] {
            let form = Form::of(escape, BinaryOut::Raw, is_terminal);
            let is_text_escaped = escape == always || (escape == Escape::Auto && is_terminal);
            assert_eq!(
                (form.is_text_escaped, form.binary),
                (is_text_escaped, binary),
                "{escape:?} {is_terminal}"
            );
        }
    }
}
