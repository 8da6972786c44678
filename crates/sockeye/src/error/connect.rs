//! Errors of clients that could not connect to their host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// One attempt to connect: to this address, and why it failed if it has.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    pub(crate) error: Option<io::Error>,
}

/// Why a client could not connect: the error of the name resolution, or the error of each address that was tried.
///
/// [`Error::connect_error`](crate::Error::connect_error) returns it for an error of
/// [`Client::connect`](crate::Client::connect), of which it is also the [`source`](std::error::Error::source).
#[derive(Debug)]
pub struct ConnectError {
    /// Host and port.
    pub(crate) target: String,
    pub(crate) cause: ConnectFailure,
    pub(crate) attempts: Vec<Attempt>,
}

/// What went wrong.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// The resolver failed.
    Unresolved(io::Error),
    /// The resolver gave nothing.
    NoAddress,
    /// These addresses are all of another family than the local address.
    OtherFamily(Vec<SocketAddr>),
    /// Every attempt failed.
    Failed,
    /// The deadline passed.
    TimedOut(Duration),
}

impl ConnectError {
    /// Host and port of the URI. The port is written even if it is the default.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether name resolution failed: the host name has no address, or the resolver reported an error. No connection was
    /// attempted.
    #[must_use]
    pub const fn is_unresolved(&self) -> bool {
        matches!(self.cause, ConnectFailure::Unresolved(_) | ConnectFailure::NoAddress)
    }

    /// Whether the time to connect passed: the shorter one of [`Timeouts::connect`](crate::Timeouts::connect) and
    /// [`Timeouts::open`](crate::Timeouts::open). If no address was tried, the resolver was too slow.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self.cause, ConnectFailure::TimedOut(_))
    }

    /// Whether the caller has to change something: the local address is of another family than every address of the host.
    pub(crate) const fn is_misuse(&self) -> bool {
        matches!(self.cause, ConnectFailure::OtherFamily(_))
    }

    /// Whether the resolver or the operating system reported an error.
    pub(crate) const fn is_io(&self) -> bool {
        matches!(self.cause, ConnectFailure::Unresolved(_) | ConnectFailure::Failed)
    }

    /// Each address that was tried, in order, and its error; `None` for one that had not answered.
    pub fn attempts(&self) -> impl Iterator<Item = (SocketAddr, Option<&io::Error>)> {
        self.attempts.iter().map(|it| (it.address, it.error.as_ref()))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            ConnectFailure::Unresolved(error) => return write!(f, "the host name cannot be resolved: {error}"),
            ConnectFailure::NoAddress => return f.write_str("the host name has no address"),
            ConnectFailure::OtherFamily(addresses) => {
                f.write_str("the local address is of another family than")?;
                return addresses.iter().try_for_each(|address| write!(f, " {}", address.ip()));
            }
            ConnectFailure::TimedOut(limit) if self.attempts.is_empty() => {
                return write!(f, "the host name was not resolved within {limit:?}");
            }
            ConnectFailure::TimedOut(limit) => write!(f, "no connection within {limit:?}: ")?,
            ConnectFailure::Failed => {}
        }
        for (idx, attempt) in self.attempts.iter().enumerate() {
            let separator = if idx == 0 { "" } else { "; " };
            write!(f, "{separator}{}: ", attempt.address)?;
            match &attempt.error {
                Some(error) => fmt::Display::fmt(error, f)?,
                None => f.write_str("no answer")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}
