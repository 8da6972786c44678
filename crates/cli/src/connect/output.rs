//! Messages on standard output, written by a separate thread because writing may block forever.
//!
//! Up to 16 MiB of messages are queued for the thread. While the queue has room, the connection is independent of
//! standard output: pings are answered, and the closing handshake is performed. If the queue is full, the peer is not
//! read, so TCP flow control stops it. Pings are then not answered either, because they would be behind the messages.

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

/// Maximum size of queued messages.
const QUEUED_BYTES_MAX: usize = 16 << 20;

/// Maximum number of bytes of a binary message that are shown on a terminal.
const SHOWN_BYTES_MAX: usize = 64;

/// The sending end of the queue of messages.
#[derive(Debug)]
pub(super) struct Output {
    messages: mpsc::Sender<Message>,
    queued: Arc<Queued>,
}

/// Receives the result of the thread: after [`Output`] is dropped and everything is written, or at the first error.
pub(super) type Writer = oneshot::Receiver<io::Result<()>>;

/// The output format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutputFormat {
    is_text_escaped: bool,
    binary: Binary,
    /// Written before each message.
    prefix: &'static str,
}

/// The output format of binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Raw,
    Hex,
    /// The length and the first bytes.
    Summary,
}

#[derive(Debug, Default)]
struct Queued {
    bytes: AtomicUsize,
    has_room: Notify,
}

impl Output {
    /// Starts the thread.
    pub(super) fn start(format: OutputFormat) -> io::Result<(Self, Writer)> {
        let (messages, queue) = mpsc::channel();
        let (end, writer) = oneshot::channel();
        let queued = Arc::<Queued>::default();
        let output = Self {
            messages,
            queued: queued.clone(),
        };
        thread::Builder::new().name("output".into()).spawn(move || {
            let written = standard_output().and_then(|out| write_messages(&queue, &queued, format, out));
            let _ = end.send(written);
        })?;
        Ok((output, writer))
    }

    /// Waits until the queue has room for a message. Cancel-safe.
    pub(super) async fn wait_for_room(&self) {
        while self.queued.bytes.load(Ordering::Acquire) >= QUEUED_BYTES_MAX {
            self.queued.has_room.notified().await;
        }
    }

    /// Queues a message. An error of standard output is reported by the [`Writer`].
    pub(super) fn write(&self, message: Message) {
        self.queued.bytes.fetch_add(cost(&message), Ordering::AcqRel);
        let _ = self.messages.send(message);
    }
}

impl OutputFormat {
    /// The format for the current standard output. If it shows a prompt too, messages get a prefix that distinguishes
    /// them from sent lines.
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

/// Writes messages, and flushes when the queue is empty.
fn write_messages(
    queue: &mpsc::Receiver<Message>,
    queued: &Queued,
    format: OutputFormat,
    out: impl Write,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            format.write(&message, &mut out)?;
            queued.bytes.fetch_sub(cost(&message), Ordering::AcqRel);
            queued.has_room.notify_one();
            next = queue.try_recv().ok();
        }
        out.flush()?;
    }
    Ok(())
}

/// Accounted size of a queued message, including the memory of an empty one.
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

/// A terminal on which the prompt may be shown.
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

    const PIPE: OutputFormat = OutputFormat {
        is_text_escaped: false,
        binary: Binary::Raw,
        prefix: "",
    };

    #[track_caller]
    fn check(format: OutputFormat, message: impl Into<Message>, line: &[u8]) {
        let mut out = Vec::new();
        format.write(&message.into(), &mut out).unwrap();
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
        let format = OutputFormat::of(Escape::Auto, BinaryOut::Hex, false);
        check(format, &[0, 10, 255], b"000aff\n");
    }

    #[test]
    fn a_terminal_gets_nothing_it_would_obey() {
        let format = OutputFormat::of(Escape::Auto, BinaryOut::Raw, true);
        check(format, "a\u{1b}[31m\nb", b"a\\u001b[31m\\nb\n");
        check(format, &[27, 93, 48], b"[binary, 3 bytes] 1b 5d 30\n");
        let long = [0; SHOWN_BYTES_MAX + 1];
        let shown = format!("[binary, 65 bytes]{} ...\n", " 00".repeat(SHOWN_BYTES_MAX));
        check(format, &long, shown.as_bytes());
        check(OutputFormat { prefix: "< ", ..format }, "a", b"< a\n");
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
            let format = OutputFormat::of(escape, BinaryOut::Raw, is_terminal);
            let is_text_escaped = escape == always || (escape == Escape::Auto && is_terminal);
            assert_eq!(
                (format.is_text_escaped, format.binary),
                (is_text_escaped, binary),
                "{escape:?} {is_terminal}"
            );
        }
    }
}
