//! The encoding of the game: compact JSON arrays. The counterpart in the page is `page/game/wire.js`.

use std::fmt::Write as _;

use serde::Deserialize;

use super::arena::{Arena, Input};
use crate::protocol::Json;

/// A message of a player.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Join(String),
    Leave,
    Input(Input),
}

/// Snapshots between two that contain the names of the players. Late joiners know them after this many at most.
const NAMES_INTERVAL: u64 = 30;

/// Positions and velocities are sent as integers of this fraction.
const SCALE: f64 = 16.0;

/// Decodes a message, or returns `None` if it is invalid.
pub(super) fn decode(json: &str) -> Option<Message> {
    #[derive(Deserialize)]
    #[serde(untagged, deny_unknown_fields)]
    enum Wire {
        Input(u32, f64, f64, u8),
        Join { join: String },
        Leave { leave: bool },
    }
    match serde_json::from_str(json).ok()? {
        Wire::Input(number, x, y, dash) => Some(Message::Input(Input::new(number, x, y, dash != 0))),
        Wire::Join { join } => Some(Message::Join(join)),
        Wire::Leave { leave } => leave.then_some(Message::Leave),
    }
}

/// Encodes the state of the arena: `t` the tick, `p` the players, `f` the food, and sometimes `n` their names.
pub(super) fn encode(arena: &mut Arena) -> Json {
    let fixed = |value: f64| (value * SCALE).round() as i64;
    // 64 bytes per player and 12 per food suffice.
    let mut json = String::with_capacity(2 << 10);
    // Writing to a string does not fail.
    let _ = write!(json, r#"{{"t":{},"p":["#, arena.tick());
    for (index, fish) in arena.fish().iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let body = &fish.body;
        let (x, y, vx, vy) = (fixed(body.x), fixed(body.y), fixed(body.vx), fixed(body.vy));
        let heading = (body.heading * 100.0).round() as i64;
        let (number, score, rest) = (fish.acknowledged, fish.score, body.rest);
        let _ = write!(
            json,
            "{comma}[{},{x},{y},{vx},{vy},{heading},{rest},{score},{number}]",
            fish.id
        );
    }
    json.push_str(r#"],"f":["#);
    for (index, food) in arena.food().iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(json, "{comma}{},{}", food.x.round(), food.y.round());
    }
    json.push(']');
    if arena.take_new_names() || arena.tick().is_multiple_of(NAMES_INTERVAL) {
        let names: Vec<_> = arena
            .fish()
            .iter()
            .map(|fish| (fish.id, &fish.name, fish.client.map(|client| client.to_string())))
            .collect();
        if let Ok(names) = serde_json::to_string(&names) {
            let _ = write!(json, r#","n":{names}"#);
        }
    }
    json.push('}');
    Json::parse(json).expect("numbers and escaped names are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_players_are_decoded() {
        assert_eq!(
            decode("[7,0.5,-1,1]"),
            Some(Message::Input(Input::new(7, 0.5, -1.0, true)))
        );
        assert_eq!(decode(r#"{"join":"Ada"}"#), Some(Message::Join("Ada".to_owned())));
        assert_eq!(decode(r#"{"leave":true}"#), Some(Message::Leave));
    }

    #[test]
    fn invalid_messages_are_ignored() {
        for json in [
            "",
            "null",
            "[]",
            "[1,2]",
            "[-1,0,0,0]",
            "[1,1e999,0,0]",
            "[1,0,0,0,0]",
            r#"{"join":7}"#,
            r#"{"t":1}"#,
            r#"{"leave":false}"#,
            r#"{"join":"a","leave":true}"#,
            "[1,\"x\",0,0]",
            "[4294967296,0,0,0]",
        ] {
            assert_eq!(decode(json), None, "{json}");
        }
    }

    #[test]
    fn a_snapshot_of_a_full_arena_stays_small() {
        let mut arena = Arena::new(1);
        for at in 0..100 {
            arena.join(crate::presence::ClientId::from_random(at), "\"\\\n\u{1f41f}");
        }
        arena.step();
        let json = encode(&mut arena);
        assert!(json.len_bytes() < 6 << 10, "{}", json.len_bytes());
        for _ in 0..7 {
            arena.step();
        }
        assert!(encode(&mut arena).len_bytes() < 2 << 10);
    }
}
