//! Ctrl-C, SIGTERM, and the signals of a terminal that is used by the line editor.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::terminal;
use crate::cli::Signal;

/// The signals that arrive after construction.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
    terminal: Option<TerminalSignals>,
}

/// Signals that a program must handle if it changes the mode of the terminal.
#[derive(Debug)]
struct TerminalSignals {
    hangup: Stream,
    quit: Stream,
    /// Ctrl-Z.
    stop: Stream,
    /// Resumes a stopped program.
    resume: Stream,
    /// The size of the terminal changed.
    resize: Stream,
}

impl Signals {
    /// From now on, Ctrl-C and SIGTERM do not end the program by themselves.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            terminal: None,
        })
    }

    /// Handles the terminal's signals too. Without this call they keep their default action, so that `nohup` works for
    /// a program that edits no lines.
    pub(crate) fn watch_terminal(&mut self) -> io::Result<()> {
        self.terminal = Some(TerminalSignals {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            resume: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            resize: signal(SignalKind::window_change())?,
        });
        Ok(())
    }

    /// Waits for the next signal that ends the program. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            signal = next_of_terminal(self.terminal.as_mut()) => signal,
        }
    }
}

/// SIGHUP, which asks a server to read its configuration again.
#[derive(Debug)]
pub(crate) struct Reloads(Stream);

impl Reloads {
    /// From now on, SIGHUP does not end the program.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Waits for the next signal of the terminal that ends the program, and handles the others.
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
