//! Channels on this node: their names, and who listens to them.

mod hub;
mod name;
mod recovery;

pub(crate) use hub::{Deliver, Gap, Hub, Wants};
pub(crate) use name::ChannelName;
pub(crate) use recovery::is_recovered;
