//! Log output on standard error, through a sink that never blocks or panics.
//!
//! [`line`] and `tracing` put lines into a queue of limited size, which one thread writes to standard error. If standard
//! error is full, closed, or a pipe without a reader, lines are dropped and counted; `eprintln!` would panic or block
//! the connection instead. The next line that can be written is followed by the number of dropped lines.
//!
//! `tracing-appender` is not used: its guard prints to standard output when the queue is full at exit, and its queue is
//! limited in lines, not in bytes.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use sockeye_server::settings::LogFormat;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::platform::terminal;

/// Maximum size of all queued lines. Lines beyond it are dropped.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// How long [`flush`] waits for standard error.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static SINK: OnceLock<Sink> = OnceLock::new();

/// Starts the thread that writes, and directs `tracing` and panic messages to it.
pub(crate) fn start(filter: Targets, format: LogFormat) -> Guard {
    let (sink, queue) = Sink::new();
    let counters = sink.counters.clone();
    // Without the thread the receiver is dropped, and so is every line.
    let _ = thread::Builder::new()
        .name("log".into())
        .spawn(move || write_entries(&queue, &counters, Stderr));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(sink.clone());
    let _ = SINK.set(sink);
    // Not `init`, which would also install a logger for the `log` crate if another crate enables that feature.
    let registry = tracing_subscriber::registry().with(filter);
    let set = match format {
        LogFormat::Json => tracing::subscriber::set_global_default(registry.with(lines.json().flatten_event(true))),
        _ => tracing::subscriber::set_global_default(registry.with(lines)),
    };
    set.expect("`start` is called once");
    // A panic in the task of a connection ends only that connection: tokio catches it.
    panic::set_hook(Box::new(|panic| tracing::error!("bug, please report: {panic}")));
    Guard
}

/// Prints one line for the user, regardless of the log level.
pub(crate) fn line(text: &str) {
    if let Some(sink) = SINK.get() {
        sink.push(format!("{text}\n").into_bytes());
    }
}

/// Waits until all queued lines are written, for at most a second.
pub(crate) fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(FLUSH_TIMEOUT);
    }
}

/// Flushes the log when dropped.
#[derive(Debug)]
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        flush();
    }
}

/// Standard error. On a terminal, text is printed above the prompt.
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

/// The sending half of the queue of lines.
#[derive(Clone, Debug)]
struct Sink {
    queue: Sender<Entry>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Asks for a message on this channel once all earlier lines are written.
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    queued_bytes: AtomicUsize,
    /// Lines dropped since the last report.
    dropped_lines: AtomicU64,
}

impl Sink {
    fn new() -> (Self, Receiver<Entry>) {
        let (queue, receiver) = mpsc::channel();
        let counters = Arc::default();
        (Self { queue, counters }, receiver)
    }

    fn push(&self, line: Vec<u8>) {
        let len = line.len();
        let queued_bytes = self.counters.queued_bytes.fetch_add(len, Ordering::Relaxed) + len;
        if queued_bytes > QUEUED_BYTES_MAX || self.queue.send(Entry::Line(line)).is_err() {
            self.counters.queued_bytes.fetch_sub(len, Ordering::Relaxed);
            self.counters.dropped_lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, timeout: Duration) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.queue.send(Entry::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(timeout);
        }
    }
}

/// Writes queued lines until the program ends.
fn write_entries(queue: &Receiver<Entry>, counters: &Counters, mut out: impl Write) {
    for entry in queue {
        match entry {
            Entry::Line(line) => {
                let dropped = counters.dropped_lines.swap(0, Ordering::Relaxed);
                let mut written = out.write_all(&line);
                if dropped > 0 {
                    written = written.and_then(|()| writeln!(out, "{dropped} log lines were dropped"));
                }
                if written.is_err() {
                    counters.dropped_lines.fetch_add(dropped + 1, Ordering::Relaxed);
                }
                counters.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Entry::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Sink;

    fn make_writer(&'a self) -> &'a Sink {
        self
    }
}

impl Write for &Sink {
    /// Queues one line: `tracing_subscriber` calls this once for each event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that fails a number of times, then sends what it gets to a channel.
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
    fn lines_dropped_on_a_full_disk_are_counted_and_reported() {
        let (sink, queue) = Sink::new();
        let (written, lines) = mpsc::channel();
        let counters = sink.counters.clone();
        thread::spawn(move || write_entries(&queue, &counters, Flaky { failures: 2, written }));
        for line in ["one\n", "two\n", "three\n"] {
            sink.push(line.into());
        }
        let expected = "three\n2 log lines were dropped\n";
        let text: Vec<u8> = lines.iter().flatten().take(expected.len()).collect();
        assert_eq!(String::from_utf8_lossy(&text), expected);
        sink.flush(FLUSH_TIMEOUT);
        assert_eq!(sink.counters.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_queue_that_is_never_read_stays_small_and_flush_returns() {
        let (sink, _queue) = Sink::new();
        for _ in 0..QUEUED_BYTES_MAX {
            sink.push(vec![b'x'; 1024]);
        }
        let counters = &sink.counters;
        assert_eq!(counters.queued_bytes.load(Ordering::Relaxed), QUEUED_BYTES_MAX);
        let dropped = counters.dropped_lines.load(Ordering::Relaxed);
        assert_eq!(dropped, (QUEUED_BYTES_MAX - 1024) as u64);
        sink.flush(Duration::ZERO);
    }

    #[test]
    fn without_a_writing_thread_lines_are_dropped_and_flush_returns() {
        let (sink, queue) = Sink::new();
        drop(queue);
        sink.push(b"one\n".to_vec());
        assert_eq!(sink.counters.queued_bytes.load(Ordering::Relaxed), 0);
        sink.flush(FLUSH_TIMEOUT);
    }
}
