//! The authoritative simulation: fish that swim in a pond, eat, and ram each other. Independent of clocks and channels.
//!
//! A player moves only by inputs, one tick of movement for each. A client can therefore predict its own movement
//! exactly: it takes the state of a snapshot and applies the inputs that the snapshot does not contain. [`Body::swim`]
//! has a counterpart in `page/game/physics.js`; a test compares their constants.

use std::collections::VecDeque;
use std::f64::consts::{PI, TAU};
use std::time::Duration;

use crate::demo::random::Random;
use crate::ids::ClientId;

/// Time between two snapshots.
pub(super) const TICK: Duration = Duration::from_nanos(1_000_000_000 / 30);

const TICK_SECONDS: f64 = 1.0 / 30.0;
const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 900.0;
const RADIUS: f64 = 22.0;
const ACCELERATION: f64 = 1500.0;
/// Part of the velocity that remains after one tick.
const GLIDE: f64 = 0.9;
/// Velocity that a dash adds.
const DASH: f64 = 620.0;
/// Ticks between two dashes.
const DASH_REST: u32 = 45;
/// Ticks after a dash in which a fish rams others.
const RAM_TICKS: u32 = 9;

const FOOD: usize = 36;
const FOOD_RADIUS: f64 = 8.0;
/// Score that a rammed fish loses to the other.
const RAM_SCORE: u32 = 3;
const RAM_PUSH: f64 = 500.0;

/// Maximum number of players. Further ones watch.
pub(super) const PLAYERS_MAX: usize = 24;
/// Bots fill the arena up to this number of fish.
const BOTS_UNTIL: usize = 7;
const NAME_CHARS_MAX: usize = 20;
/// Inputs of one player that wait for their tick. Older ones are dropped beyond it.
const INPUTS_MAX: usize = 12;
/// Inputs that may wait after a tick. Of more, one is dropped per tick: otherwise a burst would delay all later inputs.
const BACKLOG_MAX: usize = 3;
/// Ticks without an input after which a player leaves: ten seconds.
const SILENT_TICKS_MAX: u32 = 300;
/// Ticks without an input after which a fish glides to a stop, instead of waiting for late inputs.
const WAIT_TICKS: u32 = 8;

const BOT_NAMES: [&str; BOTS_UNTIL] = ["Pike", "Perch", "Trout", "Gudgeon", "Bream", "Tench", "Roach"];

/// The state of the game.
#[derive(Debug)]
pub(super) struct Arena {
    tick: u64,
    fish: Vec<Fish>,
    food: [Spot; FOOD],
    random: Random,
    last_id: u32,
    has_new_names: bool,
}

/// A point of the pond.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spot {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// A player or a bot.
#[derive(Debug)]
pub(super) struct Fish {
    pub(super) id: u32,
    pub(super) name: String,
    /// `None` for a bot.
    pub(super) client: Option<ClientId>,
    pub(super) body: Body,
    pub(super) score: u32,
    /// The number of the last input that is part of the state.
    pub(super) acknowledged: u32,
    inputs: VecDeque<Input>,
    /// Inputs that may be applied. It grows by one per tick, so that nobody moves faster by sending more.
    credit: u32,
    silent_ticks: u32,
}

/// What a fish needs to move.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Body {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) vx: f64,
    pub(super) vy: f64,
    /// The direction it faces, in radians.
    pub(super) heading: f64,
    /// Ticks until the next dash.
    pub(super) rest: u32,
}

/// The input of a player for one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Input {
    number: u32,
    x: f64,
    y: f64,
    dash: bool,
}

impl Input {
    /// Limits the direction to the unit circle.
    pub(super) fn new(number: u32, x: f64, y: f64, dash: bool) -> Self {
        let length = x.hypot(y);
        let scale = if length > 1.0 { 1.0 / length } else { 1.0 };
        let (x, y) = if length.is_finite() {
            (x * scale, y * scale)
        } else {
            (0.0, 0.0)
        };
        Self { number, x, y, dash }
    }
}

impl Body {
    /// Moves by one tick.
    fn swim(&mut self, input: Input) {
        self.vx = (self.vx + input.x * ACCELERATION * TICK_SECONDS) * GLIDE;
        self.vy = (self.vy + input.y * ACCELERATION * TICK_SECONDS) * GLIDE;
        if input.x != 0.0 || input.y != 0.0 {
            self.heading = input.y.atan2(input.x);
        }
        self.rest = self.rest.saturating_sub(1);
        if input.dash && self.rest == 0 {
            self.vx += self.heading.cos() * DASH;
            self.vy += self.heading.sin() * DASH;
            self.rest = DASH_REST;
        }
        (self.x, self.vx) = bounded(self.x + self.vx * TICK_SECONDS, self.vx, WIDTH);
        (self.y, self.vy) = bounded(self.y + self.vy * TICK_SECONDS, self.vy, HEIGHT);
    }

    fn is_ramming(&self) -> bool {
        self.rest + RAM_TICKS > DASH_REST
    }

    fn distance(&self, x: f64, y: f64) -> f64 {
        (self.x - x).hypot(self.y - y)
    }
}

/// Keeps a coordinate inside the pond. The velocity towards the shore is reversed and halved.
fn bounded(at: f64, velocity: f64, size: f64) -> (f64, f64) {
    let inside = at.clamp(RADIUS, size - RADIUS);
    (inside, if inside == at { velocity } else { velocity * -0.5 })
}

impl Arena {
    pub(super) fn new(seed: u64) -> Self {
        let mut arena = Self {
            tick: 0,
            fish: Vec::new(),
            food: [Spot::default(); FOOD],
            random: Random::new(seed),
            last_id: 0,
            has_new_names: false,
        };
        for index in 0..FOOD {
            arena.food[index] = arena.random_spot();
        }
        arena.adjust_bots();
        arena
    }

    /// Adds a player, or renames one. Ignored if the arena is full.
    pub(super) fn join(&mut self, client: ClientId, name: &str) {
        let name: String = name
            .chars()
            .filter(|char| !char.is_control())
            .take(NAME_CHARS_MAX)
            .collect();
        let name = match name.trim() {
            "" => "Nameless".to_owned(),
            name => name.to_owned(),
        };
        self.has_new_names = true;
        if let Some(fish) = self.player(client) {
            fish.name = name;
        } else if self.players() < PLAYERS_MAX {
            self.add_fish(name, Some(client));
            self.adjust_bots();
        }
    }

    /// Removes a player.
    pub(super) fn leave(&mut self, client: ClientId) {
        self.fish.retain(|fish| fish.client != Some(client));
        self.adjust_bots();
    }

    /// Removes the players whose clients are gone.
    pub(super) fn retain_players(&mut self, is_connected: impl Fn(ClientId) -> bool) {
        let before = self.fish.len();
        self.fish.retain(|fish| fish.client.is_none_or(&is_connected));
        if self.fish.len() != before {
            self.adjust_bots();
        }
    }

    /// Queues an input for the next ticks. Ignored if the client has not joined, or sent a later input before.
    pub(super) fn push_input(&mut self, client: ClientId, input: Input) {
        let Some(fish) = self.player(client) else { return };
        let last = fish.inputs.back().map_or(fish.acknowledged, |input| input.number);
        if input.number <= last {
            return;
        }
        if fish.inputs.len() == INPUTS_MAX {
            fish.inputs.pop_front();
        }
        fish.inputs.push_back(input);
        fish.silent_ticks = 0;
    }

    /// Advances by one tick.
    pub(super) fn step(&mut self) {
        self.tick += 1;
        let before = self.fish.len();
        self.fish.retain(|fish| fish.silent_ticks < SILENT_TICKS_MAX);
        if self.fish.len() != before {
            self.adjust_bots();
        }
        for index in 0..self.fish.len() {
            if self.fish[index].client.is_some() {
                self.fish[index].apply_inputs();
            } else {
                let input = self.bot_input(index);
                self.fish[index].body.swim(input);
            }
        }
        self.eat();
        self.ram();
    }

    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    pub(super) fn fish(&self) -> &[Fish] {
        &self.fish
    }

    pub(super) fn food(&self) -> &[Spot] {
        &self.food
    }

    /// Whether somebody joined or was renamed since the last call.
    pub(super) fn take_new_names(&mut self) -> bool {
        std::mem::take(&mut self.has_new_names)
    }

    fn players(&self) -> usize {
        self.fish.iter().filter(|fish| fish.client.is_some()).count()
    }

    fn player(&mut self, client: ClientId) -> Option<&mut Fish> {
        self.fish.iter_mut().find(|fish| fish.client == Some(client))
    }

    /// Adds bots until the arena is lively, or removes them to make room for players.
    fn adjust_bots(&mut self) {
        self.has_new_names = true;
        while self.fish.len() > BOTS_UNTIL
            && let Some(index) = self.fish.iter().position(|fish| fish.client.is_none())
        {
            self.fish.remove(index);
        }
        while self.fish.len() < BOTS_UNTIL {
            let is_free = |name: &&&str| {
                self.fish
                    .iter()
                    .all(|fish| fish.client.is_some() || fish.name != **name)
            };
            let name = BOT_NAMES.iter().find(is_free).unwrap_or(&BOT_NAMES[0]);
            self.add_fish((*name).to_owned(), None);
        }
    }

    fn add_fish(&mut self, name: String, client: Option<ClientId>) {
        let spot = self.random_spot();
        self.last_id += 1;
        self.fish.push(Fish {
            id: self.last_id,
            name,
            client,
            body: Body {
                x: spot.x,
                y: spot.y,
                ..Body::default()
            },
            score: 0,
            acknowledged: 0,
            inputs: VecDeque::new(),
            credit: INPUTS_MAX as u32,
            silent_ticks: 0,
        });
    }

    fn random_spot(&mut self) -> Spot {
        let margin = RADIUS * 2.0;
        Spot {
            x: self.random.between(margin, WIDTH - margin),
            y: self.random.between(margin, HEIGHT - margin),
        }
    }

    /// Bots swim to the nearest food, not quite straight, and sometimes dash at a fish in front of them.
    fn bot_input(&mut self, index: usize) -> Input {
        let Fish { body, id, .. } = &self.fish[index];
        let nearest = self
            .food
            .iter()
            .min_by(|a, b| body.distance(a.x, a.y).total_cmp(&body.distance(b.x, b.y)));
        let Some(target) = nearest else { return Input::default() };
        let sway = (self.tick as f64 * 0.07 + f64::from(*id)).sin() * 0.7;
        let direction = (target.y - body.y).atan2(target.x - body.x) + sway;
        let is_facing = |other: &Fish| {
            let towards = (other.body.y - body.y).atan2(other.body.x - body.x);
            let turn = (towards - body.heading + PI).rem_euclid(TAU) - PI;
            other.id != *id && body.distance(other.body.x, other.body.y) < 150.0 && turn.abs() < 0.3
        };
        let dash = self.fish.iter().any(is_facing) && self.random.unit() < 0.05;
        let effort = 0.6;
        Input::new(0, direction.cos() * effort, direction.sin() * effort, dash)
    }

    fn eat(&mut self) {
        for index in 0..FOOD {
            let Spot { x, y } = self.food[index];
            let near = |fish: &&mut Fish| fish.body.distance(x, y) < RADIUS + FOOD_RADIUS;
            if let Some(fish) = self.fish.iter_mut().find(near) {
                fish.score += 1;
                self.food[index] = self.random_spot();
            }
        }
    }

    /// A fish that dashes into another pushes it away and takes a part of its score, once per dash.
    fn ram(&mut self) {
        for index in 0..self.fish.len() {
            let Body { x, y, heading, .. } = self.fish[index].body;
            if !self.fish[index].body.is_ramming() {
                continue;
            }
            let is_hit = |(other, fish): (usize, &Fish)| other != index && fish.body.distance(x, y) < RADIUS * 2.0;
            let Some(hit) = self.fish.iter().enumerate().position(is_hit) else {
                continue;
            };
            let taken = self.fish[hit].score.min(RAM_SCORE);
            let other = &mut self.fish[hit];
            other.score -= taken;
            other.body.vx += heading.cos() * RAM_PUSH;
            other.body.vy += heading.sin() * RAM_PUSH;
            let fish = &mut self.fish[index];
            fish.score += taken;
            fish.body.rest = DASH_REST - RAM_TICKS;
        }
    }
}

impl Fish {
    fn apply_inputs(&mut self) {
        self.silent_ticks += 1;
        self.credit = (self.credit + 1).min(INPUTS_MAX as u32);
        while self.credit > 0
            && let Some(input) = self.inputs.pop_front()
        {
            self.credit -= 1;
            self.acknowledged = input.number;
            self.body.swim(input);
        }
        if self.inputs.len() > BACKLOG_MAX {
            self.inputs.pop_front();
        }
        if self.silent_ticks > WAIT_TICKS {
            self.body.swim(Input::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: u128) -> ClientId {
        ClientId::from_random(id)
    }

    fn with_player() -> Arena {
        let mut arena = Arena::new(1);
        arena.join(client(1), "Ada");
        arena
    }

    fn ada(arena: &Arena) -> &Fish {
        arena.fish.iter().find(|fish| fish.client == Some(client(1))).unwrap()
    }

    #[test]
    fn the_page_predicts_with_the_same_constants() {
        let page = include_str!("../../page/game/physics.js");
        for (name, value) in [
            ("WIDTH", WIDTH),
            ("HEIGHT", HEIGHT),
            ("RADIUS", RADIUS),
            ("ACCELERATION", ACCELERATION),
            ("GLIDE", GLIDE),
            ("DASH", DASH),
            ("DASH_REST", f64::from(DASH_REST)),
            ("RAM_TICKS", f64::from(RAM_TICKS)),
            ("FOOD_RADIUS", FOOD_RADIUS),
        ] {
            let line = format!("export const {name} = {value};");
            assert!(page.contains(&line), "{line}");
        }
        assert!(page.contains("export const TICK_SECONDS = 1 / 30;"));
    }

    #[test]
    fn bots_make_room_for_players_and_come_back() {
        let mut arena = Arena::new(1);
        assert_eq!(arena.fish.len(), BOTS_UNTIL);
        for id in 1..=100 {
            arena.join(client(id), "x");
        }
        assert_eq!((arena.fish.len(), arena.players()), (PLAYERS_MAX, PLAYERS_MAX));
        for id in 1..=100 {
            arena.leave(client(id));
        }
        assert_eq!((arena.fish.len(), arena.players()), (BOTS_UNTIL, 0));
    }

    #[test]
    fn each_input_moves_one_tick_and_is_acknowledged() {
        let mut arena = with_player();
        let mut body = ada(&arena).body;
        for number in 1..=10 {
            let input = Input::new(number, 1.0, 0.0, false);
            arena.push_input(client(1), input);
            body.swim(input);
            arena.step();
            assert_eq!(ada(&arena).acknowledged, number);
        }
        assert!((ada(&arena).body.x - body.x).abs() < 1.0);
    }

    #[test]
    fn more_inputs_than_ticks_do_not_move_faster() {
        let mut arena = with_player();
        let mut number = 0;
        for _ in 0..60 {
            for _ in 0..5 {
                number += 1;
                arena.push_input(client(1), Input::new(number, 0.0, 1.0, false));
            }
            arena.step();
            assert!(ada(&arena).inputs.len() <= INPUTS_MAX);
            assert!(ada(&arena).body.vy <= ACCELERATION * TICK_SECONDS * GLIDE / (1.0 - GLIDE) + RAM_PUSH * 3.0);
        }
        // 60 ticks allow 60 inputs; the others were dropped.
        assert_eq!(ada(&arena).credit, 0);
    }

    #[test]
    fn a_burst_of_inputs_does_not_delay_later_ones() {
        let mut arena = with_player();
        let mut number = 0;
        let mut push = |arena: &mut Arena, count| {
            for _ in 0..count {
                number += 1;
                arena.push_input(client(1), Input::new(number, 1.0, 0.0, false));
            }
        };
        // Uses up the credit, then continues at the usual rate.
        for count in [10, 10, 10].into_iter().chain([1; 30]) {
            push(&mut arena, count);
            arena.step();
        }
        assert!(ada(&arena).inputs.len() <= BACKLOG_MAX);
    }

    #[test]
    fn late_and_repeated_inputs_are_ignored() {
        let mut arena = with_player();
        for number in [5, 5, 3, 6] {
            arena.push_input(client(1), Input::new(number, 1.0, 0.0, false));
        }
        assert_eq!(ada(&arena).inputs.len(), 2);
        arena.push_input(client(9), Input::new(1, 1.0, 0.0, false));
        assert_eq!(arena.players(), 1);
    }

    #[test]
    fn a_silent_player_leaves_after_ten_seconds() {
        let mut arena = with_player();
        for _ in 0..SILENT_TICKS_MAX {
            arena.step();
        }
        assert_eq!(arena.players(), 1);
        arena.step();
        assert_eq!((arena.players(), arena.fish.len()), (0, BOTS_UNTIL));
    }

    #[test]
    fn directions_are_limited_and_names_cleaned() {
        for (x, y) in [(1e300, 1e300), (f64::MAX, f64::MAX), (-3.0, 4.0)] {
            let input = Input::new(1, x, y, false);
            assert!(input.x.hypot(input.y) <= 1.0 + 1e-9, "{input:?}");
        }
        let mut arena = Arena::new(1);
        arena.join(client(1), &format!(" \n{}", "ä".repeat(100)));
        assert!(ada(&arena).name.chars().count() <= NAME_CHARS_MAX);
        arena.join(client(1), "\u{7}\n");
        assert_eq!(ada(&arena).name, "Nameless");
    }

    #[test]
    fn fish_stay_in_the_pond_and_bots_eat() {
        let mut arena = with_player();
        for number in 1..3_000 {
            arena.push_input(client(1), Input::new(number, 1.0, 1.0, true));
            arena.step();
            for fish in &arena.fish {
                assert!((RADIUS..=WIDTH - RADIUS).contains(&fish.body.x), "{fish:?}");
                assert!((RADIUS..=HEIGHT - RADIUS).contains(&fish.body.y), "{fish:?}");
            }
        }
        assert!(arena.fish.iter().map(|fish| fish.score).sum::<u32>() > 50);
    }

    #[test]
    fn a_dash_takes_score_once() {
        let mut arena = Arena::new(1);
        arena.fish.clear();
        for id in [1, 2] {
            arena.add_fish("x".to_owned(), Some(client(id)));
        }
        arena.food = [Spot { x: -500.0, y: -500.0 }; FOOD];
        for (fish, x) in arena.fish.iter_mut().zip([500.0, 560.0]) {
            (fish.body.x, fish.body.y, fish.score) = (x, 400.0, 10);
        }
        for number in 1..=20 {
            arena.push_input(client(1), Input::new(number, 1.0, 0.0, number == 1));
            arena.step();
        }
        let scores: Vec<_> = arena.fish.iter().take(2).map(|fish| fish.score).collect();
        assert_eq!(scores, [13, 7]);
        assert!(arena.fish[1].body.x > 600.0);
    }
}
