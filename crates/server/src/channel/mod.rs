//! Channels: their names and subscribers.

mod hub;
#[cfg(test)]
mod model;
mod name;

pub(crate) use hub::{Gap, Hub, HubStats, SubscriberOptions};
pub(crate) use name::ChannelName;
