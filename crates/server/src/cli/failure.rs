//! Why the program ends otherwise than well: one line that says what to do, and an exit status.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Signal;

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The address to listen on cannot be had.
    Listen { address: String, error: io::Error },
    /// A file with a certificate or key is of no use.
    TlsFile { path: PathBuf, reason: String },
    /// The system does not give what every program needs.
    System(io::Error),
    /// A second signal came before the work for the first was done.
    Signal(Signal),
}

impl Failure {
    /// The exit status; the numbers are curl's where curl has one.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::TlsFile { .. } | Self::System(_) => 1,
            Self::Signal(signal) => signal.exit_code(),
        }
    }
}

/// One line that says what to do.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sockeye: ")?;
        match self {
            Self::Listen { address, error } => {
                write!(
                    f,
                    "cannot listen on {address}: {error}; {}",
                    advice_for_listening(error)
                )
            }
            Self::TlsFile { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::System(error) => write!(f, "{error}"),
            Self::Signal(_) => f.write_str("ended by a second signal; connections were dropped"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

fn advice_for_listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "end the program that uses it, or choose another port (0 picks a free one)",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        _ => "write --listen as ADDRESS:PORT, such as 127.0.0.1:9001",
    }
}
