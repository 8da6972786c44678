//! Systems other than Unix: Ctrl-C, the streams of `std::io`, and the line editing of the system.

use std::io;

use crate::cli::Signal;

/// The signals that end the program: Ctrl-C.
#[derive(Debug)]
pub(crate) struct Signals;

impl Signals {
    /// From the first call of [`next`](Self::next), Ctrl-C no longer ends the program by itself.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Does nothing: no terminal signals are handled.
    pub(crate) fn watch_terminal(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for Ctrl-C. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Requests to read the configuration again. There are none.
#[derive(Debug)]
pub(crate) struct Reloads;

impl Reloads {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Never returns.
    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

/// Constructors for the standard streams.
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

/// Never ready: a reader that closes standard output is noticed by the next write.
pub(crate) async fn stdout_closed() {
    std::future::pending().await
}

/// The line editor, which only exists on Unix.
pub(crate) mod terminal {
    use std::io;

    /// Never constructed.
    #[derive(Debug)]
    pub(crate) enum Terminal {}

    impl Terminal {
        pub(crate) fn open() -> Option<Self> {
            None
        }
    }

    /// Never called, because [`Terminal::open`] returns `None`.
    pub(crate) fn read_lines() -> io::Result<Option<Vec<String>>> {
        Ok(None)
    }

    /// Never called, because [`Terminal::open`] returns `None`.
    pub(crate) fn discard_keys() {}

    /// Does nothing: there is no prompt.
    pub(crate) fn show_prompt() {}

    /// Calls `write`: there is no prompt to redraw.
    pub(crate) fn print<T>(bytes: &[u8], write: impl FnOnce(&[u8]) -> T) -> T {
        write(bytes)
    }
}
