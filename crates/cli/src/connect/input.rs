//! Lines of standard input, read by a separate thread because reading may block forever.
//!
//! The thread sends all available lines in one batch, because each handover costs two context switches.
//!
//! A pipe is not read while enough lines are queued. A terminal is always read: the kernel only detects Ctrl-C in input
//! that fits its buffer, so Ctrl-C after a large unread paste would have no effect.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, mem, thread, vec};

use sockeye::Message;
use tokio::sync::mpsc;

use crate::cli::BinaryIn;
use crate::log;
use crate::platform::{Blocking, terminal};

/// Size of the read buffer.
const BUFFER_BYTES: usize = 64 << 10;

/// Size at which a batch of lines is complete.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Maximum number of queued batches from a pipe or file.
const BATCHES_AHEAD_MAX: usize = 2;

/// Maximum size of queued lines from a terminal. Further lines are dropped.
const TYPED_BYTES_MAX: usize = 64 << 20;

/// Maximum size of a line. Few servers accept larger messages.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// An error that ends the input.
#[derive(Debug)]
pub(crate) enum InputError {
    /// Reading failed.
    Io(io::Error),
    /// The line is not UTF-8, which text messages must be (RFC 6455 §5.6).
    NotUtf8 { line: u64 },
    /// The line is not hexadecimal, as `--binary-in=hex` requires.
    NotHex { line: u64 },
    /// The line exceeds [`LINE_BYTES_MAX`].
    TooLong { line: u64 },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read standard input: {error}"),
            Self::NotUtf8 { line } => write!(
                f,
                "line {line} of standard input is not UTF-8, as text messages must be; it was not sent"
            ),
            Self::NotHex { line } => write!(
                f,
                "line {line} of standard input is not hexadecimal, as --binary-in=hex requires; it was not sent"
            ),
            Self::TooLong { line } => write!(
                f,
                "line {line} of standard input is longer than {} MiB; it was not sent",
                LINE_BYTES_MAX >> 20
            ),
        }
    }
}

/// Lines that were available together.
type Batch = Result<Vec<String>, InputError>;

/// The receiving end of the lines of standard input.
#[derive(Debug)]
pub(super) struct Input {
    batches: mpsc::Receiver<Batch>,
    lines: vec::IntoIter<String>,
    /// Accounted size of the queued batches.
    queued_bytes: Arc<AtomicUsize>,
}

impl Input {
    /// Starts the thread, which reads from the line editor or from standard input.
    pub(super) fn start(is_edited: bool) -> io::Result<Self> {
        let (is_terminal, queued_bytes) = (io::stdin().is_terminal(), Arc::<AtomicUsize>::default());
        // Input from a terminal is limited only by size, so the channel must never be full: it has room for the maximum
        // number of empty lines, one batch beyond the limit, and an error.
        let batches_max = match is_terminal {
            true => TYPED_BYTES_MAX / cost(&[String::new()]) + 2,
            false => BATCHES_AHEAD_MAX,
        };
        let (sender, batches) = mpsc::channel(batches_max);
        let mut gate = Gate::new(
            queued_bytes.clone(),
            if is_terminal { TYPED_BYTES_MAX } else { usize::MAX },
        );
        thread::Builder::new().name("input".into()).spawn(move || {
            let mut send = move |batch: Batch| match gate.admits(&batch) {
                true => sender.blocking_send(batch).is_ok(),
                false => !sender.is_closed(),
            };
            match is_edited {
                true => {
                    read_terminal(send);
                    terminal::discard_keys();
                }
                false => match Blocking::stdin() {
                    Ok(input) => read_all(BufReader::with_capacity(BUFFER_BYTES, input), send),
                    Err(error) => drop(send(Err(InputError::Io(error)))),
                },
            }
        })?;
        let lines = Vec::new().into_iter();
        Ok(Self {
            batches,
            lines,
            queued_bytes,
        })
    }

    fn take(&mut self, lines: Vec<String>) {
        self.queued_bytes.fetch_sub(cost(&lines), Ordering::AcqRel);
        self.lines = lines.into_iter();
    }

    /// Returns the next line, if it is available.
    pub(super) fn try_next(&mut self) -> Option<Result<String, InputError>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(Ok(line));
            }
            match self.batches.try_recv().ok()? {
                Ok(lines) => self.take(lines),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Waits for the next line; `None` at the end of the input. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<String, InputError>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(Ok(line));
            }
            match self.batches.recv().await? {
                Ok(lines) => self.take(lines),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The message for a line.
///
/// # Errors
/// Fails if the line is not in the format of `--binary-in`.
pub(super) fn message(line: String, number: u64, binary: Option<BinaryIn>) -> Result<Message, InputError> {
    match binary {
        None => Ok(Message::text(line)),
        Some(BinaryIn::Hex) => {
            let bytes = from_hex(&line).ok_or(InputError::NotHex { line: number })?;
            Ok(Message::binary(bytes))
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().filter(|c| !c.is_ascii_whitespace());
    let digits: Vec<u8> = digits.map(|c| Some(c.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Limits the size of queued lines from a terminal, and reports dropped lines.
#[derive(Debug)]
struct Gate {
    queued_bytes: Arc<AtomicUsize>,
    cost_max: usize,
    /// Number of lines dropped since the limit was reached.
    dropped: usize,
}

impl Gate {
    fn new(queued_bytes: Arc<AtomicUsize>, cost_max: usize) -> Self {
        Self {
            queued_bytes,
            cost_max,
            dropped: 0,
        }
    }

    /// Whether the batch may be queued. If so, its size is added.
    fn admits(&mut self, batch: &Batch) -> bool {
        let Ok(lines) = batch else {
            return true;
        };
        if self.queued_bytes.load(Ordering::Acquire) >= self.cost_max {
            if self.dropped == 0 {
                log::line(&format!(
                    "sockeye: {} MiB are waiting to be sent; further lines are dropped",
                    self.cost_max >> 20
                ));
            }
            self.dropped += lines.len();
            return false;
        }
        if self.dropped > 0 {
            log::line(&format!(
                "sockeye: {} lines were dropped; lines are accepted again",
                self.dropped
            ));
            self.dropped = 0;
        }
        self.queued_bytes.fetch_add(cost(lines), Ordering::AcqRel);
        true
    }
}

/// Accounted size of queued lines, including the memory of empty ones.
fn cost(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + mem::size_of::<String>()).sum()
}

fn read_terminal(mut send: impl FnMut(Batch) -> bool) {
    loop {
        let batch = match terminal::read_lines() {
            Ok(Some(lines)) => Ok(lines),
            Ok(None) => return,
            Err(error) => Err(InputError::Io(error)),
        };
        let is_last = batch.is_err();
        if !send(batch) || is_last {
            return;
        }
    }
}

/// Reads lines until the end of the input, or until the receiver is dropped.
fn read_all<R: Read>(mut input: BufReader<R>, mut send: impl FnMut(Batch) -> bool) {
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    for number in 1.. {
        let line = read_line(&mut input, number, LINE_BYTES_MAX);
        let (is_last, error) = match line {
            Ok(Some(line)) => {
                batch_bytes += line.len() + mem::size_of::<String>();
                batch.push(line);
                (false, None)
            }
            Ok(None) => (true, None),
            Err(error) => (true, Some(error)),
        };
        let is_line_available = !is_last && input.buffer().contains(&b'\n');
        if !batch.is_empty() && (batch_bytes >= BATCH_BYTES_MAX || !is_line_available) {
            batch_bytes = 0;
            if !send(Ok(mem::take(&mut batch))) {
                return;
            }
        }
        if let Some(error) = error {
            send(Err(error));
        }
        if is_last {
            return;
        }
    }
}

/// Reads the next line, without its line end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64, bytes_max: u64) -> Result<Option<String>, InputError> {
    let mut line = Vec::new();
    // Two more bytes for the line end.
    let read = input
        .take(bytes_max + 2)
        .read_until(b'\n', &mut line)
        .map_err(InputError::Io)?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    if line.len() as u64 > bytes_max {
        return Err(InputError::TooLong { line: number });
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| InputError::NotUtf8 { line: number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> Vec<String> {
        let next = |number| read_line(&mut input, number, 4).unwrap();
        (1..).map_while(next).collect()
    }

    #[test]
    fn available_lines_are_sent_in_one_batch() {
        let input: String = (0..100_000).map(|number| format!("{number}\n")).collect();
        let batches = std::cell::RefCell::new(Vec::new());
        read_all(BufReader::with_capacity(BUFFER_BYTES, input.as_bytes()), |batch| {
            batches.borrow_mut().push(batch.unwrap());
            true
        });
        let batches = batches.into_inner();
        // Nearly 600 KB of lines, and the `String` of each.
        assert!(batches.len() < 100, "{}", batches.len());
        let lines: Vec<_> = batches.concat();
        assert!(lines.iter().map(String::as_str).eq(input.lines()));
    }

    #[test]
    fn lines_before_a_bad_one_are_handed_over_before_the_error() {
        let batches = std::cell::RefCell::new(Vec::new());
        read_all(BufReader::new(&b"a\nb\n\xff\nc\n"[..]), |batch| {
            batches.borrow_mut().push(batch);
            true
        });
        let mut batches = batches.into_inner();
        assert!(matches!(batches.pop(), Some(Err(InputError::NotUtf8 { line: 3 }))));
        let lines: Vec<_> = batches.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(lines, ["a", "b"]);
    }

    #[test]
    fn lines_that_are_entered_while_too_much_waits_are_dropped() {
        let queued_bytes = Arc::<AtomicUsize>::default();
        let mut gate = Gate::new(queued_bytes.clone(), 100);
        let batch = || Ok(vec!["x".repeat(60)]);
        assert!(gate.admits(&batch()) && gate.admits(&batch()));
        assert!(!gate.admits(&batch()) && !gate.admits(&batch()));
        assert_eq!(gate.dropped, 2);
        // Why there are no more lines is always told.
        assert!(gate.admits(&Err(InputError::NotUtf8 { line: 3 })));
        queued_bytes.fetch_sub(cost(&batch().unwrap()), Ordering::AcqRel);
        assert!(gate.admits(&batch()));
        assert_eq!(gate.dropped, 0);
    }

    #[test]
    fn lines_in_hexadecimal_become_bytes() {
        for (line, bytes) in [
            ("00ff 0A", Some(&[0, 255, 10][..])),
            ("", Some(&[])),
            ("0", None),
            ("0g", None),
            ("é", None),
        ] {
            assert_eq!(from_hex(line).as_deref(), bytes, "{line}");
        }
    }

    #[test]
    fn both_line_ends_are_stripped_and_nothing_else() {
        assert_eq!(lines(b"a\nb\r\n\n\r\n c \nd\r"), ["a", "b", "", "", " c ", "d\r"]);
    }

    #[test]
    fn a_last_line_needs_no_end() {
        assert_eq!(lines(b"a\nb"), ["a", "b"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        assert_eq!(lines(b"1234\n1234\r\n1234"), ["1234"; 3]);
        for line in [&b"12345"[..], b"12345\n", b"12345\r\n", b"123456789\n"] {
            assert!(matches!(
                read_line(&mut &line[..], 7, 4),
                Err(InputError::TooLong { line: 7 })
            ));
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error() {
        assert!(matches!(
            read_line(&mut &b"\xff\n"[..], 3, 4),
            Err(InputError::NotUtf8 { line: 3 })
        ));
    }
}
