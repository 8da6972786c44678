//! The connections to one server: one for commands, one for events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{Either, join_all, select, try_join_all};
use parking_lot::Mutex;
use redis::{Cmd, PushInfo, PushKind, RedisError, Value};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::config::{Address, Deployment, Durability};
use super::dial::{Connection, DIAL_TIMEOUT, Role};

/// Number of channels in one command.
pub(super) const SUBSCRIBE_BATCH: usize = 500;

/// The connections to one primary server.
pub(super) struct Link {
    address: Address,
    commands: Connection,
    events: Connection,
    subscriptions: Arc<Subscriptions>,
    replication: Replication,
    /// Identifies the data set of the server: streams that were written under another one get a new epoch, unless they
    /// were moved here.
    lineage: Box<str>,
    is_sharded: bool,
    /// Whether the process has become a replica, and so has given its slots to another server.
    is_demoted: AtomicBool,
    closed: CancellationToken,
}

/// What a server says about its data.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replication {
    is_primary: bool,
    /// The replication id. A server draws a new one when it starts and when it becomes the primary, but also when its
    /// first replica connects, and when it has had no replica for `repl-backlog-ttl`, an hour by default.
    id: String,
    /// Names the process.
    run_id: String,
    /// Whether this process was a replica before, as long as it has the backlog from that time.
    was_promoted: bool,
}

impl Replication {
    /// Whether a server in this state still has the data that it had in the state `before`, and has not received other
    /// data.
    fn continues(&self, before: &Self) -> bool {
        let is_same_process = !self.run_id.is_empty() && self.run_id == before.run_id;
        self.is_primary && (self.id == before.id || is_same_process && !self.was_promoted)
    }
}

/// The pub/sub channels of a connection.
#[derive(Default)]
struct Subscriptions {
    by_name: Mutex<HashMap<String, Subscription>>,
}

enum Subscription {
    Waiting(Vec<oneshot::Sender<()>>),
    Confirmed,
}

impl Link {
    /// Connects to a primary, and reads what its epochs depend on.
    pub(super) async fn open(shared: &Arc<Shared>, address: &Address) -> Result<Self, String> {
        let subscriptions = Arc::new(Subscriptions::default());
        let on_push = {
            let (shared, subscriptions) = (Arc::downgrade(shared), subscriptions.clone());
            move |push: PushInfo| {
                if let Some(shared) = shared.upgrade() {
                    receive(&shared, &subscriptions, push);
                }
            }
        };
        let dialer = &shared.dialer;
        let (commands, events) = futures_util::try_join!(
            dialer.dial(address, Role::Server, |_| {}),
            dialer.dial(address, Role::Server, on_push)
        )?;
        let identify = identify(shared, &commands);
        let (replication, lineage) = match timeout(DIAL_TIMEOUT, identify).await {
            Ok(result) => result.map_err(|error| format!("{address}: {error}"))?,
            Err(_) => return Err(format!("{address}: no answer within {DIAL_TIMEOUT:?}")),
        };
        Ok(Self {
            address: address.clone(),
            commands,
            events,
            subscriptions,
            replication,
            lineage: lineage.into(),
            is_sharded: shared.is_cluster(),
            is_demoted: AtomicBool::new(false),
            closed: CancellationToken::new(),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn commands(&self) -> &Connection {
        &self.commands
    }

    pub(super) fn lineage(&self) -> &str {
        &self.lineage
    }

    /// Names the process of the server.
    pub(super) fn run_id(&self) -> &str {
        &self.replication.run_id
    }

    /// Whether [`Self::verify`] has found the same process as a replica.
    pub(super) fn is_demoted(&self) -> bool {
        self.is_demoted.load(Ordering::Relaxed)
    }

    /// Marks the connections as unusable.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.closed.is_cancelled() || self.commands.lost().is_cancelled() || self.events.lost().is_cancelled()
    }

    /// Waits until one of the connections is lost.
    pub(super) async fn lost(&self) {
        tokio::select! {
            () = self.closed.cancelled() => {}
            () = self.commands.lost().cancelled() => {}
            () = self.events.lost().cancelled() => {}
        }
    }

    /// Checks that both connections answer, and that the server still has the data that it had when they were made. If
    /// not, closes them.
    pub(super) async fn verify(&self) -> Result<(), String> {
        let mut commands = self.commands.commands();
        let mut events = self.events.commands();
        let ping = async {
            Cmd::new()
                .arg("PING")
                .to_owned()
                .query_async::<Value>(&mut events)
                .await
        };
        let check = async { futures_util::try_join!(read_replication(&mut commands), ping) };
        let reason = match timeout(super::CHECK_TIMEOUT, check).await {
            // The servers of a cluster have no other lineage than their replication id.
            Ok(Ok((replication, _))) if self.is_sharded && replication == self.replication => return Ok(()),
            Ok(Ok((replication, _))) if !self.is_sharded && replication.continues(&self.replication) => return Ok(()),
            Ok(Ok((replication, _))) if !replication.is_primary => {
                let is_same_process = !self.run_id().is_empty() && replication.run_id == self.run_id();
                self.is_demoted.store(is_same_process, Ordering::Relaxed);
                "the server is not the primary any more".to_owned()
            }
            Ok(Ok(_)) => "the server has begun a new history".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the server does not answer".to_owned(),
        };
        self.close();
        Err(format!("{}: {reason}", self.address))
    }

    /// Subscribes to pub/sub channels, and waits until the server has confirmed them.
    pub(super) async fn subscribe(&self, names: &[String]) -> Result<(), RedisError> {
        for batch in names.chunks(SUBSCRIBE_BATCH) {
            let confirmed = join_all(batch.iter().map(|name| self.subscriptions.wait(name)));
            let mut events = self.events.commands();
            // The client library may match an unsolicited push to this command, so the pushes with the names of the
            // channels confirm, not the replies.
            let replies = async {
                if !self.is_sharded {
                    return events.subscribe(batch).await;
                }
                // One command may name channels of one slot only.
                let subscribe = batch.iter().map(|name| {
                    let mut events = events.clone();
                    async move {
                        let mut command = Cmd::new();
                        command.arg("SSUBSCRIBE").arg(name);
                        command.query_async::<Value>(&mut events).await
                    }
                });
                try_join_all(subscribe).await.map(drop)
            };
            match select(confirmed, Box::pin(replies)).await {
                Either::Left(_) => {}
                Either::Right((Ok(()), confirmed)) => drop(confirmed.await),
                Either::Right((Err(error), _)) => {
                    self.subscriptions.forget(batch);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, name: &str) -> Result<(), RedisError> {
        if self.subscriptions.by_name.lock().remove(name).is_none() {
            return Ok(());
        }
        let mut events = self.events.commands();
        let command = if self.is_sharded { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        Cmd::new()
            .arg(command)
            .arg(name)
            .to_owned()
            .query_async::<Value>(&mut events)
            .await?;
        Ok(())
    }

    /// Whether the server has confirmed a subscription.
    pub(super) fn is_subscribed(&self, name: &str) -> bool {
        matches!(
            self.subscriptions.by_name.lock().get(name),
            Some(Subscription::Confirmed)
        )
    }
}

impl Subscriptions {
    /// Returns a future that ends when the server has confirmed the subscription.
    fn wait(&self, name: &str) -> impl Future<Output = ()> + use<> {
        let (sender, receiver) = oneshot::channel();
        let mut by_name = self.by_name.lock();
        match by_name.get_mut(name) {
            Some(Subscription::Waiting(waiting)) => waiting.push(sender),
            Some(Subscription::Confirmed) => drop(sender),
            None => drop(by_name.insert(name.to_owned(), Subscription::Waiting(vec![sender]))),
        }
        async move { drop(receiver.await) }
    }

    fn forget(&self, names: &[String]) {
        let mut by_name = self.by_name.lock();
        for name in names {
            if let Some(Subscription::Waiting(_)) = by_name.get(name) {
                by_name.remove(name);
            }
        }
    }

    fn confirm(&self, name: &str) {
        if let Some(subscription) = self.by_name.lock().get_mut(name)
            && let Subscription::Waiting(waiting) = std::mem::replace(subscription, Subscription::Confirmed)
        {
            for waiting in waiting {
                // The caller may have given up.
                let _ = waiting.send(());
            }
        }
    }

    /// Removes a subscription that the server has ended. Returns whether nobody asked for that.
    fn end(&self, name: &str) -> bool {
        let mut by_name = self.by_name.lock();
        let is_moved = matches!(by_name.get(name), Some(Subscription::Confirmed));
        if is_moved {
            by_name.remove(name);
        }
        is_moved
    }
}

/// Takes a message of the server. Runs in the task of the connection, so it must not block.
fn receive(shared: &Shared, subscriptions: &Subscriptions, push: PushInfo) {
    let mut data = push.data.into_iter();
    let Some(Value::BulkString(name)) = data.next() else {
        return;
    };
    match push.kind {
        PushKind::Message | PushKind::SMessage => {
            if let Some(Value::BulkString(message)) = data.next() {
                shared.receive(&name, message.into());
            }
        }
        kind => {
            let Ok(name) = std::str::from_utf8(&name) else { return };
            match kind {
                PushKind::Subscribe | PushKind::SSubscribe => subscriptions.confirm(name),
                // Nobody asked for it: the server does not have the slot any more.
                PushKind::Unsubscribe | PushKind::SUnsubscribe if subscriptions.end(name) => {
                    shared.look_again.notify_one()
                }
                _ => {}
            }
        }
    }
}

async fn identify(shared: &Shared, connection: &Connection) -> Result<(Replication, String), RedisError> {
    let mut commands = connection.commands();
    let replication = read_replication(&mut commands).await?;
    if !replication.is_primary {
        let error = (redis::ErrorKind::Client, "the server is a replica");
        return Err(error.into());
    }
    shared.warn_of_eviction(&mut commands).await;
    if shared.config.deployment == Deployment::Cluster {
        let lineage = replication.id.clone();
        shared
            .lineages
            .note_link(&lineage, &replication.run_id, replication.was_promoted);
        return Ok((replication, lineage));
    }
    let syncs = match shared.config.durability {
        Durability::Always => true,
        Durability::None => false,
        Durability::Auto => syncs_every_write(&mut commands).await,
    };
    if !shared.has_told_durability.swap(true, Ordering::Relaxed) {
        match syncs {
            true => tracing::info!("the engine syncs each write: histories continue after it restarts"),
            false => tracing::info!("the engine may lose writes when it restarts: histories then begin a new epoch"),
        }
    }
    let key = shared.names.lineage();
    let call = shared.scripts.lineage.call().key(key).argument(replication.id.as_str());
    let flag = |is: bool| if is { "1" } else { "0" };
    let call = call
        .argument(flag(syncs))
        .argument(replication.run_id.as_str())
        .argument(flag(replication.was_promoted));
    let lineage = redis::from_redis_value(call.run(&mut commands, false).await?)?;
    Ok((replication, lineage))
}

async fn read_replication(commands: &mut redis::aio::MultiplexedConnection) -> Result<Replication, RedisError> {
    let mut other = commands.clone();
    // Servers before Redis 7 take one section only.
    let (replication, server) = futures_util::try_join!(info(commands, "replication"), info(&mut other, "server"))?;
    Ok(Replication {
        is_primary: field(&replication, "role") == Some("master"),
        id: field(&replication, "master_replid").unwrap_or_default().to_owned(),
        run_id: field(&server, "run_id").unwrap_or_default().to_owned(),
        was_promoted: field(&replication, "master_replid2").is_none_or(|id| id.bytes().any(|byte| byte != b'0')),
    })
}

async fn info(commands: &mut redis::aio::MultiplexedConnection, section: &str) -> Result<String, RedisError> {
    Cmd::new()
        .arg("INFO")
        .arg(section)
        .to_owned()
        .query_async(commands)
        .await
}

/// A field of an answer to `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
        .next()
}

/// Whether the server has all publications after a restart. False if it does not tell.
async fn syncs_every_write(commands: &mut redis::aio::MultiplexedConnection) -> bool {
    let config = Cmd::new()
        .arg("CONFIG")
        .arg("GET")
        .arg("append*")
        .to_owned()
        .query_async::<HashMap<String, String>>(commands)
        .await
        .unwrap_or_default();
    let is = |name: &str, value: &str| config.get(name).is_some_and(|is| is == value);
    is("appendonly", "yes") && is("appendfsync", "always")
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.address)
    }
}
