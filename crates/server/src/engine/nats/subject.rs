//! Names of subjects and streams.
//!
//! | subject | messages |
//! |---|---|
//! | `PREFIX.h.CLASS.SHARD.EPOCH.CHANNEL` | publications of channels with history, in the stream `PREFIX-h-CLASS-SHARD` |
//! | `PREFIX.t.CHANNEL` | other publications with an idempotency key, in the stream `PREFIX-t` |
//! | `PREFIX.l.CHANNEL` | everything that subscribed nodes receive; both streams republish to it |
//! | `PREFIX.p.CHANNEL.NODE.CLIENT.USER` | presence entries, in the stream `PREFIX-p` |
//! | `PREFIX.m.NODE` | nodes that may have presence entries, in the stream `PREFIX-p` |
//! | `PREFIX.n.NODE` | registered nodes, in the stream `PREFIX-n` |
//! | `PREFIX.c.NODE`, `PREFIX.a` | control messages to one node, or to all |
//! | `PREFIX.b.NODE` | barriers of a node |

use std::time::Duration;

use super::super::idempotency::KEY_TTL;
use super::super::{Epoch, HistoryLimits};
use crate::channel::ChannelName;

/// Number of streams of each class. All nodes must agree on it.
const SHARDS: u32 = 4;

/// The longest time that a stream keeps messages. JetStream counts nanoseconds in 63 bits.
const AGE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The subjects of a prefix.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    prefix: String,
}

/// Channels with the same limits of history share streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) count: u64,
    pub(super) ttl_ms: u64,
}

/// A stream of publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StreamKey {
    pub(super) class: Class,
    shard: u32,
}

impl Class {
    /// How long the stream keeps messages: longer than the history, because the messages also carry the position of the
    /// channel, the keys of idempotency, and the proof that nothing is missing. Readers hide what is older than the
    /// TTL.
    pub(super) fn age_max(self) -> Duration {
        // JetStream wants at least the window for duplicates.
        (Duration::from_millis(self.ttl_ms).saturating_mul(2)).clamp(KEY_TTL, AGE_MAX)
    }

    /// Maximum number of messages per channel: the history, and the publication before it, which proves that nothing is
    /// missing in between.
    pub(super) fn messages_max(self) -> u64 {
        self.count + 1
    }

    fn parse(token: &str) -> Option<Self> {
        let (count, ttl_ms) = token.split_once('-')?;
        Some(Self {
            count: count.parse().ok()?,
            ttl_ms: ttl_ms.parse().ok()?,
        })
    }
}

impl StreamKey {
    pub(super) fn new(channel: &ChannelName, limits: &HistoryLimits) -> Self {
        Self {
            class: Class {
                count: (limits.count_max as u64).clamp(1, i64::MAX as u64 - 1),
                ttl_ms: limits.ttl.min(AGE_MAX).as_millis() as u64,
            },
            shard: crc32c::crc32c(channel.as_str().as_bytes()) % SHARDS,
        }
    }
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn stream(&self, key: StreamKey) -> String {
        let StreamKey { class, shard } = key;
        format!("{}-h-{}-{}-{shard}", self.prefix, class.count, class.ttl_ms)
    }

    fn of_stream(&self, key: StreamKey) -> String {
        let StreamKey { class, shard } = key;
        format!("{}.h.{}-{}.{shard}.", self.prefix, class.count, class.ttl_ms)
    }

    /// The subject of a stream in an epoch, with a wildcard for channels.
    pub(super) fn of_epoch(&self, key: StreamKey, epoch: &Epoch) -> String {
        format!("{}{}.>", self.of_stream(key), epoch.as_str())
    }

    /// The epoch of a stream that has this subject.
    pub(super) fn epoch_of(&self, key: StreamKey, subject: &str) -> Option<Epoch> {
        let of_stream = self.of_stream(key);
        let epoch = subject.strip_prefix(&of_stream)?.strip_suffix(".>")?;
        (!epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_alphanumeric())).then(|| Epoch::new(epoch))
    }

    pub(super) fn stored(&self, key: StreamKey, epoch: &Epoch, channel: &ChannelName) -> String {
        format!("{}{}.{}", self.of_stream(key), epoch.as_str(), token(channel.as_str()))
    }

    /// The class, the stream and the epoch of a stored publication, from its subject.
    pub(super) fn parse_stored(&self, subject: &str) -> Option<(StreamKey, Epoch)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".h.")?;
        let mut tokens = rest.split('.');
        let class = Class::parse(tokens.next()?)?;
        let shard = tokens.next()?.parse().ok()?;
        Some((StreamKey { class, shard }, Epoch::new(tokens.next()?)))
    }

    pub(super) fn keyed_stream(&self) -> String {
        format!("{}-t", self.prefix)
    }

    pub(super) fn keyed(&self, channel: &ChannelName) -> String {
        format!("{}.t.{}", self.prefix, token(channel.as_str()))
    }

    pub(super) fn keyed_all(&self) -> String {
        format!("{}.t.>", self.prefix)
    }

    pub(super) fn live(&self, channel: &ChannelName) -> String {
        format!("{}.l.{}", self.prefix, token(channel.as_str()))
    }

    pub(super) fn live_all(&self) -> String {
        format!("{}.l.>", self.prefix)
    }

    pub(super) fn presence_stream(&self) -> String {
        format!("{}-p", self.prefix)
    }

    pub(super) fn presence(&self, channel: &ChannelName, node: &str, client: &str, user: &str) -> String {
        let (channel, node) = (token(channel.as_str()), token(node));
        format!("{}.p.{channel}.{node}.{client}.{user}", self.prefix)
    }

    /// All entries of a channel.
    pub(super) fn presence_of_channel(&self, channel: &ChannelName) -> String {
        format!("{}.p.{}.>", self.prefix, token(channel.as_str()))
    }

    pub(super) fn presence_of_node(&self, node: &str) -> String {
        format!("{}.p.*.{}.>", self.prefix, token(node))
    }

    pub(super) fn presence_all(&self) -> String {
        format!("{}.p.>", self.prefix)
    }

    /// The channel and the client of an entry, from its subject.
    pub(super) fn parse_presence<'a>(&self, subject: &'a str) -> Option<PresenceSubject<'a>> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".p.")?;
        let mut tokens = rest.split('.');
        let (channel, _node, client, user) = (tokens.next()?, tokens.next()?, tokens.next()?, tokens.next()?);
        Some(PresenceSubject {
            channel: ChannelName::new(&decode_token(channel)?).ok()?,
            client,
            user,
        })
    }

    pub(super) fn member(&self, node: &str) -> String {
        format!("{}.m.{}", self.prefix, token(node))
    }

    pub(super) fn member_all(&self) -> String {
        format!("{}.m.*", self.prefix)
    }

    pub(super) fn parse_member(&self, subject: &str) -> Option<String> {
        decode_token(subject.strip_prefix(&self.prefix)?.strip_prefix(".m.")?)
    }

    pub(super) fn lease_stream(&self) -> String {
        format!("{}-n", self.prefix)
    }

    pub(super) fn lease(&self, node: &str) -> String {
        format!("{}.n.{}", self.prefix, token(node))
    }

    pub(super) fn lease_all(&self) -> String {
        format!("{}.n.*", self.prefix)
    }

    pub(super) fn parse_lease(&self, subject: &str) -> Option<String> {
        decode_token(subject.strip_prefix(&self.prefix)?.strip_prefix(".n.")?)
    }

    pub(super) fn control(&self, node: &str) -> String {
        format!("{}.c.{}", self.prefix, token(node))
    }

    pub(super) fn control_all(&self) -> String {
        format!("{}.a", self.prefix)
    }

    pub(super) fn barrier(&self, node: &str) -> String {
        format!("{}.b.{}", self.prefix, token(node))
    }
}

/// The parts of the subject of a presence entry.
#[derive(Debug)]
pub(super) struct PresenceSubject<'a> {
    pub(super) channel: ChannelName,
    pub(super) client: &'a str,
    pub(super) user: &'a str,
}

/// Encodes a text as one token of a subject: bytes other than letters, digits and `_-:/#$@+,!` as `=` and two
/// hexadecimal digits. So different texts have different tokens, and a token has at most three times the bytes of its
/// text.
pub(super) fn token(text: &str) -> String {
    use std::fmt::Write as _;
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => token.push(byte.into()),
            b'_' | b'-' | b':' | b'/' | b'#' | b'$' | b'@' | b'+' | b',' | b'!' => token.push(byte.into()),
            // Cannot fail.
            _ => drop(write!(token, "={byte:02x}")),
        }
    }
    token
}

/// The inverse of [`token`].
pub(super) fn decode_token(token: &str) -> Option<String> {
    let mut text = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'=' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    #[test]
    fn special_characters_of_subjects_are_encoded() {
        assert_eq!(token("news:a/1"), "news:a/1");
        assert_eq!(token("a b.c*>é="), "a=20b=2ec=2a=3e=c3=a9=3d");
        assert_eq!(token(&"é".repeat(127)).len(), 762);
    }

    proptest! {
        #[test]
        fn tokens_are_valid_and_decode_to_their_text(text in ".{1,255}") {
            let encoded = token(&text);
            prop_assert!(encoded.bytes().all(|c| c.is_ascii_graphic() && !b".*>".contains(&c)));
            prop_assert_eq!(decode_token(&encoded), Some(text));
        }

        #[test]
        fn decoding_never_panics(token in ".{0,20}") {
            decode_token(&token);
        }
    }

    #[test]
    fn stored_subjects_name_their_stream_and_epoch() {
        let subjects = Subjects::new("s");
        let limits = HistoryLimits {
            count_max: 10,
            bytes_max: 1,
            ttl: Duration::from_secs(60),
        };
        let key = StreamKey::new(&channel("a.b"), &limits);
        let epoch = Epoch::new("e1");
        let subject = subjects.stored(key, &epoch, &channel("a.b"));
        assert!(
            subject.starts_with("s.h.10-60000.") && subject.ends_with(".e1.a=2eb"),
            "{subject}"
        );
        assert_eq!(subjects.parse_stored(&subject), Some((key, epoch.clone())));
        let of_epoch = subjects.of_epoch(key, &epoch);
        assert_eq!(subjects.epoch_of(key, &of_epoch), Some(epoch));
        assert_eq!(subjects.epoch_of(key, "s.h.>"), None);
    }

    #[test]
    fn presence_subjects_name_channel_and_client() {
        let subjects = Subjects::new("s");
        let subject = subjects.presence(&channel("a b"), "node.1", "c", "u");
        assert_eq!(subject, "s.p.a=20b.node=2e1.c.u");
        let parsed = subjects.parse_presence(&subject).unwrap();
        assert_eq!((parsed.channel, parsed.client, parsed.user), (channel("a b"), "c", "u"));
        assert_eq!(subjects.parse_member(&subjects.member("n.1")), Some("n.1".to_owned()));
        assert_eq!(subjects.parse_lease(&subjects.lease("n.1")), Some("n.1".to_owned()));
    }

    #[test]
    fn a_class_keeps_messages_longer_than_its_history() {
        let class = |ttl_ms| Class { count: 10, ttl_ms };
        assert_eq!(class(1000).age_max(), KEY_TTL);
        assert_eq!(class(3_600_000).age_max(), Duration::from_secs(7200));
        assert_eq!(class(u64::MAX).age_max(), AGE_MAX);
        assert_eq!(class(1).messages_max(), 11);
    }
}
