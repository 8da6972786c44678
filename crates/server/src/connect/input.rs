//! Lines of standard input, read by a thread of their own: reading them may block for ever.
//!
//! The thread hands over all lines that are at hand together. A line by itself would cost two switches of threads.

use std::io::{self, BufRead, BufReader, Read};
use std::{fmt, mem, thread, vec};

use tokio::sync::mpsc;

use super::stdio::Blocking;
use super::terminal;

/// Bytes that are read from standard input at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes of lines beyond which no more lines are handed over together.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Batches read ahead of what is sent.
const BATCHES_AHEAD_MAX: usize = 2;

/// The longest line that is sent. Few servers take a message of this size.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Why there are no more lines, though the input has not ended.
#[derive(Debug)]
pub(crate) enum InputError {
    /// Reading failed.
    Io(io::Error),
    /// A text message is UTF-8 (RFC 6455 §5.6), and this line is not.
    NotUtf8 { line: u64 },
    /// The line is longer than it may be.
    TooLong { line: u64 },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read standard input: {error}"),
            Self::NotUtf8 { line } => write!(
                f,
                "line {line} of standard input is not UTF-8, which every text message must be; it was not sent"
            ),
            Self::TooLong { line } => write!(
                f,
                "line {line} of standard input is longer than {} MiB; it was not sent",
                LINE_BYTES_MAX >> 20
            ),
        }
    }
}

/// Lines of standard input, in order.
#[derive(Debug)]
pub(super) struct Input {
    batches: mpsc::Receiver<Result<Vec<String>, InputError>>,
    lines: vec::IntoIter<String>,
}

impl Input {
    /// Begins to read: from the terminal that is taken over, or from standard input.
    pub(super) fn start(is_edited: bool) -> io::Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD_MAX);
        thread::Builder::new().name("input".into()).spawn(move || {
            let hand_over = |batch| sender.blocking_send(batch).is_ok();
            match is_edited {
                true => read_terminal(hand_over),
                false => match Blocking::stdin() {
                    Ok(input) => read_all(BufReader::with_capacity(BUFFER_BYTES, input), hand_over),
                    Err(error) => drop(hand_over(Err(InputError::Io(error)))),
                },
            }
        })?;
        let lines = Vec::new().into_iter();
        Ok(Self { batches, lines })
    }

    /// The next line, if it is at hand.
    pub(super) fn try_next(&mut self) -> Option<Result<String, InputError>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(Ok(line));
            }
            match self.batches.try_recv().ok()? {
                Ok(lines) => self.lines = lines.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next line; `None` at the end of the input. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<String, InputError>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(Ok(line));
            }
            match self.batches.recv().await? {
                Ok(lines) => self.lines = lines.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn read_terminal(hand_over: impl Fn(Result<Vec<String>, InputError>) -> bool) {
    loop {
        let batch = match terminal::read_lines() {
            Ok(Some(lines)) => Ok(lines),
            Ok(None) => return,
            Err(error) => Err(InputError::Io(error)),
        };
        let is_last = batch.is_err();
        if !hand_over(batch) || is_last {
            return;
        }
    }
}

/// Reads lines to the end of the input, or until nobody takes them any more.
fn read_all<R: Read>(mut input: BufReader<R>, hand_over: impl Fn(Result<Vec<String>, InputError>) -> bool) {
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
        let is_at_hand = !is_last && input.buffer().contains(&b'\n');
        if !batch.is_empty() && (batch_bytes >= BATCH_BYTES_MAX || !is_at_hand) {
            batch_bytes = 0;
            if !hand_over(Ok(mem::take(&mut batch))) {
                return;
            }
        }
        if let Some(error) = error {
            hand_over(Err(error));
        }
        if is_last {
            return;
        }
    }
}

/// The next line without its end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64, bytes_max: u64) -> Result<Option<String>, InputError> {
    let mut line = Vec::new();
    // Two more for the end of the line.
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
    fn lines_at_hand_are_handed_over_together() {
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
