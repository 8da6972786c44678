//! The engines that several nodes share: each a new process with an empty folder, without persistence unless the engine
//! needs it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::tail;

/// An engine that several nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Redis,
    Nats,
}

/// The programs of the engines.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs {
    pub(super) redis: PathBuf,
    pub(super) nats: PathBuf,
}

/// How long an engine may take to start.
const START_MAX: Duration = Duration::from_secs(20);

/// A running engine on the loopback interface; killed when dropped, and its folder is removed.
#[derive(Debug)]
pub(super) struct EngineProcess {
    child: Child,
    folder: PathBuf,
    /// The URL for the nodes.
    pub(super) url: String,
}

impl EngineProcess {
    /// Starts an engine on the processors of this process and waits until it answers.
    pub(super) fn start(engine: Engine, programs: &Programs, work: &Path) -> Result<Self> {
        let folder = work.join("engine");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = match engine {
            Engine::Redis => {
                let mut command = Command::new(&programs.redis);
                command
                    .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                    .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
                command
            }
            Engine::Nats => {
                let mut command = Command::new(&programs.nats);
                command
                    .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
                    .args(["--jetstream", "--store_dir"]);
                command
            }
        };
        let log = work.join("engine.txt");
        let output = File::create(&log)?;
        let child = command
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {engine:?}"))?;
        let (scheme, greeting): (_, fn(u16) -> std::io::Result<bool>) = match engine {
            Engine::Redis => ("redis", is_redis),
            Engine::Nats => ("nats", is_nats),
        };
        let process = Self {
            child,
            folder,
            url: format!("{scheme}://127.0.0.1:{port}"),
        };
        let began_at = Instant::now();
        while !greeting(port).unwrap_or(false) {
            if began_at.elapsed() > START_MAX {
                bail!("{engine:?} does not answer (it wrote: {})", tail(&log));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether a Redis answers.
fn is_redis(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"PING\r\n")?;
    starts_with(&mut stream, b"+PONG")
}

/// Whether a NATS server greets.
fn is_nats(port: u16) -> std::io::Result<bool> {
    starts_with(&mut TcpStream::connect(("127.0.0.1", port))?, b"INFO ")
}

fn starts_with(stream: &mut TcpStream, start: &[u8; 5]) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut found = [0; 5];
    match stream.read_exact(&mut found) {
        Ok(()) => Ok(found == *start),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
