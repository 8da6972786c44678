//! Keeps the connection to NATS, for ever.
//!
//! The client library connects again by itself, and renews the subscriptions. This task prepares each connection, and
//! says when it is usable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event as ClientEvent, ServerInfo};
use futures_util::StreamExt;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::super::cluster::{Event, Inbox};
use super::api::{self, ApiError};
use super::config::{Login, NatsConfig};
use super::direct::{RESPONSES_MAX, Replies};
use super::live::PROPAGATION;
use super::{Link, Shared};

/// Time to connect to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between pings. The connection is lost when three have no answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Time to prepare a connection.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the next attempt to connect or to prepare.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause before a reconnection.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Messages of one subscription that wait for its task, which only moves them on. The queue takes memory only when it
/// has messages.
const SUBSCRIPTION_MESSAGES_MAX: usize = RESPONSES_MAX;

/// How often the number of connections is compared.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two comparisons of all streams with what this node has received.
const VERIFY_PAUSE: Duration = Duration::from_secs(5);

/// Commands that wait to be written.
const COMMANDS_MAX: usize = 2048;

/// The oldest version that has batched Direct Get.
const VERSION_MIN: (u64, u64) = (2, 11);

/// What the client library reports.
#[derive(Debug)]
struct Signals {
    /// Counts disconnections.
    disconnections: watch::Sender<u64>,
    /// A subscription had no room for a message.
    lost: Notify,
    /// Why the last attempt to connect failed.
    failure: Mutex<Option<String>>,
}

/// Connects, and stays connected. Never returns.
pub(super) async fn run(shared: Arc<Shared>, inbox: Arc<Inbox>) {
    let signals = Arc::new(Signals {
        disconnections: watch::Sender::new(0),
        lost: Notify::new(),
        failure: Mutex::default(),
    });
    let client = loop {
        match connect(&shared.config, signals.clone()).await {
            Ok(client) => break client,
            Err(reason) => {
                report(&inbox, &reason);
                sleep(RETRY_PAUSE * 4).await;
            }
        }
    };
    let replies = Replies::new(&client);
    let link = shared.link.get_or_init(|| Link::new(client, replies));
    while let Err(reason) = start_receiving(&shared, link, &inbox).await {
        report(&inbox, &reason);
        sleep(RETRY_PAUSE).await;
    }
    let mut disconnections = signals.disconnections.subscribe();
    let mut failure = String::new();
    loop {
        disconnections.borrow_and_update();
        let prepared = timeout(PREPARE_TIMEOUT, prepare(&shared, link, &signals)).await;
        let prepared = prepared.unwrap_or_else(|_| Err("no response in time".to_owned()));
        let connects = match prepared {
            Ok(connects) => connects,
            Err(reason) => {
                if failure != reason {
                    report(&inbox, &reason);
                    failure = reason;
                }
                sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        failure.clear();
        tracing::info!("connected to NATS");
        link.set_connected();
        inbox.connected();
        tokio::select! {
            _ = disconnections.changed() => {}
            () = until_connected_again(link, connects) => {}
            () = mark_dirty_after_losses(&signals, &inbox) => {}
            () = verify_streams(&shared, link, &inbox) => {}
        }
        report(&inbox, "the connection to NATS was lost");
    }
}

/// How often the client library has connected.
fn connects(link: &Link) -> u64 {
    link.client.statistics().connects.load(Ordering::Relaxed)
}

/// Waits for a connection after `connects`. The client library drops events, of which a disconnection may be one, when
/// many come at once.
async fn until_connected_again(link: &Link, connects_before: u64) {
    while connects(link) == connects_before {
        sleep(CHECK_INTERVAL).await;
    }
}

/// Compares the positions of all channels after a subscription had no room for a message. Never returns.
async fn mark_dirty_after_losses(signals: &Signals, inbox: &Inbox) {
    loop {
        signals.lost.notified().await;
        inbox.mark_all_dirty();
    }
}

/// Looks for losses of streams: a server of a cluster may restart without its newest publications while this node stays
/// connected to another one. Never returns.
async fn verify_streams(shared: &Shared, link: &Link, inbox: &Inbox) {
    loop {
        sleep(VERIFY_PAUSE).await;
        if let Err(error) = shared.streams.verify(&link.client).await {
            tracing::debug!(?error, "could not compare all streams");
        }
        if shared.streams.has_changed() {
            inbox.mark_all_dirty();
        }
    }
}

fn report(inbox: &Inbox, reason: &str) {
    tracing::warn!(reason, "the engine cannot be reached; trying again");
    inbox.disconnected(reason);
}

async fn connect(config: &NatsConfig, signals: Arc<Signals>) -> Result<Client, String> {
    let mut options = match &config.login {
        Login::Anonymous => ConnectOptions::new(),
        Login::Password { user, password } => ConnectOptions::with_user_and_password(user.clone(), password.clone()),
        Login::Token(token) => ConnectOptions::with_token(token.clone()),
        Login::Credentials(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|error| format!("cannot read the credentials file {}: {error}", path.display()))?,
    };
    if config.is_tls {
        options = options.require_tls(true);
        match &config.ca {
            Some(ca) => options = options.add_root_certificates(ca.clone()),
            None => options = options.tls_client_config(platform_tls()?),
        }
    }
    let options = options
        .name("sockeye")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(api::REQUEST_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .client_capacity(COMMANDS_MAX)
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::ZERO,
            attempts => {
                let pause = Duration::from_millis(50) * 2_u32.saturating_pow(attempts.min(10) as u32);
                // Not all nodes at once.
                pause.min(RECONNECT_PAUSE_MAX).mul_f64(rand::random_range(0.5..1.0))
            }
        })
        .event_callback(move |event| {
            match event {
                ClientEvent::Disconnected | ClientEvent::Closed => {
                    signals.disconnections.send_modify(|count| *count += 1)
                }
                ClientEvent::SlowConsumer(_) => signals.lost.notify_one(),
                ClientEvent::ClientError(error) => *signals.failure.lock() = Some(error.to_string()),
                ClientEvent::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
                event => tracing::debug!(%event, "NATS client"),
            }
            std::future::ready(())
        });
    options
        .connect(&config.servers)
        .await
        .map_err(|error| error.to_string())
}

fn platform_tls() -> Result<ClientConfig, String> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.and_then(BuilderVerifierExt::with_platform_verifier);
    Ok(builder.map_err(|error| error.to_string())?.with_no_client_auth())
}

/// Subscribes to what this node always receives. The client library renews the subscriptions.
async fn start_receiving(shared: &Arc<Shared>, link: &Link, inbox: &Arc<Inbox>) -> Result<(), String> {
    let responses = link.replies.clone().start(&link.client).await?;
    shared.spawn(responses);
    let mut barriers = subscribe(link, shared.subjects.barrier(&shared.uid)).await?;
    let passed = link.barriers.clone();
    shared.spawn(async move {
        while let Some(message) = barriers.next().await {
            let number = std::str::from_utf8(&message.payload)
                .ok()
                .and_then(|text| text.parse().ok());
            passed.send_modify(|passed| *passed = number.unwrap_or(*passed).max(*passed));
        }
    });
    for subject in [shared.subjects.control(&shared.uid), shared.subjects.control_all()] {
        let mut control = subscribe(link, subject).await?;
        let inbox = inbox.clone();
        shared.spawn(async move {
            while let Some(message) = control.next().await {
                inbox.push(Event::Control(message.payload));
            }
        });
    }
    Ok(())
}

async fn subscribe(link: &Link, subject: String) -> Result<async_nats::Subscriber, String> {
    link.client.subscribe(subject).await.map_err(|error| error.to_string())
}

/// Prepares a connection: when it returns, the node receives everything that is published from then on. Returns the
/// number of the connection.
async fn prepare(shared: &Arc<Shared>, link: &Link, signals: &Signals) -> Result<u64, String> {
    let is_connected = async {
        while link.client.connection_state() != State::Connected {
            sleep(RETRY_PAUSE / 10).await;
        }
    };
    if timeout(RETRY_PAUSE, is_connected).await.is_err() {
        let servers = shared.config.servers.join(", ");
        let reason = signals.failure.lock().clone();
        let reason = reason.as_deref().unwrap_or("no connection yet").to_owned();
        return Err(format!("cannot connect to NATS at {servers}: {reason}"));
    }
    // The client library counts a connection before it reports its state.
    let connects = connects(link);
    let info = link.client.server_info();
    check_version(&info)?;
    match api::call::<serde_json::Value>(&link.client, "INFO", &serde_json::Value::Null).await {
        Ok(_) => {}
        Err(ApiError::NoStream) => {
            return Err(format!(
                "JetStream is not enabled on {}, or has no leader",
                info.server_name
            ));
        }
        Err(ApiError::Store(error)) => return Err(error.to_string()),
        Err(error) => return Err(format!("{error:?}")),
    }
    // The client library has renewed the subscriptions of the last connection.
    if let Some(inbox) = shared.inbox.get() {
        shared.end_unwanted_subscriptions(inbox);
    }
    for channel in shared
        .inbox
        .get()
        .map(|inbox| inbox.subscriptions())
        .unwrap_or_default()
    {
        let subscribed = shared.subscribe_if_missing(link, &channel).await;
        subscribed.map_err(|error| error.to_string())?;
    }
    // The server has processed all subscriptions when this returns.
    shared.barrier(link).await.map_err(|error| error.to_string())?;
    if info.cluster.is_some() {
        // Other servers of the cluster learn of them a little later.
        sleep(PROPAGATION).await;
    }
    match shared.streams.verify(&link.client).await {
        // A server without replicas of its streams may be away. The others go on.
        Err(error) if info.cluster.is_none() => Err(super::StoreError::from(error).to_string()),
        _ => Ok(connects),
    }
}

/// Whether a server has what this engine needs.
fn check_version(info: &ServerInfo) -> Result<(), String> {
    let mut numbers = info.version.split(['.', '-']).map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= VERSION_MIN {
        return Ok(());
    }
    let (major, minor) = VERSION_MIN;
    Err(format!(
        "nats-server {} at {}:{} is too old: Sockeye needs {major}.{minor} or newer",
        info.version, info.host, info.port
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused() {
        let check = |version: &str| {
            check_version(&ServerInfo {
                version: version.to_owned(),
                ..ServerInfo::default()
            })
        };
        for version in ["2.11.0", "2.15.1", "3.0.0-beta.1", "2.11.0-RC.1"] {
            assert_eq!(check(version), Ok(()));
        }
        assert!(check("2.9.10").unwrap_err().contains("2.9.10") && check("").is_err() && check("1.99.0").is_err());
    }
}
