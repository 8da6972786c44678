//! The presence (list of subscribers) of each channel.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::ChannelName;
use crate::ids::{ClientId, ClientMap, Generation, Subscription};
use crate::protocol::{Data, WireClientInfo};

/// A client's subscription, and how others see it.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) subscription: Subscription,
    /// The client in this channel.
    pub(crate) info: Arc<ClientInfo>,
    /// Whether the client is in the presence of the channel.
    pub(crate) presence: bool,
    /// Whether its coming and going is announced.
    pub(crate) join_leave: bool,
}

/// The public information about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// The id of the connection.
    pub(crate) client: ClientId,
    /// The user; empty if anonymous.
    pub(crate) user: Arc<str>,
    /// Data of the connection. Data from the client itself is under `"unverified"`.
    pub(crate) conn_info: Option<Data>,
    /// Data of the client in one channel, from its subscription token.
    pub(crate) chan_info: Option<Data>,
}

impl ClientInfo {
    pub(crate) fn wire(&self) -> WireClientInfo<'_> {
        WireClientInfo {
            user: &self.user,
            client: self.client.to_string(),
            conn_info: self.conn_info.as_ref(),
            chan_info: self.chan_info.as_ref(),
        }
    }
}

/// The number of clients and users in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PresenceStats {
    /// Connections.
    pub(crate) clients: usize,
    /// Distinct users; all anonymous connections count as one user.
    pub(crate) users: usize,
}

/// The members of all channels, in memory.
pub(crate) struct Presence {
    shards: Box<[Shard]>,
    hasher: std::hash::RandomState,
}

type Shard = Mutex<HashMap<ChannelName, Members>>;

/// The members of one channel, with a running count per user. Counting on each `presence_stats` would hold the lock of
/// the shard for a time proportional to the largest channel.
#[derive(Debug, Default)]
struct Members {
    clients: ClientMap<Member>,
    users: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Member {
    info: Arc<ClientInfo>,
    /// The newest subscription that made the client a member.
    generation: Generation,
}

/// Enough for little lock contention, few enough for negligible memory.
const SHARDS: usize = 64;

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: Default::default(),
        }
    }

    /// Adds a client to a channel, or updates the generation of its subscription.
    pub(crate) fn add(&self, subscription: &Subscription, info: Arc<ClientInfo>) {
        let Subscription { channel, generation } = subscription;
        let (client, generation) = (info.client, *generation);
        let mut shard = self.shard(channel).lock();
        let members = shard.entry(channel.clone()).or_default();
        if members
            .clients
            .get(&client)
            .is_none_or(|known| known.generation <= generation)
        {
            members.insert(client, Member { info, generation });
        }
    }

    /// Removes a client from a channel, unless it has a newer subscription.
    pub(crate) fn remove(&self, subscription: &Subscription, client: ClientId) {
        let Subscription { channel, generation } = subscription;
        let mut shard = self.shard(channel).lock();
        let Some(members) = shard.get_mut(channel) else { return };
        let known = members.clients.get(&client);
        if known.is_some_and(|known| known.generation <= *generation) {
            members.remove(client);
        }
        if members.clients.is_empty() {
            shard.remove(channel);
        }
    }

    /// Returns the members, or `None` if there are more than `clients_max`.
    pub(crate) fn members(&self, channel: &ChannelName, clients_max: usize) -> Option<Vec<Arc<ClientInfo>>> {
        let shard = self.shard(channel).lock();
        let Some(members) = shard.get(channel) else {
            return Some(Vec::new());
        };
        let clients = &members.clients;
        (clients.len() <= clients_max).then(|| clients.values().map(|member| member.info.clone()).collect())
    }

    pub(crate) fn stats(&self, channel: &ChannelName) -> PresenceStats {
        let shard = self.shard(channel).lock();
        let Some(members) = shard.get(channel) else {
            return PresenceStats { clients: 0, users: 0 };
        };
        PresenceStats {
            clients: members.clients.len(),
            users: members.users.len(),
        }
    }

    fn shard(&self, channel: &ChannelName) -> &Shard {
        channel.shard(&self.shards, &self.hasher)
    }
}

impl Members {
    fn insert(&mut self, client: ClientId, member: Member) {
        *self.users.entry(member.info.user.clone()).or_default() += 1;
        if let Some(replaced) = self.clients.insert(client, member) {
            self.release_user(&replaced.info.user);
        }
    }

    fn remove(&mut self, client: ClientId) {
        if let Some(removed) = self.clients.remove(&client) {
            self.release_user(&removed.info.user);
        }
        if self.clients.len() < self.clients.capacity() / 4 {
            self.clients.shrink_to_fit();
        }
    }

    fn release_user(&mut self, user: &str) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
        if self.users.len() < self.users.capacity() / 4 {
            self.users.shrink_to_fit();
        }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(bits: u128, user: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            client: ClientId::from_random(bits),
            user: user.into(),
            conn_info: None,
            chan_info: None,
        })
    }

    fn subscription(generation: u64) -> Subscription {
        Subscription {
            channel: ChannelName::new("room").unwrap(),
            generation: Generation(generation),
        }
    }

    #[test]
    fn members_come_and_go() {
        let presence = Presence::new();
        let room = ChannelName::new("room").unwrap();
        let in_room = subscription(1);
        for bits in 1..=3 {
            presence.add(&in_room, member(bits, if bits == 1 { "ada" } else { "" }));
        }
        assert_eq!(presence.stats(&room), PresenceStats { clients: 3, users: 2 });
        presence.remove(&in_room, ClientId::from_random(2));
        presence.remove(&in_room, ClientId::from_random(9));
        assert_eq!(presence.members(&room, 2).unwrap().len(), 2);
        assert_eq!(presence.members(&room, 1), None);
        presence.remove(&in_room, ClientId::from_random(1));
        presence.remove(&in_room, ClientId::from_random(3));
        assert_eq!(presence.members(&room, 0), Some(Vec::new()));
        assert!(presence.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn user_counts_match_a_naive_count() {
        use std::collections::{HashMap, HashSet};

        use rand::rngs::StdRng;
        use rand::{RngExt, SeedableRng};

        let mut rng = StdRng::seed_from_u64(6455);
        let presence = Presence::new();
        let mut by_hand: HashMap<u128, String> = HashMap::new();
        for generation in 0..5_000 {
            let (bits, user) = (rng.random_range(1..40), format!("u{}", rng.random_range(0..10)));
            if rng.random_range(0..2) == 0 {
                // A new token can change the user of a connection.
                presence.add(&subscription(generation), member(bits, &user));
                by_hand.insert(bits, user);
            } else {
                presence.remove(&subscription(generation), ClientId::from_random(bits));
                by_hand.remove(&bits);
            }
            let users: HashSet<&String> = by_hand.values().collect();
            let expect = PresenceStats {
                clients: by_hand.len(),
                users: users.len(),
            };
            assert_eq!(presence.stats(&subscription(0).channel), expect);
        }
    }

    /// For all interleavings of adding and removing two subscriptions: the client is a member if and only if its newest
    /// subscription was added and not removed.
    #[test]
    fn the_newest_subscription_determines_membership_in_every_order() {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum Step {
            Add(u64),
            Remove(u64),
        }
        use Step::{Add, Remove};
        for second_ends in [false, true] {
            let mut steps = vec![Add(1), Remove(1), Add(2)];
            if second_ends {
                steps.push(Remove(2));
            }
            for order in permutations(&steps) {
                let at = |step| order.iter().position(|other| *other == step);
                // An engine does not reorder the calls for one subscription.
                if at(Remove(1)) < at(Add(1)) || second_ends && at(Remove(2)) < at(Add(2)) {
                    continue;
                }
                let presence = Presence::new();
                for step in &order {
                    match step {
                        Add(generation) => presence.add(&subscription(*generation), member(1, "ada")),
                        Remove(generation) => presence.remove(&subscription(*generation), ClientId::from_random(1)),
                    }
                }
                let expect = usize::from(!second_ends);
                // A client adds its first subscription before the second one ends.
                if second_ends && at(Add(1)) > at(Remove(2)) {
                    continue;
                }
                assert_eq!(presence.stats(&subscription(1).channel).clients, expect, "{order:?}");
            }
        }
    }

    fn permutations<T: Copy>(of: &[T]) -> Vec<Vec<T>> {
        let mut all = Vec::new();
        for (at, &first) in of.iter().enumerate() {
            let rest = [&of[..at], &of[at + 1..]].concat();
            all.extend(permutations(&rest).into_iter().map(|rest| [&[first], &*rest].concat()));
        }
        if all.is_empty() { vec![Vec::new()] } else { all }
    }
}
