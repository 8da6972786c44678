//! The log in a real folder: locks, processes, compaction, and what does not fit a simulation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn segment_count(folder: &TempDir) -> usize {
    let names = std::fs::read_dir(folder.path()).unwrap();
    names
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|found| found == "log")
        })
        .count()
}

fn folder_bytes(folder: &TempDir) -> u64 {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().map_or(0, |data| data.len()))
        .sum()
}

#[tokio::test]
async fn records_survive_close_and_drop() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(5)), Fsync::Never] {
        let folder = folder();
        let options = JournalOptions {
            fsync,
            ..options(folder.path())
        };
        let (journal, replay, records) = open(&options);
        assert_eq!((records, replay.end, replay.is_era_new), (vec![], End::New, true));
        let mut expected = vec![
            Owned::publication("chat", 1),
            Owned::publication("äöü", 7),
            Owned {
                is_position: true,
                payload: vec![],
                ..Owned::publication("chat", 1)
            },
        ];
        for record in &expected {
            journal.append(&record.record()).await.unwrap();
        }
        journal.close().await.unwrap();
        drop(journal);
        let (journal, replay, records) = open(&options);
        assert_eq!(
            (&records, replay.end, replay.is_era_new),
            (&expected, End::Clean, false)
        );
        expected.push(Owned::publication("chat", 2));
        journal.append(&expected[3].record()).await.unwrap();
        drop(journal);
        let (_, replay, records) = open(&options);
        let has_boot_id = cfg!(target_os = "linux");
        let end = if has_boot_id { End::Killed } else { End::PowerCut };
        assert_eq!((&records, replay.end), (&expected, end));
        assert_eq!(replay.is_era_new, !has_boot_id && fsync != Fsync::Always);
    }
}

#[test]
fn folder_in_use_is_refused() {
    let folder = folder();
    let (_journal, ..) = open(&options(folder.path()));
    let error = try_open(&options(folder.path())).expect_err("it is in use");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn folder_that_cannot_be_written_is_refused() {
    let folder = folder();
    let path = folder.path().join("file");
    std::fs::write(&path, "no folder").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = try_open(&options(&path)).expect_err("it is no folder");
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn other_files_in_the_folder_are_left_alone() {
    let folder = folder();
    for name in ["1-1.log", "0000000002-0000000001.log", "notes.txt"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    std::fs::write(folder.path().join("rewrite.tmp"), "a rewrite that was interrupted").unwrap();
    drop(open(&options(folder.path())));
    for name in ["1-1.log", "0000000002-0000000001.log", "notes.txt"] {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), name);
    }
    assert!(!folder.path().join("rewrite.tmp").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appenders_each_keep_their_order() {
    let folder = folder();
    let options = JournalOptions {
        segment_bytes: 16 << 10,
        queue_bytes_max: 8 << 10,
        ..options(folder.path())
    };
    let journal = Arc::new(open(&options).0);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let journal = journal.clone();
            tokio::spawn(async move {
                for offset in 1..=300 {
                    let record = Owned::publication(&format!("channel-{task}"), offset);
                    journal.append(&record.record()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(journal.stats().records, 8 * 300);
    drop(journal);
    let (_, _, records) = open(&options);
    let mut newest = BTreeMap::<String, u64>::new();
    for record in records {
        let newest = newest.entry(record.channel.clone()).or_default();
        *newest += 1;
        assert_eq!(record, Owned::publication(&record.channel, *newest));
    }
    assert_eq!(newest.into_values().collect::<Vec<_>>(), [300; 8]);
}

/// Keeps the newest publications of each channel, as many as it is told.
struct Newest {
    tops: [AtomicU64; 4],
    kept: AtomicU64,
}

impl Retain for Newest {
    fn oldest_kept(&self, channel: &str, epoch: &str) -> Option<u64> {
        let kept = self.kept.load(Ordering::Relaxed);
        if kept == 0 || epoch != "e" {
            return None;
        }
        let index: usize = channel.parse().ok()?;
        Some((self.tops[index].load(Ordering::Relaxed) + 1).saturating_sub(kept))
    }
}

#[tokio::test]
async fn compaction_bounds_the_log_and_keeps_what_is_live() {
    let folder = folder();
    let options = JournalOptions {
        segment_bytes: 8 << 10,
        disk_bytes_max: 64 << 10,
        compaction_interval: Duration::from_millis(1),
        ..options(folder.path())
    };
    let retain = Arc::new(Newest {
        tops: Default::default(),
        kept: AtomicU64::new(20),
    });
    let (journal, ..) = open(&options);
    journal.start_compaction(retain.clone()).unwrap();
    // 40 times the limit of the log.
    let mut retries = 0;
    for round in 1..=6_000 {
        for channel in 0..4 {
            let record = Owned::publication(&channel.to_string(), round);
            // The limit stops whoever is faster than compaction, until that has made room.
            while let Err(error) = journal.append(&record.record()).await {
                assert_eq!(error, AppendError::Full);
                retries += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            retain.tops[channel as usize].store(round, Ordering::Relaxed);
        }
        if round % 100 == 0 {
            let bytes = folder_bytes(&folder);
            assert!(
                bytes <= options.disk_bytes_max + options.segment_bytes,
                "{bytes} bytes, {retries} retries"
            );
        }
    }
    // 80 live records of about 100 bytes each.
    eventually(|| journal.stats().bytes < 5 * options.segment_bytes).await;
    let live = |records: &[Owned]| {
        for channel in 0..4 {
            let name = channel.to_string();
            let newest: Vec<_> = records
                .iter()
                .filter(|record| record.channel == name && record.offset > 6_000 - 20 && !record.is_position)
                .cloned()
                .collect();
            let expected: Vec<_> = (5_981..=6_000)
                .map(|offset| Owned::publication(&name, offset))
                .collect();
            assert_eq!(newest, expected);
        }
    };
    drop(journal);
    let (journal, replay, records) = open(&options);
    live(&records);
    assert_eq!((replay.cut, replay.damages), (None, vec![]));
    // When no stream exists any more, nothing is left but the segment that is written to.
    retain.kept.store(0, Ordering::Relaxed);
    journal.start_compaction(retain).unwrap();
    eventually(|| segment_count(&folder) == 1).await;
    drop(journal);
    assert_eq!(open(&options).2, []);
}

/// Segments that are all live are merged if they are small: each start leaves one.
#[tokio::test]
async fn small_segments_are_merged() {
    let folder = folder();
    let options = JournalOptions {
        compaction_interval: Duration::from_millis(1),
        ..options(folder.path())
    };
    let expected: Vec<_> = (1..=20).map(|offset| Owned::publication("chat", offset)).collect();
    for record in &expected {
        let (journal, ..) = open(&options);
        journal.append(&record.record()).await.unwrap();
        journal.close().await.unwrap();
    }
    assert_eq!(segment_count(&folder), 20);
    let (journal, ..) = open(&options);
    journal.start_compaction(Arc::new(|_: &str, _: &str| Some(1))).unwrap();
    eventually(|| segment_count(&folder) == 2).await;
    drop(journal);
    assert_eq!(open(&options).2, expected);
}

/// The newest record of a channel hides older ones in older segments, and must not vanish before those.
#[tokio::test]
async fn compaction_never_brings_an_older_epoch_back() {
    let folder = folder();
    let options = JournalOptions {
        segment_bytes: 4 << 10,
        compaction_interval: Duration::from_millis(1),
        ..options(folder.path())
    };
    let big = |channel: &str, epoch: &str, offset| Owned {
        epoch: epoch.to_owned(),
        payload: vec![7; 900],
        ..Owned::publication(channel, offset)
    };
    let (journal, ..) = open(&options);
    // The first segment is mostly live, so it stays. The second one is dead.
    let first = [
        big("chat", "old", 1),
        big("live", "e", 1),
        big("live", "e", 2),
        big("live", "e", 3),
    ];
    let second = (1..=4).map(|offset| big("chat", "new", offset));
    let third = (4..=7).map(|offset| big("live", "e", offset));
    for record in first.into_iter().chain(second).chain(third) {
        journal.append(&record.record()).await.unwrap();
    }
    let before = journal.stats();
    assert_eq!(before.segments, 3);
    journal
        .start_compaction(Arc::new(|channel: &str, _: &str| (channel == "live").then_some(1)))
        .unwrap();
    eventually(|| journal.stats().bytes < before.bytes - 3_000).await;
    drop(journal);
    let (_, _, records) = open(&options);
    let newest = records.iter().rfind(|record| record.channel == "chat");
    if let Some(newest) = newest {
        assert_eq!(
            (newest.epoch.as_str(), newest.offset, newest.is_position),
            ("new", 4, true)
        );
    }
    let live: Vec<_> = records.into_iter().filter(|record| record.channel == "live").collect();
    assert_eq!(live, (1..=7).map(|offset| big("live", "e", offset)).collect::<Vec<_>>());
}

const CHILD_FOLDER: &str = "SOCKEYE_TEST_JOURNAL_FOLDER";
const CHILD_FSYNC: &str = "SOCKEYE_TEST_JOURNAL_FSYNC";

/// The process that [`killed_process_loses_nothing_acknowledged`] kills: appends, and prints each offset that was
/// acknowledged.
#[tokio::test]
#[ignore = "a part of another test"]
async fn child() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let fsync = match std::env::var(CHILD_FSYNC).as_deref() {
        Ok("always") => Fsync::Always,
        Ok("never") => Fsync::Never,
        _ => Fsync::Every(Duration::from_millis(50)),
    };
    let options = JournalOptions {
        fsync,
        segment_bytes: 64 << 10,
        ..options(Path::new(&folder))
    };
    let (journal, _, records) = open(&options);
    journal.start_compaction(Arc::new(|_: &str, _: &str| Some(1))).unwrap();
    let mut out = std::io::stdout();
    for offset in records.len() as u64 + 1.. {
        journal
            .append(&Owned::publication("chat", offset).record())
            .await
            .unwrap();
        writeln!(out, "stored {offset}").unwrap();
    }
}

#[test]
fn killed_process_loses_nothing_acknowledged() {
    for fsync in ["always", "50ms", "never"] {
        let folder = folder();
        let mut stored = 0;
        for life in 1..=2 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "journal::tests::disk::child", "--ignored", "--nocapture"])
                .env(CHILD_FOLDER, folder.path())
                .env(CHILD_FSYNC, fsync)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map_while(Result::ok);
            let number = |line: &String| line.rsplit_once("stored ").and_then(|(_, number)| number.parse().ok());
            let target = life * 400;
            stored = lines
                .by_ref()
                .filter_map(|line| number(&line))
                .find(|number: &u64| *number >= target)
                .expect("the child goes on until it is killed");
            if life == 1 {
                let error = try_open(&options(folder.path())).expect_err("the child uses it");
                assert!(matches!(error, OpenError::Locked { .. }), "{error}");
            }
            child.kill().unwrap();
            // A line that was cut off has no number, or a smaller one.
            stored = lines.filter_map(|line| number(&line)).fold(stored, u64::max);
            child.wait().unwrap();
        }
        let (_, replay, records) = open(&options(folder.path()));
        assert!(records.len() as u64 >= stored, "{fsync}: {} of {stored}", records.len());
        let expected: Vec<_> = (1..=records.len() as u64)
            .map(|offset| Owned::publication("chat", offset))
            .collect();
        assert_eq!(records, expected, "{fsync}");
        if cfg!(target_os = "linux") {
            assert_eq!((replay.end, replay.era), (End::Killed, 1), "{fsync}");
        }
    }
}

/// What is in a folder: names and contents.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_check_changes_nothing_in_the_folder() {
    let parent = folder();
    let path = parent.path().join("new/log");
    let options = options(&path);
    assert_eq!(Journal::check(&options).unwrap(), JournalCheck::Empty);
    assert!(!path.exists());

    let (journal, ..) = open(&options);
    for offset in 1..=20 {
        journal.append(&Owned::publication("a", offset).record()).await.unwrap();
    }
    assert_eq!(Journal::check(&options).unwrap(), JournalCheck::InUse);
    journal.close().await.unwrap();
    drop(journal);

    std::fs::write(path.join("rewrite.tmp"), "a rewrite that was interrupted").unwrap();
    let before = contents(&path);
    assert_eq!(Journal::check(&options).unwrap(), JournalCheck::Usable { records: 20 });
    assert_eq!(contents(&path), before);

    // Damage in the middle.
    let segment = path.join("0000000001-0000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let before = contents(&path);
    let damaged = Journal::check(&options);
    assert!(matches!(damaged, Err(OpenError::Damaged(_))), "{damaged:?}");
    assert_eq!(contents(&path), before);
    let repairing = JournalOptions {
        repair: JournalRepair::KeepValid,
        ..options.clone()
    };
    assert!(Journal::check(&repairing).is_ok());
    assert_eq!(contents(&path), before);

    let file = JournalOptions {
        folder: segment,
        ..options
    };
    assert!(matches!(Journal::check(&file), Err(OpenError::Io { .. })));
}
