//! The signals that end the program.

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), expect(dead_code, reason = "only Ctrl-C is handled"))]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// Sent by service managers.
    Terminate,
    /// The terminal was closed.
    Hangup,
    /// Ctrl-\\.
    Quit,
}

impl Signal {
    /// The exit status of a program that was ended by the signal.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Hangup => 129,
            Self::Quit => 131,
        }
    }
}
