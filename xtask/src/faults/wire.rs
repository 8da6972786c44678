//! Frames and commands of the client protocol in JSON, as far as the clients of the faults need them.

use serde_json::{Value, json};

/// The opening handshake; the key is the sample of RFC 6455 §1.3.
pub(super) fn request(host: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A masked text frame.
pub(super) fn frame(text: &str) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            // No command of a fault is longer than 65,535 bytes.
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(text.bytes().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    /// The close code.
    Close(u16),
}

/// Removes the first complete frame from the input.
pub(super) fn take_frame(input: &mut Vec<u8>) -> Option<Frame> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    let (head, len) = match second & 127 {
        126 => (4, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize),
        len => (2, usize::from(len)),
    };
    let payload = input.get(head..head + len)?.to_vec();
    input.drain(..head + len);
    Some(match first {
        0x88 => Frame::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
        _ => Frame::Text(String::from_utf8_lossy(&payload).into_owned()),
    })
}

/// `connect`, and `subscribe` with the id 2, from a position if there is one.
pub(super) fn connect_and_subscribe(channel: &str, position: Option<(&str, u64)>) -> String {
    format!("{{\"id\":1,\"connect\":{{}}}}\n{}", subscribe(channel, position))
}

/// `subscribe` with the id 2, from a position if there is one.
pub(super) fn subscribe(channel: &str, position: Option<(&str, u64)>) -> String {
    let mut subscribe = json!({ "channel": channel, "recoverable": true, "positioned": true });
    if let Some((epoch, offset)) = position {
        subscribe["recover"] = true.into();
        subscribe["epoch"] = epoch.into();
        subscribe["offset"] = offset.into();
    }
    json!({ "id": 2, "subscribe": subscribe }).to_string()
}

/// `publish` of the publication with this number, with so many bytes of text.
pub(super) fn publish(id: u64, channel: &str, number: u64, size: usize) -> String {
    json!({ "id": id, "publish": { "channel": channel, "data": { "n": number, "text": "x".repeat(size) } } })
        .to_string()
}

/// The number of a publication.
pub(super) fn number(publication: &Value) -> Option<u64> {
    publication["data"]["n"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::{Frame, frame, take_frame};

    #[test]
    fn frames_are_taken_when_complete() {
        let mut input = vec![0x81, 2, b'h'];
        assert_eq!(take_frame(&mut input), None);
        input.extend([b'i', 0x88, 2, 0x0b, 0xb9, 0x81]);
        assert_eq!(take_frame(&mut input), Some(Frame::Text("hi".into())));
        assert_eq!(take_frame(&mut input), Some(Frame::Close(3001)));
        assert_eq!(take_frame(&mut input), None);
        assert_eq!(input, [0x81]);
        let mut long = vec![0x81, 126, 0, 200];
        long.extend([b'x'; 200]);
        assert_eq!(take_frame(&mut long), Some(Frame::Text("x".repeat(200))));
    }

    #[test]
    fn client_frames_are_masked() {
        assert_eq!(frame("")[..2], [0x81, 0x80]);
        assert_eq!(frame(&"x".repeat(300))[..4], [0x81, 0xfe, 1, 44]);
        assert_eq!(frame("Hello")[6..], [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
