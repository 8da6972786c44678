//! Logs on disk that were damaged: no record is made up, nothing is lost without a signal, and repair is final.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::memory::Meter;
use sockeye_server::fuzzing::decode_payload;
use sockeye_server::fuzzing::log::{Ending, Log, OwnedRecord};

fuzz_target!(|input: &[u8]| {
    let [choices, rest @ ..] = input else { return };
    let is_same_boot = choices & 1 != 0;
    match choices >> 1 & 1 {
        0 => written(is_same_boot, *choices, rest),
        _ => arbitrary(is_same_boot, rest),
    }
});

/// Segments with any content.
fn arbitrary(is_same_boot: bool, bytes: &[u8]) {
    let meter = Meter::start();
    let log = Log::new(is_same_boot);
    // A valid header, so that the frames are reached.
    let (magic, records) = bytes.split_first_chunk::<4>().unwrap_or((&[1; 4], bytes));
    log.add(1, u32::from_le_bytes(*magic), &[], Ending::Open, false);
    log.change(0, |segment| segment.extend_from_slice(records));
    log.add_raw(2, bytes.to_vec());
    check_repair(&log);
    let peak = meter.peak();
    assert!(
        peak <= 200 * bytes.len() + 64 * 1024,
        "{peak} bytes held for {}",
        bytes.len()
    );
    // Payloads that are read are written as they were read.
    if let Some(payload) = decode_payload(bytes) {
        assert_eq!(decode_payload(&payload), Some(payload));
    }
}

/// Segments that were written in order and then damaged.
fn written(is_same_boot: bool, choices: u8, mut bytes: &[u8]) {
    let log = Log::new(is_same_boot);
    let is_synced = choices & 4 != 0;
    let segments = 1 + usize::from(choices >> 3 & 3);
    let mut all = Vec::new();
    let mut lens = Vec::new();
    let mut before_newest = 0;
    for number in 0..segments {
        let records = records(&mut bytes, all.len() as u64);
        let is_newest = number + 1 == segments;
        let ending = match (is_newest, choices >> 5 & 3) {
            (false, _) => Ending::Sealed,
            (true, 0 | 1) => Ending::Open,
            (true, 2) => Ending::Sealed,
            (true, _) => Ending::Clean,
        };
        if is_newest {
            before_newest = all.len();
        }
        lens.push(log.add(
            number as u64 + 1,
            0x0102_0304 + number as u32,
            &records,
            ending,
            is_synced,
        ));
        all.extend(records);
    }
    let whole = log.recover(false).expect("a log that is not damaged is accepted");
    assert_eq!(whole.records, all);
    // Without a restart of the system, or with everything on disk, positions stay valid.
    assert!(!whole.is_era_new || !is_same_boot);

    // Up to two changes, of which each hits one place.
    let mut is_changed = false;
    for change in bytes.chunks_exact(4).take(2) {
        let idx = usize::from(change[0]) % segments;
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % lens[idx];
        log.change(idx, |segment| match (change[3] & 15, segment.get_mut(at)) {
            (bit @ 0..8, Some(byte)) => {
                *byte ^= 1 << bit;
                is_changed = true;
            }
            (8..10, Some(_)) => {
                segment.truncate(at);
                is_changed = true;
            }
            (10..12, Some(_)) => {
                let end = segment.len();
                is_changed |= segment[at..end].iter().any(|byte| *byte != 0);
                segment[at..end].fill(0);
            }
            _ => {}
        });
    }
    if !is_changed {
        return;
    }
    if let Ok(found) = log.recover(false) {
        // Nothing is missing in between, and nothing from a segment that was complete.
        assert!(all.starts_with(&found.records), "a hole in what was recovered");
        assert!(found.records.len() >= before_newest, "a complete segment lost records");
    }
    let repaired = check_repair(&log);
    let mut written = all.iter();
    for record in &repaired {
        assert!(
            written.any(|other| other == record),
            "a record that nobody wrote, or in another order"
        );
    }
}

/// Repairs a log and checks that it needs no other repair. Returns its records.
fn check_repair(log: &Log) -> Vec<OwnedRecord> {
    let repaired = log.recover(true).expect("repair accepts everything");
    assert!(repaired.is_era_new, "clients must not recover across a repair");
    let again = log.recover(false).expect("a repaired log is accepted");
    assert_eq!(again.records, repaired.records);
    assert!(
        again.era >= repaired.era || repaired.damages == 0,
        "the era of a repair is kept"
    );
    repaired.records
}

/// Up to seven records, made from the input.
fn records(bytes: &mut &[u8], first_offset: u64) -> Vec<OwnedRecord> {
    let Some((count, rest)) = bytes.split_first() else {
        return Vec::new();
    };
    *bytes = rest;
    let mut records = Vec::new();
    for idx in 0..u64::from(count & 7) {
        let [shape, fill, rest @ ..] = *bytes else { break };
        *bytes = rest;
        records.push(OwnedRecord {
            is_position: shape & 1 != 0,
            channel: "c".repeat(usize::from(shape >> 1 & 3)),
            epoch: "e".repeat(usize::from(shape >> 3 & 1)),
            offset: first_offset + idx,
            time_ms: u64::from(*fill),
            payload: vec![*fill; usize::from(shape >> 4)],
        });
    }
    records
}
