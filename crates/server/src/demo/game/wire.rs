//! The encoding of the game: binary, little-endian. The counterpart in the page is `page/game/wire.js`.
//!
//! | snapshot | bytes |
//! |---|---|
//! | tick | 4 |
//! | number of fish, then for each: | 1 |
//! | id, x, y, vx, vy, heading, rest, score, acknowledged | 4 + 2 + 2 + 2 + 2 + 2 + 1 + 2 + 4 |
//! | number of food, then for each: x, y | 1, 2 + 2 |
//! | in some: number of names, then for each: id, client or zeros, length, name | 1, 4 + 16 + 1 + length |
//!
//! A message of a player starts with its kind: [`INPUT`] with number, x, y and dash (4 + 2 + 2 + 1), [`JOIN`] with a
//! name, or [`LEAVE`].

use super::arena::{Arena, Input};

/// A message of a player.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Join(String),
    Leave,
    Input(Input),
}

const INPUT: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;

/// Snapshots between two that contain the names of the players. Late joiners know them after this many at most.
const NAMES_INTERVAL: u64 = 30;

/// Positions and velocities are sent as integers of this fraction.
const SCALE: f64 = 16.0;
/// Radians are sent as integers of this fraction.
const ANGLE_SCALE: f64 = 10_000.0;
/// Parts of the unit of an input's direction.
const INPUT_SCALE: f64 = 1_000.0;

/// Decodes a message, or returns `None` if it is invalid.
pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        INPUT => {
            let (number, rest) = rest.split_first_chunk::<4>()?;
            let (x, rest) = rest.split_first_chunk::<2>()?;
            let (y, rest) = rest.split_first_chunk::<2>()?;
            let &[dash] = rest else { return None };
            let direction = |part: &[u8; 2]| f64::from(i16::from_le_bytes(*part)) / INPUT_SCALE;
            let number = u32::from_le_bytes(*number);
            Some(Message::Input(Input::new(
                number,
                direction(x),
                direction(y),
                dash != 0,
            )))
        }
        JOIN => Some(Message::Join(std::str::from_utf8(rest).ok()?.to_owned())),
        LEAVE if rest.is_empty() => Some(Message::Leave),
        _ => None,
    }
}

/// Encodes the state of the arena.
pub(super) fn encode(arena: &mut Arena) -> Vec<u8> {
    // Rust saturates conversions from floating point, so extreme values stay in range.
    let fixed = |value: f64| (value * SCALE).round() as i16;
    let mut bytes = Vec::with_capacity(1 << 10);
    bytes.extend((arena.tick() as u32).to_le_bytes());
    bytes.push(arena.fish().len() as u8);
    for fish in arena.fish() {
        let body = &fish.body;
        bytes.extend(fish.id.to_le_bytes());
        for value in [body.x, body.y, body.vx, body.vy] {
            bytes.extend(fixed(value).to_le_bytes());
        }
        bytes.extend(((body.heading * ANGLE_SCALE).round() as i16).to_le_bytes());
        bytes.push(body.rest as u8);
        bytes.extend(u16::try_from(fish.score).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(fish.acknowledged.to_le_bytes());
    }
    bytes.push(arena.food().len() as u8);
    for food in arena.food() {
        bytes.extend((food.x.round() as u16).to_le_bytes());
        bytes.extend((food.y.round() as u16).to_le_bytes());
    }
    if arena.take_new_names() || arena.tick().is_multiple_of(NAMES_INTERVAL) {
        bytes.push(arena.fish().len() as u8);
        for fish in arena.fish() {
            bytes.extend(fish.id.to_le_bytes());
            bytes.extend(fish.client.map_or([0; 16], |client| client.to_bits().to_be_bytes()));
            bytes.push(fish.name.len() as u8);
            bytes.extend(fish.name.as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    fn input(number: u32, x: i16, y: i16, dash: u8) -> Vec<u8> {
        [
            &[INPUT][..],
            &number.to_le_bytes(),
            &x.to_le_bytes(),
            &y.to_le_bytes(),
            &[dash],
        ]
        .concat()
    }

    #[test]
    fn messages_of_players_are_decoded() {
        let expect = Message::Input(Input::new(7, 0.5, -1.0, true));
        assert_eq!(decode(&input(7, 500, -1000, 1)), Some(expect));
        assert_eq!(decode(b"\x02Ada"), Some(Message::Join("Ada".to_owned())));
        assert_eq!(decode(&[LEAVE]), Some(Message::Leave));
    }

    #[test]
    fn invalid_messages_are_ignored() {
        let valid = input(7, 500, -1000, 1);
        for len in 0..valid.len() {
            assert_eq!(decode(&valid[..len]), None, "{len}");
        }
        assert_eq!(decode(&[&valid[..], &[0]].concat()), None);
        for bytes in [&b"\x02\xff"[..], b"\x03x", b"\x04", b"[1,1,0,0]", b"{}"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_snapshot_has_the_documented_length() {
        let mut arena = Arena::new(1);
        for at in 0..100 {
            arena.join(ClientId::from_random(at), "\u{1f41f}".repeat(100).as_str());
        }
        arena.step();
        let (fish, food) = (arena.fish().len(), arena.food().len());
        let state = 4 + 1 + fish * 21 + 1 + food * 4;
        let names = 1 + fish * (4 + 16 + 1 + 20 * 4);
        assert_eq!(encode(&mut arena).len(), state + names);
        arena.step();
        assert_eq!(encode(&mut arena).len(), state);
    }
}
