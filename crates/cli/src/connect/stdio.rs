//! Standard input and output without the buffers of `std::io`, which make each line a call of its own.

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    /// A stream that waits even if it is nonblocking. Programs that share a terminal or pipe share that too, and some
    /// leave it behind.
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

        fn wait(&self, for_what: PollFlags) -> io::Result<()> {
            match poll(&mut [PollFd::new(&self.0, for_what)], None) {
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
}

#[cfg(not(unix))]
mod system {
    use std::io;

    /// The streams of `std::io`.
    #[derive(Debug)]
    pub(crate) struct Blocking;

    impl Blocking {
        pub(crate) fn stdin() -> io::Result<io::Stdin> {
            Ok(io::stdin())
        }

        pub(crate) fn stdout() -> io::Result<io::Stdout> {
            Ok(io::stdout())
        }
    }
}

pub(super) use system::Blocking;
