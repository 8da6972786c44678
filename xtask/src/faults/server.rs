//! The server under test: the built `sockeye serve`, its signals, its resources and its HTTP answers.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a fault counts as not survived.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// How a server is started.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) binary: PathBuf,
    /// A fixed port, so that clients find the server again after a restart.
    pub(super) address: SocketAddr,
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(String, String)>,
    /// A program with arguments that starts the server, such as `prlimit`.
    pub(super) wrapper: Vec<String>,
    /// Where standard error goes.
    pub(super) stderr: PathBuf,
}

impl Spec {
    /// A server with the default configuration on a free port of the loopback interface.
    pub(super) fn new(binary: &Path, work: &Path) -> Result<Self> {
        Ok(Self {
            binary: binary.into(),
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            arguments: Vec::new(),
            variables: Vec::new(),
            wrapper: Vec::new(),
            stderr: work.join("stderr.txt"),
        })
    }

    pub(super) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub(super) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Writes a configuration file and uses it.
    pub(super) fn config(self, work: &Path, text: &str) -> Result<Self> {
        let file = work.join("sockeye.toml");
        fs::write(&file, text)?;
        Ok(self.arguments(&["--config", &file.display().to_string()]))
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(PathBuf::from).chain([self.binary.clone()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(["serve", "--listen", &self.address.to_string()])
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts a server that is expected to refuse. Returns its exit status, what it wrote, and how long it took.
    pub(super) fn refused(&self) -> Result<(ExitStatus, String, Duration)> {
        let began_at = Instant::now();
        let mut child = self.command().stderr(File::create(&self.stderr)?).spawn()?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, fs::read_to_string(&self.stderr)?, began_at.elapsed()));
            }
            if began_at.elapsed() > TIMEOUT {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the server started although it must not");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    stderr: PathBuf,
    /// The server itself, if a wrapper is its parent.
    pid: i32,
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Bytes of anonymous memory.
    pub(super) memory: u64,
    pub(super) cpu: Duration,
    pub(super) descriptors: usize,
}

impl Server {
    /// Starts a server and waits until it listens. Returns how long that took.
    pub(super) fn start(spec: &Spec) -> Result<(Self, Duration)> {
        let began_at = Instant::now();
        let stderr = File::options().append(true).create(true).open(&spec.stderr)?;
        let mut command = spec.command();
        let mut child = command.stderr(stderr).spawn().context("cannot start the server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = i32::try_from(child.id())?;
        let mut server = Self {
            child,
            address: spec.address,
            stderr: spec.stderr.clone(),
            pid,
        };
        if !line.starts_with("listening on ") {
            let status = server.child.wait()?;
            bail!("the server did not start: {status}, {}", server.last_words());
        }
        // With `unshare --fork` the server is a child of the wrapper.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next().and_then(|word| word.parse().ok()) {
            server.pid = child;
        }
        Ok((server, began_at.elapsed()))
    }

    /// Waits until `/health/ready` answers 200, and returns how long that took.
    pub(super) fn wait_until_ready(&self) -> Result<Duration> {
        let began_at = Instant::now();
        while self.get("/health/ready").ok().is_none_or(|(status, _)| status != 200) {
            if began_at.elapsed() > TIMEOUT {
                bail!("the server is not ready after {TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(began_at.elapsed())
    }

    /// The status and body of a GET request.
    pub(super) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let address = self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.context("no status")?, body.to_owned()))
    }

    /// The value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = self.get("/metrics")?;
        let value = body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("there is no metric {name}"))
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(
            Pid::from_raw(self.pid).context("a process has an id")?,
            signal,
        )?)
    }

    /// Ends the process as a crash does.
    pub(super) fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end of the process.
    pub(super) fn wait(&mut self) -> Result<(ExitStatus, Duration)> {
        let began_at = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, began_at.elapsed()));
            }
            if began_at.elapsed() > TIMEOUT {
                bail!("the server still runs after {TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        let file = |name: &str| format!("/proc/{}/{name}", self.pid);
        let text = fs::read_to_string(file("smaps_rollup")).context("the server has died")?;
        let kib = text.lines().find_map(|line| {
            let number = line.strip_prefix("Pss_Anon:")?.trim().strip_suffix(" kB")?;
            number.parse::<u64>().ok()
        });
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(file("task")).context("the server has died")? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
            cpu += Duration::from_nanos(nanoseconds.unwrap_or(0));
        }
        Ok(Usage {
            memory: kib.context("smaps_rollup has no Pss_Anon")? * 1024,
            cpu,
            descriptors: fs::read_dir(file("fd"))?.count(),
        })
    }

    /// The lines that the server has written to standard error.
    pub(super) fn log_lines(&self) -> usize {
        fs::read_to_string(&self.stderr).unwrap_or_default().lines().count()
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
