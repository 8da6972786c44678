//! Calls that concern the clients of all nodes.
//!
//! A command is executed on this node, and sent to the others. A question is sent to the others with a number, and their
//! answers are collected. Nodes of different versions work together: unknown fields are ignored, and unknown messages are
//! ignored with a log line, the first one as a warning. A field that is added later needs a default.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::{ChannelStats, Disconnect, NodeInfo, Pattern, RefreshOptions, ServerHandle, SubscribeOptions, Target};
use crate::codes::ErrorCode;
use crate::engine::{EngineError, NodeBus};
use crate::node::Node;

/// Time for the other nodes to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the statistics of this node are refreshed for the other nodes.
const INFO_INTERVAL: Duration = Duration::from_secs(2);

/// How long a node counts as registered after the registered nodes were read.
const REGISTRY_AGE_MAX: Duration = Duration::from_secs(2);

/// How often the registered nodes are read again because one is not among them.
const REGISTRY_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum size of the names in one message of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Maximum number of messages of an answer that wait to be added up. Beyond it the question fails.
const ANSWERS_MAX: usize = 4096;

/// A message between nodes, in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    /// The node that sent it.
    from: String,
    message: Message,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Command(NodeCommand),
    /// Asks for the channels with subscribers that match the pattern.
    Channels {
        question: u64,
        pattern: String,
    },
    /// A part of the answer to `Channels`.
    ChannelsAnswer {
        question: u64,
        channels: Vec<(String, usize)>,
        is_last: bool,
    },
    /// Commands for a session of the receiver, from a client without WebSocket.
    ClientCommands {
        question: u64,
        session: String,
        /// In Base64.
        commands: String,
    },
    /// The answer to `ClientCommands`.
    ClientCommandsAnswer {
        question: u64,
        /// Whether the session has taken them.
        is_taken: bool,
    },
}

/// What every node does for its own clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NodeCommand {
    Subscribe {
        target: Target,
        channel: String,
        options: SubscribeOptions,
    },
    Unsubscribe {
        target: Target,
        channel: String,
    },
    Disconnect {
        target: Target,
        disconnect: Disconnect,
    },
    Refresh {
        target: Target,
        options: RefreshOptions,
    },
}

/// Questions to other nodes that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    newest: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
    registry: tokio::sync::Mutex<Registry>,
    /// Whether an unknown message was logged as a warning.
    has_warned: AtomicBool,
}

/// The registered nodes.
#[derive(Debug, Default)]
struct Registry {
    uids: HashSet<String>,
    read: Option<Instant>,
}

#[derive(Debug)]
enum Answer {
    Channels {
        from: String,
        channels: Vec<(String, usize)>,
        is_last: bool,
    },
    ClientCommands {
        is_taken: bool,
    },
}

/// Why commands of a client could not be passed to its session on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardError {
    /// There is no such node, or it does not have the session.
    NoSession,
    /// The node did not answer. The commands may have arrived.
    NoAnswer,
    TooLarge,
    /// The engine is not reachable. The commands may have arrived.
    Unreachable,
}

/// Ends a question when it is dropped.
struct Asking<'a>(&'a Questions, u64);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().remove(&self.1);
    }
}

impl Questions {
    /// Passes on an answer. If it is lost, the question fails.
    fn answer(&self, question: u64, answer: Answer) {
        let waiting = self.waiting.lock().get(&question).cloned();
        let _ = waiting.map(|waiting| waiting.try_send(answer));
    }

    /// Whether a node is registered, as far as is known. Reads the registered nodes at most every [`REGISTRY_INTERVAL`], so
    /// that invented names do not burden the engine.
    async fn is_registered(&self, bus: &dyn NodeBus, uid: &str) -> Result<bool, EngineError> {
        let mut registry = self.registry.lock().await;
        let age = registry.read.map_or(Duration::MAX, |read| read.elapsed());
        if age < REGISTRY_AGE_MAX && registry.uids.contains(uid) {
            return Ok(true);
        }
        if age >= REGISTRY_INTERVAL {
            registry.uids = bus.nodes().await?.into_iter().map(|node| node.uid).collect();
            registry.read = Some(Instant::now());
        }
        Ok(registry.uids.contains(uid))
    }

    fn ask(&self) -> (Asking<'_>, mpsc::Receiver<Answer>) {
        let question = self.newest.fetch_add(1, Ordering::Relaxed);
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        self.waiting.lock().insert(question, answers);
        (Asking(self, question), receiver)
    }
}

impl ServerHandle {
    /// Has the other nodes execute a command.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if the engine is not reachable.
    pub(super) async fn command_others(&self, command: NodeCommand) -> Result<(), ErrorCode> {
        match self.node.engine().nodes() {
            None => Ok(()),
            Some(bus) => Ok(self.send(bus, None, Message::Command(command)).await?),
        }
    }

    /// Adds the channels of the other nodes.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if a registered node does not answer.
    pub(super) async fn add_channels_of_others(
        &self,
        pattern: &str,
        channels: &mut BTreeMap<String, usize>,
    ) -> Result<(), ErrorCode> {
        let Some(bus) = self.node.engine().nodes() else {
            return Ok(());
        };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let nodes = bus.nodes().await?;
        let mut missing: HashSet<_> = nodes.into_iter().map(|node| node.uid).collect();
        missing.remove(self.node.uid());
        if missing.is_empty() {
            return Ok(());
        }
        let (asking, mut answers) = self.node.questions().ask();
        let message = Message::Channels {
            question: asking.1,
            pattern: pattern.to_owned(),
        };
        self.send(bus, None, message).await?;
        while !missing.is_empty() {
            let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await else {
                tracing::warn!(nodes = ?missing, "nodes did not answer within {ANSWER_TIMEOUT:?}");
                return Err(ErrorCode::Internal);
            };
            let Answer::Channels {
                from,
                channels: part,
                is_last,
            } = answer
            else {
                continue;
            };
            for (name, subscribers) in part {
                *channels.entry(name).or_default() += subscribers;
            }
            if is_last {
                missing.remove(&from);
            }
        }
        Ok(())
    }

    /// Statistics of the other registered nodes.
    pub(super) async fn infos_of_others(&self) -> Result<Vec<NodeInfo>, ErrorCode> {
        let Some(bus) = self.node.engine().nodes() else {
            return Ok(Vec::new());
        };
        let nodes = bus.nodes().await?;
        let others = nodes.iter().filter(|node| node.uid != self.node.uid());
        // A node that has just started has no statistics yet.
        Ok(others
            .filter_map(|node| serde_json::from_slice(&node.info).ok())
            .collect())
    }

    async fn send(&self, bus: &dyn NodeBus, to: Option<&str>, message: Message) -> Result<(), EngineError> {
        let envelope = Envelope {
            from: self.node.uid().to_owned(),
            message,
        };
        // Strings and numbers only, which are always JSON.
        let json = serde_json::to_vec(&envelope).unwrap_or_default();
        bus.send(to, json.into()).await
    }

    async fn handle_message(&self, bus: &dyn NodeBus, payload: &[u8]) {
        let envelope: Envelope = match serde_json::from_slice(payload) {
            Ok(envelope) => envelope,
            Err(error) => {
                let text =
                    "ignored a message of another node that this version does not know; is another version running?";
                match self.node.questions().has_warned.swap(true, Ordering::Relaxed) {
                    false => tracing::warn!(%error, "{text}"),
                    true => tracing::debug!(%error, "{text}"),
                }
                return;
            }
        };
        if envelope.from == self.node.uid() {
            return;
        }
        match envelope.message {
            Message::Command(command) => {
                // The node that sent it has reported the error.
                let _ = self.execute(command);
            }
            Message::Channels { question, pattern } => {
                for message in self.answer(question, &pattern) {
                    if let Err(error) = self.send(bus, Some(&envelope.from), message).await {
                        tracing::debug!(%error, "could not answer another node");
                        return;
                    }
                }
            }
            Message::ChannelsAnswer {
                question,
                channels,
                is_last,
            } => {
                let answer = Answer::Channels {
                    from: envelope.from,
                    channels,
                    is_last,
                };
                self.node.questions().answer(question, answer);
            }
            Message::ClientCommands {
                question,
                session,
                commands,
            } => self.take_commands(envelope.from, question, &session, &commands).await,
            Message::ClientCommandsAnswer { question, is_taken } => {
                let answer = Answer::ClientCommands { is_taken };
                self.node.questions().answer(question, answer);
            }
        }
    }

    /// Passes commands that another node has forwarded to their session. A session that is busy does not delay other messages.
    async fn take_commands(&self, from: String, question: u64, session: &str, commands: &str) {
        let session = self.node.sessions().get(session);
        let commands = BASE64_STANDARD.decode(commands).ok();
        let handle = self.clone();
        let answer = async move |is_taken| {
            let Some(bus) = handle.node.engine().nodes() else {
                return;
            };
            let answer = Message::ClientCommandsAnswer { question, is_taken };
            if let Err(error) = handle.send(bus, Some(&from), answer).await {
                tracing::debug!(%error, "could not answer another node");
            }
        };
        let (Some(session), Some(commands)) = (session, commands) else {
            tokio::spawn(async move { answer(false).await });
            return;
        };
        // Polled here, so that the commands of a session keep their order in its queue.
        let mut room = Box::pin(session.reserve_owned());
        let reserved = futures_util::poll!(&mut room);
        let deliver = move |room: Option<mpsc::OwnedPermit<Bytes>>| {
            let is_taken = room.is_some();
            room.map(|room| room.send(commands.into()));
            is_taken
        };
        match reserved {
            Poll::Ready(room) => {
                let is_taken = deliver(room.ok());
                tokio::spawn(async move { answer(is_taken).await });
            }
            Poll::Pending => {
                tokio::spawn(async move {
                    // Later, nobody waits for the answer.
                    let room = timeout(ANSWER_TIMEOUT, room).await;
                    answer(deliver(room.ok().and_then(Result::ok))).await;
                });
            }
        }
    }

    /// The channels of this node, in messages of a bounded size.
    fn answer(&self, question: u64, pattern: &str) -> Vec<Message> {
        let channels = Pattern::new(pattern).map(|pattern| self.channels_here(&pattern));
        let mut messages = Vec::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for channel in channels.unwrap_or_default() {
            bytes += channel.name.len() + 16;
            part.push((channel.name, channel.subscribers));
            if bytes > ANSWER_BYTES_MAX {
                messages.push(Message::ChannelsAnswer {
                    question,
                    channels: std::mem::take(&mut part),
                    is_last: false,
                });
                bytes = 0;
            }
        }
        messages.push(Message::ChannelsAnswer {
            question,
            channels: part,
            is_last: true,
        });
        messages
    }

    pub(super) fn channels_here(&self, pattern: &Pattern) -> Vec<ChannelStats> {
        let channels = self.node.hub().subscriber_counts().into_iter();
        channels
            .filter(|(name, _)| pattern.matches(name.as_str()))
            .map(|(name, subscribers)| ChannelStats {
                name: name.as_str().to_owned(),
                subscribers,
            })
            .collect()
    }
}

/// Passes commands of a client to its session on another node. When the call returns, they are in its queue: a client that waits
/// for that before it sends more gets them executed in order.
///
/// # Cancel safety
/// If the call is dropped, the commands may still arrive.
pub(crate) async fn forward_commands(
    node: &Arc<Node>,
    to: &str,
    session: String,
    commands: Bytes,
) -> Result<(), ForwardError> {
    let Some(bus) = node.engine().nodes() else {
        return Err(ForwardError::NoSession);
    };
    if to == node.uid() || !node.questions().is_registered(bus, to).await? {
        return Err(ForwardError::NoSession);
    }
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let (asking, mut answers) = node.questions().ask();
    let message = Message::ClientCommands {
        question: asking.1,
        session,
        commands: BASE64_STANDARD.encode(&commands),
    };
    ServerHandle::new(node.clone()).send(bus, Some(to), message).await?;
    match timeout_at(deadline, answers.recv()).await {
        Ok(Some(Answer::ClientCommands { is_taken: true })) => Ok(()),
        Ok(_) => Err(ForwardError::NoSession),
        Err(_) => Err(ForwardError::NoAnswer),
    }
}

impl From<EngineError> for ForwardError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::TooLarge => Self::TooLarge,
            _ => Self::Unreachable,
        }
    }
}

/// Runs the engine, and executes the messages of other nodes. Never returns.
pub(crate) async fn run(node: Arc<Node>) {
    let handle = ServerHandle::new(node.clone());
    let Some(bus) = node.engine().nodes() else {
        return node.engine().run().await;
    };
    let messages = async {
        loop {
            let payload = bus.next().await;
            handle.handle_message(bus, &payload).await;
        }
    };
    let infos = async {
        let mut interval = interval(INFO_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Ok(info) = serde_json::to_vec(&handle.info()) {
                bus.set_info(Bytes::from(info));
            }
        }
    };
    tokio::select! {
        () = node.engine().run() => {}
        () = messages => {}
        () = infos => {}
    }
}
