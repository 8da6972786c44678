//! Ctrl-C, SIGTERM, and the signals of a terminal that is being edited on.

use std::io;

#[cfg(unix)]
use crate::connect::terminal;

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What service managers send.
    Terminate,
    /// The terminal is gone.
    Hangup,
    /// Ctrl-\\.
    Quit,
}

impl Signal {
    /// The exit status of a program that the signal ended.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
            Self::Quit => 131,
        }
    }
}

/// The signals that arrive from the moment this is made.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminal: Option<TerminalSignals>,
}

/// Signals that a program has to handle if it changes how the terminal works.
#[cfg(unix)]
#[derive(Debug)]
struct TerminalSignals {
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    /// Ctrl-Z.
    stop: tokio::signal::unix::Signal,
    /// Goes on after a stop.
    resume: tokio::signal::unix::Signal,
    /// The terminal has another size.
    resize: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Signals no longer end the program by themselves.
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            terminal: None,
        })
    }

    /// From now on handles the signals of a terminal too. Before, they do what they do to every program; a program that
    /// edits on no terminal leaves them alone, so that `nohup` works.
    pub(crate) fn watch_terminal(&mut self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        self.terminal = Some(TerminalSignals {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            resume: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            resize: signal(SignalKind::window_change())?,
        });
        Ok(())
    }

    /// The next signal that ends the program. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            signal = next_of_terminal(self.terminal.as_mut()) => signal,
        }
    }
}

/// The next signal of the terminal that ends the program; the others are dealt with here.
#[cfg(unix)]
async fn next_of_terminal(signals: Option<&mut TerminalSignals>) -> Signal {
    let Some(signals) = signals else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => return Signal::Hangup,
            _ = signals.quit.recv() => return Signal::Quit,
            _ = signals.stop.recv() => terminal::stop(),
            _ = signals.resume.recv() => terminal::resume(),
            _ = signals.resize.recv() => terminal::redraw(),
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Ctrl-C no longer ends the program by itself once it is waited for.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// There is nothing to watch.
    pub(crate) fn watch_terminal(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The next Ctrl-C. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
