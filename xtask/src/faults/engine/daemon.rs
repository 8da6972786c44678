//! Servers of other programs.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

/// A server that can be killed and started again. Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts a program in a folder, where it writes its log.
    pub(super) fn start(program: &Path, arguments: Vec<String>, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut daemon = Self {
            program: program.into(),
            arguments,
            folder: folder.into(),
            child: None,
        };
        daemon.restart()?;
        Ok(daemon)
    }

    /// Kills the process, as `kill -9` does.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the process, after killing the one that runs.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("log.txt"))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("cannot start {}", self.program.display()))?);
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port of the loopback interface, low enough to have another one 10,000 above it, as Redis Cluster wants.
pub(super) fn free_port() -> Result<u16> {
    loop {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let port = 10_000 + port % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
}
