//! Damage to the files of a log that nobody has open.

use super::super::format::{self, HEADER_BYTES};
use super::sim::{Faults, SimDisk};
use super::*;

const OLD: &str = "0000000001-0000000001.log";
const NEW: &str = "0000000002-0000000002.log";

fn sim_options(fsync: Fsync) -> JournalOptions {
    JournalOptions {
        fsync,
        full_retry_interval: Duration::from_millis(1),
        ..JournalOptions::new("")
    }
}

fn try_open_sim(disk: &SimDisk, options: &JournalOptions) -> Result<(Journal, Replay, Vec<Owned>), OpenError> {
    let mut records = Vec::new();
    let (journal, replay) =
        Journal::open_storage(disk.storage(), options, &mut |record| records.push(Owned::of(record)))?;
    Ok((journal, replay, records))
}

#[track_caller]
fn open_sim(disk: &SimDisk, options: &JournalOptions) -> (Journal, Replay, Vec<Owned>) {
    try_open_sim(disk, options).unwrap_or_else(|error| panic!("{error}"))
}

fn publications(offsets: std::ops::RangeInclusive<u64>) -> Vec<Owned> {
    offsets.map(|offset| Owned::publication("chat", offset)).collect()
}

/// A log of two segments, with publications 1 to 3 in the old one and 4 to 6 in the newest. Its process was killed.
async fn log(fsync: Fsync) -> SimDisk {
    let disk = SimDisk::new(1);
    let options = sim_options(fsync);
    let (journal, ..) = open_sim(&disk, &options);
    for record in publications(1..=3) {
        journal.append(&record.record()).await.unwrap();
    }
    journal.close().await.unwrap();
    drop(journal);
    let (journal, ..) = open_sim(&disk, &options);
    for record in publications(4..=6) {
        journal.append(&record.record()).await.unwrap();
    }
    if fsync == Fsync::Always {
        // The mark behind the last record is written after the record is acknowledged.
        let with_mark = journal.stats().bytes;
        eventually(|| journal.stats().bytes > with_mark || ends_with_mark(&disk.content(NEW))).await;
    }
    disk.kill();
    drop(journal);
    assert_eq!(disk.names(), [OLD, NEW]);
    disk
}

fn ends_with_mark(segment: &[u8]) -> bool {
    segment.ends_with(format::BODY_SYNCED)
}

/// A copy of a disk with one file replaced.
fn with_content(disk: &SimDisk, name: &str, content: &[u8]) -> SimDisk {
    let copy = disk.copy();
    copy.set_content(name, content);
    copy
}

/// Opens the log once more, as an operator would, and expects the same records.
#[track_caller]
fn check_next_start(disk: &SimDisk, options: &JournalOptions, expected: &[Owned]) {
    let options = JournalOptions {
        repair: JournalRepair::Refuse,
        ..options.clone()
    };
    let (_, replay, records) = open_sim(disk, &options);
    assert_eq!((records.as_slice(), replay.is_era_new), (expected, false));
    assert_eq!((replay.cut, replay.damages), (None, vec![]));
}

#[tokio::test]
async fn newest_segment_cut_at_any_byte_loses_its_end_only() {
    let disk = log(Fsync::Always).await;
    let content = disk.content(NEW);
    for len in 0..content.len() {
        let disk = with_content(&disk, NEW, &content[..len]);
        let options = sim_options(Fsync::Always);
        let (journal, replay, records) = open_sim(&disk, &options);
        assert!(records.len() >= 3, "cut at {len}");
        assert_eq!(records, publications(1..=records.len() as u64), "cut at {len}");
        assert_eq!(
            (replay.end, replay.era, replay.is_era_new),
            (End::Killed, 1, false),
            "cut at {len}"
        );
        if let Some(cut) = replay.cut {
            assert_eq!(cut.offset + cut.bytes, len as u64);
            assert!(!cut.has_valid_records && cut.file.ends_with(NEW));
        }
        let next = Owned::publication("chat", records.len() as u64 + 1);
        journal.append(&next.record()).await.unwrap();
        drop(journal);
        check_next_start(&disk, &options, &publications(1..=next.offset));
    }
}

#[tokio::test]
async fn old_segment_cut_at_any_byte_is_refused() {
    let disk = log(Fsync::Always).await;
    let content = disk.content(OLD);
    for len in 0..content.len() {
        let disk = with_content(&disk, OLD, &content[..len]);
        let error = try_open_sim(&disk, &sim_options(Fsync::Always)).expect_err("damage");
        let OpenError::Damaged(damage) = &error else {
            panic!("{error}")
        };
        assert!(damage.file.ends_with(OLD) && damage.offset <= len as u64, "{error}");
        assert!(error.to_string().contains(OLD), "{error}");
        let options = JournalOptions {
            repair: JournalRepair::KeepValid,
            ..sim_options(Fsync::Always)
        };
        let (journal, replay, records) = open_sim(&disk, &options);
        assert!(
            replay.is_era_new && replay.era == 2 && replay.damages.len() == 1,
            "cut at {len}: {replay:?}"
        );
        let kept = records.len() as u64 - 3;
        let expected = [publications(1..=kept), publications(4..=6)].concat();
        assert_eq!(records, expected, "cut at {len}");
        drop(journal);
        check_next_start(&disk, &options, &expected);
    }
}

#[tokio::test]
async fn flipped_byte_is_refused_and_repair_loses_one_record() {
    let disk = log(Fsync::Always).await;
    for name in [OLD, NEW] {
        let content = disk.content(name);
        for at in 0..content.len() {
            let mut content = content.clone();
            content[at] ^= 1 << (at % 8);
            let disk = with_content(&disk, name, &content);
            let context = format!("{name} at {at}");
            match try_open_sim(&disk, &sim_options(Fsync::Always)) {
                // A header is there twice. And a length that points behind the end of the file is what an interrupted
                // write leaves: here of the mark behind the newest record.
                Ok((_, replay, records)) => {
                    assert_eq!((records, replay.is_era_new), (publications(1..=6), false), "{context}");
                    continue;
                }
                Err(OpenError::Damaged(damage)) => {
                    assert!(
                        damage.file.ends_with(name) && damage.offset <= at as u64,
                        "{context}: {damage}"
                    );
                    assert!(damage.offset + 200 > at as u64, "{context}: {damage}");
                }
                Err(error) => panic!("{context}: {error}"),
            }
            // Nothing was changed by the attempt.
            assert_eq!(disk.content(name), content, "{context}");
            let options = JournalOptions {
                repair: JournalRepair::KeepValid,
                ..sim_options(Fsync::Always)
            };
            let (journal, replay, records) = open_sim(&disk, &options);
            assert!(replay.is_era_new && replay.era == 2, "{context}");
            let all = publications(1..=6);
            assert!(
                records.len() >= 5 && records.iter().all(|record| all.contains(record)),
                "{context}"
            );
            assert!(records.is_sorted_by_key(|record| record.offset), "{context}");
            drop(journal);
            check_next_start(&disk, &options, &records);
        }
    }
}

#[tokio::test]
async fn missing_segment_is_refused() {
    let disk = log(Fsync::Always).await;
    let options = sim_options(Fsync::Always);
    drop(open_sim(&disk, &options));
    disk.remove(NEW);
    let error = try_open_sim(&disk, &options).expect_err("a segment is missing");
    assert!(
        error.to_string().contains(&format!("{NEW}: the file is missing")),
        "{error}"
    );
    let options = JournalOptions {
        repair: JournalRepair::KeepValid,
        ..options
    };
    let (journal, replay, records) = open_sim(&disk, &options);
    assert_eq!((records, replay.era), (publications(1..=3), 2));
    drop(journal);
    check_next_start(&disk, &options, &publications(1..=3));
}

/// Without a mark of what is on disk, as long as the operating system keeps running.
#[tokio::test]
async fn flipped_byte_in_the_last_record_is_no_torn_write() {
    let disk = log(Fsync::Never).await;
    let mut content = disk.content(NEW);
    *content.last_mut().expect("it has records") ^= 1;
    disk.set_content(NEW, &content);
    let error = try_open_sim(&disk, &sim_options(Fsync::Never)).expect_err("damage");
    assert!(error.to_string().contains("is invalid"), "{error}");
    // A power cut may leave that, and then the era changes.
    disk.reboot();
    let (_, replay, records) = open_sim(&disk, &sim_options(Fsync::Never));
    assert_eq!((records, replay.is_era_new), (publications(1..=5), true));
}

/// As after a restored backup, of which the log cannot know.
#[tokio::test]
async fn repair_of_an_intact_log_begins_an_era() {
    let disk = log(Fsync::Always).await;
    let options = JournalOptions {
        repair: JournalRepair::KeepValid,
        ..sim_options(Fsync::Always)
    };
    let (journal, replay, records) = open_sim(&disk, &options);
    assert_eq!((records, replay.era, replay.is_era_new), (publications(1..=6), 2, true));
    drop(journal);
    check_next_start(&disk, &options, &publications(1..=6));
}

#[tokio::test]
async fn both_headers_damaged_is_refused() {
    let disk = log(Fsync::Always).await;
    let mut content = disk.content(NEW);
    content[HEADER_BYTES / 2 - 1] ^= 1;
    content[HEADER_BYTES - 1] ^= 1;
    disk.set_content(NEW, &content);
    let options = sim_options(Fsync::Always);
    let error = try_open_sim(&disk, &options).expect_err("damage");
    assert!(error.to_string().contains("the header is invalid"), "{error}");
    let options = JournalOptions {
        repair: JournalRepair::KeepValid,
        ..options
    };
    let (journal, replay, records) = open_sim(&disk, &options);
    assert_eq!((records, replay.era), (publications(1..=3), 2));
    drop(journal);
    check_next_start(&disk, &options, &publications(1..=3));
}

/// After a power cut, sectors in what was not synced may be missing although later ones are there.
#[tokio::test]
async fn hole_in_what_was_not_synced_is_a_new_era() {
    let disk = log(Fsync::Never).await;
    let mut content = disk.content(NEW);
    let (at, frame) = format::find_frame(&content, HEADER_BYTES, first_magic(&content)).expect("publication 4");
    let end = frame.end;
    content[at..end].fill(0);
    let damaged = with_content(&disk, NEW, &content);
    // The operating system kept running, so nothing explains the hole.
    let error = try_open_sim(&damaged, &sim_options(Fsync::Never)).expect_err("damage");
    assert!(
        error.to_string().contains(&format!("offset {HEADER_BYTES} is invalid")),
        "{error}"
    );
    damaged.reboot();
    let (journal, replay, records) = open_sim(&damaged, &sim_options(Fsync::Never));
    assert_eq!(
        (records, replay.end, replay.era),
        (publications(1..=3), End::PowerCut, 2)
    );
    assert!(replay.cut.is_some_and(|cut| cut.has_valid_records));
    drop(journal);
    check_next_start(&damaged, &sim_options(Fsync::Never), &publications(1..=3));
}

fn first_magic(segment: &[u8]) -> [u8; 4] {
    format::Header::decode(segment).expect("it is valid").magic
}

#[tokio::test]
async fn power_cut_begins_an_era_unless_always_synced() {
    for (fsync, is_era_new) in [
        (Fsync::Always, false),
        (Fsync::Every(Duration::from_secs(60)), true),
        (Fsync::Never, true),
    ] {
        let disk = log(fsync).await;
        disk.reboot();
        let (journal, replay, records) = open_sim(&disk, &sim_options(Fsync::Always));
        assert_eq!(
            (records, replay.is_era_new),
            (publications(1..=6), is_era_new),
            "{fsync:?}"
        );
        assert_eq!((replay.end, replay.era), (End::PowerCut, 1 + u32::from(is_era_new)));
        drop(journal);
        check_next_start(&disk, &sim_options(Fsync::Always), &publications(1..=6));
        // The old policy does not count again.
        disk.reboot();
        check_next_start(&disk, &sim_options(Fsync::Always), &publications(1..=6));
    }
}

#[tokio::test]
async fn close_is_a_clean_end_under_every_policy() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_secs(60)), Fsync::Never] {
        let disk = log(fsync).await;
        let (journal, replay, _) = open_sim(&disk, &sim_options(fsync));
        assert_eq!(replay.end, End::Killed);
        journal.append(&Owned::publication("chat", 7).record()).await.unwrap();
        journal.close().await.unwrap();
        assert_eq!(
            journal.append(&Owned::publication("chat", 8).record()).await,
            Err(AppendError::Closed)
        );
        assert_eq!(journal.close().await, Err(AppendError::Closed));
        disk.cut_power();
        drop(journal);
        let (_, replay, records) = open_sim(&disk, &sim_options(fsync));
        assert_eq!(
            (records, replay.end, replay.is_era_new),
            (publications(1..=7), End::Clean, false)
        );
    }
}

#[tokio::test]
async fn failed_sync_poisons_the_log() {
    let disk = SimDisk::new(1);
    let options = sim_options(Fsync::Always);
    let (journal, ..) = open_sim(&disk, &options);
    journal.append(&Owned::publication("chat", 1).record()).await.unwrap();
    disk.set_faults(Faults {
        is_sync_failing: true,
        ..Default::default()
    });
    let second = Owned::publication("chat", 2);
    assert_eq!(journal.append(&second.record()).await, Err(AppendError::Poisoned));
    disk.set_faults(Faults::default());
    assert_eq!(journal.append(&second.record()).await, Err(AppendError::Poisoned));
    assert_eq!(journal.state(), State::Poisoned);
    assert!(journal.stats().is_poisoned && journal.stats().failures > 0);
    assert_eq!(journal.reason().as_deref(), Some("fdatasync failed"));
    assert_eq!(journal.close().await, Err(AppendError::Poisoned));
    drop(journal);
    let (_, replay, records) = open_sim(&disk, &options);
    // The second one was not acknowledged, and is found all the same.
    assert_eq!(
        (records, replay.end, replay.is_era_new),
        (publications(1..=2), End::Killed, false)
    );
}

#[tokio::test]
async fn failed_sync_of_the_folder_prevents_the_start() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults {
        is_folder_sync_failing: true,
        ..Default::default()
    });
    let error = try_open_sim(&disk, &sim_options(Fsync::Always)).expect_err("a segment that a power cut may remove");
    assert!(error.to_string().contains("/simulated"), "{error}");
}

#[tokio::test]
async fn full_disk_fails_appends_and_recovers_by_itself() {
    for is_writing_short in [false, true] {
        let disk = log(Fsync::Always).await;
        let options = sim_options(Fsync::Always);
        let (journal, ..) = open_sim(&disk, &options);
        let used = disk.used_bytes();
        disk.set_faults(Faults {
            capacity: Some(used + 20),
            is_writing_short,
            ..Default::default()
        });
        let next = Owned::publication("chat", 7);
        assert_eq!(journal.append(&next.record()).await, Err(AppendError::Full));
        assert_eq!(journal.state(), State::Full);
        assert!(journal.stats().is_full);
        assert_eq!(journal.append(&next.record()).await, Err(AppendError::Full));
        // Nothing of it stays in the middle of the log, not even of the attempts to write.
        eventually(|| disk.used_bytes() == used).await;
        disk.set_faults(Faults::default());
        eventually(|| journal.state() == State::Healthy).await;
        journal.append(&next.record()).await.unwrap();
        journal.close().await.unwrap();
        drop(journal);
        check_next_start(&disk, &options, &publications(1..=7));
    }
}

#[tokio::test]
async fn full_disk_at_the_start_is_a_full_log() {
    let disk = log(Fsync::Never).await;
    disk.reboot();
    disk.set_faults(Faults {
        capacity: Some(disk.used_bytes()),
        ..Default::default()
    });
    let options = sim_options(Fsync::Never);
    for _ in 0..2 {
        let (journal, replay, records) = open_sim(&disk, &options);
        assert_eq!((records, replay.era), (publications(1..=6), 2));
        assert_eq!(journal.state(), State::Full);
        assert_eq!(journal.close().await, Err(AppendError::Full));
    }
    let (journal, replay, _) = open_sim(&disk, &options);
    assert_eq!(replay.era, 2);
    disk.set_faults(Faults::default());
    eventually(|| journal.state() == State::Healthy).await;
    journal.append(&Owned::publication("chat", 7).record()).await.unwrap();
    drop(journal);
    check_next_start(&disk, &options, &publications(1..=7));
}

/// A stream must not have a gap, whatever was queued when the disk was full.
#[tokio::test]
async fn nothing_is_stored_behind_a_failure_of_its_stream() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open_sim(&disk, &sim_options(Fsync::Always));
    let late = journal.reserve(100).await.unwrap();
    let other = journal.reserve(100).await.unwrap();
    disk.set_faults(Faults {
        capacity: Some(disk.used_bytes()),
        ..Default::default()
    });
    let first = Owned::publication("chat", 1);
    assert_eq!(journal.append(&first.record()).await, Err(AppendError::Full));
    disk.set_faults(Faults::default());
    eventually(|| journal.state() == State::Healthy).await;
    assert_eq!(
        late.append(&Owned::publication("chat", 2).record()).await,
        Err(AppendError::Full)
    );
    assert_eq!(other.append(&Owned::publication("other", 1).record()).await, Ok(()));
    for record in publications(1..=2) {
        journal.append(&record.record()).await.unwrap();
    }
}

#[tokio::test]
async fn appenders_wait_while_the_disk_is_slow() {
    let disk = SimDisk::new(1);
    let options = JournalOptions {
        queue_bytes_max: 4096,
        ..sim_options(Fsync::Always)
    };
    let (journal, ..) = open_sim(&disk, &options);
    disk.set_faults(Faults {
        is_stalled: true,
        ..Default::default()
    });
    let mut acks = Vec::new();
    let wait = Duration::from_millis(50);
    let mut next = 1;
    while let Ok(permit) = tokio::time::timeout(wait, journal.reserve(500)).await {
        let ack = permit.unwrap().append(&Owned::publication("chat", next).record());
        // Nobody waits for every other record, which is stored all the same.
        if next % 2 == 0 {
            acks.push(ack);
        }
        next += 1;
        assert!(next < 10, "4096 bytes are enough for 4 records");
    }
    // One that waited and gave up takes no room with it.
    assert!(tokio::time::timeout(wait, journal.reserve(5000)).await.is_err());
    disk.set_faults(Faults::default());
    for ack in acks {
        ack.await.unwrap();
    }
    // A record larger than the queue has it to itself.
    let large = Owned {
        payload: vec![7; 100_000],
        ..Owned::publication("chat", next)
    };
    journal.append(&large.record()).await.unwrap();
    drop(journal);
    let (_, _, records) = open_sim(&disk, &options);
    let expected = [publications(1..=next - 1), vec![large]].concat();
    assert_eq!(records, expected);
}

#[tokio::test]
async fn queued_records_share_one_sync() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open_sim(&disk, &sim_options(Fsync::Always));
    disk.set_faults(Faults {
        is_stalled: true,
        ..Default::default()
    });
    let mut acks = Vec::new();
    for record in publications(1..=100) {
        acks.push(journal.reserve(100).await.unwrap().append(&record.record()));
    }
    disk.set_faults(Faults::default());
    for ack in acks {
        assert_eq!(ack.await, Ok(()));
    }
    let syncs = journal.stats().syncs;
    assert!(syncs <= 2, "{syncs} syncs");
}

#[tokio::test]
async fn oversized_channel_is_refused() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open_sim(&disk, &sim_options(Fsync::Always));
    let record = Owned::publication(&"c".repeat(65_536), 1);
    assert_eq!(journal.append(&record.record()).await, Err(AppendError::TooLarge));
    assert_eq!(journal.state(), State::Healthy);
}
