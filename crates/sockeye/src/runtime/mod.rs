//! What a connection needs of the runtime it runs on: a clock and a timer.

pub(crate) mod clock;
pub(crate) mod timer;
