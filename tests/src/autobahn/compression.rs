//! Checks that messages were compressed. The suite itself only checks that they arrive intact.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sockeye::DeflateConfig;

/// The results of a group of cases, such as 12.3.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// The server's answers to the offer of permessage-deflate; one answer, unless cases differ.
    agreed: BTreeSet<String>,
    /// Bytes of the messages that Sockeye sent.
    plain: u64,
    /// Bytes of their frame payloads.
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
            // Incoming messages of the suite are those that Sockeye sent.
            report["trafficStats"][format!("incoming{name}")].as_u64().unwrap_or(0)
        });
        // Small messages are excluded, because `sockeye echo` does not compress them.
        if plain >= messages * DeflateConfig::default().size_min as u64 {
            self.plain += plain;
            self.carried += carried;
        }
    }

    /// Whether every case negotiated compression, and it reduced the size of the messages.
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
    fn compression_counts_if_messages_shrink() {
        let answer = "sec-websocket-extensions: permessage-deflate; client_no_context_takeover";
        check(&[report(answer, 1000, 256_000, 100_000)], true);
        check(&[report(answer, 1000, 256_000, 256_000)], false);
    }

    #[test]
    fn small_messages_may_be_uncompressed() {
        let answer = "Sec-WebSocket-Extensions: permessage-deflate";
        check(&[report(answer, 1000, 64_000, 64_000)], true);
        check(&[report(answer, 1000, 128_000, 128_000)], false);
    }

    #[test]
    fn one_case_without_compression_is_detected() {
        let good = report("Sec-WebSocket-Extensions: permessage-deflate", 1000, 256_000, 100_000);
        check(&[good.clone(), report("Server: x", 1000, 256_000, 100_000)], false);
        check(&[good, json!({})], false);
    }
}
