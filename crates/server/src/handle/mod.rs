//! The server API for Rust programs: publish, and manage channels and clients.

mod nodes;
mod pattern;
mod types;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::auth::Overrides;
use crate::channel::ChannelName;
use crate::codes::{ErrorCode, UnsubscribeCode};
use crate::config::{Config, ConfigError, NamespaceOptions};
use crate::engine::{Content, Epoch, History, HistoryQuery, Position, Publish, PublishOutcome, Version};
use crate::hooks::Hook;
use crate::ids::ClientId;
use crate::metrics::Source;
use crate::node::Node;
use crate::presence::ClientInfo;
use crate::protocol::Data;
use crate::queue::{Item, Queue, ServerCommand, ServerRefresh, ServerSubscribe};

use self::nodes::NodeCommand;
pub(crate) use self::nodes::{ForwardError, Questions, forward_commands, run};
pub(crate) use self::pattern::Pattern;
pub use types::{
    ChannelStats, Disconnect, HistoryOptions, HistoryPage, HistoryPublication, Member, NodeInfo, PresenceCount,
    PublishOptions, RefreshOptions, StreamPosition, SubscribeOptions, Target,
};

/// Time for [`ServerHandle::broadcast`].
const BROADCAST_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum number of channels of a broadcast into which the data is being published.
const BROADCASTS_MAX: usize = 64;

/// The server API of a running [`Server`](crate::Server): the calls of the HTTP API, for the Rust program that embeds
/// the server. Clones refer to the same server.
///
/// No permission of a namespace restricts these calls. Errors are those of the HTTP API: 102 if the namespace of the
/// channel does not exist, 107 for a name that is no channel name, 108 if the namespace has no history or presence, 106
/// for data beyond a limit.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sockeye_server::{PublishOptions, Server};
///
/// let server = Server::builder().build()?;
/// let handle = server.handle();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// tokio::spawn(server.serve(listener));
/// let position = handle.publish("room:1", PublishOptions::new(r#"{"text":"hello"}"#)).await?;
/// println!("published at offset {} of epoch {}", position.offset, position.epoch);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServerHandle {
    node: Arc<Node>,
}

impl ServerHandle {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Publishes into a channel. The publication is passed to all subscribers before this returns.
    ///
    /// The position is zero with an empty epoch if the publication is not part of a history.
    ///
    /// # Errors
    /// See [`ServerHandle`]. Data that is not JSON, or is nested more than 62 deep, fails with 107.
    ///
    /// # Cancel safety
    /// If the future is dropped, the publication may or may not have happened.
    pub async fn publish(&self, channel: &str, options: PublishOptions) -> Result<StreamPosition, ErrorCode> {
        let data = self.data(&options.data)?;
        self.publish_json(channel, data, &options).await
    }

    /// Publishes the same data into several channels. The results are in the order of the channels.
    ///
    /// This takes at most 8 s. Channels into which the data could not be published by then fail with the temporary
    /// error 100.
    ///
    /// # Errors
    /// Fails as a whole if there is no channel or the data is not valid; otherwise each channel has its own result.
    ///
    /// # Cancel safety
    /// If the future is dropped, some channels may have received the publication.
    pub async fn broadcast(
        &self,
        channels: &[impl AsRef<str>],
        options: PublishOptions,
    ) -> Result<Vec<Result<StreamPosition, ErrorCode>>, ErrorCode> {
        if channels.is_empty() {
            return Err(ErrorCode::BadRequest);
        }
        let data = self.data(&options.data)?;
        let deadline = Instant::now() + BROADCAST_TIMEOUT;
        let publish = async |channel: &str| {
            let published = timeout_at(deadline, self.publish_json(channel, data.clone(), &options));
            let published = published.await.unwrap_or(Err(ErrorCode::Internal));
            tokio::task::coop::consume_budget().await;
            published
        };
        let publishing: Vec<_> = channels.iter().map(|channel| publish(channel.as_ref())).collect();
        Ok(stream::iter(publishing).buffered(BROADCASTS_MAX).collect().await)
    }

    /// Subscribes the connected clients of a user to a channel, on all nodes. Clients that are subscribed already do
    /// not change. When this returns, the command is on its way to the clients.
    ///
    /// # Errors
    /// See [`ServerHandle`]. Fails with the temporary error 100 if a node does not confirm the command within 3 s; the
    /// others have executed it.
    ///
    /// # Cancel safety
    /// If the future is dropped, the command may have reached a part of the nodes.
    pub async fn subscribe(
        &self,
        target: impl Into<Target>,
        channel: &str,
        options: SubscribeOptions,
    ) -> Result<(), ErrorCode> {
        self.execute_everywhere(NodeCommand::Subscribe {
            target: target.into(),
            channel: channel.to_owned(),
            options,
        })
        .await
    }

    fn subscribe_here(&self, target: &Target, channel: &str, options: SubscribeOptions) -> Result<(), ErrorCode> {
        let (channel, _) = self.channel(channel)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if options.expire_at.is_some_and(|at| at <= now.as_secs() as i64) {
            return Err(ErrorCode::Expired);
        }
        let command = ServerCommand::Subscribe(ServerSubscribe {
            channel,
            info: options.info.map(|info| json(info.as_bytes())).transpose()?,
            data: options.data.map(|data| json(data.as_bytes())).transpose()?,
            expire_at: options.expire_at,
            recover_since: options.recover_since.map(|since| Position {
                epoch: Epoch::new(since.epoch),
                offset: since.offset,
            }),
            overrides: Overrides {
                presence: options.presence,
                join_leave: options.join_leave,
                force_push_join_leave: options.force_push_join_leave,
                force_positioning: options.force_positioning,
                force_recovery: options.force_recovery,
            },
        });
        self.command(target, &command);
        Ok(())
    }

    /// Ends the subscription of the connected clients of a user to a channel, or to all channels if the name is empty,
    /// on all nodes. The clients receive 2000 and do not subscribe again by themselves. A subscription that waits for
    /// the decision of the backend fails with 103. With an empty name, each client ends its subscriptions itself, shortly
    /// after this call.
    ///
    /// # Errors
    /// See [`ServerHandle`]. Fails with the temporary error 100 if a node does not confirm the command within 3 s; the
    /// others have executed it.
    ///
    /// # Cancel safety
    /// If the future is dropped, the command may have reached a part of the nodes.
    pub async fn unsubscribe(&self, target: impl Into<Target>, channel: &str) -> Result<(), ErrorCode> {
        self.execute_everywhere(NodeCommand::Unsubscribe {
            target: target.into(),
            channel: channel.to_owned(),
        })
        .await
    }

    fn unsubscribe_here(&self, target: &Target, channel: &str) -> Result<(), ErrorCode> {
        if channel.is_empty() {
            // Each client knows its channels; to look for it in all channels of the node would take long.
            self.command(target, &ServerCommand::UnsubscribeAll);
            return Ok(());
        }
        let channel = self.channel(channel)?.0;
        let asks_backend = self.node.config().hooks.has(Hook::Subscribe);
        for (client, queue) in self.clients(target) {
            if asks_backend {
                let cancel = ServerCommand::CancelSubscribe(channel.clone());
                queue.push(Item::Command(Box::new(cancel)));
            }
            self.node
                .hub()
                .end_subscription(&channel, client, UnsubscribeCode::Server);
        }
        Ok(())
    }

    /// Disconnects the clients of a user, on all nodes. With [`Disconnect::default`], they do not reconnect by
    /// themselves.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if a node does not confirm the command within 3 s. The others have executed
    /// it. A node that has died is waited for until it is not registered any more, 6 s after its death.
    ///
    /// # Cancel safety
    /// If the future is dropped, the command may have reached a part of the nodes.
    pub async fn disconnect(&self, target: impl Into<Target>, disconnect: Disconnect) -> Result<(), ErrorCode> {
        self.execute_everywhere(NodeCommand::Disconnect {
            target: target.into(),
            disconnect,
        })
        .await
    }

    fn disconnect_here(&self, target: &Target, disconnect: &Disconnect) {
        for (_, queue) in self.clients(target) {
            queue.close_with(disconnect.code, disconnect.reason.clone());
        }
    }

    /// Changes when the connections of a user expire, on all nodes.
    ///
    /// # Errors
    /// Fails with 107 if `info` is not JSON, and with the temporary error 100 if a node does not confirm the command
    /// within 3 s; the others have executed it.
    ///
    /// # Cancel safety
    /// If the future is dropped, the command may have reached a part of the nodes.
    pub async fn refresh(&self, target: impl Into<Target>, options: RefreshOptions) -> Result<(), ErrorCode> {
        self.execute_everywhere(NodeCommand::Refresh {
            target: target.into(),
            options,
        })
        .await
    }

    fn refresh_here(&self, target: &Target, options: RefreshOptions) -> Result<(), ErrorCode> {
        let command = ServerCommand::Refresh(ServerRefresh {
            is_expired: options.expired,
            expire_at: options.expire_at,
            info: options.info.map(|info| json(info.as_bytes())).transpose()?,
        });
        self.command(target, &command);
        Ok(())
    }

    /// Executes a command on this node, which may refuse it, and then on the others.
    async fn execute_everywhere(&self, command: NodeCommand) -> Result<(), ErrorCode> {
        self.execute(command.clone())?;
        self.command_others(command).await
    }

    fn execute(&self, command: NodeCommand) -> Result<(), ErrorCode> {
        match command {
            NodeCommand::Subscribe {
                target,
                channel,
                options,
            } => self.subscribe_here(&target, &channel, options),
            NodeCommand::Unsubscribe { target, channel } => self.unsubscribe_here(&target, &channel),
            NodeCommand::Disconnect { target, disconnect } => {
                self.disconnect_here(&target, &disconnect);
                Ok(())
            }
            NodeCommand::Refresh { target, options } => self.refresh_here(&target, options),
        }
    }

    /// Replaces the configuration: keys, permissions, namespaces and limits apply to connected clients with their next
    /// command. Subscriptions that are not allowed any more end: with 2000 if the namespace has been removed, and with
    /// 2502, after which SDKs subscribe again and present a token if they have one, if `allow_subscribe` forbids them.
    /// The address, the origin and host policies, compression, timeouts, the log, the limits of messages and of all
    /// connections, and the memory limits of histories stay as they were at the start.
    ///
    /// # Errors
    /// Fails if fields of the configuration contradict each other. Nothing changes then.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        config.check()?;
        self.node.reload(config);
        Ok(())
    }

    /// Replaces the certificates of a server with TLS, for new connections.
    pub fn set_tls_config(&self, tls: Arc<rustls::ServerConfig>) {
        self.node.set_tls(tls);
    }

    /// Returns the clients that are subscribed to a channel.
    ///
    /// # Errors
    /// See [`ServerHandle`].
    pub async fn presence(&self, channel: &str) -> Result<Vec<Member>, ErrorCode> {
        let members = self.members(channel).await?;
        Ok(members.iter().map(|info| Member::of(info)).collect())
    }

    /// Returns the number of clients that are subscribed to a channel, and of their users.
    ///
    /// # Errors
    /// See [`ServerHandle`].
    pub async fn presence_stats(&self, channel: &str) -> Result<PresenceCount, ErrorCode> {
        let (channel, options) = self.channel(channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        let stats = self.node.engine().presence_stats(&channel).await?;
        Ok(PresenceCount {
            clients: stats.clients,
            users: stats.users,
        })
    }

    /// Reads a part of the history of a channel, and its current position.
    ///
    /// # Errors
    /// See [`ServerHandle`]. Fails with 112 if `since` names another epoch than the current one.
    pub async fn history(&self, channel: &str, options: HistoryOptions) -> Result<HistoryPage, ErrorCode> {
        Ok(HistoryPage::of(&self.read_history(channel, options).await?))
    }

    /// Removes all publications from the history of a channel. Its position does not change.
    ///
    /// # Errors
    /// See [`ServerHandle`].
    pub async fn history_remove(&self, channel: &str) -> Result<(), ErrorCode> {
        let (channel, options) = self.channel(channel)?;
        if !options.has_history() {
            return Err(ErrorCode::NotAvailable);
        }
        Ok(self.node.engine().history_remove(&channel).await?)
    }

    /// Returns the channels with subscribers on any node whose names match a pattern, by name.
    ///
    /// `*` stands for any number of characters, `?` for one, `[a-z]` and `[!a-z]` for one inside or outside of a set,
    /// `{a,b}` for one of several patterns, and `\` makes the next character an ordinary one. The empty pattern matches
    /// all names.
    ///
    /// # Errors
    /// Fails with 107 if the pattern is not valid, and with the temporary error 100 if another node does not answer.
    ///
    /// # Cancel safety
    /// Has no effect.
    pub async fn channels(&self, pattern: &str) -> Result<Vec<ChannelStats>, ErrorCode> {
        let parsed = Pattern::new(pattern).map_err(|_| ErrorCode::BadRequest)?;
        let channels = self.channels_here(&parsed).into_iter();
        let mut channels = channels.map(|channel| (channel.name, channel.subscribers)).collect();
        self.add_channels_of_others(pattern, &mut channels).await?;
        Ok(channels
            .into_iter()
            .map(|(name, subscribers)| ChannelStats { name, subscribers })
            .collect())
    }

    /// Returns statistics of all nodes; those of the others are at most four seconds old.
    ///
    /// # Errors
    /// Fails with the temporary error 100 if the engine is not reachable.
    ///
    /// # Cancel safety
    /// Has no effect.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ErrorCode> {
        let mut nodes = self.infos_of_others().await?;
        nodes.push(self.info());
        nodes.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
        Ok(nodes)
    }

    /// Returns statistics of this node.
    pub fn info(&self) -> NodeInfo {
        let clients = self.node.clients().stats();
        let channels = self.node.hub().subscriber_counts();
        NodeInfo {
            uid: self.node.uid().to_owned(),
            name: self.node.config().name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clients: clients.clients,
            users: clients.users,
            channels: channels.len(),
            subscriptions: channels.iter().map(|(_, subscribers)| subscribers).sum(),
            uptime: self.node.uptime(),
        }
    }

    pub(crate) async fn members(&self, channel: &str) -> Result<Vec<Arc<ClientInfo>>, ErrorCode> {
        let (channel, options) = self.channel(channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        let members = self.node.engine().presence(&channel, usize::MAX).await?;
        members.ok_or(ErrorCode::LimitExceeded)
    }

    pub(crate) async fn read_history(&self, channel: &str, options: HistoryOptions) -> Result<History, ErrorCode> {
        let (channel, namespace) = self.channel(channel)?;
        if !namespace.has_history() {
            return Err(ErrorCode::NotAvailable);
        }
        let query = HistoryQuery {
            since: options.since.as_ref().map(|since| since.offset),
            limit: options.limit,
            is_reversed: options.reverse,
        };
        let history = self.node.engine().history(&channel, query).await?;
        match options.since {
            Some(since) if !since.epoch.is_empty() && since.epoch != history.top.epoch.as_str() => {
                Err(ErrorCode::UnrecoverablePosition)
            }
            _ => Ok(history),
        }
    }

    async fn publish_json(
        &self,
        channel: &str,
        data: Data,
        options: &PublishOptions,
    ) -> Result<StreamPosition, ErrorCode> {
        let (channel, _) = self.channel(channel)?;
        let key = options.idempotency_key.as_deref().filter(|key| !key.is_empty());
        let is_key_long = key.is_some_and(|key| key.len() > IDEMPOTENCY_KEY_BYTES_MAX);
        if is_key_long || options.version_epoch.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(ErrorCode::LimitExceeded);
        }
        let publish = Publish {
            content: Content {
                data,
                info: None,
                tags: (!options.tags.is_empty()).then(|| Arc::new(options.tags.clone())),
            },
            idempotency_key: key.map(Into::into),
            version: (options.version > 0).then(|| Version {
                number: options.version,
                epoch: options.version_epoch.as_str().into(),
            }),
            skips_history: options.skip_history,
        };
        let published = self.node.engine().publish(&channel, publish).await?;
        if published.outcome == PublishOutcome::Delivered {
            self.node.metrics().publication(Source::server);
        }
        Ok(StreamPosition::of(published.position))
    }

    /// Validates the data of a publication.
    fn data(&self, data: &[u8]) -> Result<Data, ErrorCode> {
        if data.len() > self.node.config().limits.publication_size_max {
            return Err(ErrorCode::LimitExceeded);
        }
        json(data)
    }

    /// Validates the name of a channel, and finds its namespace.
    pub(crate) fn channel(&self, name: &str) -> Result<(ChannelName, NamespaceOptions), ErrorCode> {
        let channel = ChannelName::new(name).map_err(|_| ErrorCode::BadRequest)?;
        let config = self.node.config();
        let options = config.namespace(name).ok_or(ErrorCode::UnknownChannel)?;
        Ok((channel, options.clone()))
    }

    fn command(&self, target: &Target, command: &ServerCommand) {
        for (_, queue) in self.clients(target) {
            queue.push(Item::Command(Box::new(command.clone())));
        }
    }

    fn clients(&self, target: &Target) -> Vec<(ClientId, Arc<Queue>)> {
        let mut clients = self.node.clients().of_user(&target.user);
        if target.client.is_some() || !target.except.is_empty() {
            clients.retain(|(id, _)| {
                let id = id.to_string();
                target.client.as_ref().is_none_or(|client| *client == id) && !target.except.contains(&id)
            });
        }
        clients
    }
}

/// The longest idempotency key in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// Validates JSON. Line breaks become spaces, because they separate the messages of a frame. A JSON string contains
/// none.
fn json(bytes: &[u8]) -> Result<Data, ErrorCode> {
    let text = std::str::from_utf8(bytes).map_err(|_| ErrorCode::BadRequest)?;
    Data::json(text.replace(['\n', '\r'], " ")).map_err(|_| ErrorCode::BadRequest)
}
