//! The task that keeps the connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Shared;
use super::link::{Link, SUBSCRIBE_BATCH};
use super::names::slot;
use super::topology::{Topology, resolve};
use crate::channel::ChannelName;

/// Pause before the servers are looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause, after several attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often connections and topology are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time for a server to confirm the subscriptions of one command.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What [`connect`] did.
struct Connected {
    /// Whether there are connections that were not there before.
    is_new: bool,
    /// Why some servers of a cluster could not be reached.
    incomplete: Option<String>,
}

/// Connects, and connects again whenever a connection is lost. Never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut is_connected = false;
    let mut failures = 0;
    loop {
        // Each of its steps has a deadline.
        let retry = match connect(&shared, is_connected).await {
            Ok(connected) => {
                if connected.is_new {
                    if !is_connected {
                        tracing::info!(engine = %shared.config, "connected to the engine");
                    }
                    shared.inbox().connected();
                }
                is_connected = true;
                if let Some(reason) = &connected.incomplete {
                    tracing::warn!(%reason, "a server of the engine cannot be reached; trying again");
                }
                connected.incomplete.is_some()
            }
            Err(reason) => {
                if is_connected || failures == 0 {
                    tracing::warn!(engine = %shared.config, %reason, "the engine cannot be reached; trying again");
                }
                is_connected = false;
                shared.inbox().disconnected(&reason);
                true
            }
        };
        failures = if retry { failures + 1 } else { 0 };
        if retry {
            let pause = RETRY_PAUSE * 2_u32.saturating_pow(failures.min(5) - 1);
            let topology = shared.topology();
            // In a cluster, other servers may be lost meanwhile.
            futures_util::join!(sleep(pause.min(RETRY_PAUSE_MAX)), verify_links(&topology));
        } else {
            wait_for_change(&shared).await;
        }
        let has_links = shared.topology().links.iter().any(|link| !link.is_lost());
        if is_connected && (!has_links || shared.must_reconnect.load(Ordering::Relaxed)) {
            is_connected = false;
            shared.inbox().disconnected("the connection was lost");
        }
    }
}

/// Waits until a connection is lost, or the topology may have changed.
async fn wait_for_change(shared: &Shared) {
    let mut next = Instant::now() + CHECK_INTERVAL;
    loop {
        let topology = shared.topology();
        let lost = topology.links.iter().map(|link| Box::pin(link.lost()));
        tokio::select! {
            _ = futures_util::future::select_all(lost) => return,
            () = shared.look_again.notified() => return,
            () = sleep_until(next) => {}
        }
        let ((), primaries) = futures_util::join!(verify_links(&topology), resolve(shared, &topology.links));
        // Servers that did not answer do not count.
        if primaries.is_ok_and(|primaries| primaries != topology.primaries)
            || topology.links.iter().any(|link| link.is_lost())
        {
            return;
        }
        next = Instant::now() + CHECK_INTERVAL;
    }
}

/// Closes the connections to servers that do not answer, or have other data than before.
async fn verify_links(topology: &Topology) {
    let usable = topology.links.iter().filter(|link| !link.is_lost());
    let checks = join_all(usable.map(|link| link.verify())).await;
    for reason in checks.into_iter().filter_map(Result::err) {
        tracing::warn!(%reason, "a server of the engine is lost");
    }
}

/// Makes the connections that are missing, and subscribes on them.
async fn connect(shared: &Arc<Shared>, is_connected: bool) -> Result<Connected, String> {
    let before = shared.topology();
    let must_reconnect = shared.must_reconnect.swap(false, Ordering::Relaxed);
    let usable: Vec<_> = before
        .links
        .iter()
        .filter(|link| !must_reconnect && !link.is_lost())
        .cloned()
        .collect();
    let primaries = resolve(shared, &usable).await?;
    if primaries.is_empty() {
        return Err("the cluster has no slots".to_owned());
    }
    let links = join_all(primaries.iter().map(async |primary| {
        match usable.iter().find(|link| *link.address() == primary.address) {
            Some(link) => Ok((link.clone(), false)),
            None => Link::open(shared, &primary.address)
                .await
                .map(|link| (Arc::new(link), true)),
        }
    }))
    .await;
    let mut incomplete = None;
    let mut is_new = !is_connected;
    let mut made = Vec::new();
    let mut demoted = Vec::new();
    for (primary, result) in primaries.iter().zip(links) {
        match result {
            Ok((link, is_link_new)) => {
                is_new |= is_link_new;
                made.push(link);
            }
            Err(reason) => {
                incomplete = Some(reason);
                // The others do not know yet who has its slots now. When they do, its lineage must still be known.
                let is_it = |link: &&Arc<Link>| *link.address() == primary.address && link.is_demoted();
                demoted.extend(before.links.iter().find(is_it).cloned());
            }
        }
    }
    if made.is_empty() {
        return Err(incomplete.unwrap_or_default());
    }
    made.extend(demoted);
    if !is_connected {
        // What was changed during the outage was not passed on.
        *shared.wanted.lock() = shared.inbox().subscriptions().into_iter().collect();
    }
    *shared.known.lock() = primaries.iter().map(|primary| primary.address.clone()).collect();
    let topology = Arc::new(Topology::new(primaries, made));
    if shared.is_cluster() {
        shared.lineages.note_owners(&before.owners(), &topology.owners());
    }
    let mut moved = subscribe_missing(shared, &topology, &mut incomplete).await;
    if let (false, Some(reason)) = (shared.is_cluster(), &incomplete) {
        topology.links.iter().for_each(|link| link.close());
        return Err(reason.clone());
    }
    if is_new {
        shared.begin_lease(&topology).await?;
    }
    shared.topology.send_replace(topology.clone());
    // Channels that were subscribed on the old connections in the meantime.
    moved.extend(subscribe_missing(shared, &topology, &mut incomplete).await);
    for link in before
        .links
        .iter()
        .filter(|old| !topology.links.iter().any(|link| Arc::ptr_eq(link, old)))
    {
        link.close();
    }
    if !is_new {
        // Otherwise the positions of all channels are compared.
        moved.iter().for_each(|channel| shared.inbox().mark_dirty(channel));
    }
    Ok(Connected { is_new, incomplete })
}

/// Subscribes to all channels that are wanted and not subscribed, each on its server. Returns them.
async fn subscribe_missing(shared: &Shared, topology: &Topology, incomplete: &mut Option<String>) -> Vec<ChannelName> {
    let mut channels = Vec::new();
    let mut by_address: HashMap<_, Vec<String>> = HashMap::new();
    let mut add = |name: String| {
        let link = topology.link(slot(name.as_bytes()));
        let link = link.filter(|link| !link.is_subscribed(&name));
        link.map(|link| by_address.entry(link.address()).or_default().push(name))
    };
    add(shared.names.control());
    add(shared.names.node(&shared.uid));
    for channel in shared.wanted.lock().iter() {
        if add(shared.names.channel(channel)).is_some() {
            channels.push(channel.clone());
        }
    }
    let results = join_all(by_address.iter().map(async |(address, names)| {
        let link = topology.links.iter().find(|link| link.address() == *address);
        let link = link.ok_or_else(|| format!("{address}: lost"))?;
        for names in names.chunks(SUBSCRIBE_BATCH) {
            match timeout(SUBSCRIBE_TIMEOUT, link.subscribe(names)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(format!("{address}: {error}")),
                Err(_) => {
                    link.close();
                    return Err(format!("{address}: does not confirm subscriptions"));
                }
            }
        }
        Ok(())
    }))
    .await;
    *incomplete = incomplete.take().or(results.into_iter().find_map(Result::err));
    channels
}
