//! The check whether a reconnecting client can recover.

use super::{History, Position};

/// Whether `history`, read from just after `from`, contains all publications since then. Partial recovery is not
/// possible.
pub(crate) fn is_recovered(from: &Position, history: &History) -> bool {
    // A client without an epoch has no position in an older epoch.
    if !from.epoch.as_str().is_empty() && from.epoch != history.top.epoch {
        return false;
    }
    match (history.publications.first(), history.publications.last()) {
        (Some(first), Some(last)) => {
            first.offset > from.offset
                && first.previous <= from.offset
                && last.offset == history.top.offset
                && history.publications.is_sorted_by(|a, b| a.offset == b.previous)
        }
        _ => from.offset == history.top.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Content, Epoch, Publication};
    use crate::protocol::Data;

    #[track_caller]
    fn check(from: (&str, u64), remembered: &[u64], top: (&str, u64), expect: bool) {
        let at = |(epoch, offset): (&str, u64)| Position {
            epoch: Epoch::new(epoch),
            offset,
        };
        let content = Content {
            data: Data::json("1").unwrap(),
            info: None,
            tags: None,
        };
        let publication = |&offset: &u64| Publication {
            content: content.clone(),
            offset,
            previous: offset.saturating_sub(1),
            time_ms: 0,
        };
        let history = History {
            publications: remembered.iter().map(publication).collect(),
            top: at(top),
        };
        assert_eq!(is_recovered(&at(from), &history), expect);
    }

    #[test]
    fn without_missed_publications_recovery_succeeds() {
        check(("e", 5), &[], ("e", 5), true);
        check(("", 0), &[], ("e", 0), true);
    }

    #[test]
    fn all_missed_publications_are_recovered() {
        check(("e", 5), &[6, 7], ("e", 7), true);
        check(("", 5), &[6], ("e", 6), true);
    }

    #[test]
    fn another_epoch_is_not_recovered() {
        check(("old", 5), &[], ("e", 5), false);
        check(("old", 5), &[6], ("e", 6), false);
    }

    #[test]
    fn partial_history_is_not_recovered() {
        check(("e", 5), &[], ("e", 6), false);
        check(("e", 5), &[7], ("e", 7), false);
        check(("e", 5), &[6], ("e", 7), false);
        check(("e", 5), &[6, 8], ("e", 8), false);
    }

    #[test]
    fn a_position_from_the_future_is_not_recovered() {
        check(("e", 9), &[], ("e", 5), false);
        check(("e", u64::MAX), &[6], ("e", 6), false);
    }
}
