//! Renders docs/conformance.md from the summaries.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::summary::{Compression, Counts, RUNS, Summary};

/// Number of cases in the suite.
const CASES: u64 = 517;

/// Topics of the sections.
const SECTIONS: [(&str, &str); 11] = [
    ("1", "framing"),
    ("2", "pings and pongs"),
    ("3", "reserved bits"),
    ("4", "opcodes"),
    ("5", "fragmentation"),
    ("6", "UTF-8"),
    ("7", "closing"),
    ("9", "large messages, many fragments, speed"),
    ("10", "fragmented by the sender itself"),
    ("12", "compression: five kinds of data"),
    ("13", "compression: seven ways to agree on it"),
];

/// The informational cases, sorted by name, and why there is no correct behaviour.
const INFORMATIONAL: [(&str, &str); 3] = [
    (
        "7.1.6",
        "256 KiB of text, a short text and a close frame at once. RFC 6455 does not require that messages before a \
         close frame are answered before the close",
    ),
    (
        "7.13.1",
        "a close frame with the code 5000. RFC 6455, section 7.4.2, defines codes up to 4999 and does not say how an \
         endpoint handles others",
    ),
    ("7.13.2", "the same with 65535"),
];

/// Renders the page from one summary per entry of [`RUNS`].
///
/// # Errors
/// If a run did not cover all cases, a case failed, or the informational cases are not exactly those in
/// [`INFORMATIONAL`].
pub(super) fn render(runs: &[Summary; RUNS.len()], suite: &str, sockeye: &str) -> Result<String> {
    for (name, run) in RUNS.iter().zip(runs) {
        let Counts {
            cases,
            ok,
            informational,
            failed,
        } = run.total();
        ensure!(
            cases == CASES && ok + informational == CASES && failed == 0 && run.failed.is_empty(),
            "{name}: {ok} OK and {informational} informational of {cases} cases, not of {CASES}"
        );
    }
    let seen: BTreeSet<_> = runs.iter().flat_map(|run| run.informational.keys()).collect();
    ensure!(
        seen.iter().copied().eq(INFORMATIONAL.map(|(case, _)| case)),
        "the informational cases are not those that page.rs explains: {seen:?}"
    );
    let mut page = format!(
        "# Conformance\n\n\
         Results of all {CASES} cases of Autobahn|Testsuite {suite} against Sockeye {sockeye}, in both roles, over TCP and\n\
         TLS. This command writes the page if no case failed:\n\n\
         ```console\n$ cargo xtask autobahn --all --report\n```\n\n\
         - The server is `sockeye echo --compression=takeover` (with `--tls-cert` and `--tls-key`), otherwise with\n\
         \x20 its defaults.\n\
         - The client is `autobahn_client` of the package `sockeye-tests`: `Client` with compression and context\n\
         \x20 takeover in both directions. Over TLS it trusts only the certificate of the run.\n\
         - The suite's TLS is OpenSSL (through Twisted), Sockeye's is rustls; there is no proxy between them.\n\
         - OK is strict: NON-STRICT, UNIMPLEMENTED, an unclean close and a missing report count as failed, and\n\
         \x20 all cases of each section must have run.\n\n\
         | section | topic | cases | server, TCP | server, TLS | client, TCP | client, TLS |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for (section, about) in SECTIONS {
        let counts = runs.each_ref().map(|run| counts_of(run, section));
        page += &row(section, about, counts);
    }
    page += &row("all", "", runs.each_ref().map(Summary::total));
    page += &informational(runs);
    page += &compression(runs)?;
    Ok(page)
}

fn row(section: &str, about: &str, counts: [Counts; RUNS.len()]) -> String {
    let cells = counts.map(|Counts { ok, informational, .. }| match informational {
        0 => format!("{ok} OK"),
        _ => format!("{ok} OK, {informational} informational"),
    });
    format!(
        "| {section} | {about} | {} | {} |\n",
        counts[0].cases,
        cells.join(" | ")
    )
}

fn counts_of(run: &Summary, section: &str) -> Counts {
    let found = run.sections.iter().find(|(name, _)| name == section);
    found.map_or_else(Counts::default, |(_, counts)| *counts)
}

/// The informational cases, each with the behaviour observed in all runs.
fn informational(runs: &[Summary; RUNS.len()]) -> String {
    let mut text =
        String::from("\n## Informational\n\nIn three cases the suite reports the behaviour without judging it.\n\n");
    for (case, why) in INFORMATIONAL {
        let mut seen: Vec<_> = runs.iter().filter_map(|run| run.informational.get(case)).collect();
        seen.dedup();
        let seen: Vec<_> = seen.into_iter().map(|words| format!("\"{words}\"")).collect();
        text += &format!("- {case}: {why}. The suite reports: {}\n", seen.join(", "));
    }
    text
}

/// The negotiated parameters and the compression ratio, per group of cases.
fn compression(runs: &[Summary; RUNS.len()]) -> Result<String> {
    let mut text = String::from(
        "\n## Compression\n\n\
         The suite accepts a case if the messages are echoed correctly, compressed or not. Therefore the command also\n\
         fails if a case of sections 12 and 13 did not negotiate permessage-deflate, or if a group of cases did not make\n\
         Sockeye's messages smaller. Each case echoes 1,000 messages of one size, from 16 bytes to 128 KiB. \"Ratio\" is the\n\
         payload of Sockeye's frames divided by the size of the messages, over TCP. It excludes messages of 16 and 64\n\
         bytes, because `sockeye echo` compresses from 128 bytes on.\n\n\
         As a server, only Sockeye uses context takeover, because the suite offers `client_no_context_takeover`. As a\n\
         client, both sides use it, except where the suite asks Sockeye not to.\n\n\
         | cases | Sockeye's answer as a server | ratio | the suite's answer to Sockeye's client | ratio |\n|---|---|---|---|---|\n",
    );
    let [server, _, client, _] = runs;
    for (group, of_server) in &server.compression {
        let of_client = client.compression.iter().find(|(name, _)| name == group);
        let (_, of_client) = of_client.with_context(|| format!("the client has no cases {group}"))?;
        text += &format!("| {group} | {} | {} |\n", cells(of_server), cells(of_client));
    }
    Ok(text)
}

fn cells(compression: &Compression) -> String {
    let agreed: Vec<_> = compression.agreed.iter().map(|answer| format!("`{answer}`")).collect();
    let share = 100.0 * compression.carried as f64 / compression.plain as f64;
    format!("{} | {share:.1} %", agreed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(cases: u64) -> Summary {
        Summary {
            sections: vec![(
                "7".to_owned(),
                Counts {
                    cases,
                    ok: cases - 3,
                    informational: 3,
                    failed: 0,
                },
            )],
            informational: INFORMATIONAL
                .map(|(case, _)| (case.to_owned(), "Seen.".to_owned()))
                .into(),
            compression: vec![(
                "12.1".to_owned(),
                Compression {
                    agreed: vec!["permessage-deflate".to_owned()],
                    plain: 1000,
                    carried: 125,
                },
            )],
            failed: Vec::new(),
        }
    }

    #[test]
    fn page_shows_all_runs() {
        let runs = [517, 517, 517, 517].map(summary);
        let page = render(&runs, "25", "0.1").expect("all cases passed");
        let counts = "514 OK, 3 informational";
        let row = format!("| 7 | closing | 517 | {counts} | {counts} | {counts} | {counts} |\n");
        assert!(page.contains(&row), "{page}");
        assert!(
            page.contains("| 12.1 | `permessage-deflate` | 12.5 % | `permessage-deflate` | 12.5 % |\n"),
            "{page}"
        );
        assert!(page.contains("without judging it.\n\n- 7.1.6: "), "{page}");
    }

    #[test]
    fn missing_case_is_an_error() {
        render(&[517, 517, 517, 516].map(summary), "25", "0.1").expect_err("a case is missing");
    }

    #[test]
    fn failed_case_is_an_error() {
        let mut runs = [517, 517, 517, 517].map(summary);
        let counts = &mut runs[1].sections[0].1;
        (counts.ok, counts.failed) = (513, 1);
        render(&runs, "25", "0.1").expect_err("a case failed");
        let mut runs = [517, 517, 517, 517].map(summary);
        runs[2].failed.push("12.1: not compressed".to_owned());
        render(&runs, "25", "0.1").expect_err("a group was not compressed");
    }

    #[test]
    fn unexplained_informational_case_is_an_error() {
        let mut runs = [517, 517, 517, 517].map(summary);
        runs[3].informational.insert("7.7.1".to_owned(), "Seen.".to_owned());
        render(&runs, "25", "0.1").expect_err("7.7.1 has no explanation");
        let mut runs = [517, 517, 517, 517].map(summary);
        runs.iter_mut().for_each(|run| run.informational.clear());
        render(&runs, "25", "0.1").expect_err("three informational cases are missing");
    }
}
