//! Unix: signals, nonblocking standard streams, and the line editor.

mod signals;
mod stdio;
pub(crate) mod terminal;

pub(crate) use signals::{Reloads, Signals};
pub(crate) use stdio::{Blocking, stdout_closed};
