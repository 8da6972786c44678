//! One side of a connection: the protocol's state machine, a transport, and the buffers between them.
//!
//! [`Driver`] moves bytes between the two. Its `poll_*` methods keep all progress in the driver, so that a future over them can
//! be dropped at any await point and nothing is lost: that makes the public futures cancel-safe.
//!
//! This module does not depend on a runtime. It reads and writes through [`transport`](crate::transport), and takes time,
//! yielding and spawning from [`runtime`](crate::runtime).

mod backlog;
mod budget;
mod buffer_pool;
mod codec_pool;
mod compress_job;
mod driver;
mod fast_path;
mod input;
mod linger;
mod message_pool;
mod output;
mod state;

pub(crate) use codec_pool::OF_THREAD as CODECS;
pub(crate) use compress_job::PART_LEN;
pub(crate) use driver::{Driver, FlushEnd, WriteOutcome};
pub(crate) use state::WakeState;
