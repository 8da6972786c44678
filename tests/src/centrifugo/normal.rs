//! Replaces what must differ between two servers: ids, epochs, times and versions.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the random names of one run stand for.
#[derive(Debug, Default)]
pub(super) struct Names {
    clients: BTreeMap<String, String>,
    epochs: Vec<String>,
    /// Whether the last object was a node in the reply to `info`.
    is_node: bool,
}

/// Shortest and longest time to live that count as the 300 seconds of the cases.
const TTL: std::ops::RangeInclusive<u64> = 280..=300;

/// Fields of publications that always differ, as the document says: Sockeye sends the time of each publication, and
/// Centrifugo the epoch of the first. A third general difference is `"offset":0`, which
/// Sockeye writes in JSON where Centrifugo writes nothing.
const EVERYWHERE: [&str; 2] = ["time", "epoch"];

/// Fields in the reply to `info` that depend on the time, or that only Centrifugo has.
const NODE: [&str; 3] = ["uptime", "metrics", "process"];

impl Names {
    /// Gives the id of a client a name.
    pub(super) fn client(&mut self, id: &Value, number: usize) {
        if let Some(id) = id.as_str() {
            self.clients.insert(id.to_owned(), format!("client {number}"));
        }
    }

    /// The last epoch that occurred.
    pub(super) fn last_epoch(&self) -> &str {
        self.epochs.last().map_or("none", String::as_str)
    }

    /// The text of a message with names instead of random values, with sorted keys, and without the `suffix` of
    /// channels.
    pub(super) fn apply(&mut self, message: Value, suffix: &str) -> String {
        let mut text = String::new();
        write(&mut text, &self.value("", message));
        text.replace(suffix, "")
    }

    fn value(&mut self, name: &str, value: Value) -> Value {
        match value {
            Value::Object(mut fields) => {
                self.is_node = name == "nodes";
                if self.is_node {
                    NODE.iter().for_each(|field| drop(fields.remove(*field)));
                }
                if matches!(name, "pub" | "publications") {
                    EVERYWHERE.iter().for_each(|field| drop(fields.remove(*field)));
                }
                if fields.get("offset").is_some_and(|offset| *offset == 0) {
                    fields.remove("offset");
                }
                let fields = fields.into_iter().map(|(name, value)| {
                    let key = self.clients.get(&name).cloned().unwrap_or_else(|| name.clone());
                    (key, self.value(&name, value))
                });
                Value::Object(fields.collect())
            }
            Value::Array(values) => values.into_iter().map(|value| self.value(name, value)).collect(),
            Value::String(text) => self.text(name, text).into(),
            Value::Number(number) => match (name, number.as_u64()) {
                ("ttl", Some(ttl)) if TTL.contains(&ttl) => "about 300".into(),
                ("time", Some(1..)) => "a time".into(),
                // Of a node: connections of earlier cases may still be there.
                ("num_clients" | "num_users" | "num_subs" | "num_channels", _) if self.is_node => "a number".into(),
                _ => number.into(),
            },
            other => other,
        }
    }

    fn text(&mut self, name: &str, text: String) -> String {
        match name {
            _ if text.is_empty() => text,
            "epoch" => {
                let known = self.epochs.iter().position(|epoch| *epoch == text);
                if known != Some(self.epochs.len().wrapping_sub(1)) {
                    self.epochs.push(text.clone());
                }
                let first = self.epochs.iter().position(|epoch| *epoch == text).unwrap_or_default();
                format!("epoch {first}")
            }
            "version" | "session" | "node" | "uid" => format!("a {name}"),
            _ => self.clients.get(&text).cloned().unwrap_or(text),
        }
    }
}

/// Writes JSON with sorted keys, whatever the order in which `serde_json` keeps them.
fn write(text: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields = sorted
                .into_iter()
                .map(|(key, value)| (Value::from(key.as_str()).to_string(), value));
            list(text, "{", fields, "}");
        }
        Value::Array(values) => list(text, "[", values.iter().map(|value| (String::new(), value)), "]"),
        other => text.push_str(&other.to_string()),
    }
}

fn list<'a>(text: &mut String, open: &str, items: impl Iterator<Item = (String, &'a Value)>, close: &str) {
    text.push_str(open);
    for (index, (key, value)) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        if !key.is_empty() {
            text.push_str(&key);
            text.push(':');
        }
        write(text, value);
    }
    text.push_str(close);
}

/// The lines in which two transcripts differ: without those that are equal at the start and at the end.
pub(super) fn differing(ours: &[String], theirs: &[String]) -> (Vec<String>, Vec<String>) {
    let start = ours
        .iter()
        .zip(theirs)
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    let (ours, theirs) = (&ours[start..], &theirs[start..]);
    let end = ours
        .iter()
        .rev()
        .zip(theirs.iter().rev())
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    (ours[..ours.len() - end].to_vec(), theirs[..theirs.len() - end].to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn random_values_get_names() {
        let mut names = Names::default();
        names.client(&json!("8c4e"), 1);
        let message =
            json!({"push": {"channel": "a~7", "join": {"info": {"client": "8c4e"}}}, "epoch": "xyz", "ttl": 299});
        let text = names.apply(message, "~7");
        let expect =
            r#"{"epoch":"epoch 0","push":{"channel":"a","join":{"info":{"client":"client 1"}}},"ttl":"about 300"}"#;
        assert_eq!(text, expect);
        assert_eq!(names.last_epoch(), "xyz");
    }

    #[test]
    fn equal_lines_at_both_ends_are_left_out() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            differing(&lines("a b c"), &lines("a x y c")),
            (lines("b"), lines("x y"))
        );
        assert_eq!(differing(&lines("a"), &lines("a")), (vec![], vec![]));
        assert_eq!(differing(&lines("a a"), &lines("a")), (lines("a"), vec![]));
    }
}
