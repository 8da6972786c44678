//! Attacks that worked on other WebSocket implementations, applied to connections with transports and clocks. The tests
//! of the core, and the naming scheme, are in `crates/proto/tests/cve`.
//!
//! | class | mistake | in |
//! |---|---|---|
//! | C2 | memory for a length that was only declared | `messages`, `handshakes` |
//! | C3, C4 | a limit per frame, none on pieces | `messages` |
//! | C5 | a limit on the compressed size only | `messages` |
//! | C8 | an outbound queue without a bound | `writing` |
//! | C9 | a closing handshake that never ends | `closing` |
//! | C10 | memory kept after control frames and failures | `closing`, `handshakes` |
//! | C11 | a peer that goes away in an unexpected state | `resets`, `tls` |
//! | C12 | bytes and requests around the upgrade | `handshakes` |
//! | C14, C15 | a handshake without end | `handshakes`, `tls` |
//! | C19, C21, C22 | keys, memory of others, unsafe code | `secrets` |
//! | C20 | credentials sent to another host | `handshakes` |
//! | C25 | TLS | `tls` |
//!
//! C30, errors of the accept loop, is tested in `crates/server/src/accept.rs`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/heap.rs"]
mod heap;

mod closing;
mod handshakes;
mod messages;
mod resets;
mod secrets;
#[cfg(feature = "tls")]
mod tls;
mod writing;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use sockeye::{Error, WebSocket};
use tokio::time::Instant;

/// The size of a thread's read buffer, of which a receiving connection has one.
const READ_BUFFER: usize = 128 * 1024;

/// Upper bound for a connection that holds nothing of the peer's. `tests/memory.rs` has exact numbers.
const IDLE: usize = 2 * 1024;

/// Upper bound for the polls of an idle future: when it starts, and when a deadline expires.
const ASLEEP: usize = 8;

/// Echoes what it receives.
async fn echo(ws: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}

/// The output of a future, the elapsed seconds, and the number of polls. Stops after an hour.
async fn watched<F: Future>(future: F) -> (F::Output, u64, usize) {
    let start = Instant::now();
    let mut future = pin!(future);
    let mut polls = 0;
    let counted = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    });
    let output = tokio::time::timeout(Duration::from_secs(60 * 60), counted).await;
    (output.expect("within an hour"), start.elapsed().as_secs(), polls)
}

#[test]
fn memory_is_counted() {
    // Otherwise every bound would hold.
    let before = heap::live();
    let held = vec![0_u8; 1000];
    assert_eq!(heap::live() - before, 1000);
    assert_eq!(heap::held_by(held), 1000);
}

/// The start of a test of an attack. Split in two, so that this file does not contain it.
const CVE_TEST: &str = concat!("fn ", "cve_");

/// The table in SECURITY.md states how many of these tests there are in each file.
#[test]
fn security_md_counts_these_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.contains("` | ")) {
        let Some((_, file, count)) = row.strip_prefix("| ").and_then(|row| {
            let (classes, rest) = row.split_once(" | `")?;
            let (file, count) = rest.strip_suffix(" |")?.split_once("` | ")?;
            Some((classes, file, count.parse::<usize>().ok()?))
        }) else {
            continue;
        };
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(source.matches(CVE_TEST).count(), count, "{file}");
        listed.insert(file.to_owned());
    }
    for folder in ["crates/proto/tests/cve", "crates/sockeye/tests/cve"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let file = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
            let has_tests = std::fs::read_to_string(path).unwrap().contains(CVE_TEST);
            assert_eq!(has_tests, listed.contains(&file), "{file}");
        }
    }
    assert_eq!(listed.len(), 17);
}
