//! Child processes: started, read line by line, signalled, and always killed at the end.

use std::{
    ffi::OsStr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::patience;

pub use rustix::process::Signal;

/// Number of output lines that a failed test shows.
const LOG_LINES_MAX: usize = 200;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: mpsc::UnboundedReceiver<String>,
    stderr: Option<JoinHandle<()>>,
    log: Log,
}

impl Process {
    /// Starts `command` with all three standard streams connected to this process.
    ///
    /// # Panics
    /// If the program cannot be started. Must be called within a tokio runtime.
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let mut command = command;
        let name = describe(&command);
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name}: {error}"),
        };
        let log = Log::default();
        let (lines, stdout) = mpsc::unbounded_channel();
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(read_lines(stream, "out", log.clone(), Some(lines)));
        }
        let stderr = child.stderr.take();
        let stderr = stderr.map(|stream| tokio::spawn(read_lines(stream, "err", log.clone(), None)));
        Self {
            name,
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
            log,
        }
    }

    /// Returns the next line of standard output without its line end; `None` if the program has closed it.
    ///
    /// # Panics
    /// If no line came in time.
    pub async fn line(&mut self) -> Option<String> {
        match timeout(patience(), self.stdout.recv()).await {
            Ok(line) => line,
            Err(_) => self.fail("printed nothing in time"),
        }
    }

    /// Returns the rest of the first line of standard output that contains `marker`, and skips the lines before it.
    ///
    /// # Panics
    /// If the program ends or the time passes before such a line arrives.
    pub async fn line_after(&mut self, marker: &str) -> String {
        loop {
            match self.line().await {
                Some(line) => {
                    if let Some((_, rest)) = line.split_once(marker) {
                        return rest.to_owned();
                    }
                }
                None => self.fail(&format!("ended before it printed {marker:?}")),
            }
        }
    }

    /// Writes one line to standard input.
    ///
    /// # Panics
    /// If the program has closed its standard input.
    pub async fn write_line(&mut self, line: &str) {
        let text = format!("{line}\n");
        let Some(stdin) = &mut self.stdin else {
            self.fail("had its standard input closed")
        };
        if let Err(error) = stdin.write_all(text.as_bytes()).await {
            self.fail(&format!("does not read its standard input: {error}"));
        }
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal, unless the program has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has just ended; waiting for its exit reports how.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until the program has ended and closed its standard error. Its standard output can still be read.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn exit(&mut self) -> ExitStatus {
        self.exit_within(patience()).await
    }

    /// Like [`Process::exit`], with a longer deadline.
    pub async fn exit_within(&mut self, time: Duration) -> ExitStatus {
        match timeout(time, self.child.wait()).await {
            Ok(Ok(status)) => {
                self.stderr_read().await;
                status
            }
            Ok(Err(error)) => self.fail(&format!("cannot be waited for: {error}")),
            Err(_) => self.fail("did not end in time"),
        }
    }

    /// Waits until the program exits with status 0.
    ///
    /// # Panics
    /// If it ends in another way or not in time.
    pub async fn exit_ok(&mut self) {
        let status = self.exit().await;
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// Kills the program and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// The last output lines of the program, from both streams.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Fails the test with the name and output of the program.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&self, what: &str) -> ! {
        panic!("{} {what}; its output was:\n{}", self.name, self.log())
    }

    /// Waits until all of standard error is in the log.
    async fn stderr_read(&mut self) {
        if let Some(task) = self.stderr.take()
            && timeout(patience(), task).await.is_err()
        {
            self.fail("ended but left another program that holds its standard error");
        }
    }
}

/// The last output lines of a program, shared with the tasks that read them.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, stream: &str, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES_MAX {
            lines.remove(0);
        }
        let shown: String = line.chars().take(1000).collect();
        lines.push(format!("  {stream}| {shown}"));
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// Reads to the end even if no test takes the lines, so that the program never blocks on a full pipe.
async fn read_lines(
    stream: impl AsyncRead + Unpin,
    name: &'static str,
    log: Log,
    lines: Option<mpsc::UnboundedSender<String>>,
) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes).await, Ok(1..)) {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.strip_suffix('\n').unwrap_or(&line).to_owned();
        bytes.clear();
        log.push(name, &line);
        if let Some(lines) = &lines {
            // An error means that the test has ended; reading continues.
            let _ = lines.send(line);
        }
    }
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}
