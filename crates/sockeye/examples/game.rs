//! A game server: 30 updates a second in binary, players who join late, and the latency of each player.
//!
//! `cargo run -p sockeye --example game -- 127.0.0.1:9006`
//!
//! All numbers are big-endian.
//!
//! | message | bytes |
//! |---|---|
//! | input of a player | 1 byte: the direction, 0 to 4 for none, up, right, down, left |
//! | welcome | 0, then the player's number (u16) and the number of updates so far (u32) |
//! | update | 1, the number of the update (u32), then for each player its number (u16), x, y (i16), and its latency in ms (u16; 0xffff: not known yet) |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::{Error, Incoming, Keepalive, Message, Outbox, Overflow, PreparedMessage, Server};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

const UPDATES_PER_SECOND: u32 = 30;

/// The directions, by the byte of the input.
const STEPS: [(i16, i16); 5] = [(0, 0), (0, -1), (1, 0), (0, 1), (-1, 0)];

#[derive(Default)]
struct Game {
    update: u32,
    next: u16,
    players: BTreeMap<u16, Player>,
}

struct Player {
    outbox: Outbox,
    position: (i16, i16),
    step: (i16, i16),
    latency: Option<Duration>,
}

type Shared = Arc<Mutex<Game>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9006".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let game = Shared::default();
    tokio::spawn(run(game.clone()));
    // A player whose connection is lost leaves the game after 5 s.
    let keepalive = Keepalive::default()
        .interval(Duration::from_secs(3))
        .timeout(Duration::from_secs(2));
    Server::builder()
        .keepalive(keepalive)
        .build()
        .serve(listener)
        .on_error(|error| eprintln!("{error}"))
        .graceful_shutdown(tokio::signal::ctrl_c(), Duration::from_secs(5))
        .run(move |incoming| play(incoming, game.clone()))
        .await;
    Ok(())
}

/// Moves the players and sends the updates.
async fn run(game: Shared) {
    let mut ticks = interval(Duration::from_secs(1) / UPDATES_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let mut game = game.lock().unwrap();
        game.update += 1;
        let mut bytes = vec![1];
        bytes.extend(game.update.to_be_bytes());
        for (number, player) in &mut game.players {
            player.position.0 = player.position.0.saturating_add(player.step.0);
            player.position.1 = player.position.1.saturating_add(player.step.1);
            let latency = player
                .latency
                .map_or(0xffff, |latency| latency.as_millis().min(0xfffe) as u16);
            bytes.extend(number.to_be_bytes());
            bytes.extend(player.position.0.to_be_bytes());
            bytes.extend(player.position.1.to_be_bytes());
            bytes.extend(latency.to_be_bytes());
        }
        // Framed once for all players. Each update has the whole state, so a slow player misses old ones.
        let update = PreparedMessage::new(Message::binary(bytes));
        for player in game.players.values() {
            // An error means that the player is leaving.
            let _ = player.outbox.try_send(&update);
        }
    }
}

async fn play(incoming: Incoming, game: Shared) -> Result<(), Error> {
    let (sender, mut receiver) = incoming.accept().await?.split();
    let number = {
        let mut game = game.lock().unwrap();
        let number = game.next;
        game.next += 1;
        // A player who joins late learns who they are and where the game is; the next update has everything else.
        let mut welcome = vec![0];
        welcome.extend(number.to_be_bytes());
        welcome.extend(game.update.to_be_bytes());
        sender.try_send(Message::binary(welcome)).map_err(Error::other)?;
        let player = Player {
            outbox: sender.clone().with_overflow(Overflow::DropOldest),
            position: (0, 0),
            step: STEPS[0],
            latency: None,
        };
        game.players.insert(number, player);
        number
    };
    let mut second = interval(Duration::from_secs(1));
    let result = loop {
        tokio::select! {
            message = receiver.recv() => match message {
                Ok(Some(message)) => {
                    let direction = message.as_bytes().first().map_or(0, |byte| usize::from(*byte));
                    let step = STEPS.get(direction).copied().unwrap_or_default();
                    game.lock().unwrap().players.get_mut(&number).expect("it leaves below").step = step;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            _ = second.tick() => {
                // The result of the previous ping.
                let latency = receiver.rtt();
                game.lock().unwrap().players.get_mut(&number).expect("it leaves below").latency = latency;
                if let Err(error) = sender.send_ping(b"").await {
                    break Err(error);
                }
            }
        }
    };
    game.lock().unwrap().players.remove(&number);
    result
}
