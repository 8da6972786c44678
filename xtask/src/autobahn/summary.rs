//! The summary that the tests write for each run of the suite.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::Workspace;

/// The runs, by role and transport; also the folder names in `target/autobahn`.
pub(super) const RUNS: [&str; 4] = ["server-tcp", "server-tls", "client-tcp", "client-tls"];

/// Number of cases, and their results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) cases: u64,
    pub(super) ok: u64,
    pub(super) informational: u64,
    pub(super) failed: u64,
}

/// The summary of one run.
pub(super) struct Summary {
    /// Per section, in the suite's order.
    pub(super) sections: Vec<(String, Counts)>,
    /// The informational cases, and the behaviour that the suite observed.
    pub(super) informational: BTreeMap<String, String>,
    /// Per group of cases, in the suite's order.
    pub(super) compression: Vec<(String, Compression)>,
    /// The failed cases.
    pub(super) failed: Vec<String>,
}

/// Effect of compression on the messages that Sockeye sent.
pub(super) struct Compression {
    /// The server's answers to the offer of permessage-deflate.
    pub(super) agreed: Vec<String>,
    /// Bytes of the messages that Sockeye sent.
    pub(super) plain: u64,
    /// Bytes of their frame payloads.
    pub(super) carried: u64,
}

impl Summary {
    /// Reads the summary of a run; `None` if the run was not selected or crashed.
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

    /// Removes the summaries of earlier runs.
    pub(super) fn forget_all(workspace: &Workspace) {
        for run in RUNS {
            // Missing in the first run.
            let _ = fs::remove_file(workspace.target.join("autobahn").join(run).join("summary.json"));
        }
    }

    /// The sum over all sections.
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
