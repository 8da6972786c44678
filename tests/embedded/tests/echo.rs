//! The client of the device and a server, over two byte queues in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use embedded::{Client, Device};
use embedded_io::{ErrorType, Read, ReadReady, Write};
use sockeye_proto::handshake::{Acceptance, HandshakeLimits, ServerHandshake, ServerProgress};
use sockeye_proto::{Config, Connection, Data, Event, Instant, MaskingKey, Role};

const DEVICE: Device = Device {
    uptime: || Duration::from_secs(1),
    random: || [7; 16],
    mask: || MaskingKey([1, 2, 3, 4]),
};

/// A line whose other end is an echo server.
#[derive(Clone, Default)]
struct Line(Rc<RefCell<Server>>);

#[derive(Default)]
struct Server {
    handshake: Option<ServerHandshake>,
    connection: Option<Connection>,
    to_client: VecDeque<u8>,
}

impl Server {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        let now = Instant::from_origin(Duration::ZERO);
        let Some(connection) = &mut self.connection else {
            let handshake = self.handshake.take();
            let handshake = handshake.unwrap_or_else(|| ServerHandshake::new(HandshakeLimits::default()));
            match handshake.handle_bytes(bytes) {
                ServerProgress::Incomplete(more) => self.handshake = Some(more),
                ServerProgress::Incoming(incoming) => {
                    let accepted = incoming.accept(Acceptance::new()).unwrap();
                    self.to_client.extend(accepted.response.to_bytes());
                    self.connection = Some(Connection::new(Role::Server, Arc::new(Config::default()), now));
                }
                ServerProgress::Invalid(invalid) => panic!("{invalid:?}"),
            }
            return;
        };
        let (mut bytes, mut out) = (bytes.to_vec(), Vec::new());
        let mut rest = &mut bytes[..];
        loop {
            let progress = connection.handle_bytes(now, rest);
            let consumed = progress.consumed;
            match progress.event {
                Some(Event::Message { payload, .. }) => {
                    let text = String::from_utf8(payload.into_owned()).unwrap();
                    connection.send(Data::Text(&text), &mut out).unwrap();
                }
                Some(_) => {}
                None => break,
            }
            rest = &mut rest[consumed..];
        }
        connection.poll_transmit(&mut out);
        self.to_client.extend(out);
    }
}

impl ErrorType for Line {
    type Error = Infallible;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.borrow().to_client.is_empty())
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        // A slow line: a few bytes at a time.
        let queue = &mut self.0.borrow_mut().to_client;
        let len = buffer.len().min(queue.len()).min(5);
        buffer[..len]
            .iter_mut()
            .for_each(|byte| *byte = queue.pop_front().unwrap());
        Ok(len)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let len = bytes.len().min(9);
        self.0.borrow_mut().handle_bytes(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn device_sends_and_receives_messages() {
    let mut client = Client::connect(Line::default(), "ws://server.example/chat", DEVICE).unwrap();
    let mut heard = Vec::new();
    for text in ["21.5 °C", &"long ".repeat(200)] {
        client.send(text).unwrap();
        assert!(client.poll(|text| heard.push(text.to_owned())).unwrap());
        assert_eq!(heard.pop().as_deref(), Some(text));
    }
}
