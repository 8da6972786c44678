//! The requirements of one RFC, as listed in `specs/*.toml`.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// All requirements of one RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    pub(super) rfc: u16,
    pub(super) title: String,
    #[serde(rename = "section")]
    pub(super) sections: Vec<Section>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) number: String,
    pub(super) title: String,
    #[serde(rename = "requirement")]
    pub(super) requirements: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirement {
    /// `6455-5.1-3`: the RFC, the section, and a number that is never reused.
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) role: Role,
    pub(super) text: String,
    /// The reason why no code obeys it.
    pub(super) exception: Option<String>,
    /// The reason why no test checks it. Not allowed for a MUST.
    pub(super) untested: Option<String>,
}

/// The keywords of RFC 2119 that the ledgers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "MAY")]
    May,
}

/// The party that the requirement applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Client,
    Server,
    Both,
    Intermediary,
    Script,
    Specification,
}

impl Ledger {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    pub(super) fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.sections.iter().flat_map(|section| &section.requirements)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::May => "MAY",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
            Self::Intermediary => "intermediary",
            Self::Script => "script",
            Self::Specification => "specification",
        })
    }
}
