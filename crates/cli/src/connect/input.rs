//! Lines of standard input, read by a thread of their own: reading them may block for ever.
//!
//! The thread hands over all lines that are at hand together. A line by itself would cost two switches of threads.
//!
//! A pipe is not read while enough lines wait to be sent. A terminal is read at all times: the system finds Ctrl-C only in
//! what it has room for, so behind a paste that nobody reads it would never be found.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, mem, thread, vec};

use tokio::sync::mpsc;

use crate::log;
use crate::platform::{Blocking, terminal};

/// Bytes that are read from standard input at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes of lines beyond which no more lines are handed over together.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Batches read ahead of what is sent.
const BATCHES_AHEAD_MAX: usize = 2;

/// Bytes of lines from a terminal that wait to be sent, beyond which lines are dropped.
const TYPED_BYTES_MAX: usize = 64 << 20;

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

/// Lines that are at hand together.
type Batch = Result<Vec<String>, InputError>;

/// Lines of standard input, in order.
#[derive(Debug)]
pub(super) struct Input {
    batches: mpsc::Receiver<Batch>,
    lines: vec::IntoIter<String>,
    /// Cost of the batches that wait.
    waiting: Arc<AtomicUsize>,
}

impl Input {
    /// Begins to read: from the terminal that is taken over, or from standard input.
    pub(super) fn start(is_edited: bool) -> io::Result<Self> {
        let (is_terminal, waiting) = (io::stdin().is_terminal(), Arc::<AtomicUsize>::default());
        // For a terminal the cost alone limits: one line more than fits, and an error, do not wait.
        let batches_max = match is_terminal {
            true => TYPED_BYTES_MAX / cost(&[String::new()]) + 2,
            false => BATCHES_AHEAD_MAX,
        };
        let (sender, batches) = mpsc::channel(batches_max);
        let mut gate = Gate::new(waiting.clone(), if is_terminal { TYPED_BYTES_MAX } else { usize::MAX });
        thread::Builder::new().name("input".into()).spawn(move || {
            let mut hand_over = move |batch: Batch| match gate.admits(&batch) {
                true => sender.blocking_send(batch).is_ok(),
                false => !sender.is_closed(),
            };
            match is_edited {
                true => {
                    read_terminal(hand_over);
                    terminal::discard_keys();
                }
                false => match Blocking::stdin() {
                    Ok(input) => read_all(BufReader::with_capacity(BUFFER_BYTES, input), hand_over),
                    Err(error) => drop(hand_over(Err(InputError::Io(error)))),
                },
            }
        })?;
        let lines = Vec::new().into_iter();
        Ok(Self {
            batches,
            lines,
            waiting,
        })
    }

    fn take(&mut self, lines: Vec<String>) {
        self.waiting.fetch_sub(cost(&lines), Ordering::AcqRel);
        self.lines = lines.into_iter();
    }

    /// The next line, if it is at hand.
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

    /// The next line; `None` at the end of the input. Cancel-safe.
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

/// Lets lines of a terminal pass while there is room for them, and says when there is none.
#[derive(Debug)]
struct Gate {
    waiting: Arc<AtomicUsize>,
    cost_max: usize,
    /// Lines dropped since there was room.
    dropped: usize,
}

impl Gate {
    fn new(waiting: Arc<AtomicUsize>, cost_max: usize) -> Self {
        Self {
            waiting,
            cost_max,
            dropped: 0,
        }
    }

    /// Whether the batch may wait to be sent; it counts then.
    fn admits(&mut self, batch: &Batch) -> bool {
        let Ok(lines) = batch else {
            return true;
        };
        if self.waiting.load(Ordering::Acquire) >= self.cost_max {
            if self.dropped == 0 {
                log::line(&format!(
                    "sockeye: {} MiB wait to be sent; lines that are entered now are dropped",
                    self.cost_max >> 20
                ));
            }
            self.dropped += lines.len();
            return false;
        }
        if self.dropped > 0 {
            log::line(&format!(
                "sockeye: lines dropped: {}; lines are taken again",
                self.dropped
            ));
            self.dropped = 0;
        }
        self.waiting.fetch_add(cost(lines), Ordering::AcqRel);
        true
    }
}

/// What waiting lines count; empty ones take memory too.
fn cost(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + mem::size_of::<String>()).sum()
}

fn read_terminal(mut hand_over: impl FnMut(Batch) -> bool) {
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
fn read_all<R: Read>(mut input: BufReader<R>, mut hand_over: impl FnMut(Batch) -> bool) {
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
    fn lines_that_are_entered_while_too_much_waits_are_dropped() {
        let waiting = Arc::<AtomicUsize>::default();
        let mut gate = Gate::new(waiting.clone(), 100);
        let batch = || Ok(vec!["x".repeat(60)]);
        assert!(gate.admits(&batch()) && gate.admits(&batch()));
        assert!(!gate.admits(&batch()) && !gate.admits(&batch()));
        assert_eq!(gate.dropped, 2);
        // Why there are no more lines is always told.
        assert!(gate.admits(&Err(InputError::NotUtf8 { line: 3 })));
        waiting.fetch_sub(cost(&batch().unwrap()), Ordering::AcqRel);
        assert!(gate.admits(&batch()));
        assert_eq!(gate.dropped, 0);
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
