//! `sockeye serve --data`: histories and positions over restarts of the program, with clients under load.
#![cfg(unix)]

mod cli_support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cli_support::{Program, run, soon};
use rustix::process::Signal;
use sockeye::WebSocket;
use tokio::task::JoinHandle;

/// Starts `sockeye serve` with a log, and returns the URL of its WebSocket.
async fn start(folder: &Path, fsync: &str) -> (Program, String) {
    let folder = folder.to_str().unwrap();
    let mut server = Program::start(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--data",
        folder,
        "--fsync",
        fsync,
        "--drain=50ms",
    ]);
    let url = server.url().await.replace("http://", "ws://");
    (server, format!("{url}connection/websocket"))
}

/// Connects, and subscribes with these further fields of the command. Returns the reply too.
async fn subscribe(url: &str, room: &str, fields: &str) -> (WebSocket, String) {
    let mut ws = soon(sockeye::connect(url)).await.unwrap();
    let commands = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n\
         {{\"id\":2,\"subscribe\":{{\"channel\":\"{room}\",\"recoverable\":true{fields}}}}}"
    );
    soon(ws.send(&*commands)).await.unwrap();
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let frame = soon(ws.recv()).await.unwrap().expect("still open");
        lines.extend(frame.as_text().unwrap().lines().map(str::to_owned));
    }
    (ws, lines.remove(1))
}

/// The values of a numeric field, in the order of the text.
fn numbers(text: &str, field: &str) -> Vec<u64> {
    let field = format!("\"{field}\":");
    let values = text.split(&field).skip(1);
    values
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

fn epoch(reply: &str) -> String {
    let (_, rest) = reply.split_once("\"epoch\":\"").expect("an epoch");
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// A subscriber that keeps its position, as an SDK does.
#[derive(Default)]
struct Subscriber {
    epoch: String,
    offset: u64,
    /// Numbers of all publications received.
    received: Vec<u64>,
}

impl Subscriber {
    /// Subscribes, and recovers if it has a position.
    async fn connect(&mut self, url: &str, room: &str) -> WebSocket {
        if self.epoch.is_empty() {
            let (ws, reply) = subscribe(url, room, "").await;
            self.epoch = epoch(&reply);
            return ws;
        }
        let fields = format!(
            ",\"recover\":true,\"epoch\":\"{}\",\"offset\":{}",
            self.epoch, self.offset
        );
        let (ws, reply) = subscribe(url, room, &fields).await;
        assert!(reply.contains("\"recovered\":true"), "{fields}: {reply}");
        assert_eq!(epoch(&reply), self.epoch, "nothing was lost");
        self.receive(&reply);
        ws
    }

    /// Reads until the server is gone.
    async fn read(mut self, mut ws: WebSocket) -> Self {
        while let Ok(Some(frame)) = soon(ws.recv()).await {
            self.receive(frame.as_text().unwrap());
        }
        self
    }

    fn receive(&mut self, text: &str) {
        for data in numbers(text, "data") {
            self.offset += 1;
            assert!(
                self.received.last().is_none_or(|last| *last < data),
                "{data} twice or late"
            );
            self.received.push(data);
        }
        for offset in numbers(text.split("\"publications\"").last().unwrap_or(text), "offset") {
            assert!(offset <= self.offset, "offset {offset} after {}", self.offset);
        }
    }
}

/// Publishes rising numbers, one at a time, until the server is gone. Returns the number after the last one, and those
/// that were acknowledged.
async fn publish(url: String, room: String, mut number: u64) -> (u64, Vec<u64>) {
    let (mut ws, _) = subscribe(&url, &room, "").await;
    let mut acknowledged = Vec::new();
    loop {
        let id = number + 10;
        let command = format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{room}\",\"data\":{number}}}}}");
        number += 1;
        if soon(ws.send(&*command)).await.is_err() {
            return (number, acknowledged);
        }
        let reply = format!("{{\"id\":{id},\"publish\":{{}}}}");
        loop {
            let Ok(Some(frame)) = soon(ws.recv()).await else {
                return (number, acknowledged);
            };
            let text = frame.as_text().unwrap();
            assert!(!text.contains("\"error\""), "{text}");
            if text.lines().any(|line| line == reply) {
                acknowledged.push(number - 1);
                break;
            }
        }
        // While the program shuts down, less than the history keeps.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills the program under load several times. Clients recover everything that was acknowledged, once and in order.
async fn clients_recover_after_kill(fsync: &str) {
    let folder = tempfile::tempdir().unwrap();
    let rooms: Arc<[String]> = (0..3).map(|n| format!("room{n}")).collect();
    let mut subscribers: Vec<Subscriber> = rooms.iter().map(|_| Subscriber::default()).collect();
    let mut numbers = vec![0; rooms.len()];
    let mut acknowledged: Vec<Vec<u64>> = vec![Vec::new(); rooms.len()];
    for round in 0..4 {
        let (mut server, url) = start(folder.path(), fsync).await;
        let mut reading: Vec<JoinHandle<Subscriber>> = Vec::new();
        let mut publishing = Vec::new();
        for (room, mut subscriber) in rooms.iter().zip(subscribers.drain(..)) {
            let ws = subscriber.connect(&url, room).await;
            reading.push(tokio::spawn(subscriber.read(ws)));
        }
        for (room, number) in rooms.iter().zip(&numbers) {
            publishing.push(tokio::spawn(publish(url.clone(), room.clone(), *number)));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        match round {
            2 => server.signal(Signal::TERM),
            _ => server.signal(Signal::KILL),
        }
        server.exit_code().await;
        for (n, publishing) in publishing.into_iter().enumerate() {
            let (next, new) = publishing.await.unwrap();
            numbers[n] = next;
            acknowledged[n].extend(new);
        }
        for reading in reading {
            subscribers.push(reading.await.unwrap());
        }
    }
    let (_server, url) = start(folder.path(), fsync).await;
    for ((room, subscriber), acknowledged) in rooms.iter().zip(&mut subscribers).zip(acknowledged) {
        subscriber.connect(&url, room).await;
        assert!(acknowledged.len() > 20, "{}", acknowledged.len());
        for number in acknowledged {
            assert!(
                subscriber.received.binary_search(&number).is_ok(),
                "{number} of {room} is lost"
            );
        }
    }
}

#[tokio::test]
async fn clients_recover_after_kill_with_fsync_always() {
    clients_recover_after_kill("always").await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_recover_after_kill_with_fsync_at_intervals() {
    clients_recover_after_kill("50ms").await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_recover_after_kill_without_fsync() {
    clients_recover_after_kill("never").await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, _) = start(folder.path(), "50ms").await;
    let path = folder.path().to_str().unwrap();
    let second = run(&["serve", "--listen=127.0.0.1:0", "--data", path], b"").await;
    assert_eq!(second.code, Some(1));
    assert!(
        second.stderr.contains("another process uses this folder"),
        "{}",
        second.stderr
    );
    assert_eq!(second.stdout, b"");

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = file.join("folder");
    let unusable = run(
        &["serve", "--listen=127.0.0.1:0", "--data", path.to_str().unwrap()],
        b"",
    )
    .await;
    assert_eq!(unusable.code, Some(1));
    assert!(unusable.stderr.contains("cannot use the log in"), "{}", unusable.stderr);
}

#[tokio::test]
async fn an_invalid_policy_is_an_error() {
    let outcome = run(&["serve", "--fsync=sometimes"], b"").await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("fsync must be"), "{}", outcome.stderr);
}
