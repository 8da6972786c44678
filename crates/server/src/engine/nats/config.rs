//! The address of NATS, and how Sockeye uses it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How to connect to NATS: parsed from a URL.
///
/// `nats://[user:password@|token@]host[:port][,host[:port]…][?option=value&…]`, or `tls://…` for TLS. Special
/// characters of user, password and token are percent-encoded. Options:
///
/// - `credentials`: path of a credentials file (`.creds`)
/// - `ca`: path of a PEM file with root certificates, in addition to those of the system
/// - `prefix` (`sockeye`): first part of all subjects and of the names of all streams
/// - `replicas` (1): replicas of each stream, 1 to 5; an odd number, because a majority must agree
/// - `stream_bytes` (1 GiB): maximum size of each stream of publications, in bytes. NATS reserves it on the disk. There
///   are four streams for each combination of `history_size` and `history_ttl`
///
/// `Debug` shows no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsConfig {
    pub(super) servers: Vec<String>,
    pub(super) login: Login,
    pub(super) is_tls: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) prefix: String,
    pub(super) replicas: u8,
    pub(super) stream_bytes: u64,
}

/// How to log in. Without `Debug`, which would show secrets.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Login {
    Anonymous,
    Password { user: String, password: String },
    Token(String),
    Credentials(PathBuf),
}

/// The URL of NATS is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNatsUrl(String);

const PREFIX: &str = "sockeye";
const PREFIX_LEN_MAX: usize = 32;
const PORT: u16 = 4222;
const REPLICAS_MAX: u8 = 5;
const STREAM_BYTES: u64 = 1 << 30;
const STREAM_BYTES_MIN: u64 = 1 << 20;

impl FromStr for NatsConfig {
    type Err = InvalidNatsUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        // Messages do not repeat the URL, because it may contain a password.
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("it does not start with nats:// or tls://"))?;
        let is_tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(invalid("its scheme is neither nats nor tls")),
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, hosts) = match address.rsplit_once('@') {
            Some((login, hosts)) => (parse_login(login)?, hosts),
            None => (Login::Anonymous, address),
        };
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        let mut config = Self {
            servers: hosts.split(',').map(parse_host).collect::<Result<_, _>>()?,
            login,
            is_tls,
            ca: None,
            prefix: PREFIX.to_owned(),
            replicas: 1,
            stream_bytes: STREAM_BYTES,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            config.set_option(name, &percent_decode(value)?)?;
        }
        Ok(config)
    }
}

impl NatsConfig {
    fn set_option(&mut self, name: &str, value: &str) -> Result<(), InvalidNatsUrl> {
        match name {
            "credentials" | "ca" if value.is_empty() => return Err(invalid(&format!("option {name} has no path"))),
            "credentials" if self.login != Login::Anonymous => {
                return Err(invalid("it has both a user or token and a credentials file"));
            }
            "credentials" => self.login = Login::Credentials(value.into()),
            "ca" => self.ca = Some(value.into()),
            "prefix" => {
                let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
                if value.is_empty() || value.len() > PREFIX_LEN_MAX || !value.bytes().all(is_plain) {
                    return Err(invalid(&format!(
                        "option prefix must be 1 to {PREFIX_LEN_MAX} letters, digits, '-' and '_'"
                    )));
                }
                value.clone_into(&mut self.prefix);
            }
            "replicas" => {
                self.replicas = value
                    .parse()
                    .ok()
                    .filter(|replicas| (1..=REPLICAS_MAX).contains(replicas))
                    .ok_or_else(|| invalid(&format!("option replicas must be a number from 1 to {REPLICAS_MAX}")))?;
            }
            "stream_bytes" => {
                self.stream_bytes = value
                    .parse()
                    .ok()
                    .filter(|bytes| (STREAM_BYTES_MIN..=i64::MAX as u64).contains(bytes))
                    .ok_or_else(|| invalid(&format!("option stream_bytes must be at least {STREAM_BYTES_MIN}")))?;
            }
            _ => {
                return Err(invalid(&format!(
                    "option {name:?} is unknown; the options are credentials, ca, prefix, replicas and stream_bytes"
                )));
            }
        }
        Ok(())
    }
}

fn parse_login(login: &str) -> Result<Login, InvalidNatsUrl> {
    match login.split_once(':') {
        _ if login.is_empty() => Err(invalid("the user before '@' is empty")),
        Some((user, password)) => Ok(Login::Password {
            user: percent_decode(user)?,
            password: percent_decode(password)?,
        }),
        None => Ok(Login::Token(percent_decode(login)?)),
    }
}

/// Returns a host with its port.
fn parse_host(host: &str) -> Result<String, InvalidNatsUrl> {
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let (name, port) = match after_brackets.split_once(':') {
        Some((_, port)) => (&host[..host.len() - port.len() - 1], port),
        None => (host, ""),
    };
    let is_bracketed = name.starts_with('[') && name.ends_with(']') && name.len() > 2;
    let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    if name.is_empty() || !is_bracketed && !name.bytes().all(is_name) {
        return Err(invalid(&format!("{host:?} is not a host name or address")));
    }
    let port = match port {
        "" => PORT,
        port => port
            .parse()
            .map_err(|_| invalid(&format!("the port of {host:?} is not a number from 1 to 65535")))?,
    };
    Ok(format!("{name}:{port}"))
}

fn percent_decode(text: &str) -> Result<String, InvalidNatsUrl> {
    let error = || invalid("a '%' is not followed by two hexadecimal digits of UTF-8");
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit().ok_or_else(error)?, digit().ok_or_else(error)?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| error())
}

fn invalid(reason: &str) -> InvalidNatsUrl {
    InvalidNatsUrl(reason.to_owned())
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = match self.login {
            Login::Anonymous => "none",
            Login::Password { .. } => "user and password",
            Login::Token(_) => "token",
            Login::Credentials(_) => "credentials file",
        };
        f.debug_struct("NatsConfig")
            .field("servers", &self.servers)
            .field("login", &login)
            .field("is_tls", &self.is_tls)
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("stream_bytes", &self.stream_bytes)
            .finish_non_exhaustive()
    }
}

/// The URL without secrets and options.
impl fmt::Display for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}", self.servers.join(","))
    }
}

impl fmt::Display for InvalidNatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the URL of NATS is not valid: {}; expected nats://[user:password@|token@]host:port,…?option=value&…",
            self.0
        )
    }
}

impl std::error::Error for InvalidNatsUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> NatsConfig {
        url.parse().unwrap()
    }

    #[track_caller]
    fn check_error(url: &str, expect: &str) {
        let error = url.parse::<NatsConfig>().unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn hosts_have_a_default_port() {
        assert_eq!(parse("nats://a").servers, ["a:4222"]);
        assert_eq!(
            parse("nats://a:1,127.0.0.1,[::1],[::1]:5/").servers,
            ["a:1", "127.0.0.1:4222", "[::1]:4222", "[::1]:5"]
        );
        assert!(parse("tls://a").is_tls);
    }

    #[test]
    fn users_passwords_and_tokens_are_decoded() {
        let password = Login::Password {
            user: "ada".to_owned(),
            password: "p:@/é".to_owned(),
        };
        assert_eq!(parse("nats://ada:p:%40%2F%c3%a9@a").login, password);
        assert_eq!(parse("nats://t%6fken@a").login, Login::Token("token".to_owned()));
        assert_eq!(parse("nats://a").login, Login::Anonymous);
    }

    #[test]
    fn options_are_read() {
        let config = parse("nats://a?credentials=/etc/a.creds&prefix=x_1&replicas=3&stream_bytes=1048576&ca=/ca.pem");
        assert_eq!(config.login, Login::Credentials("/etc/a.creds".into()));
        assert_eq!(
            (config.prefix.as_str(), config.replicas, config.stream_bytes),
            ("x_1", 3, 1 << 20)
        );
        assert_eq!(config.ca, Some("/ca.pem".into()));
    }

    #[test]
    fn errors_say_what_is_wrong_and_show_no_secrets() {
        check_error("redis://u:s3cret@a", "scheme");
        check_error("a:4222", "nats://");
        check_error("nats://u:s3cret@", "host name");
        check_error("nats://u:s3cret@a:x", "port");
        check_error("nats://u:s3cret@a b", "host name");
        check_error("nats://u:s3cret%zz@a", "hexadecimal");
        check_error("nats://@a", "empty");
        check_error("nats://u:s3cret@a?replicas=9", "1 to 5");
        check_error("nats://u:s3cret@a?prefix=a.b", "prefix");
        check_error("nats://u:s3cret@a?credentials=x", "both");
        check_error("nats://a?stream_bytes=5", "at least");
        check_error("nats://a?wat=1", "unknown");
        check_error("nats://a,,b", "host name");
    }

    #[test]
    fn debug_shows_no_secrets() {
        let text = format!("{:?} {:?}", parse("nats://ada:s3cret@a"), parse("nats://s3cret@a"));
        assert!(!text.contains("s3cret") && text.contains("password"), "{text}");
        assert_eq!(parse("tls://s3cret@a,b:1").to_string(), "tls://a:4222,b:1");
    }
}
