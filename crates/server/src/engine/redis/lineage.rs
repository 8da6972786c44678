//! Which streams of a Redis Cluster continue, though the server that has them names its data differently.
//!
//! The lineage of a server of a cluster is its replication id, which a stream remembers. It changes without a loss in
//! two cases, and this node has seen both or does not know of them; then the stream gets a new epoch, which is safe:
//!
//! - The same process draws a new replication id when its first replica connects, or its last one has been away for
//!   long.
//! - A server gives all its slots to other servers.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::link::Link;
use super::topology::View;

/// Maximum number of lineages that are remembered.
const LINEAGES_MAX: usize = 1024;

/// What this node knows about lineages.
#[derive(Debug, Default)]
pub(super) struct Lineages {
    known: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    lineage: Box<str>,
    place: Place,
}

/// Where streams of a lineage continue.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// On the server with this run id.
    Process(Box<str>),
    /// Wherever their slots are now.
    Anywhere,
}

impl Lineages {
    /// Remembers that a server has a lineage. If it was promoted, it may have received other data since it had the ones
    /// before.
    pub(super) fn note_link(&self, lineage: &str, run_id: &str, was_promoted: bool) {
        if run_id.is_empty() {
            return;
        }
        let place = Place::Process(run_id.into());
        {
            let mut known = self.known.lock();
            if was_promoted {
                known.retain(|known| known.place != place);
            }
            // A drained server that has slots again can fail and lose writes like any other.
            known.retain(|known| *known.lineage != *lineage || known.place != Place::Anywhere);
        }
        self.add(lineage, place);
    }

    /// Remembers the lineages of servers that have given all their slots to servers that were known before. A replica
    /// of the server, which may have lost writes, is not among those.
    pub(super) fn note_moved(&self, before: &View, now: &View) {
        for link in &before.links {
            let is_gone = !now.links.iter().any(|other| other.address() == link.address());
            let primary = before
                .primaries
                .iter()
                .find(|primary| primary.address == *link.address());
            let Some(primary) = primary.filter(|_| is_gone) else {
                continue;
            };
            let mut slots = primary.slots.iter().flat_map(|&(first, last)| first..=last);
            let is_moved = slots.all(|slot| {
                let owner = now.link(slot);
                // It may have another connection and lineage: the server becomes its first replica.
                let is_known = |owner: &Arc<Link>| {
                    let is_it =
                        |known: &&Arc<Link>| known.address() == owner.address() && known.run_id() == owner.run_id();
                    before.links.iter().any(|known| is_it(&known))
                };
                owner.is_some_and(is_known)
            });
            if is_moved {
                self.add(link.lineage(), Place::Anywhere);
            }
        }
    }

    /// Whether streams of a lineage continue on a server.
    pub(super) fn continues(&self, lineage: &str, run_id: &str) -> bool {
        let known = self.known.lock();
        known
            .iter()
            .filter(|known| *known.lineage == *lineage)
            .any(|known| match &known.place {
                Place::Process(of) => **of == *run_id,
                Place::Anywhere => true,
            })
    }

    fn add(&self, lineage: &str, place: Place) {
        let mut known = self.known.lock();
        known.retain(|known| *known.lineage != *lineage || known.place != place);
        known.push_back(Known {
            lineage: lineage.into(),
            place,
        });
        if known.len() > LINEAGES_MAX {
            known.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_streams_until_it_is_promoted() {
        let lineages = Lineages::default();
        lineages.note_link("a", "process", false);
        lineages.note_link("b", "process", false);
        assert!(lineages.continues("a", "process") && lineages.continues("b", "process"));
        assert!(!lineages.continues("a", "other") && !lineages.continues("c", "process"));
        lineages.note_link("c", "process", true);
        assert!(!lineages.continues("a", "process") && lineages.continues("c", "process"));
    }

    #[test]
    fn a_drained_server_that_has_slots_again_may_lose_them() {
        let lineages = Lineages::default();
        lineages.note_link("a", "process", false);
        lineages.add("a", Place::Anywhere);
        assert!(lineages.continues("a", "other"));
        lineages.note_link("a", "process", false);
        assert!(lineages.continues("a", "process") && !lineages.continues("a", "other"));
    }
}
