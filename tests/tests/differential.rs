//! Runs random sessions through `sockeye-proto` and tungstenite and checks that every difference is explained.
//!
//! | variable | meaning |
//! |---|---|
//! | `SOCKEYE_DIFFERENTIAL_SESSIONS` | number of sessions; default 20,000 |
//! | `SOCKEYE_DIFFERENTIAL_SEED` | first seed, to reproduce a session that failed |

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::thread;

use sockeye_tests::differential::{Class, End, Explained, Session, judge};

const SESSIONS: u64 = 20_000;

/// Number of sessions per outcome.
type Counts = BTreeMap<String, u64>;

#[test]
fn every_difference_from_tungstenite_is_explained() {
    let first = variable("SOCKEYE_DIFFERENTIAL_SEED").unwrap_or(0);
    let count = variable("SOCKEYE_DIFFERENTIAL_SESSIONS").unwrap_or(SESSIONS);
    let counts = run(first..first + count);

    println!("{count} sessions from seed {first}:");
    counts.iter().for_each(|(name, count)| println!("{count:>9}  {name}"));
    assert_eq!(counts.values().sum::<u64>(), count);
    if count >= SESSIONS {
        for class in Class::ALL {
            let name = name(&Explained::Differ(class));
            assert!(
                counts.contains_key(&name),
                "the sessions do not reach {class:?}: the rule is idle"
            );
        }
    }
}

#[test]
fn sessions_are_reproducible() {
    for seed in 0..100 {
        let (one, other) = (Session::of(seed), Session::of(seed));
        assert_eq!((one.bytes, one.cuts), (other.bytes, other.cuts));
    }
}

fn run(seeds: Range<u64>) -> Counts {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let share = (seeds.end - seeds.start).div_ceil(threads).max(1);
    let mut counts = Counts::new();
    thread::scope(|scope| {
        let parts = (0..threads).map(|idx| {
            let start = (seeds.start + idx * share).min(seeds.end);
            let end = (start + share).min(seeds.end);
            scope.spawn(move || run_part(start..end))
        });
        for part in parts.collect::<Vec<_>>() {
            let part = part.join().expect("the failure was printed above");
            for (name, count) in part {
                *counts.entry(name).or_default() += count;
            }
        }
    });
    counts
}

fn run_part(seeds: Range<u64>) -> Counts {
    let mut counts = Counts::new();
    for seed in seeds {
        match judge(&Session::of(seed)) {
            Ok(explained) => *counts.entry(name(&explained)).or_default() += 1,
            Err(unexplained) => panic!("{unexplained}"),
        }
    }
    counts
}

fn name(explained: &Explained) -> String {
    match explained {
        Explained::Agreed(verdict) => match &verdict.end {
            End::Waiting => "agreed: all taken".into(),
            End::Closed => "agreed: closed by a close frame".into(),
            End::Refused { code, .. } => format!("agreed: refused with {code}"),
        },
        Explained::Differ(class) => format!("differ: {class:?}"),
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    let digits = value.strip_prefix("0x");
    let parsed = digits.map_or_else(|| value.parse(), |digits| u64::from_str_radix(digits, 16));
    Some(parsed.unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
