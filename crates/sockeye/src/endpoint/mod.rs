//! The driver of one connection: the protocol's state machine, a transport, and the buffers between them.
//!
//! [`Driver`] moves bytes between the two. Its `poll_*` methods keep all progress in the driver. A future that calls
//! them can be dropped at any await point without losing anything, which makes the public futures cancel-safe.
//!
//! This module does not depend on a runtime. It reads and writes through [`transport`](crate::transport), and uses
//! [`runtime`](crate::runtime) for time, yielding and spawning.

mod budget;
mod buffer_pool;
mod busy_state;
mod codec_pool;
mod compress_job;
mod deferred_queue;
mod driver;
mod fast_path;
mod high_counts;
mod input;
mod latency;
mod linger;
mod message_pool;
mod read_ahead;
mod reservations;
mod state;
mod wake_flags;
mod write_queue;

pub(crate) use compress_job::PART_LEN;
pub(crate) use deferred_queue::{DeferredMessage, DeferredQueue};
pub(crate) use driver::{Driver, FlushTarget, LimitCheck, NotReceived, StreamFragment, StreamRead, WriteOutcome};
pub(crate) use reservations::WaiterId;
pub(crate) use wake_flags::WakeFlags;
