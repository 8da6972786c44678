//! Standard input and output without the buffers of `std::io`, which make a system call for each line.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// A stream that blocks even if its file descriptor is nonblocking. All programs that share a terminal or pipe share
/// that flag, and some leave it set.
#[derive(Debug)]
pub(crate) struct Blocking(File);

impl Blocking {
    pub(crate) fn stdin() -> io::Result<Self> {
        Self::duplicate(io::stdin().as_fd())
    }

    pub(crate) fn stdout() -> io::Result<Self> {
        Self::duplicate(io::stdout().as_fd())
    }

    fn duplicate(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(File::from(fd.try_clone_to_owned()?)))
    }

    fn wait(&self, events: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.0, events)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::IN)?,
                read => return read,
            }
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the reader of standard output closes it, even while there is nothing to write. Never ready if standard
/// output is neither a pipe nor a socket.
pub(crate) async fn stdout_closed() {
    let file_type = fstat(io::stdout()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(file_type, Ok(FileType::Fifo | FileType::Socket)) {
        return std::future::pending().await;
    }
    let (closed, is_closed) = oneshot::channel();
    // A thread, because tokio needs a nonblocking pipe, and all programs that share the pipe would see that flag.
    let watch = move || {
        let stdout = io::stdout();
        loop {
            // The error condition is reported regardless of the requested events.
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) => {
                    let _ = closed.send(());
                    return;
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    };
    let thread = thread::Builder::new().name("output-watch".into()).spawn(watch);
    if thread.is_err() || is_closed.await.is_err() {
        std::future::pending().await
    }
}
