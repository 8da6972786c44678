//! The history of one channel: the newest publications, limited in number, size and age.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Content, Epoch, History, HistoryQuery, Position, Publication};

/// Limits of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamLimits {
    pub(super) count_max: usize,
    pub(super) bytes_max: usize,
    pub(super) ttl: Duration,
}

#[derive(Debug)]
pub(super) struct Stream {
    epoch: Epoch,
    /// The offset of the newest publication, which may have been evicted.
    top: u64,
    publications: VecDeque<(Instant, Publication)>,
    bytes: usize,
    /// Set when the stream was evicted. Holders of a reference must look the channel up again.
    is_evicted: bool,
}

/// Accounted size of an empty stream: itself, its map entry, its epoch and its name.
pub(super) const STREAM_BYTES: usize = 512;

/// Accounted size of a publication without its JSON: at least its memory, and at least its size in a reply without the JSON
/// (72 + 36 + 40 bytes: field names, client id, two numbers of maximum length).
const PUBLICATION_BYTES: usize = 160;

impl Stream {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            top: 0,
            publications: VecDeque::new(),
            bytes: STREAM_BYTES,
            is_evicted: false,
        }
    }

    /// Numbers and stores a publication, and evicts the oldest ones beyond the limits.
    pub(super) fn append(&mut self, content: Content, time_ms: u64, now: Instant, limits: StreamLimits) -> Publication {
        self.top += 1;
        let publication = Publication {
            content,
            offset: self.top,
            time_ms,
        };
        self.bytes += accounted_size(&publication);
        self.publications.push_back((now, publication.clone()));
        while self.publications.len() > limits.count_max || self.bytes > limits.bytes_max + STREAM_BYTES {
            self.drop_oldest();
        }
        self.expire(now, limits.ttl);
        publication
    }

    /// Reads a part of the history, without expired publications.
    pub(super) fn read(&mut self, query: HistoryQuery, now: Instant, ttl: Duration) -> History {
        self.expire(now, ttl);
        let all = self.publications.iter().map(|(_, publication)| publication);
        let publications = if query.is_reversed {
            let before = query.since.unwrap_or(u64::MAX);
            all.rev()
                .filter(|publication| publication.offset < before)
                .take(query.limit)
                .cloned()
                .collect()
        } else {
            let after = query.since.unwrap_or(0);
            all.filter(|publication| publication.offset > after)
                .take(query.limit)
                .cloned()
                .collect()
        };
        History {
            publications,
            top: self.top(),
        }
    }

    /// Removes publications older than `ttl`. The caller should drop them without holding a lock.
    pub(super) fn expire(&mut self, now: Instant, ttl: Duration) -> Vec<(Instant, Publication)> {
        let is_expired = |(at, _): &(Instant, Publication)| now.duration_since(*at) >= ttl;
        // Sorted by time, except for small differences between the clocks of threads.
        let count = self.publications.iter().take_while(|entry| is_expired(entry)).count();
        let expired: Vec<_> = self.publications.drain(..count).collect();
        self.bytes -= expired
            .iter()
            .map(|(_, publication)| accounted_size(publication))
            .sum::<usize>();
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
        expired
    }

    /// Marks the stream as evicted, and returns its publications.
    pub(super) fn evict(&mut self) -> VecDeque<(Instant, Publication)> {
        self.is_evicted = true;
        std::mem::take(&mut self.publications)
    }

    /// The time of the oldest stored publication.
    pub(super) fn oldest_at(&self) -> Option<Instant> {
        self.publications.front().map(|(at, _)| *at)
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) fn top(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            offset: self.top,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted
    }

    fn drop_oldest(&mut self) {
        let Some((_, oldest)) = self.publications.pop_front() else {
            return;
        };
        self.bytes -= accounted_size(&oldest);
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
    }
}

fn accounted_size(publication: &Publication) -> usize {
    let info = publication
        .content
        .info
        .as_ref()
        .and_then(|info| info.conn_info.as_ref());
    PUBLICATION_BYTES + publication.content.data.len_bytes() + info.map_or(0, |info| info.len_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Data;

    const LIMITS: StreamLimits = StreamLimits {
        count_max: 3,
        bytes_max: 4096,
        ttl: Duration::from_secs(60),
    };

    fn content(text: &str) -> Content {
        Content {
            data: Data::json(text).unwrap(),
            info: None,
            tags: None,
        }
    }

    fn stream_of(count: u64, now: Instant) -> Stream {
        let mut stream = Stream::new(Epoch::new("e"));
        for expect in 1..=count {
            assert_eq!(stream.append(content("1"), 0, now, LIMITS).offset, expect);
        }
        stream
    }

    #[track_caller]
    fn check(stream: &mut Stream, query: HistoryQuery, now: Instant, expect: &[u64]) {
        let offsets: Vec<u64> = stream
            .read(query, now, LIMITS.ttl)
            .publications
            .iter()
            .map(|p| p.offset)
            .collect();
        assert_eq!(offsets, expect);
    }

    #[test]
    fn the_newest_publications_are_kept() {
        let now = Instant::now();
        let all = HistoryQuery {
            limit: usize::MAX,
            ..Default::default()
        };
        check(&mut stream_of(0, now), all, now, &[]);
        check(&mut stream_of(3, now), all, now, &[1, 2, 3]);
        check(&mut stream_of(5, now), all, now, &[3, 4, 5]);
    }

    #[test]
    fn history_is_paginated_in_both_directions() {
        let now = Instant::now();
        let mut stream = stream_of(5, now);
        let query = |since, limit, is_reversed| HistoryQuery {
            since,
            limit,
            is_reversed,
        };
        check(&mut stream, query(Some(3), 10, false), now, &[4, 5]);
        check(&mut stream, query(Some(0), 1, false), now, &[3]);
        check(&mut stream, query(Some(5), 10, false), now, &[]);
        check(&mut stream, query(None, 2, true), now, &[5, 4]);
        check(&mut stream, query(Some(5), 2, true), now, &[4, 3]);
        check(&mut stream, query(None, 0, false), now, &[]);
    }

    #[test]
    fn expired_publications_are_removed_and_offsets_not_reused() {
        let start = Instant::now();
        let mut stream = stream_of(2, start);
        let later = start + LIMITS.ttl;
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            later - Duration::from_nanos(1),
            &[1, 2],
        );
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            later,
            &[],
        );
        assert_eq!(stream.append(content("1"), 0, later, LIMITS).offset, 3);
    }

    #[test]
    fn the_size_in_bytes_is_limited() {
        let now = Instant::now();
        let mut stream = Stream::new(Epoch::new("e"));
        let big = format!("\"{}\"", "x".repeat(1800));
        for _ in 0..3 {
            stream.append(content(&big), 0, now, LIMITS);
            assert!(stream.bytes() <= LIMITS.bytes_max + STREAM_BYTES);
        }
        check(
            &mut stream,
            HistoryQuery {
                limit: 9,
                ..Default::default()
            },
            now,
            &[2, 3],
        );
        stream.append(content(&format!("\"{}\"", "x".repeat(9000))), 0, now, LIMITS);
        assert!(stream.is_empty());
        assert_eq!((stream.bytes(), stream.top().offset), (STREAM_BYTES, 4));
    }
}
