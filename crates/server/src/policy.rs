//! The origin and host policies, and the explanation for a refused client.
//!
//! The most common cause of a refusal is a new proxy that rewrites the Host header. The explanation therefore names the
//! origin, the host, and the option that allows them. The list of what is allowed is internal: it is logged, and not
//! sent to the client.

use std::fmt::{self, Display};

use ::http::StatusCode;
use sockeye::HostPolicy;
use sockeye::{Denial, OriginPolicy};

use crate::config::Config;

/// The policies for origins and hosts.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) origins: OriginPolicy,
    pub(crate) hosts: HostPolicy,
}

/// Longer origins and hosts are replaced by a placeholder in the suggested command.
const OPTION_VALUE_LEN_MAX: usize = 200;

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
}

/// Returns one line that explains a refusal with this status to the client.
pub(crate) fn explain(status: StatusCode, denial: &Denial) -> String {
    let (host, origin) = (denial.host(), denial.origin().unwrap_or("(none)"));
    if status == StatusCode::MISDIRECTED_REQUEST {
        let value = OptionValue(Some(host), "<host>");
        return format!(
            "host {host} is not allowed; the request came from origin {origin}. To allow the host: sockeye serve \
             --allow-host={value} (Config::hosts)\n"
        );
    }
    let value = OptionValue(denial.origin(), "<origin>");
    format!(
        "origin {origin} may not connect; the request was for host {host}. If a proxy changed the Host header, make it \
         preserve the header; or allow the origin: sockeye serve --allow-origin={value} (Config::origins)\n"
    )
}

/// Formats an origin or host as the value of an option, for a command that users may paste into a shell. A value with
/// characters that valid origins and hosts do not contain is replaced by the placeholder in the second field.
struct OptionValue<'a>(Option<&'a str>, &'static str);

impl Display for OptionValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |text: &&str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".:/[]_-".contains(&byte);
            (1..=OPTION_VALUE_LEN_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
        };
        f.write_str(self.0.filter(is_plain).unwrap_or(self.1))
    }
}

#[cfg(test)]
mod tests {
    use sockeye::Server;

    use super::*;

    /// Returns the explanation for a request, or `None` if no policy refuses it.
    fn explained(config: &Config, host: &str, origin: &str) -> Option<String> {
        let policy = Policy::new(config, true);
        let server = Server::builder().origins(policy.origins).hosts(policy.hosts).build();
        let mut request = hyper::Request::builder()
            .header("Host", host.as_bytes())
            .header("Origin", origin.as_bytes())
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
            .body(())
            .unwrap();
        let refusal = sockeye::hyper::upgrade(&server, &mut request).err()?;
        let denial = refusal.error().denial()?;
        Some(explain(refusal.response().status(), denial))
    }

    #[track_caller]
    fn check(text: Option<String>, parts: &[&str]) {
        let text = text.unwrap();
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn an_explanation_names_origin_host_and_option() {
        let config = Config::default();
        check(
            explained(&config, "127.0.0.1:8080", "https://chat.example"),
            &[
                "origin https://chat.example may not",
                "host 127.0.0.1:8080",
                "--allow-origin=https://chat.example ",
            ],
        );
        check(
            explained(&config, "chat.example", "https://chat.example"),
            &["host chat.example is not", "--allow-host=chat.example "],
        );
        assert_eq!(explained(&config, "localhost:1", "http://localhost:1"), None);
    }

    #[test]
    fn an_explanation_does_not_list_allowed_origins() {
        let config = Config {
            origins: OriginPolicy::List(vec!["https://internal.example".parse().unwrap()]),
            ..Config::default()
        };
        let text = explained(&config, "localhost", "https://c.example").unwrap();
        assert!(!text.contains("internal"), "{text}");
    }

    #[test]
    fn a_header_cannot_make_the_explanation_long_or_forge_a_line() {
        let config = Config::default();
        for origin in ["\u{85}\u{2028}", &"o".repeat(10_000)] {
            let text = explained(&config, "localhost", origin).unwrap();
            assert!(text.len() < 1000 && text.is_ascii(), "{text}");
            check(Some(text), &["--allow-origin=<origin> "]);
        }
        check(
            explained(&config, &("h.".repeat(110) + "example"), "http://o"),
            &["--allow-host=<host> "],
        );
    }

    #[test]
    fn a_header_cannot_put_a_shell_command_into_the_explanation() {
        let config = Config::default();
        for origin in ["x;id", "$(id)", "`id`", "a b", "x|y", "x&y", ""] {
            check(explained(&config, "localhost", origin), &["--allow-origin=<origin> "]);
        }
        check(explained(&config, "[::2]:8080", "null"), &["--allow-host=[::2]:8080 "]);
    }
}
