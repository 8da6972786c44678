//! A node that loses publications, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::{ChannelName, Hub};
use crate::config::Config;
use crate::engine::{Deliver, Epoch, HistoryLimits, MemoryBroker, Publication};
use crate::node::Node;
use crate::presence::ClientInfo;

/// A hub that loses publications when it is told to.
pub(crate) struct LossyHub {
    hub: Arc<Hub>,
    pub(crate) is_losing: AtomicBool,
}

impl Deliver for LossyHub {
    fn has_subscribers(&self, channel: &ChannelName) -> bool {
        self.hub.has_subscribers(channel)
    }

    fn publication(&self, channel: &ChannelName, publication: &Publication, epoch: Option<&Epoch>) {
        if !self.is_losing.load(Ordering::Relaxed) {
            self.hub.publication(channel, publication, epoch);
        }
    }

    fn join(&self, channel: &ChannelName, info: &ClientInfo) {
        self.hub.join(channel, info);
    }

    fn leave(&self, channel: &ChannelName, info: &ClientInfo) {
        self.hub.leave(channel, info);
    }
}

/// A node whose subscribers miss publications on demand.
pub(crate) fn lossy(config: Config) -> (Arc<Node>, Arc<LossyHub>) {
    let hub = Arc::new(Hub::new());
    let lossy = Arc::new(LossyHub {
        hub: hub.clone(),
        is_losing: AtomicBool::new(false),
    });
    let limits = HistoryLimits {
        count_max: 100,
        bytes_max: 1 << 20,
        ttl: Duration::from_secs(3600),
    };
    let broker = MemoryBroker::new(lossy.clone(), Arc::new(move |_: &ChannelName| Some(limits)), 1 << 20);
    let config = Arc::new(RwLock::new(Arc::new(config)));
    (Node::with_memory(config, hub, broker), lossy)
}
