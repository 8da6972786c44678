//! Presence entries and registered nodes.
//!
//! How entries are kept:
//!
//! 1. A stream in memory has one message for each channel, node and client.
//! 2. A node writes and deletes only the entries of its own clients.
//! 3. An entry is replaced if it is of an older generation, which the sequence of the replaced message ensures.
//! 4. An entry is deleted by its sequence, so that a newer one stays.
//! 5. Readers read the messages of a channel, so all nodes see a change as soon as it is stored, or, if the stream has
//!    replicas, as soon as the replica that answers has it. Whoever writes asks the leader instead, which has
//!    everything.
//! 6. A node has a lease: a message in another stream, which expires after 6 seconds. It renews the lease every 2
//!    seconds.
//! 7. Before its first lease, and after a lapse, a node registers as a member. Members without a lease are gone.
//! 8. Every node removes the entries of members that are gone, and announces the leaves. The server lets only one of
//!    them delete a message, and this one announces the leave. If the reply to a deletion is lost and the message is
//!    gone, the node announces the leave unless the client is present again. A duplicate leave is better than a stale
//!    member, but a leave must not follow the join of a present client.
//! 9. Only entries from before the leases were read are removed, so that a node that comes back keeps its new ones.
//! 10. A node that has just connected waits for 6 seconds, so that the others can renew their leases after an outage.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::cluster::{LEASE_TTL, Membership, MembershipKind, NodeEntry, PresenceEntry, StoreError};
use super::api::{self, ApiError, LastMessage, StreamInfo};
use super::direct::{self, Stored};
use super::streams::nanos;
use super::{Link, Shared};
use crate::channel::ChannelName;
use crate::ids::{ClientId, Generation};

/// Header: the generation of an entry.
const GENERATION: &str = "Sockeye-Generation";
/// Header: the leave of this entry is announced.
const ANNOUNCES: &str = "Sockeye-Announces";

/// Maximum size of all entries. Further clients cannot join.
const PRESENCE_BYTES_MAX: u64 = 256 << 20;

/// Maximum size of all leases.
const LEASES_BYTES_MAX: u64 = 8 << 20;

/// How often a change is repeated because the entry has changed.
const ATTEMPTS: u32 = 5;

/// Pause before a deletion without an answer is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Number of entries of a node that is gone that are removed at the same time.
const REMOVALS_MAX: usize = 64;

/// Number of subjects in a response of JetStream.
const SUBJECTS_PER_PAGE: usize = 100_000;

impl Shared {
    pub(super) async fn presence_put(&self, channel: &ChannelName, entry: PresenceEntry) -> Result<(), StoreError> {
        let link = self.link()?;
        let client = entry.client.to_string();
        let subject = self
            .subjects
            .presence(channel, &self.uid, &client, &user_token(&entry.user));
        // Most often there is no entry.
        let mut expected = 0;
        for _ in 0..ATTEMPTS {
            let mut headers = HeaderMap::new();
            headers.insert(GENERATION, entry.generation.0.to_string());
            if entry.announces_leave {
                headers.insert(ANNOUNCES, "1");
            }
            headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
            match api::publish(&link.client, subject.clone(), headers, entry.info.clone()).await {
                Ok(_) => return Ok(()),
                Err(ApiError::NoStream) => self.create_presence_stream(&link.client).await?,
                Err(ApiError::Conflict) => {
                    let known = api::last(&link.client, &self.subjects.presence_stream(), &subject).await?;
                    if known
                        .as_ref()
                        .is_some_and(|known| generation(known) > entry.generation.0)
                    {
                        return Ok(());
                    }
                    expected = known.map_or(0, |known| known.sequence);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict.into())
    }

    pub(super) async fn presence_remove(
        &self,
        channel: &ChannelName,
        client: ClientId,
        until: Generation,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        let stream = self.subjects.presence_stream();
        // The user is not known.
        let subject = self.subjects.presence(channel, &self.uid, &client.to_string(), "*");
        for _ in 0..ATTEMPTS {
            let known = match api::last(&link.client, &stream, &subject).await {
                Err(ApiError::NoStream) => None,
                known => known?,
            };
            let Some(known) = known.filter(|known| generation(known) <= until.0) else {
                return Ok(());
            };
            if api::delete(&link.client, &stream, known.sequence).await? {
                return Ok(());
            }
            // It was replaced meanwhile.
        }
        Err(ApiError::Conflict.into())
    }

    pub(super) async fn presence_read(&self, channel: &ChannelName) -> Result<Vec<Bytes>, StoreError> {
        let link = self.link()?;
        let mut payloads = Vec::new();
        let filter = self.subjects.presence_of_channel(channel);
        self.each_entry(link, &filter, |stored| payloads.push(stored.payload))
            .await?;
        Ok(payloads)
    }

    pub(super) async fn presence_count(&self, channel: &ChannelName) -> Result<(usize, usize), StoreError> {
        let link = self.link()?;
        let call = format!("STREAM.INFO.{}", self.subjects.presence_stream());
        let filter = self.subjects.presence_of_channel(channel);
        let (mut clients, mut users) = (0, HashSet::new());
        loop {
            let body = json!({ "subjects_filter": filter, "offset": clients });
            let info: StreamInfo = match api::call(&link.client, &call, &body).await {
                Err(ApiError::NoStream) => return Ok((0, 0)),
                info => info?,
            };
            let page = info.state.subjects.len();
            clients += page;
            for subject in info.state.subjects.keys() {
                if let Some(entry) = self.subjects.parse_presence(subject) {
                    users.insert(entry.user.to_owned());
                }
            }
            if page < SUBJECTS_PER_PAGE {
                return Ok((clients, users.len()));
            }
        }
    }

    pub(super) async fn renew_lease(&self, info: Bytes) -> Result<bool, StoreError> {
        let link = self.link()?;
        let subject = self.subjects.lease(&self.uid);
        let mut last = self.lease.load(Ordering::Relaxed);
        while last > 0 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
            match api::publish(&link.client, subject.clone(), headers, info.clone()).await {
                Ok(ack) => {
                    self.lease.store(ack.seq, Ordering::Relaxed);
                    return Ok(true);
                }
                // Only this node writes the lease: if there is a newer one, an acknowledgement was lost.
                Err(ApiError::Conflict) => {
                    let newest = api::last(&link.client, &self.subjects.lease_stream(), &subject).await?;
                    let newest = newest.map_or(0, |lease| lease.sequence);
                    last = if newest > last { newest } else { 0 };
                }
                Err(ApiError::NoStream) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Before the lease, or another node could see it without knowing that there are entries.
        let member = self.subjects.member(&self.uid);
        let register = || api::publish(&link.client, member.clone(), HeaderMap::new(), Bytes::new());
        match register().await {
            Err(ApiError::NoStream) => {
                self.create_presence_stream(&link.client).await?;
                register().await?;
            }
            registered => {
                registered?;
            }
        }
        let renew = || api::publish(&link.client, subject.clone(), HeaderMap::new(), info.clone());
        let ack = match renew().await {
            Err(ApiError::NoStream) => {
                self.create_lease_stream(&link.client).await?;
                renew().await?
            }
            ack => ack?,
        };
        self.lease.store(ack.seq, Ordering::Relaxed);
        Ok(false)
    }

    pub(super) async fn end_lease(&self) -> Result<(), StoreError> {
        let link = self.link()?;
        let last = self.lease.swap(0, Ordering::Relaxed);
        if last > 0 {
            api::delete(&link.client, &self.subjects.lease_stream(), last).await?;
        }
        Ok(())
    }

    pub(super) async fn nodes(&self) -> Result<Vec<NodeEntry>, StoreError> {
        let link = self.link()?;
        let mut nodes = Vec::new();
        let each = |stored: Stored| {
            if let Some(uid) = self.subjects.parse_lease(&stored.subject) {
                nodes.push(NodeEntry {
                    uid,
                    info: stored.payload,
                });
            }
        };
        let (stream, filter) = (self.subjects.lease_stream(), self.subjects.lease_all());
        match direct::each(&link.client, &link.replies, &stream, &filter, 0, each).await {
            Ok(()) | Err(ApiError::NoStream) => Ok(nodes),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn remove_expired_presence(self: &Arc<Self>) -> Result<usize, StoreError> {
        let link = self.link()?;
        if link.connected_for() < LEASE_TTL {
            return Ok(0);
        }
        let stream = self.subjects.presence_stream();
        let mut members = Vec::new();
        let each = |stored: Stored| {
            if let Some(uid) = self.subjects.parse_member(&stored.subject) {
                members.push((uid, stored.sequence));
            }
        };
        self.each_entry(link, &self.subjects.member_all(), each).await?;
        let is_gone = |leases: &HashSet<String>, uid: &str| !leases.contains(uid) && uid != &*self.uid;
        let leases = self.valid_leases(link).await?;
        if !members.iter().any(|(uid, _)| is_gone(&leases, uid)) {
            return Ok(0);
        }
        // Entries after this may be those of a node that has come back.
        let end = api::info(&link.client, &stream).await?.state.last_seq;
        let leases = self.valid_leases(link).await?;
        let mut removed = 0;
        for (uid, member) in members {
            if !is_gone(&leases, &uid) {
                continue;
            }
            let mut entries = Vec::new();
            self.each_entry(link, &self.subjects.presence_of_node(&uid), |stored| {
                entries.push(stored)
            })
            .await?;
            // A replica may lag behind. Nobody removes entries of a node that is not a member.
            if entries.is_empty() {
                let left = api::subjects(&link.client, &stream, &self.subjects.presence_of_node(&uid)).await?;
                if left.is_empty() {
                    api::delete(&link.client, &stream, member).await?;
                }
            }
            entries.retain(|entry| entry.sequence <= end);
            removed += self.remove_entries(entries).await?;
        }
        Ok(removed)
    }

    /// The nodes whose lease is valid, as the leader of the stream knows them.
    async fn valid_leases(&self, link: &Link) -> Result<HashSet<String>, StoreError> {
        let stream = self.subjects.lease_stream();
        match api::subjects(&link.client, &stream, &self.subjects.lease_all()).await {
            Ok(subjects) => Ok(subjects
                .iter()
                .filter_map(|subject| self.subjects.parse_lease(subject))
                .collect()),
            Err(ApiError::NoStream) => Ok(HashSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes entries of a node that is gone. Each in a task of its own, which is not cancelled between the deletion
    /// and the leave.
    async fn remove_entries(self: &Arc<Self>, mut entries: Vec<Stored>) -> Result<usize, StoreError> {
        // All nodes do this at the same time, so each begins elsewhere.
        entries.shuffle(&mut rand::rng());
        let removals = stream::iter(entries).map(|entry| {
            let shared = self.clone();
            tokio::spawn(async move { shared.remove_entry(entry).await })
        });
        let results: Vec<_> = removals.buffer_unordered(REMOVALS_MAX).collect().await;
        let mut removed = 0;
        for result in results {
            // A task fails only during a shutdown.
            removed += usize::from(result.unwrap_or(Ok(false))?);
        }
        Ok(removed)
    }

    /// Removes an entry of a node that is gone, and announces its leave. Returns false if another node did it.
    async fn remove_entry(&self, entry: Stored) -> Result<bool, StoreError> {
        let (link, stream) = (self.link()?, self.subjects.presence_stream());
        let Some(subject) = self.subjects.parse_presence(&entry.subject) else {
            return Ok(false);
        };
        let mut is_uncertain = false;
        for attempt in 1.. {
            match api::delete(&link.client, &stream, entry.sequence).await {
                Ok(true) => break,
                // Perhaps by a call whose answer was lost.
                Ok(false) if is_uncertain => break,
                Ok(false) => return Ok(false),
                Err(error) if attempt == ATTEMPTS => return Err(error.into()),
                Err(_) => is_uncertain = true,
            }
            sleep(RETRY_PAUSE).await;
        }
        // Its node may have come back and added the client again.
        let is_back = async || {
            let newest = api::last(&link.client, &stream, &entry.subject).await;
            newest.is_ok_and(|newest| newest.is_some())
        };
        if is_uncertain && is_back().await {
            return Ok(true);
        }
        if entry.header(ANNOUNCES).is_some() {
            let leave = Membership {
                kind: MembershipKind::Leave,
                info: entry.payload.clone(),
            };
            self.announce(&subject.channel, leave).await?;
        }
        tracing::debug!(channel = %subject.channel, client = subject.client, "removed a client of a node that is gone");
        Ok(true)
    }

    async fn each_entry(&self, link: &Link, filter: &str, each: impl FnMut(Stored)) -> Result<(), StoreError> {
        let stream = self.subjects.presence_stream();
        match direct::each(&link.client, &link.replies, &stream, filter, 0, each).await {
            Ok(()) | Err(ApiError::NoStream) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn create_presence_stream(&self, client: &Client) -> Result<(), ApiError> {
        let name = self.subjects.presence_stream();
        let subjects = [self.subjects.presence_all(), self.subjects.member_all()];
        // Without an age: a message stays until its node deletes it, or is gone.
        self.create_memory_stream(client, &name, &subjects, PRESENCE_BYTES_MAX, Duration::ZERO)
            .await
    }

    async fn create_lease_stream(&self, client: &Client) -> Result<(), ApiError> {
        let name = self.subjects.lease_stream();
        let subjects = [self.subjects.lease_all()];
        self.create_memory_stream(client, &name, &subjects, LEASES_BYTES_MAX, LEASE_TTL)
            .await
    }

    async fn create_memory_stream(
        &self,
        client: &Client,
        name: &str,
        subjects: &[String],
        bytes_max: u64,
        age_max: Duration,
    ) -> Result<(), ApiError> {
        let config = json!({
            "name": name,
            "subjects": subjects,
            "storage": "memory",
            // An entry must not disappear because there are too many.
            "discard": "new",
            "num_replicas": self.config.replicas,
            "max_bytes": bytes_max,
            "max_msgs_per_subject": 1,
            "max_age": nanos(age_max),
            "duplicate_window": nanos(DUPLICATE_WINDOW),
            "allow_direct": true,
        });
        match api::call::<Value>(client, &format!("STREAM.CREATE.{name}"), &config).await {
            Ok(_) | Err(ApiError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Not used, but JetStream's default is longer than leases live.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);

fn generation(message: &LastMessage) -> u64 {
    let number = message.header(GENERATION);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Identifies a user in the subjects of presence. A hash, because users may be long and contain any character.
fn user_token(user: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, user.as_bytes());
    hash.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}
