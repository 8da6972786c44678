//! Which streams of a Redis Cluster continue, though the server that has them names its data differently.
//!
//! The lineage of a server of a cluster is its replication id, which a stream remembers. It changes without a loss in
//! two cases, and this node has seen both or does not know of them; then the stream gets a new epoch, which is safe:
//!
//! - The same process draws a new replication id when its first replica connects, or its last one has been away for
//!   long.
//! - A server gives all its slots to other servers.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::config::Address;
use super::names::SLOTS;

/// Maximum number of lineages that are remembered.
const LINEAGES_MAX: usize = 1024;

/// Maximum number of [`Departed`] servers that are remembered. Beyond it, the streams of the oldest one get new epochs.
const DEPARTED_MAX: usize = 64;

/// What this node knows about lineages.
#[derive(Debug, Default)]
pub(super) struct Lineages {
    known: Mutex<VecDeque<Known>>,
    departed: Mutex<VecDeque<Departed>>,
}

/// A primary server and its slots: pairs of first and last.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) address: Address,
    pub(super) slots: Vec<(u16, u16)>,
    /// `None` if there was no connection to it.
    pub(super) process: Option<Process>,
}

/// The process of a server, and the lineage of its data.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) run_id: Box<str>,
    pub(super) lineage: Box<str>,
}

/// A server that is not a primary with slots any more. While its slots are moved, the servers of a cluster have
/// different views, so some of its slots may have no server for a while, or one without a connection.
#[derive(Debug)]
struct Departed {
    address: Address,
    lineage: Box<str>,
    slots: Vec<(u16, u16)>,
    /// The addresses and run ids of the servers that were known when it lost its slots.
    known: Vec<(Address, Box<str>)>,
}

/// Where the slots of a [`Departed`] server are.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// All of them on servers that were known.
    Moved,
    /// Some on a server that was not known, such as a replica that was promoted.
    FailedOver,
    Undecided,
}

/// The owner of each slot.
struct OwnersBySlot<'a> {
    owners: &'a [Owner],
    /// Index of the owner of each slot.
    indexes: Vec<u16>,
}

impl<'a> OwnersBySlot<'a> {
    fn new(owners: &'a [Owner]) -> Self {
        let mut indexes = vec![u16::MAX; SLOTS.into()];
        for (index, owner) in owners.iter().enumerate() {
            for &(first, last) in &owner.slots {
                indexes[usize::from(first)..=usize::from(last)].fill(index as u16);
            }
        }
        Self { owners, indexes }
    }

    fn get(&self, slot: u16) -> Option<&'a Owner> {
        self.owners.get(usize::from(self.indexes[usize::from(slot)]))
    }
}

impl Departed {
    fn fate(&self, owners: &OwnersBySlot<'_>) -> Fate {
        let mut fate = Fate::Moved;
        for slot in self.slots.iter().flat_map(|&(first, last)| first..=last) {
            let owner = owners.get(slot);
            let Some((address, process)) = owner.and_then(|owner| Some((&owner.address, owner.process.as_ref()?)))
            else {
                fate = Fate::Undecided;
                continue;
            };
            // It may have another connection and lineage: the departed server becomes its first replica.
            let is_known = |known: &(Address, Box<str>)| known.0 == *address && known.1 == process.run_id;
            if !self.known.iter().any(is_known) {
                return Fate::FailedOver;
            }
        }
        fate
    }
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
    pub(super) fn note_owners(&self, before: &[Owner], now: &[Owner]) {
        let processes = || {
            before
                .iter()
                .filter_map(|owner| Some((&owner.address, owner.process.as_ref()?)))
        };
        let known: Vec<_> = processes()
            .map(|(address, process)| (address.clone(), process.run_id.clone()))
            .collect();
        let mut departed = self.departed.lock();
        for owner in before {
            if let Some(process) = &owner.process
                && !owner.slots.is_empty()
            {
                departed.push_back(Departed {
                    address: owner.address.clone(),
                    lineage: process.lineage.clone(),
                    slots: owner.slots.clone(),
                    known: known.clone(),
                });
            }
        }
        // These are still primaries with slots, or are again.
        departed.retain(|departed| !now.iter().any(|owner| owner.address == departed.address));
        let owners = OwnersBySlot::new(now);
        departed.retain(|departed| {
            let fate = departed.fate(&owners);
            if fate == Fate::Moved {
                self.add(&departed.lineage, Place::Anywhere);
            }
            fate == Fate::Undecided
        });
        while departed.len() > DEPARTED_MAX {
            departed.pop_front();
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

    /// A server whose name is its process and, in capitals, its lineage.
    fn owner(name: &str, slots: (u16, u16)) -> Owner {
        Owner {
            process: Some(Process {
                run_id: name.into(),
                lineage: name.to_uppercase().into(),
            }),
            ..unconnected(name, slots)
        }
    }

    fn unconnected(name: &str, slots: (u16, u16)) -> Owner {
        Owner {
            address: Address {
                host: name.into(),
                port: 1,
            },
            slots: vec![slots],
            process: None,
        }
    }

    #[test]
    fn streams_of_a_drained_server_continue_on_the_servers_that_were_known() {
        let lineages = Lineages::default();
        lineages.note_owners(&[owner("a", (0, 9)), owner("b", (10, 19))], &[owner("b", (0, 19))]);
        assert!(lineages.continues("A", "b") && !lineages.continues("B", "a"));
    }

    #[test]
    fn slots_of_a_drained_server_may_have_no_server_for_a_while() {
        let before = [owner("a", (0, 9)), owner("b", (10, 19))];
        for meanwhile in [vec![owner("b", (0, 5))], vec![unconnected("b", (0, 19))], vec![]] {
            let lineages = Lineages::default();
            lineages.note_owners(&before, &meanwhile);
            assert!(!lineages.continues("A", "b"), "{meanwhile:?}");
            lineages.note_owners(&meanwhile, &[owner("b", (0, 19))]);
            assert!(lineages.continues("A", "b"), "{meanwhile:?}");
            assert!(!lineages.continues("B", "b"), "{meanwhile:?}");
        }
    }

    #[test]
    fn a_promoted_replica_and_a_restarted_server_may_have_lost_writes() {
        let before = [owner("a", (0, 9)), owner("b", (10, 19))];
        let restarted = Owner {
            process: owner("c", (0, 0)).process,
            ..owner("b", (0, 19))
        };
        for now in [vec![owner("replica", (0, 9)), owner("b", (10, 19))], vec![restarted]] {
            let lineages = Lineages::default();
            lineages.note_owners(&before, &now);
            lineages.note_owners(&now, &[owner("b", (0, 19))]);
            assert!(!lineages.continues("A", "b"), "{now:?}");
        }
    }

    #[test]
    fn a_server_that_comes_back_has_not_given_its_slots_away() {
        let (a, b) = (owner("a", (0, 9)), owner("b", (10, 19)));
        let lineages = Lineages::default();
        lineages.note_owners(&[a.clone(), b.clone()], std::slice::from_ref(&b));
        lineages.note_owners(std::slice::from_ref(&b), &[a, b.clone()]);
        lineages.note_owners(&[unconnected("a", (0, 9)), b], &[owner("b", (0, 19))]);
        assert!(!lineages.continues("A", "b"));
    }
}
