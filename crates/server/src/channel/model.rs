//! A randomized test of hub and engine: clients subscribe in three steps, leave and return, while publications are
//! interleaved and histories are evicted.
//!
//! The result is checked against a list of all publications: each client receives every publication once and in order,
//! is unsubscribed if it may have missed one, and recovers only if it missed none.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{ChannelName, Hub, SubscriberOptions};
use crate::config::Limits;
use crate::engine::{Broker, Content, History, HistoryLimits, HistoryQuery, MemoryBroker, Position, is_recovered};
use crate::ids::{ClientId, Generation, Subscription};
use crate::protocol::Data;
use crate::queue::{Outgoing, Queue};

const STRICT: SubscriberOptions = SubscriberOptions {
    join_leave: false,
    positioned: true,
    delta: false,
    filter: None,
    slow_consumer: None,
    is_hidden: false,
    by_id: false,
};

const TTL: Duration = Duration::from_secs(60);

struct World {
    hub: Arc<Hub>,
    engine: MemoryBroker,
    room: ChannelName,
    /// Number of publications in the room. Each contains its number.
    published: u64,
    rng: StdRng,
}

struct Client {
    id: ClientId,
    queue: Arc<Queue>,
    subscription: Subscription,
    phase: Phase,
    /// The last known position, to recover from.
    known: Option<Position>,
    /// The number of the last publication that the client has received at `known`.
    last: u64,
}

enum Phase {
    Out,
    Joined,
    /// The history that was read, and the number of publications at that time.
    Read(History, u64),
    In,
}

/// Counts of events, so that a run that checks nothing fails.
#[derive(Default)]
struct Seen {
    recovered: u32,
    not_recovered: u32,
    gaps: u32,
    unsubscribed: u32,
    publications: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let hub = Arc::new(Hub::new());
        let limits = HistoryLimits {
            count_max: 5,
            bytes_max: Limits::default().history_bytes_per_channel_max,
            ttl: TTL,
        };
        Self {
            engine: MemoryBroker::new(hub.clone(), Arc::new(move |_: &ChannelName| Some(limits)), 4 << 10),
            hub,
            room: ChannelName::new("room").unwrap(),
            published: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    async fn publish(&mut self, channel: &ChannelName, data: String) {
        let content = Content {
            data: Data::json(data).unwrap(),
            info: None,
            tags: None,
        };
        self.engine.publish(channel, content.into()).await.unwrap();
    }

    async fn step(&mut self, clients: &mut [Client], seen: &mut Seen) {
        let room = self.room.clone();
        match self.rng.random_range(0..20) {
            0..6 => {
                self.published += 1;
                self.publish(&room, self.published.to_string()).await;
            }
            // Exceeds the budget, so that the history of the room is evicted if it was not used recently.
            6 => {
                let other = ChannelName::new(&format!("other{}", self.rng.random_range(0..3))).unwrap();
                self.publish(&other, format!("\"{}\"", "x".repeat(1500))).await;
            }
            7 => {
                let wait = Duration::from_secs(self.rng.random_range(0..90));
                tokio::time::advance(wait).await;
                self.engine.sweep();
            }
            _ => {
                let at = self.rng.random_range(0..clients.len());
                self.step_of(&mut clients[at], seen).await;
            }
        }
    }

    async fn step_of(&mut self, client: &mut Client, seen: &mut Seen) {
        match std::mem::replace(&mut client.phase, Phase::Out) {
            Phase::Out => {
                if self.rng.random_range(0..8) == 0 {
                    client.known = None;
                }
                client.subscription.generation = client.subscription.generation.next();
                let queue = client.queue.clone();
                self.hub.subscribe(&client.subscription, client.id, queue, STRICT);
                client.phase = Phase::Joined;
            }
            Phase::Joined => {
                let since = client.known.as_ref().map(|known| known.offset);
                let query = HistoryQuery {
                    since,
                    limit: since.map_or(0, |_| usize::MAX),
                    is_reversed: false,
                };
                let history = self.engine.history(&self.room, query).await.unwrap();
                client.phase = Phase::Read(history, self.published);
            }
            Phase::Read(history, published) => {
                let activated =
                    self.hub
                        .activate(&self.room, client.id, Some("reply".into()), Some(&history.top), None);
                if activated.is_err() {
                    // The server disconnects the client, which reconnects.
                    self.hub.unsubscribe(&client.subscription, client.id);
                    assert!(client.queue.take().is_none());
                    seen.gaps += 1;
                    return;
                }
                let is_recovered = client.known.as_ref().is_some_and(|from| is_recovered(from, &history));
                if is_recovered {
                    let missed = history.publications.iter();
                    let missed: Vec<u64> = missed
                        .map(|publication| publication.content.data.to_json().parse().unwrap())
                        .collect();
                    let expect: Vec<u64> = (client.last + 1..=published).collect();
                    assert_eq!(missed, expect, "recovered");
                    seen.recovered += 1;
                } else {
                    seen.not_recovered += u32::from(client.known.is_some());
                }
                (client.last, client.known) = (published, Some(history.top));
                let reply = client.queue.take();
                assert!(matches!(&reply, Some(Outgoing::Frame(frame)) if frame.message().as_text() == Some("reply")));
                client.phase = Phase::In;
            }
            Phase::In => {
                client.phase = Phase::In;
                client.read(self.published, seen);
                if matches!(client.phase, Phase::In) && self.rng.random_range(0..4) == 0 {
                    self.hub.unsubscribe(&client.subscription, client.id);
                    client.phase = Phase::Out;
                }
            }
        }
    }
}

impl Client {
    fn new(bits: u128, room: &ChannelName) -> Self {
        Self {
            id: ClientId::from_random(bits),
            queue: Arc::new(Queue::new(1 << 20, None)),
            subscription: Subscription {
                channel: room.clone(),
                generation: Generation::default(),
            },
            phase: Phase::Out,
            known: None,
            last: 0,
        }
    }

    /// Processes the queued frames, up to the last one or the end of the subscription.
    fn read(&mut self, published: u64, seen: &mut Seen) {
        loop {
            match self.queue.take() {
                Some(Outgoing::Frame(frame)) => {
                    let text = frame.message().as_text().unwrap();
                    let data = text.split_once("\"data\":").unwrap().1;
                    let number: u64 = data.split([',', '}']).next().unwrap().parse().unwrap();
                    assert_eq!(number, self.last + 1, "after {}: {text}", self.last);
                    self.last = number;
                    self.known.as_mut().unwrap().offset += 1;
                    seen.publications += 1;
                }
                Some(Outgoing::Unsubscribe(subscription, _, _)) => {
                    assert_eq!(subscription, self.subscription);
                    self.phase = Phase::Out;
                    seen.unsubscribed += 1;
                    return;
                }
                Some(Outgoing::Command(command)) => panic!("{command:?}"),
                Some(Outgoing::Answer(answer)) => panic!("{answer:?}"),
                Some(Outgoing::Close(code)) => panic!("{code}"),
                None => {
                    assert_eq!(self.last, published, "something is missing, and nobody said so");
                    return;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_client_misses_a_publication_unnoticed() {
    let mut seen = Seen::default();
    for seed in 0..100 {
        let mut world = World::new(seed);
        let mut clients: Vec<Client> = (1..=4).map(|bits| Client::new(bits, &world.room)).collect();
        for _ in 0..400 {
            world.step(&mut clients, &mut seen).await;
        }
        // Without interference, a client can always subscribe.
        let mut late = Client::new(5, &world.room);
        for _ in 0..3 {
            world.step_of(&mut late, &mut seen).await;
        }
        assert!(matches!(late.phase, Phase::In), "seed {seed}");
    }
    for (what, count) in [
        ("recovered", seen.recovered),
        ("not recovered", seen.not_recovered),
        ("gaps", seen.gaps),
        ("unsubscribed", seen.unsubscribed),
        ("publications", seen.publications),
    ] {
        assert!(count > 100, "{what}: {count}");
    }
}
