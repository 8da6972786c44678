//! Errors of clients that could not connect to their host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// One attempt to connect to an address, and its error if it has failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    pub(crate) error: Option<io::Error>,
}

/// A timeout and the setting that defines it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    pub(crate) duration: Duration,
    pub(crate) setting: &'static str,
}

impl TimeLimit {
    /// The settings that limit the total time of connecting and the handshake.
    pub(crate) const TOTAL: &'static str = "Timeouts::connect_total or RequestBuilder::timeout";

    /// The timeout of a phase, or the rest of the total timeout if that is shorter.
    pub(crate) fn new(duration: Duration, setting: &'static str, total: Option<Duration>) -> Self {
        match total {
            Some(total) if total < duration => Self {
                duration: total,
                setting: Self::TOTAL,
            },
            _ => Self { duration, setting },
        }
    }

    pub(crate) fn connect(timeout: Duration, total: Option<Duration>) -> Self {
        Self::new(timeout, "Timeouts::connect", total)
    }
}

/// Why a client could not connect: the error of name resolution, or of each address that was tried.
///
/// Returned by [`Error::connect_error`](crate::Error::connect_error) for a failed
/// [`Client::connect`](crate::Client::connect).
#[derive(Debug)]
pub struct ConnectError {
    /// Host and port.
    pub(crate) target: String,
    pub(crate) cause: ConnectFailure,
    pub(crate) attempts: Vec<Attempt>,
}

/// The phase in which connecting failed.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// Name resolution failed.
    Unresolved(io::Error),
    /// The resolver returned no address.
    NoAddress,
    /// None of these addresses has the family of the local address.
    FamilyMismatch(Vec<SocketAddr>),
    /// Every attempt failed.
    Failed,
    /// A browser could not open the WebSocket. It does not say why, so that scripts cannot explore a network.
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "made in browsers"))]
    Unexplained,
    /// This time has passed.
    TimedOut(TimeLimit),
}

impl ConnectError {
    /// Host and port of the URI. Includes the port even if it is the default.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether name resolution failed: the host name has no address, or the resolver returned an error. No connection
    /// was attempted.
    #[must_use]
    pub const fn is_unresolved(&self) -> bool {
        matches!(self.cause, ConnectFailure::Unresolved(_) | ConnectFailure::NoAddress)
    }

    /// Whether connecting timed out, after the shorter of [`Timeouts::connect`](crate::Timeouts::connect) and
    /// [`Timeouts::connect_total`](crate::Timeouts::connect_total). If no address was tried, name resolution was too
    /// slow.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self.cause, ConnectFailure::TimedOut(_))
    }

    /// The setting of the timeout, if it has expired.
    pub(crate) const fn timeout_setting(&self) -> Option<&'static str> {
        match self.cause {
            ConnectFailure::TimedOut(limit) => Some(limit.setting),
            _ => None,
        }
    }

    /// Whether the configuration is wrong: every address of the host has a different family than the local address.
    pub(crate) const fn is_invalid_input(&self) -> bool {
        matches!(self.cause, ConnectFailure::FamilyMismatch(_))
    }

    /// Whether the resolver or the operating system reported an error.
    pub(crate) const fn is_io(&self) -> bool {
        matches!(self.cause, ConnectFailure::Unresolved(_) | ConnectFailure::Failed)
    }

    /// The addresses that were tried, in order, each with its error, or `None` if it had not answered yet.
    pub fn attempts(&self) -> impl Iterator<Item = (SocketAddr, Option<&io::Error>)> {
        self.attempts.iter().map(|it| (it.address, it.error.as_ref()))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            ConnectFailure::Unresolved(error) => return write!(f, "the host name cannot be resolved: {error}"),
            ConnectFailure::NoAddress => return f.write_str("the host name has no address"),
            ConnectFailure::FamilyMismatch(addresses) => {
                f.write_str("the local address and the host's addresses are of different families:")?;
                return addresses.iter().try_for_each(|address| write!(f, " {}", address.ip()));
            }
            ConnectFailure::Unexplained => {
                return f.write_str("the browser does not tell programs why, but its console may");
            }
            ConnectFailure::TimedOut(limit) if self.attempts.is_empty() => {
                return write!(f, "the host name was not resolved within {:?}", limit.duration);
            }
            ConnectFailure::TimedOut(limit) => write!(f, "no connection within {:?}: ", limit.duration)?,
            ConnectFailure::Failed => {}
        }
        if let [
            Attempt {
                address,
                error: Some(error),
            },
        ] = &self.attempts[..]
            && address.to_string() == self.target
        {
            return fmt::Display::fmt(error, f);
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
