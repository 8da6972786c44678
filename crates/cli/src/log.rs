//! Everything the program says on standard error, by a sink that cannot hurt it.
//!
//! Whoever logs puts a line into a bounded queue and goes on; a thread of its own writes the lines. When standard error
//! is full, closed, or a pipe that nobody reads, lines are lost and counted, and nothing else happens: no panic (which
//! `eprintln!` would give), no connection that waits. The first line that can be written again says how many are missing.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sockeye_server::sync::lock;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::connect::terminal;

/// Bytes that wait to be written, beyond which lines are dropped.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// How long the end of the program waits for standard error to take what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static SINK: Sink = Sink::new();

/// Starts the sink, and sends what is traced and every panic to it.
pub(crate) fn start(filter: Targets) -> Guard {
    let writer = thread::Builder::new()
        .name("log".into())
        .spawn(|| SINK.write_all_to(Stderr));
    SINK.state().is_written = writer.is_ok();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Lines);
    // Not `init`, which also takes over the records of the crate `log` where some other crate turns that feature on.
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).expect("set once, at the start");
    // A panic of one connection ends that connection: its task catches it.
    panic::set_hook(Box::new(|panic| tracing::error!("bug, please report: {panic}")));
    Guard
}

/// Says one line to the person at the terminal, whatever is logged.
pub(crate) fn line(text: &str) {
    SINK.push(format!("{text}\n").into_bytes());
}

/// Waits until all lines are written, but not long.
pub(crate) fn flush() {
    SINK.flush(FLUSH_TIMEOUT);
}

/// Writes out, when dropped, what still waits.
#[derive(Debug)]
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// Standard error; if it is a terminal, above the prompt that may be there.
#[derive(Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr();
        match stderr.is_terminal() {
            true => terminal::print(bytes, |bytes| stderr.write_all(bytes))?,
            false => stderr.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where tracing writes its lines to.
#[derive(Debug)]
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines
    }
}

impl Write for Lines {
    /// Called once for each line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        SINK.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A bounded queue of lines between all threads and the one that writes.
#[derive(Debug)]
struct Sink {
    state: Mutex<State>,
    has_lines: Condvar,
    is_drained: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Lines lost since that was last said.
    dropped: u64,
    /// Whether a line is being written at this moment.
    is_writing: bool,
    /// Whether there is a thread that writes at all.
    is_written: bool,
}

impl Sink {
    const fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            is_writing: false,
            is_written: false,
        };
        Self {
            state: Mutex::new(state),
            has_lines: Condvar::new(),
            is_drained: Condvar::new(),
        }
    }

    /// The lock is never held while anything is written.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.waiting_bytes + line.len() > WAITING_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.waiting_bytes += line.len();
        state.waiting.push_back(line);
        self.has_lines.notify_one();
    }

    /// Writes lines for ever.
    fn write_all_to(&self, mut out: impl Write) {
        loop {
            let (line, dropped) = self.next();
            let mut is_written = out.write_all(&line).is_ok();
            if is_written && dropped > 0 {
                is_written = writeln!(out, "{dropped} lines of the log were lost").is_ok();
            }
            let mut state = self.state();
            state.is_writing = false;
            state.dropped += match is_written {
                true => 0,
                false => dropped + 1,
            };
            if state.waiting.is_empty() {
                self.is_drained.notify_all();
            }
        }
    }

    /// Waits for a line; also tells how many were lost.
    fn next(&self) -> (Vec<u8>, u64) {
        let state = self.state();
        let mut state = self
            .has_lines
            .wait_while(state, |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let line = state.waiting.pop_front().unwrap_or_default();
        state.waiting_bytes -= line.len();
        state.is_writing = true;
        (line, std::mem::take(&mut state.dropped))
    }

    fn flush(&self, timeout: Duration) {
        let state = self.state();
        let is_busy = |state: &mut State| state.is_written && (state.is_writing || !state.waiting.is_empty());
        drop(self.is_drained.wait_timeout_while(state, timeout, is_busy));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A standard error that fails a number of times, then hands on what it gets.
    struct Flaky {
        failures: u32,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_lost_on_a_full_disk_are_counted_and_announced() {
        let sink: &'static Sink = Box::leak(Box::new(Sink::new()));
        let (written, lines) = mpsc::channel();
        thread::spawn(|| sink.write_all_to(Flaky { failures: 2, written }));
        for line in ["one\n", "two\n", "three\n"] {
            sink.push(line.into());
        }
        let text: Vec<u8> = lines
            .iter()
            .flatten()
            .take("three\n2 lines of the log were lost\n".len())
            .collect();
        assert_eq!(String::from_utf8_lossy(&text), "three\n2 lines of the log were lost\n");
    }

    #[test]
    fn a_sink_that_nobody_empties_stays_small_and_lets_go() {
        let sink = Sink::new();
        sink.state().is_written = true;
        for _ in 0..WAITING_BYTES_MAX {
            sink.push(vec![b'x'; 1024]);
        }
        assert_eq!(sink.state().waiting_bytes, WAITING_BYTES_MAX);
        assert_eq!(sink.state().dropped, (WAITING_BYTES_MAX - 1024) as u64);
        sink.flush(Duration::ZERO);
    }
}
