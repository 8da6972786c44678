//! The table of `docs/differences-centrifugo.md`: which cases differ, in which lines, and why.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The lines in which the transcripts of one case differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) sockeye: Vec<String>,
    pub(super) centrifugo: Vec<String>,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Explained {
    cells: [String; 2],
    reason: String,
}

const HEAD: &str = "| case | Sockeye | Centrifugo | reason |\n|---|---|---|---|\n";

/// Compares the differences found with those in the document. Returns a message for each that is not the same. With
/// `SOCKEYE_BLESS=1`, rewrites the table first, with the reasons that are known.
///
/// # Panics
/// If the document cannot be read.
pub(super) fn check(found: &BTreeMap<String, Difference>) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/differences-centrifugo.md");
    let mut document = std::fs::read_to_string(&path).expect("the document exists");
    let mut explained = parse(&document);
    if std::env::var_os("SOCKEYE_BLESS").is_some() {
        document = bless(&document, found, &explained);
        std::fs::write(&path, &document).expect("the document is writable");
        explained = parse(&document);
    }
    faults(found, &explained)
}

/// A message for each difference that is not explained, and each explanation that is not right.
fn faults(found: &BTreeMap<String, Difference>, explained: &BTreeMap<String, Explained>) -> Vec<String> {
    let mut faults = Vec::new();
    for (case, difference) in found {
        match explained.get(case) {
            Some(row) if row.cells != difference.cells() => faults.push(format!(
                "{case}: differs in another way than the document says:\n{}",
                difference.show()
            )),
            Some(row) if row.reason.is_empty() => faults.push(format!("{case}: the document has no reason")),
            Some(_) => {}
            None => faults.push(format!(
                "{case}: differs, and the document does not say why:\n{}",
                difference.show()
            )),
        }
    }
    let agreeing = explained.keys().filter(|case| !found.contains_key(*case));
    faults.extend(agreeing.map(|case| format!("{case}: the document says that it differs, but it does not")));
    faults
}

impl Difference {
    fn cells(&self) -> [String; 2] {
        [&self.sockeye, &self.centrifugo].map(|lines| match lines.is_empty() {
            true => "nothing".to_owned(),
            false => {
                let lines: Vec<_> = lines
                    .iter()
                    .map(|line| format!("`{}`", line.replace('|', "\\|")))
                    .collect();
                lines.join("<br>")
            }
        })
    }

    fn show(&self) -> String {
        let show = |sign, lines: &[String]| {
            lines
                .iter()
                .map(|line| format!("  {sign} {line}\n"))
                .collect::<String>()
        };
        show("sockeye:   ", &self.sockeye) + &show("centrifugo:", &self.centrifugo)
    }
}

/// The rows of the table, by case.
fn parse(document: &str) -> BTreeMap<String, Explained> {
    let Some((_, table)) = document.split_once(HEAD) else {
        return BTreeMap::new();
    };
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let inner = row.strip_prefix("| ").and_then(|row| row.strip_suffix(" |"));
        let cells: Vec<_> = inner.unwrap_or_default().split(" | ").collect();
        let [case, sockeye, centrifugo, reason @ ..] = &*cells else {
            panic!("a row of the table has too few cells: {row}");
        };
        let cells = [sockeye, centrifugo].map(|cell| (*cell).to_owned());
        (
            (*case).to_owned(),
            Explained {
                cells,
                reason: reason.concat(),
            },
        )
    })
    .collect()
}

fn bless(document: &str, found: &BTreeMap<String, Difference>, explained: &BTreeMap<String, Explained>) -> String {
    let (before, table) = document.split_once(HEAD).unwrap_or((document, ""));
    let after = table
        .lines()
        .skip_while(|line| line.starts_with("| "))
        .map(|line| format!("{line}\n"));
    let rows = found.iter().map(|(case, difference)| {
        let [sockeye, centrifugo] = difference.cells();
        let reason = explained.get(case).map_or("", |row| &row.reason);
        format!("| {case} | {sockeye} | {centrifugo} | {reason} |\n")
    });
    format!(
        "{before}{HEAD}{}{}",
        rows.collect::<String>(),
        after.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blessed_table_parses_to_the_same_rows() {
        let difference = Difference {
            sockeye: vec!["0 {}".to_owned(), "a | b".to_owned()],
            centrifugo: Vec::new(),
        };
        let found = BTreeMap::from([("a: case".to_owned(), difference.clone())]);
        let document = bless("# Title\n\n", &found, &BTreeMap::new());
        assert_eq!(
            document,
            format!("# Title\n\n{HEAD}| a: case | `0 {{}}`<br>`a \\| b` | nothing |  |\n")
        );
        let rows = parse(&document);
        assert_eq!(rows["a: case"].cells, difference.cells());
        assert_eq!(rows["a: case"].reason, "");
        let again = bless(&document.replace("|  |\n", "| because |\n\nafter\n"), &found, &{
            let mut rows = rows;
            rows.get_mut("a: case").unwrap().reason = "because".to_owned();
            rows
        });
        assert!(again.ends_with("| because |\n\nafter\n"), "{again}");
    }

    #[test]
    fn every_difference_needs_its_row_and_every_row_its_difference() {
        let difference = |line: &str| Difference {
            sockeye: vec![line.to_owned()],
            centrifugo: Vec::new(),
        };
        let found = |line| BTreeMap::from([("a".to_owned(), difference(line))]);
        let row = |reason: &str| format!("{HEAD}| a | `1` | nothing | {reason} |\n");
        let faults = |found, document: &str| super::faults(&found, &parse(document));
        assert_eq!(faults(found("1"), &row("because")), [""; 0]);
        assert!(faults(found("1"), &row(""))[0].contains("no reason"));
        assert!(faults(found("2"), &row("because"))[0].contains("in another way"));
        assert!(faults(found("1"), HEAD)[0].contains("does not say why"));
        assert!(faults(BTreeMap::new(), &row("because"))[0].contains("but it does not"));
    }
}
