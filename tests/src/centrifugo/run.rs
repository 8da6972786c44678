//! Runs one case against one server and writes down what the clients received.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::connection::{Connection, Encoding, Event};
use super::http;
use super::normal::Names;
use super::script::{Case, Step};
use super::token;
use crate::patience;

/// Runs `case` and returns one line for each message, end of a connection and HTTP response.
///
/// `run` makes the channels of this run unique.
pub(super) async fn run(case: &Case, address: &str, encoding: Encoding, run: usize) -> Vec<String> {
    let mut runner = Runner {
        address,
        encoding,
        suffix: format!("~{run}"),
        clients: BTreeMap::new(),
        names: Names::default(),
        lines: Vec::new(),
    };
    for step in &case.steps {
        runner.step(step).await;
    }
    runner.finish().await;
    runner.lines
}

struct Runner<'a> {
    address: &'a str,
    encoding: Encoding,
    /// Makes channels unique.
    suffix: String,
    clients: BTreeMap<usize, Client>,
    names: Names,
    lines: Vec<String>,
}

struct Client {
    connection: Connection,
    /// The id of the last command.
    last_id: u64,
    is_connected: bool,
    is_closed: bool,
}

/// Ends a wait: the replies to these ids, a number of pushes, a ping, or only the end of the connection.
#[derive(Clone, Debug)]
enum Until {
    Replies(Vec<u64>),
    Pushes(usize),
    Ping,
    Closed,
    /// The reply to this command, which is not written down.
    Barrier(u64),
}

impl Runner<'_> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Open { client, how } => {
                let how = how.as_str();
                self.open(*client, how).await;
            }
            Step::Commands { client, text } => {
                self.ensure_open(*client).await;
                let mut commands = self.commands(text);
                let mut ids = Vec::new();
                let state = self.client(*client);
                for command in &mut commands {
                    let fields = command.as_object_mut().expect("a command is an object");
                    if !fields.contains_key("id") && !fields.contains_key("send") && !fields.is_empty() {
                        state.last_id += 1;
                        fields.insert("id".to_owned(), state.last_id.into());
                    }
                    ids.extend(fields.get("id").and_then(Value::as_u64).filter(|id| *id > 0));
                }
                state.connection.send(&commands).await;
                self.receive(*client, Until::Replies(ids)).await;
            }
            Step::Text { client, text } => {
                self.ensure_open(*client).await;
                let text = self.text(text).replace("\\n", "\n");
                self.client(*client)
                    .connection
                    .send_frame(text.into_bytes(), true)
                    .await;
            }
            Step::Binary { client, bytes } => {
                self.ensure_open(*client).await;
                self.client(*client).connection.send_frame(bytes.clone(), false).await;
            }
            Step::Pushes { client, count } => self.receive(*client, Until::Pushes(*count)).await,
            Step::Ping { client } => self.receive(*client, Until::Ping).await,
            Step::Closed { client } => {
                if self.client(*client).is_connected {
                    self.barrier(*client).await;
                }
                if !self.client(*client).is_closed {
                    match self.client(*client).is_connected {
                        true => self.lines.push(format!("{client} stays open")),
                        false => self.receive(*client, Until::Closed).await,
                    }
                }
            }
            Step::End { client } => self.receive(*client, Until::Closed).await,
            Step::Quit { client } => {
                let state = self.client(*client);
                state.connection.quit().await;
                state.is_closed = true;
            }
            Step::Http {
                method,
                path,
                headers,
                body,
            } => {
                let (path, body) = (self.text(path), self.text(body));
                let response = http::request(self.address, method, &path, headers, body.into_bytes()).await;
                let status = response.response.status().as_u16();
                let body = response.text().await;
                let body = match serde_json::from_str(&body) {
                    Ok(body) => self.names.apply(body, &self.suffix),
                    Err(_) => String::new(),
                };
                self.lines
                    .push(format!("{method} {path}: {status} {body}").replace(&self.suffix, ""));
            }
        }
    }

    /// Receives what is still on its way to the connected clients.
    async fn finish(&mut self) {
        let clients: Vec<_> = self.clients.keys().copied().collect();
        for client in &clients {
            if self.client(*client).is_connected {
                self.barrier(*client).await;
            }
        }
        for client in clients {
            self.client(client).connection.quit().await;
        }
    }

    /// Receives everything that the server sent before it handled the last command.
    async fn barrier(&mut self, client: usize) {
        if self.client(client).is_closed {
            return;
        }
        let id = 1_000_000 + self.lines.len() as u64;
        let barrier = json!({"id": id, "rpc": {"method": "barrier", "data": {}}});
        self.client(client).connection.send(&[barrier]).await;
        self.receive(client, Until::Barrier(id)).await;
    }

    async fn open(&mut self, client: usize, how: &str) {
        let connection = Connection::open(self.address, self.encoding, how).await;
        let state = Client {
            connection,
            last_id: 0,
            is_connected: false,
            is_closed: false,
        };
        self.clients.insert(client, state);
    }

    async fn ensure_open(&mut self, client: usize) {
        if !self.clients.contains_key(&client) {
            self.open(client, "").await;
        }
    }

    fn client(&mut self, client: usize) -> &mut Client {
        self.clients
            .get_mut(&client)
            .expect("the client has sent a command before")
    }

    async fn receive(&mut self, client: usize, until: Until) {
        let mut until = until;
        loop {
            let is_over = match &until {
                Until::Replies(ids) => ids.is_empty(),
                Until::Pushes(count) => *count == 0,
                _ => false,
            };
            let state = self
                .clients
                .get_mut(&client)
                .expect("the client has sent a command before");
            if is_over || state.is_closed {
                return;
            }
            let Ok(event) = timeout(patience(), state.connection.next()).await else {
                self.lines
                    .push(format!("{client} receives nothing more; waited for {until:?}"));
                return;
            };
            let message = match event {
                Event::Closed(how) => {
                    state.is_closed = true;
                    self.lines.push(format!("{client} closed: {how}"));
                    return;
                }
                Event::Undecodable(what) => {
                    self.lines.push(format!("{client} {what}"));
                    continue;
                }
                Event::Message(message) => message,
            };
            if message == json!({}) {
                match until {
                    Until::Ping => return self.lines.push(format!("{client} ping")),
                    _ => state.connection.send(&[json!({})]).await,
                }
                continue;
            }
            let id = message["id"].as_u64().unwrap_or(0);
            match &mut until {
                Until::Barrier(barrier) if id == *barrier => return,
                Until::Replies(ids) => ids.retain(|waiting| *waiting != id),
                Until::Pushes(count) if id == 0 => *count -= 1,
                _ => {}
            }
            if let Some(connect) = message["connect"].as_object() {
                state.is_connected = true;
                self.names.client(&connect["client"], client);
            }
            let message = self.names.apply(message, &self.suffix);
            self.lines.push(format!("{client} {message}"));
        }
    }

    /// Replaces the placeholders.
    fn text(&self, text: &str) -> String {
        text.replace('%', &self.suffix)
            .replace("$EPOCH", self.names.last_epoch())
    }

    fn commands(&self, text: &str) -> Vec<Value> {
        let text = self.text(text);
        let commands = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let commands: Result<Vec<_>, _> = commands.collect();
        let mut commands = commands.unwrap_or_else(|error| panic!("{text}: {error}"));
        commands.iter_mut().for_each(sign);
        commands
    }
}

/// Signs the claims that stand in place of tokens.
fn sign(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Object(claims) if name == "token" => *value = token::sign(in_time(claims)).into(),
                    value => sign(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(sign),
        _ => {}
    }
}

/// Replaces relative times such as `"+300"` by seconds since the Unix epoch.
fn in_time(claims: &Map<String, Value>) -> Map<String, Value> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right")
        .as_secs();
    let now = i64::try_from(now).expect("the clock is right");
    let mut claims = claims.clone();
    for name in ["exp", "iat", "nbf", "expire_at"] {
        if let Some(relative) = claims.get(name).and_then(Value::as_str) {
            let seconds: i64 = relative.parse().expect("a relative time in seconds");
            claims.insert(name.to_owned(), (now + seconds).into());
        }
    }
    claims
}
