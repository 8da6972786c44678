//! Messages sent on a lost connection whose delivery is not confirmed.

use std::collections::VecDeque;

use crate::message::outbound::Outbound;

/// Messages sent on a connection whose delivery is unconfirmed: the peer may or may not have received them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// The number of these messages.
    pub count: u64,
    /// The messages in the order in which they were sent. If they exceed
    /// [`keep_undelivered_max`](crate::Reconnecting::keep_undelivered_max), only the newest ones. Each can be passed to
    /// [`send`](crate::Reconnecting::send) again, and keeps its choice of compression.
    pub messages: Vec<Outbound>,
}

impl Undelivered {
    /// Appends later messages. Keeps at most `size_max` bytes.
    pub(super) fn append(&mut self, later: Self, size_max: usize) {
        self.count += later.count;
        self.messages.extend(later.messages);
        let mut size: usize = self.messages.iter().map(Outbound::len).sum();
        let mut dropped = 0;
        while size > size_max {
            size -= self.messages[dropped].len();
            dropped += 1;
        }
        self.messages.drain(..dropped);
    }
}

/// Records messages that are sent, and confirmations that the peer has received them.
///
/// A pong confirms every message that was sent before its ping, because frames are received in order. One ping is
/// unanswered at a time, so a busy connection sends about one for each round trip.
#[derive(Debug)]
pub(super) struct UnconfirmedMessages {
    size_max: usize,
    /// Number of messages sent on this connection.
    sent: u64,
    /// Number of messages, from the first, that are confirmed.
    confirmed: u64,
    /// The newest messages with their numbers.
    kept: VecDeque<(u64, Outbound)>,
    kept_size: usize,
    /// The number of messages that the pong of the unanswered ping confirms.
    ping_confirms: Option<u64>,
}

impl UnconfirmedMessages {
    pub(super) const fn new(size_max: usize) -> Self {
        Self {
            size_max,
            sent: 0,
            confirmed: 0,
            kept: VecDeque::new(),
            kept_size: 0,
            ping_confirms: None,
        }
    }

    pub(super) const fn size_max(&self) -> usize {
        self.size_max
    }

    pub(super) const fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
    }

    /// Records a message that is sent.
    pub(super) fn record(&mut self, message: Outbound) {
        self.kept_size += message.len();
        self.kept.push_back((self.sent, message));
        self.sent += 1;
        while self.kept_size > self.size_max {
            self.drop_oldest();
        }
    }

    /// The payload of a ping to send now, if one is needed and none is unanswered.
    pub(super) fn next_ping(&mut self) -> Option<[u8; 8]> {
        if self.ping_confirms.is_some() || self.sent == self.confirmed {
            return None;
        }
        self.ping_confirms = Some(self.sent);
        Some(self.sent.to_be_bytes())
    }

    /// Handles a pong.
    pub(super) fn handle_pong(&mut self, payload: &[u8]) {
        // A pong with another payload is unsolicited or answers another ping, so it confirms nothing. The peer may skip
        // our ping after answering a later one (RFC 6455 §5.5.3), so stop waiting for its pong.
        let Some(ping_confirms) = self.ping_confirms.take() else {
            return;
        };
        if payload == ping_confirms.to_be_bytes() {
            self.confirm(ping_confirms);
        }
    }

    /// Confirms everything, because the peer has answered a close frame.
    pub(super) fn confirm_all(&mut self) {
        self.confirm(self.sent);
    }

    fn confirm(&mut self, count: u64) {
        self.confirmed = count;
        while self.kept.front().is_some_and(|(number, _)| *number < count) {
            self.drop_oldest();
        }
        if self.kept.is_empty() {
            // An idle connection holds no memory.
            self.kept = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, message)) = self.kept.pop_front() {
            self.kept_size -= message.len();
        }
    }

    /// What is not confirmed.
    pub(super) fn undelivered(&self) -> Undelivered {
        Undelivered {
            count: self.sent - self.confirmed,
            messages: self.kept.iter().map(|(_, message)| message.clone()).collect(),
        }
    }

    /// Returns what is not confirmed, and starts again with another connection.
    pub(super) fn take(&mut self) -> Undelivered {
        let undelivered = self.undelivered();
        *self = Self::new(self.size_max);
        undelivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(undelivered: &Undelivered) -> Vec<String> {
        let text = |message: &Outbound| message.to_message().as_text().map(str::to_owned);
        undelivered.messages.iter().filter_map(text).collect()
    }

    #[test]
    fn pong_confirms_what_was_sent_before_its_ping() {
        let mut unconfirmed = UnconfirmedMessages::new(1000);
        assert_eq!(unconfirmed.next_ping(), None);
        unconfirmed.record("a".into());
        unconfirmed.record("b".into());
        let ping = unconfirmed.next_ping().unwrap();
        unconfirmed.record("c".into());
        assert_eq!(unconfirmed.next_ping(), None);
        unconfirmed.handle_pong(&ping);
        let undelivered = unconfirmed.undelivered();
        assert_eq!(undelivered.count, 1);
        assert_eq!(texts(&undelivered), ["c"]);
        let ping = unconfirmed.next_ping().unwrap();
        // An unsolicited pong confirms nothing, but the next ping is sent.
        unconfirmed.handle_pong(b"else");
        unconfirmed.handle_pong(&ping);
        assert_eq!(unconfirmed.undelivered().count, 1);
        assert_eq!(unconfirmed.next_ping(), Some(ping));
        unconfirmed.handle_pong(&ping);
        assert_eq!(unconfirmed.take(), Undelivered::default());
    }

    #[test]
    fn only_the_newest_messages_are_kept() {
        let mut unconfirmed = UnconfirmedMessages::new(5);
        for text in ["aa", "bb", "cc", "d"] {
            unconfirmed.record(text.into());
        }
        let mut undelivered = unconfirmed.take();
        assert_eq!(
            (undelivered.count, texts(&undelivered)),
            (4, vec!["bb".into(), "cc".into(), "d".into()])
        );
        unconfirmed.record("too large to keep".into());
        let later = unconfirmed.take();
        assert_eq!(later.count, 1);
        assert_eq!(texts(&later), [""; 0]);
        unconfirmed.record("eee".into());
        undelivered.append(later, 5);
        undelivered.append(unconfirmed.take(), 5);
        assert_eq!(undelivered.count, 6);
        assert_eq!(texts(&undelivered), ["d", "eee"]);
    }
}
