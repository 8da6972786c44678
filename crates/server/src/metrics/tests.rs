//! The page of metrics, its documentation, and the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::queue::Dropped;

/// The page of a server with a value of each metric.
fn encoded() -> String {
    let metrics = Metrics::new(None);
    metrics.publication(Source::client);
    metrics.publication(Source::server);
    metrics.command();
    metrics.error(103);
    metrics.hook_failure("publish");
    metrics.disconnect(DisconnectCode::Slow);
    metrics.refusal("connections");
    metrics.handshake();
    metrics.client_opened(Transport::WebSocket, Encoding::Protobuf);
    metrics.client_opened(Transport::Sse, Encoding::Json);
    metrics.client_closed(Transport::Sse, Encoding::Json);
    metrics.recovery(true);
    metrics.api_request(Some(ApiMethod::Publish), 200, 0.001);
    metrics.hook_call("connect", "ok");
    metrics.console_login("wrong");
    metrics.encode(Snapshot {
        clients: 3,
        is_ready: true,
        hub: HubStats {
            deliveries: 12,
            dropped: Dropped {
                oldest: 1,
                replaced: 2,
                ended_subscriptions: 0,
            },
            ..HubStats::default()
        },
        ..Snapshot::default()
    })
}

#[test]
fn metrics_are_encoded_with_their_labels() {
    let text = encoded();
    for line in [
        "sockeye_clients 3\n",
        "sockeye_ready 1\n",
        "sockeye_publications_total{source=\"client\"} 1\n",
        "sockeye_deliveries_total 12\n",
        "sockeye_dropped_publications_total{policy=\"latest\"} 2\n",
        "sockeye_errors_total{code=\"103\"} 1\n",
        "sockeye_disconnects_total{code=\"3008\"} 1\n",
        "sockeye_api_requests_total{method=\"publish\",status=\"200\"} 1\n",
        "sockeye_recoveries_total{recovered=\"true\"} 1\n",
        "sockeye_transport_clients{transport=\"websocket\",format=\"protobuf\"} 1\n",
        "sockeye_transport_clients{transport=\"sse\",format=\"json\"} 0\n",
        "sockeye_connects_total{transport=\"sse\",format=\"json\"} 1\n",
        "sockeye_hook_calls_total{hook=\"connect\",outcome=\"ok\"} 1\n",
        "sockeye_console_logins_total{result=\"wrong\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn totals_are_sums_over_all_labels() {
    let metrics = Metrics::new(None);
    metrics.publication(Source::client);
    metrics.publication(Source::server);
    metrics.disconnect(DisconnectCode::Slow);
    metrics.disconnect(DisconnectCode::Shutdown);
    let totals = metrics.totals();
    assert_eq!((totals.publications, totals.disconnects, totals.errors), (2, 2, 0));
}

/// A metric as the page has it.
struct Described {
    name: String,
    kind: String,
    labels: Vec<String>,
    help: String,
}

/// All metrics of the page, in its order.
fn described() -> Vec<Described> {
    let page = encoded();
    let mut metrics: Vec<Described> = Vec::new();
    let mut helps = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name.to_owned(), help.to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            metrics.push(Described {
                help: helps[name].clone(),
                name: format!("{name}{suffix}"),
                kind: kind.to_owned(),
                labels: Vec::new(),
            });
        } else if let Some((_, rest)) = line.split_once('{').filter(|_| !line.starts_with('#'))
            && let Some(metric) = metrics.last_mut().filter(|metric| metric.labels.is_empty())
        {
            let labels = rest.split('}').next().unwrap().split(',');
            let names = labels.map(|label| label.split('=').next().unwrap().to_owned());
            metric.labels = names.filter(|name| name != "le").collect();
        }
    }
    metrics
}

/// The rows of the table in docs/metrics.md.
fn table() -> String {
    let mut table = String::from("| metric | kind | meaning |\n|---|---|---|\n");
    for metric in described() {
        let labels = match metric.labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", metric.labels.join(",")),
        };
        let Described { name, kind, help, .. } = metric;
        let _ = writeln!(table, "| `{name}{labels}` | {kind} | {help} |");
    }
    table
}

#[test]
fn the_documentation_has_the_table_of_all_metrics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("| metric |").unwrap();
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let expected = format!("{before}{}\n{after}", table());
    if std::env::var_os("SOCKEYE_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert_eq!(
        page, expected,
        "run SOCKEYE_BLESS=1 cargo test -p sockeye-server --lib metrics"
    );
}

/// The words of a PromQL expression that may be metrics, and the labels that it names.
fn names(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !is_part(c));
    words
        .filter(|word| word.starts_with("sockeye_"))
        .map(str::to_owned)
        .collect()
}

/// The labels in `{…}` and `by (…)` of a PromQL expression, without those that Prometheus and the dashboard add.
fn labels(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once(['{', '(']) {
        let is_selector = rest.as_bytes()[before.len()] == b'{';
        if is_selector || before.trim_end().ends_with("by") {
            let inner = after.split(['}', ')']).next().unwrap();
            let names = inner
                .split(',')
                .map(|part| part.split(['=', '!', '~']).next().unwrap().trim());
            found.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        }
        rest = after;
    }
    for of_prometheus in ["instance", "job", "le"] {
        found.remove(of_prometheus);
    }
    found
}

fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if name == "expr" => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn promql_is_split_into_metrics_and_labels() {
    let expression =
        r#"sum by (code) (rate(sockeye_errors_total{instance=~"$instance", code!="100"}[5m])) / sockeye_clients"#;
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(expression), of(&["sockeye_errors_total", "sockeye_clients"]));
    assert_eq!(labels(expression), of(&["code"]));
}

#[test]
fn the_dashboard_names_only_existing_metrics_and_labels() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/server/grafana-dashboard.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() >= 20, "{} expressions", found.len());
    let mut known = BTreeMap::new();
    for metric in described() {
        let series = match metric.kind.as_str() {
            "histogram" => vec!["_bucket", "_sum", "_count"],
            _ => vec![""],
        };
        for suffix in series {
            known.insert(format!("{}{suffix}", metric.name), metric.labels.clone());
        }
    }
    for expression in found {
        let names = names(&expression);
        assert!(!names.is_empty(), "{expression}");
        for name in &names {
            assert!(known.contains_key(name), "{name} in {expression}");
        }
        for label in labels(&expression) {
            let is_known = names.iter().any(|name| known[name].contains(&label));
            assert!(is_known, "the label {label} in {expression}");
        }
        let depth = expression.chars().try_fold(0i32, |depth, c| match c {
            '(' | '{' | '[' => Some(depth + 1),
            ')' | '}' | ']' => (depth > 0).then_some(depth - 1),
            _ => Some(depth),
        });
        assert_eq!(depth, Some(0), "brackets in {expression}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_has_memory_and_files() {
    let process = Process::read();
    assert!(process.resident_bytes > 1 << 20, "{process:?}");
    assert!(process::open_files() >= 3);
}
