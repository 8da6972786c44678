//! Lines of standard input, read by a thread of their own: reading them may block for ever.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::thread;

use tokio::sync::mpsc;

/// Lines read ahead of what is sent.
const LINES_AHEAD_MAX: usize = 64;

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

/// Begins to read. The channel closes at the end of the input.
pub(super) fn lines() -> io::Result<mpsc::Receiver<Result<String, InputError>>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut input = io::stdin().lock();
        for number in 1.. {
            let line = read_line(&mut input, number, LINE_BYTES_MAX);
            let is_last = matches!(line, Err(_) | Ok(None));
            let is_gone = line.transpose().is_some_and(|line| sender.blocking_send(line).is_err());
            if is_last || is_gone {
                break;
            }
        }
    })?;
    Ok(receiver)
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

    fn read_all(mut input: &[u8]) -> Vec<String> {
        let next = |number| read_line(&mut input, number, 4).unwrap();
        (1..).map_while(next).collect()
    }

    #[test]
    fn both_line_ends_are_stripped_and_nothing_else() {
        assert_eq!(read_all(b"a\nb\r\n\n\r\n c \nd\r"), ["a", "b", "", "", " c ", "d\r"]);
    }

    #[test]
    fn a_last_line_needs_no_end() {
        assert_eq!(read_all(b"a\nb"), ["a", "b"]);
        assert!(read_all(b"").is_empty());
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        assert_eq!(read_all(b"1234\n1234\r\n1234"), ["1234"; 3]);
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
