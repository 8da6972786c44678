//! Presence entries and registered nodes.
//!
//! The rule:
//!
//! 1. A stream in memory has one message for each channel, node and client.
//! 2. A node writes and deletes only the entries of its own clients.
//! 3. An entry is replaced if it is of an older generation, which the sequence of the replaced message ensures.
//! 4. An entry is deleted by its sequence, so that a newer one stays.
//! 5. Readers read the messages of a channel, so all nodes see a change as soon as it is stored.
//! 6. A node has a lease: a message in another stream, which expires after 6 seconds. It renews the lease every 2 seconds.
//! 7. Before its first lease, and after a lapse, a node registers as a member. Members without a lease are gone.
//! 8. Every node removes the entries of members that are gone, and announces the leaves. The server lets only one of them
//!    delete a message, and this one announces the leave.
//! 9. Only entries from before the leases were read are removed, so that a node that comes back keeps its new ones.
//! 10. A node that has just connected waits for 6 seconds, so that the others can renew their leases after an outage.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::cluster::{LEASE_TTL, Membership, MembershipKind, NodeEntry, PresenceEntry, StoreError};
use super::api::{self, ApiError, StreamInfo};
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
                    let known = direct::last(&link.client, &self.subjects.presence_stream(), &subject).await?;
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
        let known = match direct::last(&link.client, &stream, &subject).await {
            Err(ApiError::NoStream) => None,
            known => known?,
        };
        if let Some(known) = known
            && generation(&known) <= until.0
        {
            api::delete(&link.client, &stream, known.sequence).await?;
        }
        Ok(())
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
        let last = self.lease.load(Ordering::Relaxed);
        if last > 0 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
            match api::publish(&link.client, subject.clone(), headers, info.clone()).await {
                Ok(ack) => {
                    self.lease.store(ack.seq, Ordering::Relaxed);
                    return Ok(true);
                }
                Err(ApiError::Conflict | ApiError::NoStream) => {}
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
            registered => drop(registered?),
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

    pub(super) async fn remove_expired_presence(&self) -> Result<usize, StoreError> {
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
        let leases = self.nodes().await?;
        let is_gone = |leases: &[NodeEntry], uid: &str| !leases.iter().any(|node| node.uid == uid) && uid != &*self.uid;
        if !members.iter().any(|(uid, _)| is_gone(&leases, uid)) {
            return Ok(0);
        }
        // Entries after this may be those of a node that has come back.
        let end = api::info(&link.client, &stream).await?.state.last_seq;
        let leases = self.nodes().await?;
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
            if entries.is_empty() {
                api::delete(&link.client, &stream, member).await?;
            }
            for entry in entries.into_iter().filter(|entry| entry.sequence <= end) {
                removed += usize::from(self.remove_entry(link, &stream, entry).await?);
            }
        }
        Ok(removed)
    }

    /// Removes an entry of a node that is gone, and announces its leave. Returns false if another node did it.
    async fn remove_entry(&self, link: &Link, stream: &str, entry: Stored) -> Result<bool, StoreError> {
        let Some(subject) = self.subjects.parse_presence(&entry.subject) else {
            return Ok(false);
        };
        if !api::delete(&link.client, stream, entry.sequence).await? {
            return Ok(false);
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

fn generation(stored: &Stored) -> u64 {
    stored
        .header(GENERATION)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Identifies a user in the subjects of presence. A hash, because users may be long and contain any character.
fn user_token(user: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, user.as_bytes());
    hash.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}
