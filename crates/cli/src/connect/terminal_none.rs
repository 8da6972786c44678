//! Where there is no terminal to take over, the system edits lines.

use std::io;

/// Never made.
#[derive(Debug)]
pub(super) enum Terminal {}

impl Terminal {
    /// There is none.
    pub(super) fn open() -> Option<Self> {
        None
    }
}

/// Never called.
pub(super) fn read_lines() -> io::Result<Option<Vec<String>>> {
    Ok(None)
}

/// Never called.
pub(super) fn discard_keys() {}

/// There is none to show.
pub(super) fn show_prompt() {}

/// Only writes.
pub(crate) fn print<T>(bytes: &[u8], write: impl FnOnce(&[u8]) -> T) -> T {
    write(bytes)
}
