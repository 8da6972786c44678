//! Input of a client that is not processed yet: the rest of a message, and later messages.
//!
//! Usually a message is processed completely before the next one is received. If a command must wait for a decision of
//! the backend, the rest of the message waits here, and the connection receives further messages up to [`BYTES_MAX`].

use std::collections::VecDeque;

use sockeye::Message;

use crate::codes::DisconnectCode;
use crate::protocol::{Command, Encoding, Malformed, bytes};

/// Size of waiting messages beyond which no more are received.
const BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Input {
    current: Option<Message>,
    /// Size of the processed part of `current`.
    at: usize,
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
}

impl Input {
    /// Adds a message.
    ///
    /// # Errors
    /// Returns the code with which to disconnect the client, if it uses another encoding, or the message has no
    /// command.
    pub(super) fn push(&mut self, encoding: Encoding, message: Message) -> Result<(), DisconnectCode> {
        if encoding.is_blank(payload(encoding, &message)?) {
            return Err(DisconnectCode::BadRequest);
        }
        if self.current.is_none() {
            self.current = Some(message);
            self.at = 0;
        } else {
            self.waiting_bytes += message.len();
            self.waiting.push_back(message);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes >= BYTES_MAX
    }

    /// Removes the message that is processed next, for [`put_back`](Self::put_back).
    pub(super) fn take(&mut self) -> Option<(Message, usize)> {
        Some((self.current.take()?, self.at))
    }

    /// Returns a message whose first `at` bytes are processed.
    pub(super) fn put_back(&mut self, message: Message, at: usize) {
        if at < message.len() {
            self.current = Some(message);
            self.at = at;
            return;
        }
        self.at = 0;
        self.current = self.waiting.pop_front();
        match &self.current {
            Some(next) => self.waiting_bytes -= next.len(),
            // Frees the memory of what had to wait.
            None => self.waiting = VecDeque::new(),
        }
    }
}

/// Parses the command at offset `at` of a message. Also returns the offset of the next one. `None` at the end.
pub(super) fn next_command(
    encoding: Encoding,
    message: &Message,
    at: usize,
) -> Option<(Result<Command<'_>, Malformed>, usize)> {
    let rest = bytes(message).get(at..)?;
    let (command, len) = encoding.next_command(rest)?;
    Some((command, at + len))
}

/// Returns the payload of a message. Binary messages with JSON are accepted, because some WebSocket libraries send them
/// by default.
fn payload(encoding: Encoding, message: &Message) -> Result<&[u8], DisconnectCode> {
    match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => Ok(text.as_bytes()),
        (Encoding::Json, Message::Binary(bytes)) if bytes.trim_ascii_start().starts_with(b"{") => Ok(bytes),
        (Encoding::Protobuf, Message::Binary(bytes)) => Ok(bytes),
        // Most likely the other encoding.
        _ => Err(DisconnectCode::InappropriateProtocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(input: &mut Input) -> Vec<u32> {
        let mut ids = Vec::new();
        while let Some((message, at)) = input.take() {
            let at = match next_command(Encoding::Json, &message, at) {
                Some((command, at)) => {
                    ids.push(command.unwrap().id);
                    at
                }
                None => message.len(),
            };
            input.put_back(message, at);
        }
        ids
    }

    #[test]
    fn commands_come_in_the_order_of_their_messages() {
        let mut input = Input::default();
        for text in ["{\"id\":1}\n\n{\"id\":2}\n", "{\"id\":3}"] {
            input.push(Encoding::Json, Message::text(text)).unwrap();
        }
        assert!(!input.is_empty() && !input.is_full());
        assert_eq!(ids(&mut input), [1, 2, 3]);
        assert!(input.is_empty());
    }

    #[test]
    fn waiting_messages_are_limited_and_the_size_is_released() {
        let mut input = Input::default();
        let large = format!("{{\"id\":1,\"x\":\"{}\"}}", "x".repeat(BYTES_MAX));
        input.push(Encoding::Json, Message::text(large.as_str())).unwrap();
        assert!(!input.is_full());
        input.push(Encoding::Json, Message::text(large.as_str())).unwrap();
        assert!(input.is_full());
        assert_eq!(ids(&mut input), [1, 1]);
        assert!(!input.is_full());
    }

    #[test]
    fn messages_without_a_command_or_with_another_encoding_are_refused() {
        let mut input = Input::default();
        for (message, code) in [
            (Message::text(""), DisconnectCode::BadRequest),
            (Message::text(" \n"), DisconnectCode::BadRequest),
            (Message::binary(&[1, 2]), DisconnectCode::InappropriateProtocol),
        ] {
            assert_eq!(input.push(Encoding::Json, message), Err(code));
        }
        let text = Message::text("{}");
        let code = input.push(Encoding::Protobuf, text).unwrap_err();
        assert_eq!(code, DisconnectCode::InappropriateProtocol);
        assert!(input.push(Encoding::Protobuf, Message::binary(&[])).is_err());
        assert!(input.push(Encoding::Json, Message::binary(b" {}")).is_ok());
    }
}
