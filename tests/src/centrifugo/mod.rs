//! The same frames sent to `sockeye serve` and to Centrifugo, and what both answer.
//!
//! The cases are scripts in `tests/centrifugo/`, explained in `script.rs`. Each runs against both servers, with JSON
//! and with Protobuf. Ids, epochs, times and versions are replaced by names; then what the clients received must be
//! equal, or the difference must be explained in `docs/differences-centrifugo.md`.

mod connection;
mod differences;
mod http;
mod normal;
mod protobuf;
mod run;
mod script;
mod servers;
mod token;

use std::collections::BTreeMap;

use self::connection::Encoding;
use self::differences::Difference;
use self::script::Case;
use self::servers::{Servers, Setup};

/// The files with cases.
const FILES: [(&str, &str); 6] = [
    ("connect", include_str!("../../centrifugo/connect.txt")),
    ("subscribe", include_str!("../../centrifugo/subscribe.txt")),
    ("channels", include_str!("../../centrifugo/channels.txt")),
    ("frames", include_str!("../../centrifugo/frames.txt")),
    ("transports", include_str!("../../centrifugo/transports.txt")),
    ("api", include_str!("../../centrifugo/api.txt")),
];

/// Runs all cases against both servers. `SOCKEYE_CASE` selects those whose names contain it, and prints what was
/// received.
///
/// # Panics
/// If a difference is not explained, or an explained one does not exist.
pub async fn compare() {
    let only = std::env::var("SOCKEYE_CASE").ok();
    let mut cases = Vec::new();
    for (file, text) in FILES {
        for mut case in script::parse(text) {
            case.name = format!("{file}: {}", case.name);
            cases.push(case);
        }
    }
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
    cases.retain(|case| only.as_ref().is_none_or(|only| case.name.contains(only)));

    let mut found = BTreeMap::new();
    for setup in [Setup::Open, Setup::Strict, Setup::Keyless] {
        let cases: Vec<_> = cases.iter().filter(|case| setup_of(case) == setup).collect();
        if cases.is_empty() {
            continue;
        }
        let mut servers = Servers::start(setup).await;
        for (number, case) in cases.into_iter().enumerate() {
            compare_case(&servers, case, number, only.is_some(), &mut found).await;
        }
        servers.sockeye.process.kill().await;
        servers.centrifugo.kill().await;
    }
    if only.is_some() {
        return;
    }
    println!("{} cases, {} of them differ", cases.len(), found.len());
    let faults = differences::check(&found);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn setup_of(case: &Case) -> Setup {
    match case {
        case if case.has("strict") => Setup::Strict,
        case if case.has("keyless") => Setup::Keyless,
        _ => Setup::Open,
    }
}

async fn compare_case(
    servers: &Servers,
    case: &Case,
    number: usize,
    is_shown: bool,
    found: &mut BTreeMap<String, Difference>,
) {
    let mut differing = Vec::new();
    let encodings = [
        (Encoding::Json, "json", "protobuf"),
        (Encoding::Protobuf, "protobuf", "json"),
    ];
    let encodings = encodings.into_iter().filter(|(_, _, other)| !case.has(other));
    let encodings: Vec<_> = encodings.collect();
    for (encoding, name, _) in &encodings {
        let number = 2 * number + usize::from(*encoding == Encoding::Protobuf);
        let (ours, theirs) = tokio::join!(
            run::run(case, servers.sockeye.address(), *encoding, number),
            run::run(case, &servers.centrifugo_address, *encoding, number),
        );
        if is_shown {
            println!(
                "# {} ({name})\nsockeye:\n{}\ncentrifugo:\n{}",
                case.name,
                ours.join("\n"),
                theirs.join("\n")
            );
        }
        let (sockeye, centrifugo) = normal::differing(&ours, &theirs);
        if ours != theirs {
            differing.push((*name, Difference { sockeye, centrifugo }));
        }
    }
    match &*differing {
        [(_, one), (_, other)] if one == other => drop(found.insert(case.name.clone(), one.clone())),
        [(_, one)] if encodings.len() == 1 => drop(found.insert(case.name.clone(), one.clone())),
        differing => {
            for (name, difference) in differing {
                found.insert(format!("{} ({name})", case.name), difference.clone());
            }
        }
    }
}
