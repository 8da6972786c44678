//! Commands of the client protocol, and what is read from replies and pushes.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The id of `connect`.
pub(super) const CONNECT: u32 = 1;
/// The id of the first `subscribe`.
pub(super) const SUBSCRIBE: u32 = 2;
/// The id of the first `publish`.
pub(super) const PUBLISH: u32 = 100_000;

/// Where a subscriber of a channel is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epoch: String,
    pub(super) offset: u64,
}

/// `connect`, and `subscribe` to each channel, from its position if there is one.
pub(super) fn connect_and_subscribe<'a>(channels: impl Iterator<Item = (String, Option<&'a Position>)>) -> Vec<u8> {
    let mut text = format!(r#"{{"id":{CONNECT},"connect":{{}}}}"#);
    for (id, (channel, position)) in (SUBSCRIBE..).zip(channels) {
        let _ = write!(
            text,
            "\n{{\"id\":{id},\"subscribe\":{{\"channel\":\"{channel}\",\"recoverable\":true,\"positioned\":true"
        );
        if let Some(Position { epoch, offset }) = position {
            let _ = write!(text, ",\"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}");
        }
        text.push_str("}}");
    }
    text.into_bytes()
}

/// `publish` of the publication with this number, in this many bytes of JSON.
pub(super) fn publish(id: u32, channel: &str, number: u64, size: usize) -> String {
    let data = data(number, size);
    format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#)
}

fn data(number: u64, size: usize) -> String {
    let start = format!(r#"{{"n":{number},"text":""#);
    let fill = size.saturating_sub(start.len() + 2);
    format!("{start}{}\"}}", "x".repeat(fill))
}

/// The number of the publication in a push.
pub(super) fn number(push: &[u8]) -> Option<u64> {
    integer_after(b"\"n\":", push)
}

/// The offset of the publication in a push.
pub(super) fn offset(push: &[u8]) -> Option<u64> {
    integer_after(b"\"offset\":", push)
}

fn integer_after(mark: &[u8], push: &[u8]) -> Option<u64> {
    let at = push.windows(mark.len()).position(|bytes| bytes == mark)? + mark.len();
    let digits = push[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The id of a reply.
pub(super) fn id(reply: &[u8]) -> Option<u32> {
    let digits = reply.strip_prefix(b"{\"id\":")?.iter();
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |id, digit| id * 10 + u32::from(digit - b'0')))
}

/// Whether the reply is an error after which SDKs try again.
pub(super) fn is_temporary_error(reply: &[u8]) -> bool {
    check(reply).is_err() && reply.windows(16).any(|bytes| bytes == b"\"temporary\":true")
}

/// Fails if the reply is an error.
pub(super) fn check(reply: &[u8]) -> Result<()> {
    let is_error = reply.windows(9).take(16).any(|bytes| bytes == b"\"error\":{");
    ensure!(!is_error, "the server replied {}", String::from_utf8_lossy(reply));
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Reply {
    subscribe: Option<Subscribed>,
}

/// The reply to `subscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribed {
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) recovered: bool,
    pub(super) publications: Vec<Publication>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Publication {
    pub(super) offset: u64,
    pub(super) data: Data,
}

#[derive(Debug, Deserialize)]
pub(super) struct Data {
    pub(super) n: u64,
}

/// Reads the reply to `subscribe`.
pub(super) fn subscribed(reply: &[u8]) -> Result<Subscribed> {
    check(reply)?;
    let shown = || format!("not a reply to subscribe: {}", String::from_utf8_lossy(reply));
    let read: Reply = serde_json::from_slice(reply).with_context(shown)?;
    read.subscribe.with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::{
        Position, check, connect_and_subscribe, data, id, is_temporary_error, number, offset, publish, subscribed,
    };

    #[test]
    fn commands_are_lines_of_json() {
        let position = Position {
            epoch: "e".into(),
            offset: 7,
        };
        let channels = [("a".to_owned(), None), ("b".to_owned(), Some(&position))];
        let text = String::from_utf8(connect_and_subscribe(channels.into_iter())).expect("it is text");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"))
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["subscribe"]["recover"], serde_json::Value::Null);
        assert_eq!(lines[2]["subscribe"]["offset"], 7);
        assert_eq!(lines[2]["id"], 3);
    }

    #[test]
    fn publications_have_their_size_and_number() {
        assert_eq!(data(12, 64).len(), 64);
        let command = publish(5, "a", 123_456, 64);
        assert_eq!(number(command.as_bytes()), Some(123_456));
        assert_eq!(id(command.as_bytes()), Some(5));
        assert_eq!(number(b"{\"push\":{}}"), None);
        let push = br#"{"push":{"channel":"a","pub":{"data":{"n":3,"text":"xx"},"offset":41}}}"#;
        assert_eq!((number(push), offset(push)), (Some(3), Some(41)));
    }

    #[test]
    fn replies_are_read() {
        let reply = br#"{"id":2,"subscribe":{"recoverable":true,"epoch":"x","offset":3,"recovered":true,"publications":[{"data":{"n":4,"text":""},"offset":4}]}}"#;
        let read = subscribed(reply).expect("it is a reply");
        assert_eq!((read.epoch.as_str(), read.offset, read.recovered), ("x", 3, true));
        assert_eq!((read.publications[0].offset, read.publications[0].data.n), (4, 4));
        check(br#"{"id":2,"error":{"code":103}}"#).expect_err("an error");
        assert!(!is_temporary_error(br#"{"id":2,"error":{"code":103}}"#));
        assert!(is_temporary_error(
            br#"{"id":2,"error":{"code":100,"message":"x","temporary":true}}"#
        ));
        subscribed(br#"{"id":1,"connect":{}}"#).expect_err("another reply");
    }
}
