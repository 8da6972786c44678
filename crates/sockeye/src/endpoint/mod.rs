//! The connection: the protocol's state machine, a transport, and nothing that belongs to a task.
//!
//! [`Driver`] moves bytes between the two. Its `poll_*` methods keep all their progress in the driver itself, so a
//! future over them can be dropped at any await point and nothing is lost: that is the whole of cancel safety here.

mod backlog;
mod budget;
mod buffer_pool;
mod codec_pool;
mod compress_job;
mod driver;
mod input;
mod linger;
mod message_pool;
mod output;

pub(crate) use codec_pool::OF_THREAD as CODECS;
pub(crate) use compress_job::PART_LEN;
pub(crate) use driver::{Driver, FlushEnd, NotReceived, WriteOutcome};
