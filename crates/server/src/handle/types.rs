//! Arguments and results of the server API.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::DisconnectCode;
use crate::engine::{History, Position, Publication};
use crate::presence::ClientInfo;

/// Data to publish, with options.
///
/// ```
/// use sockeye_server::PublishOptions;
///
/// let mut options = PublishOptions::new(r#"{"price":12}"#);
/// options.idempotency_key = Some("order-17".to_owned());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishOptions {
    /// The data, as JSON.
    pub data: Vec<u8>,
    /// Tags, which subscribers can filter by.
    pub tags: BTreeMap<String, String>,
    /// A repeated publication with the same key into the same channel within five minutes is not published, and returns
    /// the position of the first. At most 256 bytes.
    pub idempotency_key: Option<String>,
    /// Version of the state that the data contains, such as a counter of the backend. A publication whose version is
    /// not higher than that of an earlier one is not published. Zero if there are no versions. Needs history.
    pub version: u64,
    /// Versions of different epochs are not compared: the later publication counts as newer. At most 256 bytes.
    pub version_epoch: String,
    /// Only delivers the publication to current subscribers, without storing it.
    pub skip_history: bool,
}

impl PublishOptions {
    /// Creates options for this data, which is JSON.
    pub fn new(data: impl Into<Vec<u8>>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }
}

/// A position in the stream of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// The offset, which counts from 1 within an epoch.
    pub offset: u64,
    /// The id of the stream. Offsets of different epochs are not comparable.
    pub epoch: String,
}

impl StreamPosition {
    pub(super) fn of(position: Position) -> Self {
        Self {
            offset: position.offset,
            epoch: position.epoch.as_str().to_owned(),
        }
    }
}

/// The clients that a call applies to: those of one user, or some of them.
///
/// ```
/// use sockeye_server::Target;
///
/// let all: Target = "ada".into();
/// assert_eq!(all, Target::user("ada"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Target {
    /// The user. Empty for anonymous clients.
    pub user: String,
    /// Only the client with this id.
    pub client: Option<String>,
    /// Not the clients with these ids.
    pub except: Vec<String>,
}

impl Target {
    /// All clients of a user.
    pub fn user(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            ..Self::default()
        }
    }
}

impl From<&str> for Target {
    fn from(user: &str) -> Self {
        Self::user(user)
    }
}

/// Options of a server-side subscription. `None` keeps what the namespace says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// Unix time in seconds at which the subscription expires.
    pub expire_at: Option<i64>,
    /// Information about the client in this channel, as JSON, shown to others as `chan_info`.
    pub info: Option<String>,
    /// Data that the client receives with the subscription, as JSON.
    pub data: Option<String>,
    /// The position from which the client receives missed publications.
    pub recover_since: Option<StreamPosition>,
    /// Whether the client takes part in presence.
    pub presence: Option<bool>,
    /// Whether the client's coming and going is announced.
    pub join_leave: Option<bool>,
    /// Whether the client receives join and leave pushes.
    pub force_push_join_leave: Option<bool>,
    /// Whether the client is told when it missed a publication.
    pub force_positioning: Option<bool>,
    /// Whether the client recovers missed publications.
    pub force_recovery: Option<bool>,
}

/// The close code and reason for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// The close code. SDKs reconnect after 3000 to 3499 and 4000 to 4499.
    pub code: u16,
    /// The reason, at most 123 bytes.
    pub reason: String,
}

impl Default for Disconnect {
    fn default() -> Self {
        DisconnectCode::ForceDisconnect.into()
    }
}

impl From<DisconnectCode> for Disconnect {
    fn from(code: DisconnectCode) -> Self {
        Self {
            code: code.code(),
            reason: code.reason().to_owned(),
        }
    }
}

/// A change of the expiry of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RefreshOptions {
    /// Whether the connections have expired: they are disconnected with 3005.
    pub expired: bool,
    /// Unix time in seconds at which the connections expire; `None` if they do not.
    pub expire_at: Option<i64>,
    /// New information about the clients, as JSON, shown to others as `conn_info`.
    pub info: Option<String>,
}

/// Selects a part of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryOptions {
    /// Maximum number of publications. With the default 0, only the position is returned.
    pub limit: usize,
    /// Only publications after this position, or before it if reversed. An empty epoch stands for the current one.
    pub since: Option<StreamPosition>,
    /// Reads from the newest to the oldest.
    pub reverse: bool,
}

/// A part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The publications.
    pub publications: Vec<HistoryPublication>,
    /// The position of the newest publication of the channel.
    pub position: StreamPosition,
}

impl HistoryPage {
    pub(super) fn of(history: &History) -> Self {
        Self {
            publications: history.publications.iter().map(HistoryPublication::of).collect(),
            position: StreamPosition::of(history.top.clone()),
        }
    }
}

/// A publication of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPublication {
    /// The data, as JSON.
    pub data: Vec<u8>,
    /// The offset in the channel.
    pub offset: u64,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// The client that published it; `None` if the server did.
    pub info: Option<Member>,
}

impl HistoryPublication {
    fn of(publication: &Publication) -> Self {
        let content = &publication.content;
        Self {
            data: content.data.as_bytes().to_owned(),
            offset: publication.offset,
            tags: content.tags.as_deref().cloned().unwrap_or_default(),
            info: content.info.as_deref().map(Member::of),
        }
    }
}

/// A client, such as a subscriber of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The id of the client.
    pub client: String,
    /// The user; empty if anonymous.
    pub user: String,
    /// Information about the connection, as JSON.
    pub conn_info: Option<String>,
}

impl Member {
    pub(crate) fn of(info: &ClientInfo) -> Self {
        Self {
            client: info.client.to_string(),
            user: info.user.to_string(),
            conn_info: info.conn_info.as_ref().map(|data| data.to_json().into_owned()),
        }
    }
}

/// The number of clients and users of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceCount {
    /// Clients.
    pub clients: usize,
    /// Distinct users; all anonymous clients count as one.
    pub users: usize,
}

/// A channel with subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The name of the channel.
    pub name: String,
    /// The number of subscribers.
    pub subscribers: usize,
}

/// Numbers about a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The random id of this run of the server.
    pub uid: String,
    /// The configured name.
    pub name: String,
    /// The version of this software.
    pub version: String,
    /// Open connections of clients.
    pub clients: usize,
    /// Distinct users; all anonymous clients count as one.
    pub users: usize,
    /// Channels with subscribers.
    pub channels: usize,
    /// Subscriptions of all clients.
    pub subscriptions: usize,
    /// Time since the server was started.
    pub uptime: Duration,
}
