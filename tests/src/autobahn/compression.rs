//! Whether our messages were compressed: the suite does not ask, it only checks that they come back right.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sockeye::DeflateConfig;

/// What one group of cases, such as 12.3, came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// What the server of the two answered about permessage-deflate; one answer, unless a case differs.
    agreed: BTreeSet<String>,
    /// Bytes of the messages that we sent.
    plain: u64,
    /// Bytes of the payloads that carried them.
    carried: u64,
}

impl Compression {
    /// Adds the suite's report of one case.
    pub(super) fn add(&mut self, report: &Value) {
        let response = report["httpResponse"].as_str().unwrap_or_default();
        let lines = response.lines().filter_map(|line| line.split_once(':'));
        let extensions = lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
        let answer: Vec<_> = extensions.map(|(_, value)| value.trim()).collect();
        self.agreed.insert(answer.join(", "));

        let [messages, plain, carried] = ["WebSocketMessages", "OctetsAppLevel", "OctetsWebSocketLevel"].map(|name| {
            // What comes in for the suite is what we sent.
            report["trafficStats"][format!("incoming{name}")].as_u64().unwrap_or(0)
        });
        // Smaller messages are left out of account: `sockeye echo` sends them as they are.
        if plain >= messages * DeflateConfig::default().size_min as u64 {
            self.plain += plain;
            self.carried += carried;
        }
    }

    /// Whether every case agreed on compression, and it made our messages smaller.
    pub(super) fn is_used(&self) -> bool {
        let is_deflate = |answer: &String| answer.starts_with("permessage-deflate");
        self.agreed.iter().all(is_deflate) && (self.carried < self.plain || self.plain == 0)
    }

    pub(super) fn to_json(&self, group: &str) -> Value {
        json!({ "group": group, "agreed": self.agreed, "plain": self.plain, "carried": self.carried })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answer: &str, messages: u64, plain: u64, carried: u64) -> Value {
        json!({
            "httpResponse": format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n{answer}\r\n\r\n"),
            "trafficStats": {
                "incomingWebSocketMessages": messages, "incomingOctetsAppLevel": plain,
                "incomingOctetsWebSocketLevel": carried,
            },
        })
    }

    #[track_caller]
    fn check(reports: &[Value], is_used: bool) {
        let mut compression = Compression::default();
        reports.iter().for_each(|report| compression.add(report));
        assert_eq!(compression.is_used(), is_used, "{compression:?}");
    }

    #[test]
    fn compression_is_used_where_messages_shrink() {
        let answer = "sec-websocket-extensions: permessage-deflate; client_no_context_takeover";
        check(&[report(answer, 1000, 256_000, 100_000)], true);
        check(&[report(answer, 1000, 256_000, 256_000)], false);
    }

    #[test]
    fn small_messages_may_stay_as_they_are() {
        let answer = "Sec-WebSocket-Extensions: permessage-deflate";
        check(&[report(answer, 1000, 64_000, 64_000)], true);
        check(&[report(answer, 1000, 128_000, 128_000)], false);
    }

    #[test]
    fn one_case_without_compression_is_noticed() {
        let good = report("Sec-WebSocket-Extensions: permessage-deflate", 1000, 256_000, 100_000);
        check(&[good.clone(), report("Server: x", 1000, 256_000, 100_000)], false);
        check(&[good, json!({})], false);
    }
}
