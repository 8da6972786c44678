//! The table of `docs/interop.md`: what each peer passed in which role. The suites record it in `target/artifacts`.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context, Result, bail};

use crate::{
    suites::{Peer, SUITES},
    workspace::Workspace,
};

/// The features, in the order of the columns, as `tests/src/interop.rs` names them.
const FEATURES: [&str; 8] = [
    "text",
    "binary",
    "1 MiB",
    "fragments",
    "compression",
    "ping",
    "close",
    "TLS",
];

const PAGE: &str = "docs/interop.md";

/// Forgets what earlier runs recorded.
pub(crate) fn clear(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("artifacts/interop");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Compares the rows of the suites that ran with the page. With `SOCKEYE_BLESS=1`, writes them instead.
pub(crate) fn check(workspace: &Workspace, ran: &[&str]) -> Result<()> {
    let path = workspace.root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let (text, table) = page.split_once("\n| peer |").context("the page has no table")?;
    // The rows by peer. Suites that did not run keep theirs.
    let mut rows: BTreeMap<&str, String> = BTreeMap::new();
    for row in table.lines().filter(|row| row.starts_with("| ")) {
        let peer = row.trim_start_matches("| ").split(" |").next().unwrap_or_default();
        rows.insert(peer, row.to_owned());
    }
    for peer in SUITES
        .iter()
        .filter(|suite| ran.contains(&suite.name))
        .flat_map(|suite| suite.peers)
    {
        rows.insert(peer.name, row(workspace, peer)?);
    }
    let mut made = format!(
        "{text}\n| peer | {} |\n|---|{}\n",
        FEATURES.join(" | "),
        "---|".repeat(FEATURES.len())
    );
    for peer in SUITES.iter().flat_map(|suite| suite.peers) {
        if let Some(row) = rows.get(peer.name) {
            writeln!(made, "{row}")?;
        }
    }
    if made == page {
        return Ok(());
    }
    if std::env::var_os("SOCKEYE_BLESS").is_some() {
        println!("wrote {PAGE}");
        return Ok(fs::write(path, made)?);
    }
    bail!("{PAGE} differs from what the suites recorded; run them with SOCKEYE_BLESS=1 and read the difference")
}

fn row(workspace: &Workspace, peer: &Peer) -> Result<String> {
    let recorded = fs::read_to_string(workspace.target.join("artifacts/interop").join(peer.record))
        .with_context(|| format!("the tests recorded nothing of {}", peer.name))?;
    let has = |role: &str, feature: &str| recorded.lines().any(|line| line == format!("{role} {feature}"));
    let cells = FEATURES.map(
        |feature| match (has("client", feature), has("server", feature), has("proxy", feature)) {
            (true, true, _) => "both",
            (true, false, _) => "client",
            (false, true, _) => "server",
            (false, false, true) => "yes",
            (false, false, false) => "–",
        },
    );
    Ok(format!("| {} | {} |", peer.name, cells.join(" | ")))
}
