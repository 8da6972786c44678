//! Claims of verified tokens.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::rules::InvalidToken;

/// Claims of a valid connection token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(crate) struct ConnectionClaims {
    /// `sub`: the user; empty for an anonymous one.
    pub(crate) user: String,
    /// When the connection expires unless it is refreshed, in seconds since the Unix epoch: `expire_at` if present (0
    /// means never), else `exp` and the leeway. It may lie in the past if `expire_at` does.
    pub(crate) expire_at: Option<u64>,
    /// `info` or `b64info`: shown to other clients in presence, join and leave messages and publications.
    pub(crate) info: Option<Payload>,
    /// `meta`: data for the backend's hooks. It is never sent to clients.
    pub(crate) meta: Option<Box<RawValue>>,
    /// Server-side subscriptions: those of `subs`, or of `channels` if there are none. Sorted, without duplicates.
    pub(crate) subscriptions: BTreeMap<String, SubscriptionGrant>,
}

/// Claims of a valid subscription token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(crate) struct SubscriptionClaims {
    /// `sub`: the user that may subscribe; empty for an anonymous one.
    pub(crate) user: String,
    /// `channel`: the channel that may be subscribed to.
    pub(crate) channel: String,
    /// `client`: if present, the only client that may use the token.
    pub(crate) client: Option<String>,
    /// When the subscription expires unless it is refreshed, as [`ConnectionClaims::expire_at`].
    pub(crate) expire_at: Option<u64>,
    /// Options of the subscription.
    pub(crate) options: SubscriptionGrant,
}

impl SubscriptionClaims {
    /// Whether this client may use the token for this channel. If not, the subscription is refused with error 103.
    pub(crate) fn permits(&self, subscriber: &Subscriber<'_>) -> bool {
        self.channel == subscriber.channel
            && self.user == subscriber.user
            && (self.client.as_deref()).is_none_or(|client| client == subscriber.client)
    }
}

/// A client and the channel it subscribes to, for [`SubscriptionClaims::permits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber<'a> {
    /// The channel of the command.
    pub(crate) channel: &'a str,
    /// The user of the connection; empty for an anonymous one.
    pub(crate) user: &'a str,
    /// The client id of the connection.
    pub(crate) client: &'a str,
}

/// Options of a subscription that a token sets.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub(crate) struct SubscriptionGrant {
    /// `info` or `b64info`: shown to other clients in this channel.
    pub(crate) info: Option<Payload>,
    /// `data` or `b64data`: sent to the client with the subscription.
    pub(crate) data: Option<Payload>,
    /// `override`: options of the namespace that are different for this subscription.
    pub(crate) overrides: Overrides,
}

/// Options of a namespace that a token overrides; `None` keeps that of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct Overrides {
    /// Whether the client takes part in presence.
    pub(crate) presence: Option<bool>,
    /// Whether its coming and going is announced.
    pub(crate) join_leave: Option<bool>,
    /// Whether it receives join and leave messages without asking for them.
    pub(crate) force_push_join_leave: Option<bool>,
    /// Whether its position in the stream is checked without its asking for it.
    pub(crate) force_positioning: Option<bool>,
    /// Whether it recovers missed publications without asking for it.
    pub(crate) force_recovery: Option<bool>,
}

/// Data in a token.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// JSON, as it stands in the token.
    Json(Box<RawValue>),
    /// Bytes that were base64 in the token. For JSON clients they have to be JSON.
    Bytes(Vec<u8>),
}

#[cfg(test)]
impl Payload {
    /// The bytes as they are sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(json) => json.get().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Claims of RFC 7519 that every token is checked for.
#[derive(Deserialize)]
pub(super) struct RegisteredClaims {
    #[serde(default)]
    pub(super) sub: Option<String>,
    #[serde(default)]
    pub(super) exp: Option<NumericDate>,
    #[serde(default)]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default)]
    #[serde(rename = "iat")]
    pub(super) _iat: Option<NumericDate>,
    #[serde(default)]
    pub(super) aud: Option<Audience>,
    #[serde(default)]
    pub(super) iss: Option<String>,
    #[serde(default)]
    #[serde(rename = "jti")]
    pub(super) _jti: Option<String>,
    /// An empty one is an absent one.
    #[serde(default)]
    pub(super) channel: Option<String>,
    #[serde(default)]
    expire_at: Option<NumericDate>,
}

impl RegisteredClaims {
    pub(super) fn is_for_channel(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_empty())
    }

    /// When the connection or subscription expires. The leeway applies to `exp`, as in the check of the token: a token
    /// that is accepted after its `exp` must not be refused as expired afterwards.
    fn expire_at(&self, leeway: u64) -> Option<u64> {
        match self.expire_at {
            Some(NumericDate(0)) => None,
            Some(NumericDate(expire_at)) => Some(expire_at),
            None => self.exp.map(|exp| exp.0.saturating_add(leeway)),
        }
    }
}

#[derive(Deserialize)]
struct ConnectClaims {
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: Option<String>,
    #[serde(default)]
    meta: Option<Box<RawValue>>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    #[serde(default)]
    subs: Option<BTreeMap<String, SubscribeClaims>>,
}

/// Options of a subscription, in a subscription token or under `subs` in a connection token.
#[derive(Deserialize)]
struct SubscribeClaims {
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: Option<String>,
    #[serde(default, rename = "override")]
    overrides: Option<OverrideClaims>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OverrideClaims {
    presence: Option<BoolValue>,
    join_leave: Option<BoolValue>,
    force_push_join_leave: Option<BoolValue>,
    force_positioning: Option<BoolValue>,
    force_recovery: Option<BoolValue>,
}

/// `{"value": true}`; without `value`, false.
#[derive(Deserialize)]
struct BoolValue {
    #[serde(default)]
    value: bool,
}

pub(super) fn connect_token(
    registered: RegisteredClaims,
    claims: &RawValue,
    leeway: u64,
) -> Result<ConnectionClaims, InvalidToken> {
    let claims: ConnectClaims = parse(claims)?;
    let mut subscriptions = BTreeMap::new();
    for (channel, options) in claims.subs.unwrap_or_default() {
        subscriptions.insert(channel, options.into_options()?);
    }
    if subscriptions.is_empty() {
        let channels = claims.channels.unwrap_or_default().into_iter();
        subscriptions = channels
            .map(|channel| (channel, SubscriptionGrant::default()))
            .collect();
    }
    Ok(ConnectionClaims {
        expire_at: registered.expire_at(leeway),
        user: registered.sub.unwrap_or_default(),
        info: payload(claims.info, claims.b64info)?,
        meta: claims.meta,
        subscriptions,
    })
}

pub(super) fn subscribe_token(
    registered: RegisteredClaims,
    claims: &RawValue,
    leeway: u64,
) -> Result<SubscriptionClaims, InvalidToken> {
    let mut claims: SubscribeClaims = parse(claims)?;
    Ok(SubscriptionClaims {
        expire_at: registered.expire_at(leeway),
        user: registered.sub.unwrap_or_default(),
        channel: registered.channel.unwrap_or_default(),
        client: claims.client.take().filter(|client| !client.is_empty()),
        options: claims.into_options()?,
    })
}

/// Reads claims; a claim of the wrong type, or one that occurs twice, makes the token malformed.
pub(super) fn parse<'a, T: Deserialize<'a>>(claims: &'a RawValue) -> Result<T, InvalidToken> {
    // Serde would also take an array, as claims in the order of the fields.
    if !claims.get().starts_with('{') {
        return Err(InvalidToken::Claims);
    }
    serde_json::from_str(claims.get()).map_err(|_| InvalidToken::Claims)
}

impl SubscribeClaims {
    fn into_options(self) -> Result<SubscriptionGrant, InvalidToken> {
        let overrides = self.overrides.unwrap_or_default();
        let value = |value: Option<BoolValue>| value.map(|value| value.value);
        Ok(SubscriptionGrant {
            info: payload(self.info, self.b64info)?,
            data: payload(self.data, self.b64data)?,
            overrides: Overrides {
                presence: value(overrides.presence),
                join_leave: value(overrides.join_leave),
                force_push_join_leave: value(overrides.force_push_join_leave),
                force_positioning: value(overrides.force_positioning),
                force_recovery: value(overrides.force_recovery),
            },
        })
    }
}

/// Base64 comes before JSON, as in Centrifugo.
fn payload(json: Option<Box<RawValue>>, base64: Option<String>) -> Result<Option<Payload>, InvalidToken> {
    match base64.filter(|base64| !base64.is_empty()) {
        Some(base64) => {
            let bytes = BASE64_STANDARD.decode(base64).map_err(|_| InvalidToken::Claims)?;
            Ok(Some(Payload::Bytes(bytes)))
        }
        None => Ok(json.map(Payload::Json)),
    }
}

/// Seconds since the Unix epoch. A fraction is cut off; dates before the epoch become 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumericDate(pub(super) u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(seconds))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<NumericDate, E> {
                Ok(NumericDate(seconds.try_into().unwrap_or(0)))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                // The cast saturates at both ends.
                Ok(NumericDate(seconds as u64))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// `aud`: one audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}
