//! Calls that concern the clients of all nodes.
//!
//! A command runs on this node and is sent to all others; so are questions. Messages between nodes may be lost, so a
//! call succeeds only when each registered node has answered or has ended its registration, which a node does once its
//! clients are gone.
//!
//! Nodes of different versions work together: unknown fields are ignored, and unknown messages are
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
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::{ChannelStats, Disconnect, NodeInfo, Pattern, RefreshOptions, ServerHandle, SubscribeOptions, Target};
use crate::codes::ErrorCode;
use crate::engine::{EngineError, NodeBus};
use crate::node::Node;

/// Time for the other nodes to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the statistics of this node are refreshed for the other nodes.
const INFO_INTERVAL: Duration = Duration::from_secs(2);

/// How often a publication is stored and delivered to check the engine.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a node counts as registered after the registered nodes were read.
const REGISTRY_AGE_MAX: Duration = Duration::from_secs(2);

/// How often the registered nodes are read again because one is not among them.
const REGISTRY_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum size of the names in one message of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Maximum number of messages of answers that wait to be added up: 64 MiB. Beyond it the call fails.
const ANSWERS_MAX: usize = 256;

/// Maximum size of the channel names of all nodes in an answer. Beyond it the call fails with 106.
const CHANNELS_BYTES_MAX: usize = 128 << 20;

/// Maximum number of lists of channels that this node sends at the same time. Those who ask get no answer beyond it.
const ANSWERING_MAX: usize = 64;

/// Maximum number of commands that this node confirms at the same time. Others are executed, but not confirmed.
const CONFIRMING_MAX: usize = 4096;

/// A message between nodes, in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    /// The node that sent it.
    from: String,
    /// The number of a command that is to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    message: Message,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Command(NodeCommand),
    /// Confirms a command.
    CommandDone {
        number: u64,
    },
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
        /// Number of parts, in the last one.
        #[serde(default)]
        parts: Option<usize>,
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

/// Commands and questions to other nodes that are not answered yet.
#[derive(Debug)]
pub(crate) struct Questions {
    newest: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
    registry: tokio::sync::Mutex<Registry>,
    /// Whether an unknown message was logged as a warning.
    has_warned: AtomicBool,
    answering: Arc<Semaphore>,
    confirming: Arc<Semaphore>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            newest: AtomicU64::default(),
            waiting: Mutex::default(),
            registry: Default::default(),
            has_warned: AtomicBool::new(false),
            answering: Arc::new(Semaphore::new(ANSWERING_MAX)),
            confirming: Arc::new(Semaphore::new(CONFIRMING_MAX)),
        }
    }
}

/// The registered nodes.
#[derive(Debug, Default)]
struct Registry {
    uids: HashSet<String>,
    read: Option<Instant>,
}

impl Registry {
    /// Reads the registered nodes, at most every [`REGISTRY_INTERVAL`].
    async fn refresh(&mut self, bus: &dyn NodeBus) -> Result<(), EngineError> {
        if self.age() >= REGISTRY_INTERVAL {
            self.uids = bus.nodes().await?.into_iter().map(|node| node.uid).collect();
            self.read = Some(Instant::now());
        }
        Ok(())
    }

    fn age(&self) -> Duration {
        self.read.map_or(Duration::MAX, |read| read.elapsed())
    }
}

#[derive(Debug)]
enum Answer {
    Channels {
        from: String,
        channels: Vec<(String, usize)>,
        is_last: bool,
        parts: Option<usize>,
    },
    ClientCommands {
        is_taken: bool,
    },
}

/// The nodes that have not answered completely.
#[derive(Debug)]
struct Missing {
    nodes: HashMap<String, Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    received: usize,
    expected: Option<usize>,
}

impl Missing {
    /// Counts a part of an answer. Returns false if nobody waits for it.
    fn receive(&mut self, from: &str, is_last: bool, parts: Option<usize>) -> bool {
        let Some(node) = self.nodes.get_mut(from) else {
            return false;
        };
        node.received += 1;
        if is_last {
            // An answer of one part may not say so.
            node.expected = parts.or(Some(node.received));
        }
        if node.expected == Some(node.received) {
            self.nodes.remove(from);
        }
        true
    }
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
    /// Whether a node is registered, as far as is known. Reads the registered nodes at most every
    /// [`REGISTRY_INTERVAL`], so that invented names do not burden the engine.
    async fn is_registered(&self, bus: &dyn NodeBus, uid: &str) -> Result<bool, EngineError> {
        let mut registry = self.registry.lock().await;
        if registry.age() < REGISTRY_AGE_MAX && registry.uids.contains(uid) {
            return Ok(true);
        }
        registry.refresh(bus).await?;
        Ok(registry.uids.contains(uid))
    }

    /// Stops waiting for nodes that are no longer registered. Does nothing if the registry cannot be read or does not
    /// list this node: the engine may then have lost other registrations, too.
    async fn forget_unregistered(&self, bus: &dyn NodeBus, own_uid: &str, missing: &mut Missing) {
        let mut registry = self.registry.lock().await;
        if registry.refresh(bus).await.is_ok() && registry.uids.contains(own_uid) {
            missing.nodes.retain(|uid, _| registry.uids.contains(uid));
        }
    }

    fn ask(&self) -> (Asking<'_>, mpsc::Receiver<Answer>) {
        let question = self.newest.fetch_add(1, Ordering::Relaxed);
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        self.waiting.lock().insert(question, answers);
        (Asking(self, question), receiver)
    }

    /// Passes an answer on. If there is no room, the question fails.
    fn answer(&self, question: u64, answer: Answer) {
        let mut waiting = self.waiting.lock();
        let is_full = waiting
            .get(&question)
            .is_some_and(|answers| answers.try_send(answer).is_err());
        if is_full {
            waiting.remove(&question);
        }
    }
}

impl ServerHandle {
    /// Has the other nodes execute a command.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if the engine is not reachable, or a node that stays registered does not
    /// answer. The others have executed the command.
    pub(super) async fn command_others(&self, command: NodeCommand) -> Result<(), ErrorCode> {
        let message = |number| (Some(number), Message::Command(command));
        self.ask_others(message, |_| Ok(())).await
    }

    /// Adds the channels of the other nodes.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if a registered node does not answer, and with 106 if there are too many.
    pub(super) async fn add_channels_of_others(
        &self,
        pattern: &str,
        channels: &mut BTreeMap<String, usize>,
    ) -> Result<(), ErrorCode> {
        let pattern = pattern.to_owned();
        let mut bytes = 0;
        self.ask_others(
            |question| (None, Message::Channels { question, pattern }),
            |part| {
                for (name, subscribers) in part {
                    bytes += name.len();
                    *channels.entry(name).or_default() += subscribers;
                }
                match bytes > CHANNELS_BYTES_MAX {
                    true => Err(ErrorCode::LimitExceeded),
                    false => Ok(()),
                }
            },
        )
        .await
    }

    /// Sends a message with a number to all other nodes, and passes the parts of their answers on until all have
    /// answered.
    async fn ask_others(
        &self,
        message: impl FnOnce(u64) -> (Option<u64>, Message),
        mut add: impl FnMut(Vec<(String, usize)>) -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let Some(bus) = self.node.engine().nodes() else {
            return Ok(());
        };
        let nodes = bus.nodes().await?.into_iter().map(|node| (node.uid, Parts::default()));
        let mut missing = Missing { nodes: nodes.collect() };
        missing.nodes.remove(self.node.uid());
        let (asking, mut answers) = self.node.questions().ask();
        // Also to nodes that are not registered yet.
        let (number, message) = message(asking.1);
        self.send(bus, None, number, message).await?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut next_check = Instant::now() + REGISTRY_INTERVAL;
        while !missing.nodes.is_empty() {
            let answer = match timeout_at(next_check.min(deadline), answers.recv()).await {
                Ok(Some(answer)) => answer,
                Err(_) if Instant::now() < deadline => {
                    let questions = self.node.questions();
                    let check = questions.forget_unregistered(bus, self.node.uid(), &mut missing);
                    let _ = timeout_at(deadline, check).await;
                    next_check = Instant::now() + REGISTRY_INTERVAL;
                    continue;
                }
                Ok(None) | Err(_) => {
                    let nodes: Vec<_> = missing.nodes.keys().collect();
                    tracing::warn!(?nodes, "nodes did not answer within {ANSWER_TIMEOUT:?}");
                    return Err(ErrorCode::Internal);
                }
            };
            let Answer::Channels {
                from,
                channels,
                is_last,
                parts,
            } = answer
            else {
                continue;
            };
            if missing.receive(&from, is_last, parts) {
                add(channels)?;
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

    async fn send(
        &self,
        bus: &dyn NodeBus,
        to: Option<&str>,
        number: Option<u64>,
        message: Message,
    ) -> Result<(), EngineError> {
        let envelope = Envelope {
            from: self.node.uid().to_owned(),
            number,
            message,
        };
        // Strings and numbers only, which are always JSON.
        let json = serde_json::to_vec(&envelope).unwrap_or_default();
        bus.send(to, json.into()).await
    }

    async fn handle_message(&self, payload: &[u8]) {
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
                if let Some(number) = envelope.number {
                    let confirming = &self.node.questions().confirming;
                    self.answer(confirming, envelope.from, move |_| {
                        vec![Message::CommandDone { number }]
                    });
                }
            }
            Message::CommandDone { number } => {
                let answer = Answer::Channels {
                    from: envelope.from,
                    channels: Vec::new(),
                    is_last: true,
                    parts: None,
                };
                self.node.questions().answer(number, answer);
            }
            Message::Channels { question, pattern } => {
                let answering = &self.node.questions().answering;
                self.answer(answering, envelope.from, move |handle| {
                    handle.channels_answer(question, &pattern)
                });
            }
            Message::ChannelsAnswer {
                question,
                channels,
                is_last,
                parts,
            } => {
                let answer = Answer::Channels {
                    from: envelope.from,
                    channels,
                    is_last,
                    parts,
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

    /// Passes commands that another node has forwarded to their session. A session that is busy does not delay other
    /// messages.
    async fn take_commands(&self, from: String, question: u64, session: &str, commands: &str) {
        let session = self.node.sessions().get(session);
        let commands = BASE64_STANDARD.decode(commands).ok();
        let handle = self.clone();
        let answer = async move |is_taken| {
            let Some(bus) = handle.node.engine().nodes() else {
                return;
            };
            let answer = Message::ClientCommandsAnswer { question, is_taken };
            if let Err(error) = handle.send(bus, Some(&from), None, answer).await {
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

    /// Sends messages to another node, in a task of their own: commands of other nodes do not wait. Sends nothing if
    /// the limit is reached.
    fn answer(
        &self,
        limit: &Arc<Semaphore>,
        to: String,
        messages: impl FnOnce(&Self) -> Vec<Message> + Send + 'static,
    ) {
        let Ok(permit) = limit.clone().try_acquire_owned() else {
            tracing::warn!("did not answer another node, because too many answers are being sent");
            return;
        };
        let handle = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let Some(bus) = handle.node.engine().nodes() else {
                return;
            };
            for message in messages(&handle) {
                if let Err(error) = handle.send(bus, Some(&to), None, message).await {
                    tracing::debug!(%error, "could not answer another node");
                    return;
                }
            }
        });
    }

    /// The channels of this node, in messages of a bounded size.
    fn channels_answer(&self, question: u64, pattern: &str) -> Vec<Message> {
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
                    parts: None,
                });
                bytes = 0;
            }
        }
        messages.push(Message::ChannelsAnswer {
            question,
            channels: part,
            is_last: true,
            parts: Some(messages.len() + 1),
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

/// Passes commands of a client to its session on another node. When the call returns, they are in its queue: a client
/// that waits for that before it sends more gets them executed in order.
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
    ServerHandle::new(node.clone())
        .send(bus, Some(to), None, message)
        .await?;
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
            handle.handle_message(&payload).await;
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
    // So that metrics and the console show a failure that nobody asks for.
    let probes = async {
        loop {
            sleep(PROBE_INTERVAL).await;
            let _ = node.check_ready().await;
        }
    };
    tokio::select! {
        () = node.engine().run() => {}
        () = messages => {}
        () = probes => {}
        () = infos => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_lost_part_is_not_complete() {
        let nodes = ["a", "b"].map(|node| (node.to_owned(), Parts::default()));
        let mut missing = Missing { nodes: nodes.into() };
        assert!(missing.receive("a", false, None) && missing.receive("a", true, Some(3)));
        assert!(missing.nodes.contains_key("a"), "the second of three parts is missing");
        assert!(missing.receive("a", false, None) && !missing.nodes.contains_key("a"));
        assert!(!missing.receive("a", false, None) && !missing.receive("unknown", true, Some(1)));
        assert!(missing.receive("b", true, None) && missing.nodes.is_empty());
    }

    #[tokio::test]
    async fn a_question_with_too_many_answers_fails() {
        let questions = Questions::default();
        let (asking, mut answers) = questions.ask();
        for _ in 0..=ANSWERS_MAX {
            let answer = Answer::Channels {
                from: "a".to_owned(),
                channels: Vec::new(),
                is_last: false,
                parts: None,
            };
            questions.answer(asking.1, answer);
        }
        for _ in 0..ANSWERS_MAX {
            assert!(answers.recv().await.is_some());
        }
        assert!(answers.recv().await.is_none());
    }
}
