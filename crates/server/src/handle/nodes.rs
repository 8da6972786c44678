//! Calls that concern the clients of all nodes.
//!
//! A command is executed on this node, and sent to the others. A question is sent to the others with a number, and their
//! answers are collected. Nodes of different versions understand each other: unknown fields are ignored, and an unknown
//! message is logged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::{ChannelStats, Disconnect, NodeInfo, Pattern, RefreshOptions, ServerHandle, SubscribeOptions, Target};
use crate::codes::ErrorCode;
use crate::engine::NodeBus;
use crate::node::Node;

/// Time for the other nodes to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the statistics of this node are refreshed for the other nodes.
const INFO_INTERVAL: Duration = Duration::from_secs(2);

/// How often a publication is stored and delivered to check the engine.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

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
}

#[derive(Debug)]
struct Answer {
    from: String,
    channels: Vec<(String, usize)>,
    is_last: bool,
}

/// Ends a question when it is dropped.
struct Asking<'a>(&'a Questions, u64);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().remove(&self.1);
    }
}

impl Questions {
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
            Some(bus) => self.send(bus, None, Message::Command(command)).await,
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
            for (name, subscribers) in answer.channels {
                *channels.entry(name).or_default() += subscribers;
            }
            if answer.is_last {
                missing.remove(&answer.from);
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

    async fn send(&self, bus: &dyn NodeBus, to: Option<&str>, message: Message) -> Result<(), ErrorCode> {
        let envelope = Envelope {
            from: self.node.uid().to_owned(),
            message,
        };
        let json = serde_json::to_vec(&envelope).map_err(|_| ErrorCode::Internal)?;
        Ok(bus.send(to, json.into()).await?)
    }

    async fn handle_message(&self, bus: &dyn NodeBus, payload: &[u8]) {
        let envelope: Envelope = match serde_json::from_slice(payload) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(%error, "did not understand a message of another node; has it another version?");
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
                let waiting = self.node.questions().waiting.lock().get(&question).cloned();
                let answer = Answer {
                    from: envelope.from,
                    channels,
                    is_last,
                };
                // An answer that is lost makes the question fail.
                let _ = waiting.map(|waiting| waiting.try_send(answer));
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
