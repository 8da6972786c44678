//! Which pages and hosts may connect, and the explanation for those that may not.
//!
//! A refusal for the origin or the host is most often a proxy that rewrites the Host header, seen by someone who has
//! just put the server behind it. The explanation therefore names what came, what is allowed, and the setting that
//! changes it, in the log and in the response.

use std::fmt::{self, Display};

use ::http::{HeaderValue, StatusCode};
use sockeye::OriginPolicy;
use sockeye::handshake::HostPolicy;

use crate::config::Config;

/// The two policies in force.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) origins: OriginPolicy,
    pub(crate) hosts: HostPolicy,
}

/// A longer header is cut in an explanation.
const SHOWN_BYTES_MAX: usize = 200;

impl Policy {
    pub(crate) fn new(config: &Config, is_loopback: bool) -> Self {
        let default_hosts = match is_loopback {
            true => HostPolicy::Loopback,
            false => HostPolicy::Any,
        };
        Self {
            origins: config.origins.clone(),
            hosts: config.hosts.clone().unwrap_or(default_hosts),
        }
    }

    /// Whether a handshake refused with this status was refused by one of the two policies.
    pub(crate) fn is_of_policy(&self, status: StatusCode) -> bool {
        matches!(status, StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST)
    }

    /// One line for a request that was refused with this status; `None` if no policy refused it.
    pub(crate) fn explain(
        &self,
        status: StatusCode,
        host: Option<&HeaderValue>,
        origin: Option<&HeaderValue>,
    ) -> Option<String> {
        let (host_option, origin_option) = (OptionValue(host, "<host>"), OptionValue(origin, "<origin>"));
        let (host, origin) = (Shown(host), Shown(origin));
        match status {
            StatusCode::FORBIDDEN => {
                let allowed = self.allowed_origins();
                Some(format!(
                    "pages of the origin {origin} may not connect; the request came for the host {host}. Allowed: \
                     {allowed}. If a proxy changed the Host header, have it pass the header on unchanged; or allow the \
                     origin: sockeye serve --allow-origin={origin_option} (Config::origins)\n"
                ))
            }
            StatusCode::MISDIRECTED_REQUEST => {
                let allowed = self.allowed_hosts();
                Some(format!(
                    "this server does not answer for the host {host}; the request came from the origin {origin}. \
                     Allowed: {allowed}. To allow this one: sockeye serve --allow-host={host_option} (Config::hosts)\n"
                ))
            }
            _ => None,
        }
    }

    fn allowed_origins(&self) -> String {
        match &self.origins {
            OriginPolicy::List(origins) => list(origins),
            OriginPolicy::SameHost => "pages of the host that they connect to".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn allowed_hosts(&self) -> String {
        match &self.hosts {
            HostPolicy::List(hosts) => list(hosts),
            HostPolicy::Loopback => "localhost and loopback addresses, because the server listens on one".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

/// A header as the client sent it, if it is short text.
struct Shown<'a>(Option<&'a HeaderValue>);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.0 else {
            return f.write_str("(none)");
        };
        // Visible ASCII only: a header cannot forge a line of the log.
        match value.to_str() {
            Ok(text) if text.len() <= SHOWN_BYTES_MAX => f.write_str(text),
            Ok(text) => write!(f, "{}...", &text[..SHOWN_BYTES_MAX]),
            Err(_) => f.write_str("(not text)"),
        }
    }
}

/// A header as the value of an option, for a command that may be pasted into a shell: a placeholder stands for one that
/// has other characters than hosts and origins are made of.
struct OptionValue<'a>(Option<&'a HeaderValue>, &'static str);

impl Display for OptionValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |text: &&str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".:/[]_-".contains(&byte);
            (1..=SHOWN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
        };
        let text = self.0.and_then(|value| value.to_str().ok());
        f.write_str(text.filter(is_plain).unwrap_or(self.1))
    }
}

fn list(values: &[impl Display]) -> String {
    let texts: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(config: &Config, status: StatusCode, host: &str, origin: &str) -> String {
        let header = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let policy = Policy::new(config, true);
        policy
            .explain(status, Some(&header(host)), Some(&header(origin)))
            .unwrap()
    }

    #[test]
    fn an_explanation_names_what_came_what_is_allowed_and_the_setting() {
        let mut config = Config::default();
        let text = explain(&config, StatusCode::FORBIDDEN, "127.0.0.1:8080", "https://chat.example");
        for part in [
            "origin https://chat.example",
            "host 127.0.0.1:8080",
            "pages of the host",
            "--allow-origin=https://chat.example",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = explain(
            &config,
            StatusCode::MISDIRECTED_REQUEST,
            "chat.example",
            "https://chat.example",
        );
        for part in ["host chat.example", "Allowed: localhost", "--allow-host=chat.example"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        config.origins = OriginPolicy::List(vec![
            "https://a.example".parse().unwrap(),
            "https://b.example".parse().unwrap(),
        ]);
        let text = explain(&config, StatusCode::FORBIDDEN, "h", "https://c.example");
        assert!(
            text.contains("Allowed: https://a.example, https://b.example."),
            "{text}"
        );
    }

    #[test]
    fn a_header_cannot_make_the_explanation_long_or_forge_a_line() {
        let config = Config::default();
        let text = explain(&config, StatusCode::FORBIDDEN, &"h".repeat(10_000), "\u{85}\u{2028}");
        assert!(text.len() < 1000, "{text}");
        assert!(text.contains("origin (not text)"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_header_cannot_put_a_command_into_the_advice() {
        let config = Config::default();
        for header in ["x;id", "$(id)", "`id`", "a b", "x|y", "x&y", ""] {
            let text = explain(&config, StatusCode::FORBIDDEN, "h", header);
            assert!(text.contains("--allow-origin=<origin> "), "{text}");
            let text = explain(&config, StatusCode::MISDIRECTED_REQUEST, header, "o");
            assert!(text.contains("--allow-host=<host> "), "{text}");
        }
        let text = explain(&config, StatusCode::MISDIRECTED_REQUEST, "[::1]:8080", "null");
        assert!(text.contains("--allow-host=[::1]:8080 "), "{text}");
    }
}
