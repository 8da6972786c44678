//! Statistics, not checks.

use std::sync::Arc;
use std::time::Instant;

use super::*;

/// Prints appends per second. `cargo test --release -p sockeye-server --lib journal::tests::speed -- --ignored
/// --nocapture`; `JOURNAL_FOLDER` chooses the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn appends_per_second() {
    let parent = std::env::var_os("JOURNAL_FOLDER").map_or_else(std::env::temp_dir, Into::into);
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(50)), Fsync::Never] {
        for appenders in [1, 64, 1024] {
            let folder = tempfile::tempdir_in(&parent).unwrap();
            let options = JournalOptions {
                fsync,
                ..options(folder.path())
            };
            let journal = Arc::new(open(&options).0);
            let started = Instant::now();
            let tasks: Vec<_> = (0..appenders)
                .map(|task| tokio::spawn(append_for(journal.clone(), task, Duration::from_secs(2))))
                .collect();
            let mut waits = Vec::new();
            for task in tasks {
                waits.extend(task.await.unwrap());
            }
            let seconds = started.elapsed().as_secs_f64();
            waits.sort_unstable();
            let stats = journal.stats();
            println!(
                "{fsync:?}, {appenders} appenders: {:.0} appends/s, p50 {:?}, p99 {:?}, {:.0} syncs/s, {:.1} MB/s",
                stats.records as f64 / seconds,
                waits[waits.len() / 2],
                waits[waits.len() * 99 / 100],
                stats.syncs as f64 / seconds,
                stats.bytes as f64 / seconds / 1e6,
            );
        }
    }
}

async fn append_for(journal: Arc<Journal>, task: usize, duration: Duration) -> Vec<Duration> {
    let record = Owned {
        payload: vec![b'x'; 200],
        ..Owned::publication(&format!("channel-{task}"), 1)
    };
    let end = Instant::now() + duration;
    let mut waits = Vec::new();
    loop {
        let started = Instant::now();
        if started > end {
            return waits;
        }
        journal.append(&record.record()).await.unwrap();
        waits.push(started.elapsed());
    }
}
