//! Channels: their names and subscribers.

mod hub;
#[cfg(test)]
pub(crate) mod lossy;
#[cfg(test)]
mod model;
mod name;
mod position_check;

pub(crate) use hub::{Gap, Hub, HubStats, SubscriberOptions};
pub(crate) use name::ChannelName;
pub(crate) use position_check::{PositionCheck, STEPS};
