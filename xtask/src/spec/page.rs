//! Renders `docs/rfc.md`: the ledgers as tables with links to files. Without line numbers, which would change with
//! every edit.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::ledger::{Ledger, Requirement};
use super::{Ledgers, Purpose};

/// Path of the page, relative to the repository root.
pub(super) const PATH: &str = "docs/rfc.md";

const OPENING: &str = "\
# The RFCs, requirement by requirement

What the RFCs ask of a WebSocket implementation, in our own words; where the code obeys it, and which tests check it.
The files name the identifier beside the line. After MUST NOT and SHOULD NOT stands what must not be.

Written by `cargo xtask spec --write` from `specs/` and the sources. `cargo xtask spec` prints the lines as well, and
fails on a requirement without its mark.
";

/// Renders the whole page.
pub(super) fn render(ledgers: &Ledgers) -> String {
    let mut page = String::from(OPENING);
    for ledger in &ledgers.all {
        page.push_str(&render_ledger(ledgers, ledger));
    }
    page
}

fn render_ledger(ledgers: &Ledgers, ledger: &Ledger) -> String {
    let mut text = format!("\n## RFC {}: {}\n\n", ledger.rfc, ledger.title);
    let _ = writeln!(text, "{}", ledgers.count(ledger));
    for section in &ledger.sections {
        let _ = write!(text, "\n### §{} {}\n\n", section.number, section.title);
        text.push_str("| | | who | what | obeyed in | checked in |\n|---|---|---|---|---|---|\n");
        for requirement in &section.requirements {
            text.push_str(&render_row(ledgers, requirement));
        }
    }
    text
}

fn render_row(ledgers: &Ledgers, requirement: &Requirement) -> String {
    let Requirement {
        id, level, role, text, ..
    } = requirement;
    let (obeyed, checked) = match (&requirement.exception, &requirement.untested) {
        (Some(reason), _) => (format!("*Exception:* {reason}"), String::new()),
        (None, Some(reason)) => (links(ledgers, id, Purpose::Obeys), format!("*No test:* {reason}")),
        (None, None) => (links(ledgers, id, Purpose::Obeys), links(ledgers, id, Purpose::Checks)),
    };
    format!("| {id} | {level} | {role} | {text} | {obeyed} | {checked} |\n")
}

/// Links to the files with a marker, each file once.
fn links(ledgers: &Ledgers, id: &str, purpose: Purpose) -> String {
    let files: BTreeSet<&PathBuf> = ledgers.at(id, purpose).map(|marker| &marker.path).collect();
    let links: Vec<_> = files
        .into_iter()
        .map(|path| format!("[{}](../{})", short(path), path.display()))
        .collect();
    links.join(", ")
}

/// A path without the parts that all paths share.
fn short(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<_> = match &parts[..] {
        [first, name, second, rest @ ..] if first == "crates" && second == "src" => {
            [name].into_iter().chain(rest).collect()
        }
        [first, rest @ ..] if first == "crates" => rest.iter().collect(),
        all => all.iter().collect(),
    };
    parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>().join("/")
}
