//! The history of one channel: the newest publications, bounded in number, size and age.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Content, Epoch, History, HistoryQuery, Position, Publication};

/// How much a stream keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamLimits {
    pub(super) count_max: usize,
    pub(super) bytes_max: usize,
    pub(super) ttl: Duration,
}

#[derive(Debug)]
pub(super) struct Stream {
    epoch: Epoch,
    /// The offset of the newest publication, remembered or not.
    top: u64,
    publications: VecDeque<(Instant, Publication)>,
    bytes: usize,
    /// Set when the stream was evicted while somebody still held it: it must not be used any more.
    is_evicted: bool,
}

/// What a stream weighs before its first publication: itself, its place in the map, its epoch and its name.
pub(super) const STREAM_BYTES: usize = 512;

/// What a publication weighs beyond its JSON: no less than the memory it takes, nor than what a reply puts around it
/// (72 + 36 + 40 bytes: names of fields, the client, two numbers at their longest).
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

    /// Numbers and keeps a publication. What no longer fits is forgotten, the oldest first.
    pub(super) fn append(&mut self, content: Content, time_ms: u64, now: Instant, limits: StreamLimits) -> Publication {
        self.top += 1;
        let publication = Publication {
            content,
            offset: self.top,
            time_ms,
        };
        self.bytes += weight(&publication);
        self.publications.push_back((now, publication.clone()));
        while self.publications.len() > limits.count_max || self.bytes > limits.bytes_max + STREAM_BYTES {
            self.drop_oldest();
        }
        self.expire(now, limits.ttl);
        publication
    }

    /// Reads a part, leaving out what has grown too old.
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

    /// Takes out what is older than `ttl`, for the caller to drop where it holds up nobody.
    pub(super) fn expire(&mut self, now: Instant, ttl: Duration) -> Vec<(Instant, Publication)> {
        let is_expired = |(at, _): &(Instant, Publication)| now.duration_since(*at) >= ttl;
        // In the order of time, as far as clocks of different threads go.
        let count = self.publications.iter().take_while(|entry| is_expired(entry)).count();
        let expired: Vec<_> = self.publications.drain(..count).collect();
        self.bytes -= expired
            .iter()
            .map(|(_, publication)| weight(publication))
            .sum::<usize>();
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
        expired
    }

    /// Ends the stream, and takes out all that is left of it.
    pub(super) fn evict(&mut self) -> VecDeque<(Instant, Publication)> {
        self.is_evicted = true;
        std::mem::take(&mut self.publications)
    }

    /// When the oldest publication that is kept was published.
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
        self.bytes -= weight(&oldest);
        if self.publications.is_empty() {
            self.publications = VecDeque::new();
        }
    }
}

fn weight(publication: &Publication) -> usize {
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
    use crate::protocol::Json;

    const LIMITS: StreamLimits = StreamLimits {
        count_max: 3,
        bytes_max: 4096,
        ttl: Duration::from_secs(60),
    };

    fn content(text: &str) -> Content {
        Content {
            data: Json::parse(text).unwrap(),
            info: None,
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
    fn the_newest_are_kept() {
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
    fn pages_go_both_ways() {
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
    fn the_old_are_forgotten_and_their_numbers_stay_taken() {
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
    fn size_in_bytes_is_bounded_too() {
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
