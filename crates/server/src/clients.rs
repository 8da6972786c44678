//! The clients of this node, by id and by user.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ids::{ClientId, ClientMap};
use crate::queue::Queue;

/// The connected clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: ClientMap<Registered>,
    /// Without anonymous clients, which are found by a scan: there may be many of them, and commands for them are rare.
    by_user: HashMap<Arc<str>, Vec<ClientId>>,
}

#[derive(Debug)]
struct Registered {
    queue: Arc<Queue>,
    /// `None` until `connect`; empty if anonymous.
    user: Option<Arc<str>>,
}

/// Error: the user has as many connections as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyConnections;

/// Number of clients and users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientStats {
    /// Open connections of clients, also of those that have not sent `connect`.
    pub(crate) clients: usize,
    /// Distinct users; all anonymous clients count as one.
    pub(crate) users: usize,
}

impl Clients {
    /// Adds a client.
    pub(crate) fn insert(&self, client: ClientId, queue: Arc<Queue>) {
        self.state.lock().by_id.insert(client, Registered { queue, user: None });
    }

    /// Sets the user of a client, when it has connected.
    ///
    /// # Errors
    /// Fails if the user has `per_user_max` connections. Anonymous clients are not limited.
    pub(crate) fn set_user(
        &self,
        client: ClientId,
        user: &Arc<str>,
        per_user_max: usize,
    ) -> Result<(), TooManyConnections> {
        let mut state = self.state.lock();
        let State { by_id, by_user } = &mut *state;
        let Some(registered) = by_id.get_mut(&client) else {
            return Ok(());
        };
        if registered.user.as_ref() == Some(user) {
            return Ok(());
        }
        if !user.is_empty() {
            let clients = by_user.entry(user.clone()).or_default();
            if clients.len() >= per_user_max {
                return Err(TooManyConnections);
            }
            clients.push(client);
        }
        if let Some(previous) = registered.user.replace(user.clone()) {
            remove(by_user, &previous, client);
        }
        Ok(())
    }

    /// Removes a client.
    pub(crate) fn remove(&self, client: ClientId) {
        let mut state = self.state.lock();
        let State { by_id, by_user } = &mut *state;
        if let Some(Registered { user: Some(user), .. }) = by_id.remove(&client) {
            remove(by_user, &user, client);
        }
    }

    /// The queue of a client.
    pub(crate) fn queue(&self, client: ClientId) -> Option<Arc<Queue>> {
        let state = self.state.lock();
        state.by_id.get(&client).map(|registered| registered.queue.clone())
    }

    /// The queues of all clients.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let state = self.state.lock();
        state
            .by_id
            .values()
            .map(|registered| registered.queue.clone())
            .collect()
    }

    /// The clients of a user that have connected. All anonymous clients have the empty user.
    pub(crate) fn of_user(&self, user: &str) -> Vec<(ClientId, Arc<Queue>)> {
        let state = self.state.lock();
        if user.is_empty() {
            let is_anonymous = |registered: &Registered| registered.user.as_deref() == Some("");
            let clients = state.by_id.iter().filter(|(_, registered)| is_anonymous(registered));
            return clients
                .map(|(id, registered)| (*id, registered.queue.clone()))
                .collect();
        }
        let clients = state.by_user.get(user).into_iter().flatten();
        clients
            .filter_map(|id| Some((*id, state.by_id.get(id)?.queue.clone())))
            .collect()
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let state = self.state.lock();
        let named: usize = state.by_user.values().map(Vec::len).sum();
        let connected = state.by_id.values().filter(|registered| registered.user.is_some());
        let has_anonymous = connected.count() > named;
        ClientStats {
            clients: state.by_id.len(),
            users: state.by_user.len() + usize::from(has_anonymous),
        }
    }
}

fn remove(by_user: &mut HashMap<Arc<str>, Vec<ClientId>>, user: &str, client: ClientId) {
    let Some(clients) = by_user.get_mut(user) else { return };
    if let Some(index) = clients.iter().position(|known| *known == client) {
        clients.swap_remove(index);
    }
    if clients.is_empty() {
        by_user.remove(user);
    }
    if by_user.len() < by_user.capacity() / 4 {
        by_user.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u128) -> ClientId {
        ClientId::from_random(bits)
    }

    fn clients(users: &[&str]) -> Clients {
        let clients = Clients::default();
        for (bits, user) in (1..).zip(users) {
            clients.insert(id(bits), Arc::new(Queue::new(1024, None)));
            clients.set_user(id(bits), &Arc::from(*user), 2).unwrap();
        }
        clients
    }

    fn found(clients: &Clients, user: &str) -> Vec<ClientId> {
        let mut found: Vec<_> = clients.of_user(user).into_iter().map(|(id, _)| id).collect();
        found.sort();
        found
    }

    #[test]
    fn clients_are_found_by_user() {
        let clients = clients(&["ada", "", "bob", "ada", ""]);
        clients.insert(id(9), Arc::new(Queue::new(1024, None)));
        assert_eq!(found(&clients, "ada"), [id(1), id(4)]);
        assert_eq!(found(&clients, ""), [id(2), id(5)]);
        assert_eq!(found(&clients, "carol"), []);
        assert_eq!(clients.stats(), ClientStats { clients: 6, users: 3 });
        for bits in 1..=9 {
            clients.remove(id(bits));
        }
        assert_eq!(clients.stats(), ClientStats::default());
        assert!(clients.state.lock().by_user.is_empty());
    }

    #[test]
    fn a_user_has_a_maximum_of_connections_and_anonymous_clients_have_none() {
        let clients = clients(&["ada", "ada", "", "", ""]);
        clients.insert(id(9), Arc::new(Queue::new(1024, None)));
        assert_eq!(clients.set_user(id(9), &Arc::from("ada"), 2), Err(TooManyConnections));
        clients.remove(id(1));
        assert_eq!(clients.set_user(id(9), &Arc::from("ada"), 2), Ok(()));
        assert_eq!(found(&clients, "ada"), [id(2), id(9)]);
    }

    #[test]
    fn a_new_token_may_change_the_user() {
        let clients = clients(&["ada"]);
        clients.set_user(id(1), &Arc::from("bob"), 2).unwrap();
        clients.set_user(id(1), &Arc::from("bob"), 1).unwrap();
        assert_eq!((found(&clients, "ada").len(), found(&clients, "bob").len()), (0, 1));
    }
}
