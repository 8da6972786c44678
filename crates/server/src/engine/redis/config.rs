//! Where Redis is: the URL of the engine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A Redis or Valkey installation that all nodes share.
///
/// Parsed from a URL:
///
/// | URL | for |
/// |---|---|
/// | `redis://[user:password@]host[:port][/database]` | a single server |
/// | `redis+sentinel://[user:password@]host[:port],host[:port]/master[/database]` | the server that Sentinel names |
/// | `redis+cluster://[user:password@]host[:port],host[:port]` | Redis Cluster; any of its servers |
///
/// With `rediss` instead of `redis` all connections use TLS. `valkey` and `valkeys` mean the same as `redis` and
/// `rediss`. User, password and the values of the query are percent-encoded. Query parameters:
///
/// | parameter | meaning |
/// |---|---|
/// | `prefix` | start of all keys and pub/sub channels: several installations of Sockeye can share a server. `sockeye` by default |
/// | `durability` | `auto` (default): asks the server whether it syncs every write (`appendonly yes`, `appendfsync always`), so that streams continue after its restart; `always`: assume that it does, for users that may not run `CONFIG GET`; `none`: assume that it does not |
/// | `ca` | file with the certificates, in PEM, that sign those of the servers, instead of the platform's |
/// | `sentinel_user`, `sentinel_password` | credentials for Sentinel, which are not those of the server |
///
/// A user with limited rights (`ACL SETUSER`) needs the keys and channels that start with the prefix, and the commands
/// `+@all -@dangerous +info +config|get`, and before Redis 7 in a cluster `+cluster`. Without `CONFIG GET`, `auto`
/// means `none`.
///
/// `Debug` and `Display` leave out the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub(super) deployment: Deployment,
    /// The servers to ask first; at least one.
    pub(super) addresses: Vec<Address>,
    pub(super) uses_tls: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) credentials: Credentials,
    pub(super) sentinel_credentials: Credentials,
    pub(super) database: u32,
    pub(super) prefix: Box<str>,
    pub(super) durability: Durability,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deployment {
    Single,
    Sentinel { master: Box<str> },
    Cluster,
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

/// User and password. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: Option<Box<str>>,
    pub(super) password: Option<Box<str>>,
}

/// Whether the server has all publications after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// As its configuration says.
    Auto,
    Always,
    None,
}

/// Why a URL is not one of a Redis installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRedisUrl(String);

/// Longest prefix of keys, in bytes.
const PREFIX_LEN_MAX: usize = 64;

impl FromStr for RedisConfig {
    type Err = InvalidRedisUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let invalid = |reason: &str| InvalidRedisUrl(reason.to_owned());
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("the URL has no scheme: expected redis://host:port"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        let mut path = path.split('/').filter(|segment| !segment.is_empty());
        let (tls, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let uses_tls = match tls {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => {
                return Err(invalid(
                    "unknown scheme: expected redis, rediss, redis+sentinel, rediss+sentinel, redis+cluster or rediss+cluster",
                ));
            }
        };
        let (deployment, port) = match kind {
            "" => (Deployment::Single, 6379),
            "cluster" => (Deployment::Cluster, 6379),
            "sentinel" => {
                let master = path.next().ok_or_else(|| {
                    invalid("a Sentinel URL ends with the name of the master: redis+sentinel://host/mymaster")
                })?;
                let master = decode(master)?.into();
                (Deployment::Sentinel { master }, 26379)
            }
            _ => return Err(invalid("unknown scheme after `+`: expected sentinel or cluster")),
        };
        let database = match path.next() {
            Some(number) => number
                .parse()
                .map_err(|_| invalid("the database after the last `/` is not a number"))?,
            None => 0,
        };
        if path.next().is_some() {
            return Err(invalid("the path has too many segments"));
        }
        let addresses = hosts
            .split(',')
            .map(|host| Address::parse(host, port))
            .collect::<Result<Vec<_>, _>>()?;
        match deployment {
            Deployment::Single if addresses.len() > 1 => {
                return Err(invalid("several hosts need redis+sentinel:// or redis+cluster://"));
            }
            Deployment::Cluster if database != 0 => return Err(invalid("Redis Cluster has only the database 0")),
            _ => {}
        }
        let mut config = Self {
            deployment,
            addresses,
            uses_tls,
            ca: None,
            credentials: userinfo.map_or(Ok(Credentials::default()), Credentials::parse)?,
            sentinel_credentials: Credentials::default(),
            database,
            prefix: "sockeye".into(),
            durability: Durability::Auto,
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            config.set(name, &decode(value)?)?;
        }
        Ok(config)
    }
}

impl RedisConfig {
    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidRedisUrl> {
        let is_sentinel = matches!(self.deployment, Deployment::Sentinel { .. });
        match name {
            "prefix" => {
                let is_valid = |c: char| c.is_ascii_alphanumeric() || "_.-:".contains(c);
                if value.is_empty() || value.len() > PREFIX_LEN_MAX || !value.chars().all(is_valid) {
                    let reason =
                        format!("the prefix must be 1 to {PREFIX_LEN_MAX} of the characters a-z A-Z 0-9 _ . - :");
                    return Err(InvalidRedisUrl(reason));
                }
                self.prefix = value.into();
            }
            "durability" => {
                self.durability = match value {
                    "auto" => Durability::Auto,
                    "always" => Durability::Always,
                    "none" => Durability::None,
                    _ => return Err(InvalidRedisUrl("durability must be auto, always or none".into())),
                }
            }
            "ca" if self.uses_tls => self.ca = Some(value.into()),
            "ca" => {
                return Err(InvalidRedisUrl(
                    "the parameter `ca` needs a scheme with TLS: rediss".into(),
                ));
            }
            "sentinel_user" if is_sentinel => self.sentinel_credentials.user = Some(value.into()),
            "sentinel_password" if is_sentinel => self.sentinel_credentials.password = Some(value.into()),
            _ => return Err(InvalidRedisUrl(format!("unknown parameter `{name}`"))),
        }
        Ok(())
    }
}

impl Address {
    fn parse(text: &str, default_port: u16) -> Result<Self, InvalidRedisUrl> {
        let invalid = || InvalidRedisUrl(format!("`{text}` is not a host with a port"));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
                (host, port.strip_prefix(':').or((port.is_empty()).then_some("")))
            }
            None => text
                .split_once(':')
                .map_or((text, Some("")), |(host, port)| (host, Some(port))),
        };
        let port = match port.ok_or_else(invalid)? {
            "" => default_port,
            port => port.parse().map_err(|_| invalid())?,
        };
        match host.is_empty() {
            true => Err(InvalidRedisUrl("the URL has no host".into())),
            false => Ok(Self {
                host: host.into(),
                port,
            }),
        }
    }
}

impl Credentials {
    fn parse(userinfo: &str) -> Result<Self, InvalidRedisUrl> {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let part = |text: &str| Ok((!text.is_empty()).then(|| decode(text)).transpose()?.map(Into::into));
        Ok(Self {
            user: part(user)?,
            password: part(password)?,
        })
    }
}

/// Decodes percent-encoding. The error does not contain the text, which may be a password.
fn decode(text: &str) -> Result<String, InvalidRedisUrl> {
    let invalid =
        || InvalidRedisUrl("`%` must be followed by two hexadecimal digits, and the result must be UTF-8".into());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or_else(invalid)?;
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or_else(invalid);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.uses_tls { "rediss" } else { "redis" })?;
        f.write_str(match self.deployment {
            Deployment::Single => "://",
            Deployment::Sentinel { .. } => "+sentinel://",
            Deployment::Cluster => "+cluster://",
        })?;
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index > 0 { "," } else { "" })?;
        }
        if let Deployment::Sentinel { master } = &self.deployment {
            write!(f, "/{master}")?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConfig({self}, prefix {})", self.prefix)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl fmt::Display for InvalidRedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidRedisUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expect: &str) -> RedisConfig {
        let config: RedisConfig = url.parse().unwrap();
        assert_eq!(config.to_string(), expect);
        config
    }

    #[test]
    fn urls_of_all_deployments() {
        check("redis://localhost", "redis://localhost:6379");
        check("redis://[::1]:7000/2", "redis://[::1]:7000/2");
        check("rediss+sentinel://a,b:1/main/3", "rediss+sentinel://a:26379,b:1/main/3");
        check("redis+cluster://a:7000,b:7001", "redis+cluster://a:7000,b:7001");
        let config = check(
            "rediss://ada:p%40ss%3A@host?prefix=team:a&durability=always&ca=%2Fca.pem",
            "rediss://host:6379",
        );
        assert_eq!(config.credentials.user.as_deref(), Some("ada"));
        assert_eq!(config.credentials.password.as_deref(), Some("p@ss:"));
        assert_eq!((&*config.prefix, config.durability), ("team:a", Durability::Always));
        assert_eq!(config.ca, Some("/ca.pem".into()));
        let config = check(
            "redis+sentinel://h/m?sentinel_user=u&sentinel_password=secret",
            "redis+sentinel://h:26379/m",
        );
        assert_eq!(config.sentinel_credentials.password.as_deref(), Some("secret"));
    }

    #[test]
    fn nothing_shows_the_password() {
        let config: RedisConfig = "redis://ada:secret@host".parse().unwrap();
        assert!(!format!("{config:?} {config} {:?}", config.credentials).contains("secret"));
        let error = "redis://ada:secret%zz@host".parse::<RedisConfig>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"));
    }

    #[track_caller]
    fn refused(url: &str, part_of_reason: &str) {
        let error = url.parse::<RedisConfig>().unwrap_err().to_string();
        assert!(error.contains(part_of_reason), "{error}");
    }

    #[test]
    fn wrong_urls_are_refused_with_a_reason() {
        refused("localhost:6379", "no scheme");
        refused("http://localhost", "unknown scheme");
        refused("redis+proxy://localhost", "unknown scheme after `+`");
        refused("redis://", "no host");
        refused("redis://h:port", "not a host with a port");
        refused("redis://a,b", "several hosts");
        refused("redis://h/x", "not a number");
        refused("redis://h/1/2", "too many segments");
        refused("redis+sentinel://h", "name of the master");
        refused("redis+cluster://h/1", "only the database 0");
        refused("redis://h?prefix={a}", "prefix");
        refused("redis://h?durability=some", "durability");
        refused("redis://h?ca=x", "TLS");
        refused("redis://h?sentinel_user=x", "unknown parameter");
    }
}
