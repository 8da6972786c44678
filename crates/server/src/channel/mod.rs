//! Channels on this node: their names, and who listens to them.

mod hub;
#[cfg(test)]
mod model;
mod name;

pub(crate) use hub::{Gap, Hub, Wants};
pub(crate) use name::ChannelName;
