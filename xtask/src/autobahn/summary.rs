//! What the tests wrote about one run of the suite.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::Workspace;

/// The runs: our role and the transport, which also name the folder in `target/autobahn`.
pub(super) const RUNS: [&str; 4] = ["server-tcp", "server-tls", "client-tcp", "client-tls"];

/// How many cases there were, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) cases: u64,
    pub(super) ok: u64,
    pub(super) informational: u64,
    pub(super) failed: u64,
}

/// One run.
pub(super) struct Summary {
    /// Per section, in the suite's order.
    pub(super) sections: Vec<(String, Counts)>,
    /// Cases and what was seen of them.
    pub(super) informational: BTreeMap<String, String>,
    /// Per group of cases, in the suite's order.
    pub(super) compression: Vec<(String, Compression)>,
    /// What failed.
    pub(super) failed: Vec<String>,
}

/// What compression made of our messages.
pub(super) struct Compression {
    /// What the server of the two answered.
    pub(super) agreed: Vec<String>,
    /// Bytes of our messages.
    pub(super) plain: u64,
    /// Bytes of the payloads that carried them.
    pub(super) carried: u64,
}

impl Summary {
    /// Reads one; `None` if that run was not asked for, or died.
    pub(super) fn read(workspace: &Workspace, run: &str) -> Result<Option<Self>> {
        let path = workspace.target.join("autobahn").join(run).join("summary.json");
        let Ok(text) = fs::read_to_string(path) else {
            return Ok(None);
        };
        let summary: Value = serde_json::from_str(&text).context("the summary is not JSON")?;
        let sections = array(&summary["sections"]).map(|section| {
            let count = |name: &str| section[name].as_u64().unwrap_or(0);
            let counts = Counts {
                cases: count("expected"),
                ok: count("ok"),
                informational: count("informational"),
                failed: count("failed"),
            };
            (section["section"].to_string(), counts)
        });
        let informational = summary["informational"].as_object().into_iter().flatten();
        let compression = array(&summary["compression"]).map(|group| {
            let compression = Compression {
                agreed: array(&group["agreed"]).map(text_of).collect(),
                plain: group["plain"].as_u64().unwrap_or(0),
                carried: group["carried"].as_u64().unwrap_or(0),
            };
            (text_of(&group["group"]), compression)
        });
        Ok(Some(Self {
            sections: sections.collect(),
            informational: informational
                .map(|(case, seen)| (case.clone(), text_of(seen)))
                .collect(),
            compression: compression.collect(),
            failed: array(&summary["failed"]).map(text_of).collect(),
        }))
    }

    /// Removes those of earlier runs, so that none is taken for this run's.
    pub(super) fn forget_all(workspace: &Workspace) {
        for run in RUNS {
            // There is none the first time.
            let _ = fs::remove_file(workspace.target.join("autobahn").join(run).join("summary.json"));
        }
    }

    /// The counts of all sections together.
    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in &self.sections {
            total.cases += counts.cases;
            total.ok += counts.ok;
            total.informational += counts.informational;
            total.failed += counts.failed;
        }
        total
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("?").to_owned()
}
