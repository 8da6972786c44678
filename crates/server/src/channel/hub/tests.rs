//! Subscribers and deliveries, without connections.

use super::*;
use crate::engine::Content;
use crate::protocol::Data;
use crate::protocol::Encoding;
use crate::queue::Outgoing;

const ALL: SubscriberOptions = SubscriberOptions {
    join_leave: true,
    positioned: true,
    delta: false,
    filter: None,
    slow_consumer: None,
    is_hidden: false,
    by_id: false,
};

struct Room {
    hub: Hub,
    name: ChannelName,
}

impl Room {
    fn new() -> Self {
        Self {
            hub: Hub::new(),
            name: ChannelName::new("room").unwrap(),
        }
    }

    fn join(&self, bits: u128, options: SubscriberOptions) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(1 << 20, None));
        self.hub.subscribe(
            &self.subscription(1),
            ClientId::from_random(bits),
            queue.clone(),
            options,
        );
        queue
    }

    fn subscription(&self, generation: u64) -> Subscription {
        let mut subscription = Subscription {
            channel: self.name.clone(),
            generation: Generation::default(),
        };
        (0..generation).for_each(|_| subscription.generation = subscription.generation.next());
        subscription
    }

    fn release(&self, bits: u128, from: Option<Position>) -> Result<(), Gap> {
        self.hub.activate(
            &self.name,
            ClientId::from_random(bits),
            Some("reply".into()),
            from.as_ref(),
            None,
        )
    }

    fn say(&self, epoch: &str, offset: u64) {
        let content = Content {
            data: Data::json(offset.to_string()).unwrap(),
            info: None,
            tags: None,
        };
        let epoch = (offset > 0).then(|| Epoch::new(epoch));
        self.hub.publication(
            &self.name,
            &Publication {
                content,
                offset,
                previous: offset.saturating_sub(1),
                time_ms: 0,
            },
            epoch.as_ref(),
        );
    }
}

fn at(epoch: &str, offset: u64) -> Option<Position> {
    Some(Position {
        epoch: Epoch::new(epoch),
        offset,
    })
}

/// Removes all items of a queue. Returns offsets for publications, and the kind of other items.
fn drain(queue: &Queue) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(outgoing) = queue.take() {
        seen.push(match outgoing {
            Outgoing::Frame(frame) => match frame.message().as_text().unwrap() {
                text if text.contains("\"join\"") => "join".to_owned(),
                text => match text.split_once("\"data\":") {
                    Some((_, data)) => data.split([',', '}']).next().unwrap().to_owned(),
                    None => text.to_owned(),
                },
            },
            Outgoing::Unsubscribe(..) => "unsubscribed".to_owned(),
            Outgoing::Command(_) => "command".to_owned(),
            Outgoing::Answer(_) => "answer".to_owned(),
            Outgoing::Close(code) => code.to_string(),
        });
    }
    seen
}

#[test]
fn the_reply_is_first_and_its_publications_are_not_repeated() {
    let room = Room::new();
    let queue = room.join(1, ALL);
    for offset in 4..=6 {
        room.say("e", offset);
    }
    assert_eq!(drain(&queue), [""; 0]);
    room.release(1, at("e", 5)).unwrap();
    room.say("e", 7);
    assert_eq!(drain(&queue), ["reply", "6", "7"]);
}

#[test]
fn publications_covered_by_the_reply_are_skipped_later() {
    let room = Room::new();
    let early = room.join(1, ALL);
    room.release(1, at("e", 1)).unwrap();
    let late = room.join(2, ALL);
    room.release(2, at("e", 3)).unwrap();
    for offset in 2..=4 {
        room.say("e", offset);
    }
    assert_eq!(drain(&early), ["reply", "2", "3", "4"]);
    assert_eq!(drain(&late), ["reply", "4"]);
}

#[test]
fn a_gap_unsubscribes_positioned_subscribers() {
    let room = Room::new();
    let strict = room.join(1, ALL);
    let loose = room.join(2, SubscriberOptions::default());
    for client in [1, 2] {
        room.release(client, at("e", 0)).unwrap();
    }
    for offset in [1, 2, 2, 4] {
        room.say("e", offset);
    }
    assert_eq!(drain(&strict), ["reply", "1", "2", "unsubscribed"]);
    assert_eq!(drain(&loose), ["reply", "1", "2", "4"]);
}

#[test]
fn a_new_epoch_is_a_gap() {
    let room = Room::new();
    let strict = room.join(1, ALL);
    let loose = room.join(2, SubscriberOptions::default());
    for client in [1, 2] {
        room.release(client, at("old", 7)).unwrap();
    }
    room.say("new", 1);
    assert_eq!(drain(&strict), ["reply", "unsubscribed"]);
    assert_eq!(drain(&loose), ["reply", "1"]);
}

#[test]
fn a_gap_between_subscribe_and_activate_is_an_error() {
    let room = Room::new();
    let _queue = room.join(1, ALL);
    room.say("e", 7);
    assert_eq!(room.release(1, at("e", 5)), Err(Gap));

    let room = Room::new();
    let _queue = room.join(1, ALL);
    room.say("new", 1);
    assert_eq!(room.release(1, at("old", 0)), Err(Gap));
}

/// The history was evicted, so a new subscriber reads an epoch that the hub does not know yet.
#[test]
fn a_channel_with_evicted_history_accepts_new_subscribers() {
    let room = Room::new();
    let old = room.join(1, ALL);
    room.say("old", 7);
    room.release(1, at("old", 7)).unwrap();
    let (first, second) = (room.join(2, ALL), room.join(3, ALL));
    room.release(2, at("new", 0)).unwrap();
    room.release(3, at("new", 0)).unwrap();
    assert_eq!(drain(&old), ["reply", "unsubscribed"]);
    room.say("new", 1);
    assert_eq!(drain(&old), [""; 0]);
    for queue in [first, second] {
        assert_eq!(drain(&queue), ["reply", "1"]);
    }
}

#[test]
fn a_subscriber_that_is_not_activated_receives_nothing() {
    let room = Room::new();
    let queue = room.join(1, ALL);
    room.say("e", 7);
    assert_eq!(room.release(1, at("e", 5)), Err(Gap));
    room.say("e", 8);
    assert_eq!(drain(&queue), [""; 0]);
}

#[test]
fn a_channel_without_history_delivers_everything() {
    let room = Room::new();
    let queue = room.join(1, ALL);
    room.say("", 0);
    room.release(1, None).unwrap();
    room.say("", 0);
    assert_eq!(drain(&queue), ["reply", "0", "0"]);
}

#[test]
fn joins_are_delivered_on_request() {
    let room = Room::new();
    let curious = room.join(1, ALL);
    let busy = room.join(2, SubscriberOptions::default());
    for client in [1, 2] {
        room.release(client, None).unwrap();
    }
    let info = ClientInfo {
        client: ClientId::from_random(2),
        user: "".into(),
        conn_info: None,
        chan_info: None,
    };
    Deliver::join(&room.hub, &room.name, &info);
    assert_eq!(drain(&curious), ["reply", "join"]);
    assert_eq!(drain(&busy), ["reply"]);
}

/// A publication with tags, in a channel with history.
fn publish(room: &Room, offset: u64, data: &str, tags: &[(&str, &str)]) {
    let tags: Tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let content = Content {
        data: Data::json(data).unwrap(),
        info: None,
        tags: (!tags.is_empty()).then(|| Arc::new(tags)),
    };
    let publication = Publication {
        content,
        offset,
        previous: offset.saturating_sub(1),
        time_ms: 0,
    };
    // An unstored publication has no offset.
    let epoch = (offset > 0).then(|| Epoch::new("e"));
    room.hub.publication(&room.name, &publication, epoch.as_ref());
}

fn texts(queue: &Queue) -> Vec<String> {
    let frames = std::iter::from_fn(|| match queue.take()? {
        Outgoing::Frame(frame) => Some(frame),
        other => panic!("{other:?}"),
    });
    frames
        .map(|frame| frame.message().as_text().unwrap().to_owned())
        .collect()
}

#[test]
fn the_first_publication_of_a_delta_subscription_is_complete() {
    let room = Room::new();
    let options = SubscriberOptions { delta: true, ..ALL };
    let (deltas, plain) = (room.join(1, options), room.join(2, ALL));
    for client in [1, 2] {
        room.release(client, at("e", 0)).unwrap();
    }
    let long = |text: &str| format!("{{\"long\":\"{}{text}\"}}", "x".repeat(200));
    publish(&room, 1, &long("a"), &[]);
    publish(&room, 2, &long("b"), &[]);
    // Nothing in common: the data itself is smaller than a delta.
    publish(&room, 3, "1", &[]);
    let heard = texts(&deltas);
    assert!(
        heard[1].contains(r#""data":"{\"long\":"#) && !heard[1].contains("delta"),
        "{heard:?}"
    );
    assert!(
        heard[2].len() < 150 && heard[2].contains(r#""delta":true"#),
        "{heard:?}"
    );
    assert!(
        heard[3].contains(r#""data":"1""#) && !heard[3].contains("delta"),
        "{heard:?}"
    );
    assert!(texts(&plain)[2].contains(&long("b")));
}

#[test]
fn a_filter_excludes_publications_without_a_gap() {
    let room = Room::new();
    let node = serde_json::from_str(r#"{"key":"symbol","cmp":"eq","val":"A"}"#).unwrap();
    let filter = Some(Arc::new(Filter::new(&node).unwrap()));
    let queue = room.join(1, SubscriberOptions { filter, ..ALL });
    publish(&room, 1, "1", &[("symbol", "B")]);
    publish(&room, 2, "2", &[("symbol", "A")]);
    room.release(1, at("e", 0)).unwrap();
    publish(&room, 3, "3", &[]);
    publish(&room, 4, "4", &[("symbol", "A")]);
    assert_eq!(drain(&queue), ["reply", "2", "4"]);
}

#[test]
fn a_publication_is_encoded_for_each_subscriber() {
    let room = Room::new();
    let queue = Arc::new(Queue::new(1 << 20, None).with_encoding(Encoding::Protobuf));
    let client = ClientId::from_random(1);
    room.hub.subscribe(&room.subscription(1), client, queue.clone(), ALL);
    room.release(1, at("e", 0)).unwrap();
    queue.take().unwrap();
    publish(&room, 1, "7", &[]);
    let Some(Outgoing::Frame(frame)) = queue.take() else {
        panic!("no publication")
    };
    let expect = [
        &[15, 4 << 3 | 2, 13][..],
        &[2 << 3 | 2, 4],
        b"room",
        // Publication: data and offset.
        &[4 << 3 | 2, 5, 4 << 3 | 2, 1, b'7', 6 << 3, 1],
    ];
    assert_eq!(crate::protocol::bytes(frame.message()), expect.concat());
}

#[test]
fn a_channel_is_removed_with_its_last_subscriber() {
    let room = Room::new();
    let _queue = room.join(1, ALL);
    assert!(room.hub.has_subscribers(&room.name));
    room.hub.unsubscribe(&room.subscription(1), ClientId::from_random(2));
    assert!(room.hub.has_subscribers(&room.name));
    // A newer subscription is not ended.
    room.hub.unsubscribe(&room.subscription(0), ClientId::from_random(1));
    assert!(room.hub.has_subscribers(&room.name));
    room.hub.unsubscribe(&room.subscription(1), ClientId::from_random(1));
    assert!(!room.hub.has_subscribers(&room.name));
    let queue = room.join(1, ALL);
    room.release(1, None).unwrap();
    assert_eq!(drain(&queue), ["reply"]);
}

#[test]
fn buffered_publications_are_limited_in_size() {
    let room = Room::new();
    let _queue = room.join(1, ALL);
    let content = Content {
        data: Data::json(format!("\"{}\"", "x".repeat(60_000))).unwrap(),
        info: None,
        tags: None,
    };
    for _ in 0..10 {
        let publication = Publication {
            content: content.clone(),
            offset: 0,
            previous: 0,
            time_ms: 0,
        };
        room.hub.publication(&room.name, &publication, None);
    }
    assert_eq!(room.release(1, None), Err(Gap));
}

/// The text of the last push: whether it is a delta.
#[track_caller]
fn is_delta(queue: &Queue) -> bool {
    let texts = texts(queue);
    texts.last().expect("no push").contains(r#""delta":true"#)
}

#[test]
fn after_a_recovery_the_next_publication_is_a_delta_only_to_what_the_client_has() {
    let long = |text: &str| format!("{{\"long\":\"{}{text}\"}}", "x".repeat(200));
    let data = |text: &str| Data::json(long(text)).unwrap();
    let options = || SubscriberOptions { delta: true, ..ALL };
    let release = |room: &Room, client: u128, offset: u64, base: &Data| {
        let id = ClientId::from_random(client);
        let from = at("e", offset);
        room.hub
            .activate(&room.name, id, Some("reply".into()), from.as_ref(), Some(base))
            .unwrap();
    };
    // The reply contained the newest publication.
    let room = Room::new();
    let queue = room.join(1, options());
    release(&room, 1, 2, &data("b"));
    publish(&room, 3, &long("c"), &[]);
    assert!(is_delta(&queue));
    // A newer one arrived in the meantime.
    let room = Room::new();
    let queue = room.join(1, options());
    publish(&room, 3, &long("c"), &[]);
    release(&room, 1, 2, &data("b"));
    assert!(!is_delta(&queue));
    publish(&room, 4, &long("d"), &[]);
    assert!(is_delta(&queue));
    // An unstored one was delivered to others before, so the channel's newest is not what this client has.
    let room = Room::new();
    let other = room.join(1, options());
    release(&room, 1, 2, &data("b"));
    publish(&room, 0, &long("unstored"), &[]);
    let queue = room.join(2, options());
    release(&room, 2, 2, &data("b"));
    publish(&room, 3, &long("c"), &[]);
    assert!(is_delta(&other) && !is_delta(&queue));
    publish(&room, 4, &long("d"), &[]);
    assert!(is_delta(&other) && is_delta(&queue));
}

#[test]
fn subscribers_that_accept_it_receive_the_id_of_the_channel_in_place_of_its_name() {
    let room = Room::new();
    let by_id = SubscriberOptions { by_id: true, ..ALL };
    let queue = Arc::new(Queue::new(1 << 20, None));
    let client = ClientId::from_random(1);
    let id = room
        .hub
        .subscribe(&room.subscription(1), client, queue.clone(), by_id.clone());
    assert_eq!(id, Some(1));
    let named = room.join(2, ALL);
    for client in [1, 2] {
        room.release(client, at("e", 0)).unwrap();
    }
    publish(&room, 1, "7", &[]);
    let info = ClientInfo {
        client,
        user: "ada".into(),
        conn_info: None,
        chan_info: None,
    };
    room.hub.join(&room.name, &info);
    let heard = texts(&queue);
    assert_eq!(heard[1], r#"{"push":{"id":1,"pub":{"data":7,"offset":1}}}"#);
    assert!(heard[2].starts_with(r#"{"push":{"id":1,"join":{"#), "{heard:?}");
    assert!(texts(&named)[1].starts_with(r#"{"push":{"channel":"room","pub":{"#));
    // The end of a subscription has the name, by which SDKs find it.
    room.hub.end_subscription(&room.name, client, UnsubscribeCode::Server);
    let Some(Outgoing::Unsubscribe(_, _, push)) = queue.take() else {
        panic!("not unsubscribed")
    };
    assert!(push.message().as_text().unwrap().contains(r#""channel":"room""#));
    // A channel that was removed gets another id.
    room.hub.unsubscribe(&room.subscription(1), ClientId::from_random(2));
    let id = room.hub.subscribe(&room.subscription(2), client, queue, by_id);
    assert_eq!(id, Some(2));
}

#[test]
fn a_channel_that_stays_behind_tells_its_positioned_subscribers_to_recover() {
    let room = Room::new();
    let queue = room.join(1, ALL);
    let unpositioned = room.join(2, SubscriberOptions::default());
    room.release(1, at("e", 0)).unwrap();
    room.release(2, None).unwrap();
    room.say("e", 1);
    assert_eq!(drain(&queue), ["reply", "1"]);
    let (seen, top) = (at("e", 1).unwrap(), at("e", 3).unwrap());
    let shard = (0..SHARDS).flat_map(|shard| room.hub.shard_positions(shard));
    assert_eq!(shard.collect::<Vec<_>>(), [(room.name.clone(), seen.clone())]);
    // It has caught up or made progress.
    assert!(!room.hub.catch_up(&room.name, &seen, &seen));
    assert!(!room.hub.catch_up(&room.name, &at("e", 0).unwrap(), &top));
    assert_eq!(drain(&queue), [""; 0]);
    assert!(room.hub.catch_up(&room.name, &seen, &top));
    assert_eq!(drain(&queue), ["unsubscribed"]);
    // The others continue behind the gap, and the next publication is no second one.
    room.say("e", 4);
    assert_eq!(drain(&unpositioned), ["reply", "1", "4"]);
    assert!(!room.hub.catch_up(&room.name, &seen, &top));
    // Another epoch.
    let queue = room.join(3, ALL);
    room.release(3, at("e", 4)).unwrap();
    assert!(
        room.hub
            .catch_up(&room.name, &at("e", 4).unwrap(), &at("f", 0).unwrap())
    );
    assert_eq!(drain(&queue), ["reply", "unsubscribed"]);
}
