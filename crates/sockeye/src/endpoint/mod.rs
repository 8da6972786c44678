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
mod deferred;
mod driver;
mod fast_path;
mod input;
mod linger;
mod message_pool;
mod output;
mod read_ahead;
mod reservations;
mod state;

pub(crate) use budget::saturating_u32;
pub(crate) use codec_pool::OF_THREAD as CODECS;
pub(crate) use compress_job::PART_LEN;
pub(crate) use deferred::{DeferredMessage, DeferredQueue};
pub(crate) use driver::{Driver, FlushEnd, LimitCheck, NotReceived, StreamPart, StreamRead, WriteOutcome};
pub(crate) use reservations::WaiterId;
pub(crate) use state::WakeFlags;
