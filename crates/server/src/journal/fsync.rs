//! The policies of the journal: when it is flushed to disk, and what happens to damage.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When the log is put on disk.
///
/// | | a publication is acknowledged after | `kill -9` costs | a power cut costs |
/// |---|---|---|---|
/// | `Always` | fdatasync | nothing | nothing |
/// | `Every` | write | nothing | publications of the last interval; clients learn that they cannot recover |
/// | `Never` | write | nothing | what the kernel has not written yet; clients learn that they cannot recover |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fsync {
    /// Before a publication is acknowledged. Publications that arrive during one fdatasync share the next one.
    Always,
    /// At most this long after a publication was acknowledged.
    Every(Duration),
    /// Only at a shutdown and at the end of each file of the log.
    Never,
}

/// What to do about a log that is damaged in a way that no crash explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalRepair {
    /// Do not start.
    #[default]
    Refuse,
    /// Keep all valid records, and give all channels new epochs, so that clients load them anew. For a single start:
    /// with it, no client ever recovers across a restart.
    KeepValid,
}

/// Error: the text is neither `always`, `never`, nor a number of milliseconds such as `50ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFsync;

impl FromStr for Fsync {
    type Err = InvalidFsync;

    fn from_str(text: &str) -> Result<Self, InvalidFsync> {
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => {
                let millis = text.strip_suffix("ms").ok_or(InvalidFsync)?;
                match millis.parse() {
                    Ok(millis @ 1..=60_000) => Ok(Self::Every(Duration::from_millis(millis))),
                    _ => Err(InvalidFsync),
                }
            }
        }
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(interval) => write!(f, "{}ms", interval.as_millis()),
            Self::Never => f.write_str("never"),
        }
    }
}

impl fmt::Display for InvalidFsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be always, never, or an interval from 1ms to 60000ms")
    }
}

impl std::error::Error for InvalidFsync {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsync_is_parsed_and_displayed() {
        for text in ["always", "never", "1ms", "50ms", "60000ms"] {
            assert_eq!(text.parse::<Fsync>().unwrap().to_string(), text);
        }
        for text in ["", "50", "0ms", "60001ms", "-1ms", "Always", "ms"] {
            assert_eq!(text.parse::<Fsync>(), Err(InvalidFsync), "{text}");
        }
    }
}
