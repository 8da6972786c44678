//! The epochs of streams.
//!
//! The epoch of a channel is derived from a random seed, its name, and the number of its evictions. A channel without a
//! stream therefore has an epoch without using memory, and its first publication continues that epoch.
//!
//! With a log, the seed is in the log, and clients see the epoch with the era of the log behind it. The numbers of
//! evictions are not in the log. Before the first eviction, the log therefore gets a note that the seed must not be
//! used by the next process.

use super::Epoch;

/// Names the epochs of one process.
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    seed: Seed,
    /// The era of the log.
    era: Option<u32>,
}

/// The random seed of epochs.
pub(super) type Seed = [u8; 16];

/// Separates the epoch of a stream from the era.
const SEPARATOR: char = '.';

impl Epochs {
    pub(super) fn new(seed: Seed, era: Option<u32>) -> Self {
        Self { seed, era }
    }

    /// The epoch of a channel after this number of evictions.
    pub(super) fn of(&self, channel: &str, evictions: u32) -> Epoch {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(&self.seed);
        digest.update(&evictions.to_le_bytes());
        digest.update(channel.as_bytes());
        let digest = digest.finish();
        let (bytes, _) = digest
            .as_ref()
            .split_first_chunk()
            .expect("a SHA-256 digest has 32 bytes");
        self.with_era(&format!("{:016x}", u64::from_le_bytes(*bytes)))
    }

    /// The epoch as clients see it, from the one in the log.
    pub(super) fn with_era(&self, logged: &str) -> Epoch {
        match self.era {
            None => Epoch::new(logged),
            Some(era) => Epoch::new(format!("{logged}{SEPARATOR}{era:x}")),
        }
    }
}

/// The epoch as it is in the log, from the one that clients see.
pub(super) fn logged(epoch: &Epoch) -> &str {
    let epoch = epoch.as_str();
    epoch.split_once(SEPARATOR).map_or(epoch, |(logged, _)| logged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_by_seed_channel_evictions_and_era() {
        let epochs = Epochs::new([1; 16], Some(1));
        let known = epochs.of("a", 0);
        assert_eq!(known, Epochs::new([1; 16], Some(1)).of("a", 0));
        assert_ne!(known, epochs.of("b", 0));
        assert_ne!(known, epochs.of("a", 1));
        assert_ne!(known, Epochs::new([2; 16], Some(1)).of("a", 0));
        assert_ne!(known, Epochs::new([1; 16], Some(2)).of("a", 0));
        assert_ne!(known, Epochs::new([1; 16], None).of("a", 0));
    }

    #[test]
    fn the_log_has_epochs_without_the_era() {
        let (old, new) = (Epochs::new([1; 16], Some(9)), Epochs::new([1; 16], Some(10)));
        let epoch = old.of("a", 0);
        assert_eq!(old.with_era(logged(&epoch)), epoch);
        assert_eq!(new.with_era(logged(&epoch)), new.of("a", 0));
    }
}
