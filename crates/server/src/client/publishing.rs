//! Publications that wait for the log, so that later commands of their client do not.
//!
//! A publication has its offset before the client's next command runs, so a client's publications keep their order. One
//! task per client awaits them in order and queues the replies. It outlives a client that disconnects.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::encode_reply;
use crate::channel::ChannelName;
use crate::codes::{DisconnectCode, ErrorCode};
use crate::engine::{EngineFuture, Published};
use crate::metrics::Source;
use crate::node::Node;
use crate::protocol::{Empty, ReplyBody};
use crate::queue::{Item, Queue};

/// Maximum number of publications of one client that wait for the log. The queue of the log limits the memory of their
/// data, for all clients together.
pub(super) const PUBLISHING_MAX: usize = 64;

/// The publications of a client that wait for the log.
#[derive(Clone, Debug)]
pub(super) struct PendingPublications(Arc<Shared>);

struct Shared {
    node: Arc<Node>,
    queue: Arc<Queue>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The channels of all publications without a result, in their order.
    channels: VecDeque<ChannelName>,
    /// Publications for which the task does not wait yet, with the ids of their commands.
    next: VecDeque<(u32, EngineFuture<'static, Published>)>,
    has_task: bool,
}

impl PendingPublications {
    pub(super) fn new(node: Arc<Node>, queue: Arc<Queue>) -> Self {
        Self(Arc::new(Shared {
            node,
            queue,
            state: Mutex::default(),
        }))
    }

    /// Adds a publication that has its offset.
    pub(super) fn add(&self, id: u32, channel: ChannelName, published: EngineFuture<'static, Published>) {
        let mut state = self.0.state.lock();
        state.channels.push_back(channel);
        state.next.push_back((id, published));
        if !std::mem::replace(&mut state.has_task, true) {
            tokio::spawn(run(self.0.clone()));
        }
    }

    /// Number of publications without a result.
    pub(super) fn len(&self) -> usize {
        self.0.state.lock().channels.len()
    }

    /// Whether a publication into this channel has no result.
    pub(super) fn has_channel(&self, name: &str) -> bool {
        let state = self.0.state.lock();
        state.channels.iter().any(|channel| channel.as_str() == name)
    }
}

/// Waits for publications until there are none.
async fn run(shared: Arc<Shared>) {
    let guard = CloseOnPanic(shared);
    let shared = &guard.0;
    while let Some((id, published)) = shared.next() {
        let body = match published.await {
            Ok(_) => {
                shared.node.metrics().publication(Source::client);
                ReplyBody::Publish(Empty {})
            }
            Err(error) => ReplyBody::Error(ErrorCode::from(error)),
        };
        let reply = encode_reply(&shared.node, &shared.queue, id, body);
        // Remove first: the reply wakes the client, whose next command may be waiting for this publication.
        shared.state.lock().channels.pop_front();
        shared.queue.push(Item::Reply(reply));
    }
}

impl Shared {
    fn next(&self) -> Option<(u32, EngineFuture<'static, Published>)> {
        let mut state = self.state.lock();
        let next = state.next.pop_front();
        if next.is_none() {
            *state = State::default();
        }
        next
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

/// Disconnects the client if the task panics: the replies that are missing would never come.
struct CloseOnPanic(Arc<Shared>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.close(DisconnectCode::ServerError);
        }
    }
}
