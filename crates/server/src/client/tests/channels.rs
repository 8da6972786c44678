//! Ids of channels, deltas after a recovery, and the check for missed publications.

use std::sync::atomic::Ordering;

use super::*;
use crate::channel::lossy::lossy;
use crate::channel::{PositionCheck, STEPS};

#[tokio::test]
async fn a_subscription_by_id_gets_the_id_in_its_reply_and_pushes() {
    let node = node();
    let mut ada = Peer::connected(&node, "Ada").await;
    let reply = ada
        .request(r#"{"id":2,"subscribe":{"channel":"room","flag":1,"positioned":true}}"#)
        .await;
    assert!(reply.ends_with(r#","offset":0,"id":1}}"#), "{reply}");
    ada.send(r#"{"id":3,"publish":{"channel":"room","data":1}}"#)
        .await
        .unwrap();
    let heard = ada.receive().await;
    assert!(heard[0].starts_with(r#"{"push":{"id":1,"pub":{"data":1,"#), "{heard:?}");
    // Another client has the same id for the same channel, and another one for another channel.
    let mut bob = Peer::connected(&node, "Bob").await;
    for (channel, id) in [("room", 1), ("other", 2)] {
        let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","flag":1}}}}"#);
        let reply = bob.request(&subscribe).await;
        assert!(reply.contains(&format!("\"id\":{id}}}}}")), "{reply}");
    }
    // Without the flag, and where the namespace does not allow it, there is none.
    let mut eve = Peer::connected(&node, "Eve").await;
    let reply = eve.request(r#"{"id":2,"subscribe":{"channel":"room","flag":2}}"#).await;
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
    let options = TransportOptions {
        encoding: Encoding::Protobuf,
        ..PingedBy::Commands.into()
    };
    let mut protobuf = Peer(Client::new(node.clone(), None, options));
    // connect, and subscribe (5) to channel (1) "room" with flag (14) 1
    let frame = b"\x04\x08\x01\x22\x00\x0c\x08\x02\x2a\x08\x0a\x04room\x70\x01";
    protobuf.0.receive(Message::binary(&frame[..])).unwrap();
    while protobuf.0.handle_next().await.unwrap() {}
    let mut replies = Vec::new();
    while let Some(frame) = protobuf.0.next_frame().unwrap() {
        replies.extend_from_slice(crate::protocol::bytes(frame.message()));
    }
    // The reply to command 2 is a subscribe result (6) without fields.
    assert!(replies.ends_with(&[4, 8, 2, 6 << 3 | 2, 0]), "{replies:?}");
    let mut config = Config::default();
    config.channels.as_mut().unwrap().channel_ids = false;
    let mut eve = Peer::connected(&Node::new(config), "Eve").await;
    let reply = eve.request(r#"{"id":2,"subscribe":{"channel":"room","flag":1}}"#).await;
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
}

/// The data of a publication with `data` as a string, after the previous one.
fn decode(publication: &serde_json::Value, previous: &str) -> (String, bool) {
    let data = publication["data"].as_str().unwrap();
    match publication["delta"].as_bool() {
        Some(true) => {
            let data = crate::delta::apply(previous.as_bytes(), data.as_bytes(), 1 << 20).unwrap();
            (String::from_utf8(data).unwrap(), true)
        }
        _ => (data.to_owned(), false),
    }
}

#[tokio::test]
async fn recovered_publications_are_deltas_and_so_are_those_that_follow() {
    let node = node();
    let mut ada = Peer::in_room(&node, "Ada").await;
    let data = |n: u32| format!(r#"{{"text":"{}","n":{n}}}"#, "é".repeat(100));
    let publish = |n: u32| format!(r#"{{"id":3,"publish":{{"channel":"room","data":{}}}}}"#, data(n));
    for n in 1..=3 {
        ada.send(&publish(n)).await.unwrap();
    }
    let mut bob = Peer::connected(&node, "Bob").await;
    let reply = bob
        .request(r#"{"id":2,"subscribe":{"channel":"room","recover":true,"delta":"fossil"}}"#)
        .await;
    assert!(reply.len() < 2 * data(1).len() + 500, "{reply}");
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    let result = &reply["subscribe"];
    assert_eq!((&result["recovered"], &result["delta"]), (&true.into(), &true.into()));
    let mut previous = String::new();
    for (n, publication) in (1..).zip(result["publications"].as_array().unwrap()) {
        let (text, is_delta) = decode(publication, &previous);
        assert_eq!((&text, is_delta), (&data(n), n > 1));
        previous = text;
    }
    assert_eq!(previous, data(3));
    ada.send(&publish(4)).await.unwrap();
    let push: serde_json::Value = serde_json::from_str(&bob.receive().await[0]).unwrap();
    assert_eq!(decode(&push["push"]["pub"], &previous), (data(4), true));
}

/// Examines all channels.
async fn check_all(check: &mut PositionCheck, node: &Node) -> usize {
    let mut behind = 0;
    for _ in 0..STEPS {
        behind += check.step(node.hub(), node.engine(), Instant::now()).await;
    }
    behind
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_missed_a_publication_is_told_so_and_recovers_it() {
    let (node, lossy) = lossy(Config::default());
    let mut ada = Peer::in_room(&node, "Ada").await;
    let mut bob = Peer::in_room(&node, "Bob").await;
    let mut check = PositionCheck::default();
    let publish = |n: u32| format!(r#"{{"id":3,"publish":{{"channel":"room","data":{n}}}}}"#);
    ada.send(&publish(1)).await.unwrap();
    bob.receive().await;
    assert_eq!(check_all(&mut check, &node).await, 0);
    lossy.is_losing.store(true, Ordering::Relaxed);
    ada.send(&publish(2)).await.unwrap();
    lossy.is_losing.store(false, Ordering::Relaxed);
    // The publication may be on its way.
    assert_eq!(check_all(&mut check, &node).await, 0);
    assert!(bob.receive().await.is_empty());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(check_all(&mut check, &node).await, 1);
    let heard = bob.receive().await;
    let unsubscribed = r#"{"push":{"channel":"room","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
    assert_eq!(heard, [unsubscribed]);
    assert_eq!(ada.receive().await.last().unwrap(), unsubscribed);
    let positions = node.engine().positions(&[ChannelName::new("room").unwrap()]).await;
    let epoch = positions.unwrap()[0].clone().unwrap().epoch;
    let subscribe = format!(
        r#"{{"id":4,"subscribe":{{"channel":"room","recover":true,"offset":1,"epoch":"{}"}}}}"#,
        epoch.as_str()
    );
    let reply = bob.request(&subscribe).await;
    assert!(
        reply.contains(r#""recovered":true,"publications":[{"data":2,"#),
        "{reply}"
    );
    ada.send(&publish(3)).await.unwrap();
    assert!(bob.receive().await[0].contains("\"data\":3"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(check_all(&mut check, &node).await, 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_known_without_requests_for_it() {
    let (node, lossy) = lossy(Config::default());
    let maintenance = node.clone();
    let maintenance = tokio::spawn(async move { maintenance.run_maintenance().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(node.is_known_ready());
    // The probe does not receive its publication.
    lossy.is_losing.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(22)).await;
    assert!(!node.is_known_ready());
    lossy.is_losing.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(22)).await;
    assert!(node.is_known_ready());
    maintenance.abort();
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_check_is_limited_and_all_channels_have_their_turn() {
    let (node, lossy) = lossy(Config::default());
    let mut config = Config::default();
    config.limits.channels_per_client_max = 10_000;
    config.limits.commands_per_second_max = u32::MAX;
    node.reload(config);
    let mut ada = Peer::connected(&node, "Ada").await;
    for n in 0..2_000 {
        let frame = format!(r#"{{"id":2,"subscribe":{{"channel":"c{n}","positioned":true}}}}"#);
        ada.send(&frame).await.unwrap();
        ada.receive().await;
    }
    lossy.is_losing.store(true, Ordering::Relaxed);
    for n in 0..2_000 {
        ada.send(&format!(r#"{{"id":2,"publish":{{"channel":"c{n}","data":1}}}}"#))
            .await
            .unwrap();
        ada.receive().await;
    }
    let mut check = PositionCheck::default();
    assert_eq!(check_all(&mut check, &node).await, 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(check_all(&mut check, &node).await, 2_000);
    let ended = ada.receive().await;
    assert_eq!(ended.iter().filter(|push| push.contains("2500")).count(), 2_000);
}

#[tokio::test]
async fn a_slow_positioned_client_recovers_what_drop_oldest_dropped() {
    let mut config = Config::default();
    config.channels.as_mut().unwrap().slow_consumer = SlowConsumerPolicy::DropOldest;
    config.limits.queue_bytes_max = 4_500;
    let node = Node::new(config);
    let mut ada = Peer::connected(&node, "Ada").await;
    let reply = ada
        .request(r#"{"id":2,"subscribe":{"channel":"room","recoverable":true}}"#)
        .await;
    let epoch = between(&reply, "\"epoch\":\"", "\"").to_owned();
    let mut eve = Peer::connected(&node, "Eve").await;
    eve.request(r#"{"id":2,"subscribe":{"channel":"room"}}"#).await;
    let mut bob = Peer::connected(&node, "Bob").await;
    let mut published = 0;
    let mut publish = async || {
        published += 1;
        let command = format!(r#"{{"id":{published},"publish":{{"channel":"room","data":{published}}}}}"#);
        bob.request(&command).await;
        published
    };
    while node.hub().stats().gaps == 0 {
        assert!(publish().await < 100);
    }
    // Ada must not receive it: her position would be after the gap.
    let published = publish().await;
    let ended = r#"{"push":{"channel":"room","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;
    assert_eq!(ada.receive().await, [ended]);
    ada.0.run_pending().await.unwrap();
    let stats = node.hub().stats();
    assert_eq!((stats.gaps, stats.subscriptions), (1, 1));

    let recover = format!(
        r#"{{"id":3,"subscribe":{{"channel":"room","recoverable":true,"recover":true,"epoch":"{epoch}","offset":0}}}}"#
    );
    let reply = ada.request(&recover).await;
    assert!(reply.contains("\"recovered\":true"), "{reply}");
    assert_eq!(reply.matches("\"time\":").count(), published);
    let newest = format!("\"offset\":{}", published + 1);
    bob.request(&format!(
        r#"{{"id":900,"publish":{{"channel":"room","data":{}}}}}"#,
        published + 1
    ))
    .await;
    assert!(ada.receive().await[0].contains(&newest));

    // Without a position, the gap is between two offsets.
    let heard = eve.receive().await;
    assert!(
        heard.len() <= published && heard.last().unwrap().contains(&newest),
        "{heard:?}"
    );
    assert_eq!(node.hub().stats().gaps, 1);
}
