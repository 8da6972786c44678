//! What the log promises, on a real folder and on a simulated disk.

mod crash;
mod damage;
mod disk;
pub(crate) mod sim;
mod speed;

use std::path::Path;
use std::time::Duration;

use super::*;

/// A record as the tests keep it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owned {
    is_position: bool,
    channel: String,
    epoch: String,
    offset: u64,
    payload: Vec<u8>,
}

impl Owned {
    fn publication(channel: &str, offset: u64) -> Self {
        Self {
            is_position: false,
            channel: channel.to_owned(),
            epoch: "e".to_owned(),
            offset,
            payload: format!("payload {offset} of {channel}").into_bytes(),
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            kind: match self.is_position {
                true => RecordKind::Position,
                false => RecordKind::Publication,
            },
            channel: &self.channel,
            epoch: &self.epoch,
            offset: self.offset,
            time_ms: 1_700_000_000_000 + self.offset,
            payload: &self.payload,
        }
    }

    fn of(record: &Record<'_>) -> Self {
        Self {
            is_position: record.kind == RecordKind::Position,
            channel: record.channel.to_owned(),
            epoch: record.epoch.to_owned(),
            offset: record.offset,
            payload: record.payload.to_owned(),
        }
    }
}

fn options(folder: &Path) -> JournalOptions {
    JournalOptions {
        full_retry_interval: Duration::from_millis(5),
        ..JournalOptions::new(folder)
    }
}

/// Opens the log, and collects its records.
fn try_open(options: &JournalOptions) -> Result<(Journal, Replay, Vec<Owned>), OpenError> {
    let mut records = Vec::new();
    let (journal, replay) = Journal::open(options, |record| records.push(Owned::of(record)))?;
    Ok((journal, replay, records))
}

#[track_caller]
fn open(options: &JournalOptions) -> (Journal, Replay, Vec<Owned>) {
    try_open(options).unwrap()
}

/// Waits for something that another thread does.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not happen within 10 s");
}
