//! Runs a session through tungstenite.

use std::io::{self, ErrorKind, Read, Write};

use tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::{End, Heard, MESSAGE_SIZE_MAX, Receiver, Verdict};

/// Passes the stream in, cut into these pieces.
pub(super) fn receive<'a>(receiver: Receiver, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let pieces: Vec<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let role = match receiver {
        Receiver::Server => Role::Server,
        Receiver::Client => Role::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX));
    let pipe = Pipe { pieces, next: 0 };
    let mut socket = WebSocket::from_raw_socket(pipe, role, Some(config));
    let mut heard = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Heard::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Heard::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                heard.push(Heard::Close(code, reason));
                return Verdict {
                    heard,
                    end: End::Closed,
                };
            }
            Ok(Message::Frame(frame)) => unreachable!("reading gives no bare frame: {frame:?}"),
            Err(error) => {
                let end = end(&error);
                return Verdict { heard, end };
            }
        };
        heard.push(message);
    }
}

/// The close code for an error; tungstenite leaves sending it to its user.
fn end(error: &Error) -> End {
    let code = match error {
        Error::Io(error) if error.kind() == ErrorKind::WouldBlock => return End::Waiting,
        Error::Protocol(_) => 1002,
        Error::Utf8(_) => 1007,
        Error::Capacity(_) => 1009,
        other => panic!("an error of another kind: {other:?}"),
    };
    let fault = error.to_string();
    End::Refused { code, fault }
}

/// An in-memory stream: each piece is one read, then reads would block. Writes are discarded.
#[derive(Debug)]
struct Pipe<'a> {
    pieces: Vec<&'a [u8]>,
    next: usize,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.get_mut(self.next) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let len = piece.read(buffer)?;
        if piece.is_empty() {
            self.next += 1;
        }
        Ok(len)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
