//! The URL of the engine.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use super::cluster::Store;
use super::nats::{InvalidNatsUrl, NatsConfig, NatsStore};
use super::redis::{InvalidRedisUrl, RedisConfig, RedisStore};

/// The engine that several nodes share: where they keep histories and presence, and through which they pass
/// publications.
///
/// `Debug` and `Display` show no password.
///
/// ```
/// use sockeye_server::EngineUrl;
///
/// let url: EngineUrl = "redis://127.0.0.1:6379".parse()?;
/// assert_eq!(url.to_string(), "redis://127.0.0.1:6379");
/// assert!("mysql://127.0.0.1".parse::<EngineUrl>().is_err());
/// # Ok::<(), sockeye_server::InvalidEngineUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineUrl {
    /// `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`, ..., and the same with `valkey` instead of
    /// `redis`.
    Redis(RedisConfig),
    /// `nats://` or `tls://`: NATS JetStream.
    Nats(NatsConfig),
}

/// Error: the text is not the URL of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEngineUrl(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Scheme,
    Redis(InvalidRedisUrl),
    Nats(InvalidNatsUrl),
}

impl EngineUrl {
    /// The store of the node `uid`. It connects when it is started.
    ///
    /// # Errors
    /// A file that the URL names could not be read.
    pub(crate) fn store(&self, uid: &Arc<str>) -> io::Result<Arc<dyn Store>> {
        match self {
            Self::Redis(config) => Ok(Arc::new(RedisStore::new(config, uid.clone())?)),
            Self::Nats(config) => Ok(Arc::new(NatsStore::new(config, uid.clone()))),
        }
    }
}

impl FromStr for EngineUrl {
    type Err = InvalidEngineUrl;

    fn from_str(text: &str) -> Result<Self, InvalidEngineUrl> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme.split('+').next().unwrap_or_default() {
            "redis" | "rediss" | "valkey" | "valkeys" => match text.parse() {
                Ok(config) => Ok(Self::Redis(config)),
                Err(error) => Err(InvalidEngineUrl(Kind::Redis(error))),
            },
            "nats" | "tls" => match text.parse() {
                Ok(config) => Ok(Self::Nats(config)),
                Err(error) => Err(InvalidEngineUrl(Kind::Nats(error))),
            },
            _ => Err(InvalidEngineUrl(Kind::Scheme)),
        }
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(config) => config.fmt(f),
            Self::Nats(config) => config.fmt(f),
        }
    }
}

impl fmt::Display for InvalidEngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Scheme => f.write_str(
                "must start with redis://, rediss://, redis+sentinel://, redis+cluster://, valkey://, nats:// or tls://",
            ),
            Kind::Redis(error) => error.fmt(f),
            Kind::Nats(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InvalidEngineUrl {}
