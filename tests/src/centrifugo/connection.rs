//! A client of the client protocol, with either encoding and over each transport.

use std::collections::VecDeque;

use serde_json::{Value, json};
use sockeye::{Client, CloseCode, Message, WebSocket};

use super::http::{self, Streaming};
use super::protobuf::{COMMAND, REPLY, decode, delimited, encode, take_delimited};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

/// What a client receives.
#[derive(Debug)]
pub(super) enum Event {
    Message(Value),
    /// A message that cannot be decoded.
    Undecodable(String),
    Closed(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    encoding: Encoding,
    transport: Transport,
    received: VecDeque<Event>,
}

#[derive(Debug)]
enum Transport {
    WebSocket(Box<WebSocket>),
    /// A transport whose stream begins with the first frame.
    Unopened(Kind),
    Stream {
        kind: Kind,
        stream: Box<Streaming>,
        session: String,
        node: String,
    },
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sse,
    HttpStream,
}

impl Connection {
    /// Opens a connection. `how` is empty, a query (`?…`), `sse` or `http_stream`.
    pub(super) async fn open(address: &str, encoding: Encoding, how: &str) -> Self {
        let transport = match how {
            "sse" => Transport::Unopened(Kind::Sse),
            "http_stream" => Transport::Unopened(Kind::HttpStream),
            query => Transport::WebSocket(Box::new(open_websocket(address, encoding, query).await)),
        };
        Self {
            address: address.to_owned(),
            encoding,
            transport,
            received: VecDeque::new(),
        }
    }

    /// Sends commands in one frame.
    pub(super) async fn send(&mut self, commands: &[Value]) {
        let frame = match self.encoding {
            Encoding::Json => {
                let lines: Vec<_> = commands.iter().map(Value::to_string).collect();
                lines.join("\n").into_bytes()
            }
            Encoding::Protobuf => commands
                .iter()
                .flat_map(|command| delimited(&encode(COMMAND, command)))
                .collect(),
        };
        let is_text = self.encoding == Encoding::Json;
        self.send_frame(frame, is_text).await;
    }

    /// Sends a frame as it is.
    pub(super) async fn send_frame(&mut self, frame: Vec<u8>, is_text: bool) {
        let is_json = self.encoding == Encoding::Json;
        match &mut self.transport {
            Transport::WebSocket(ws) => {
                let message = match String::from_utf8(frame) {
                    Ok(text) if is_text => Message::text(text),
                    Ok(text) => Message::binary(text.into_bytes()),
                    Err(error) => Message::binary(error.into_bytes()),
                };
                // An error means that the server has closed the connection, which the next event shows.
                let _ = ws.send(message).await;
            }
            Transport::Unopened(kind) => {
                let kind = *kind;
                let stream = open_stream(&self.address, kind, is_json, frame).await;
                let status = stream.response.status();
                if !status.is_success() {
                    self.received.push_back(Event::Closed(format!("status {status}")));
                }
                let (session, node) = Default::default();
                self.transport = Transport::Stream {
                    kind,
                    stream: Box::new(stream),
                    session,
                    node,
                };
            }
            Transport::Stream { session, node, .. } => {
                let (kind, body) = match is_json {
                    true => {
                        let frame = String::from_utf8_lossy(&frame);
                        let body = json!({"session": session, "node": node, "data": frame});
                        ("application/json", body.to_string().into_bytes())
                    }
                    false => ("application/octet-stream", emulation_request(node, session, &frame)),
                };
                let headers = [("content-type".to_owned(), kind.to_owned())];
                let response = http::request(&self.address, "POST", "/emulation", &headers, body).await;
                let status = response.response.status();
                if status != 204 {
                    self.received
                        .push_back(Event::Undecodable(format!("/emulation: status {status}")));
                }
            }
            Transport::Closed => {}
        }
    }

    /// Receives the next message, or the end of the connection. Pending for ever after the end.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.received.pop_front() {
                if matches!(event, Event::Closed(_)) {
                    self.transport = Transport::Closed;
                }
                return event;
            }
            let bytes = match &mut self.transport {
                Transport::WebSocket(ws) => match ws.recv().await {
                    Ok(Some(message)) => Ok(message.as_bytes().to_vec()),
                    _ => Err(ended(ws)),
                },
                Transport::Stream {
                    kind: Kind::Sse,
                    stream,
                    ..
                } => stream
                    .part(take_event)
                    .await
                    .ok_or_else(|| "the stream ends".to_owned()),
                Transport::Stream { stream, .. } => {
                    let take = match self.encoding {
                        Encoding::Json => take_line,
                        Encoding::Protobuf => take_message,
                    };
                    stream.part(take).await.ok_or_else(|| "the stream ends".to_owned())
                }
                Transport::Unopened(_) | Transport::Closed => std::future::pending().await,
            };
            match bytes {
                Ok(bytes) => self.split(&bytes),
                Err(reason) => self.received.push_back(Event::Closed(reason)),
            }
        }
    }

    /// Ends the connection from this side.
    pub(super) async fn quit(&mut self) {
        if let Transport::WebSocket(ws) = &mut self.transport {
            let _ = ws.close(CloseCode::NORMAL, "").await;
        }
        self.transport = Transport::Closed;
    }

    /// Splits a frame into messages.
    fn split(&mut self, frame: &[u8]) {
        let mut messages = Vec::new();
        match self.encoding {
            Encoding::Json => {
                for line in frame
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.trim_ascii().is_empty())
                {
                    messages.push(serde_json::from_slice(line).ok());
                }
            }
            Encoding::Protobuf => {
                let mut rest = frame;
                while !rest.is_empty() {
                    let message = take_delimited(&mut rest);
                    messages.push(message.and_then(|message| decode(REPLY, message)));
                    if message.is_none() {
                        break;
                    }
                }
            }
        }
        for message in messages {
            let event = match message {
                Some(message) => {
                    self.learn_session(&message);
                    Event::Message(message)
                }
                None => Event::Undecodable(format!("undecodable: {}", String::from_utf8_lossy(frame))),
            };
            self.received.push_back(event);
        }
    }

    fn learn_session(&mut self, message: &Value) {
        if let Transport::Stream { session, node, .. } = &mut self.transport
            && let Some(connect) = message.get("connect")
        {
            *session = connect["session"].as_str().unwrap_or_default().to_owned();
            *node = connect["node"].as_str().unwrap_or_default().to_owned();
        }
    }
}

async fn open_websocket(address: &str, encoding: Encoding, query: &str) -> WebSocket {
    let url = format!("ws://{address}/connection/websocket{query}");
    let mut client = Client::builder();
    if encoding == Encoding::Protobuf && query.is_empty() {
        client = client.subprotocols(["centrifuge-protobuf"]);
    }
    let client = client.build().expect("the subprotocol is valid");
    client.connect(&url).await.expect("the server accepts WebSockets")
}

async fn open_stream(address: &str, kind: Kind, is_json: bool, frame: Vec<u8>) -> Streaming {
    match kind {
        Kind::Sse => {
            let path = format!("/connection/sse?cf_connect={}", percent_encoded(&frame));
            http::request(address, "GET", &path, &[], Vec::new()).await
        }
        Kind::HttpStream => {
            let content_type = if is_json {
                "application/json"
            } else {
                "application/octet-stream"
            };
            let headers = [("content-type".to_owned(), content_type.to_owned())];
            http::request(address, "POST", "/connection/http_stream", &headers, frame).await
        }
    }
}

/// The Protobuf form of a request to `/emulation`.
fn emulation_request(node: &str, session: &str, data: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    for (tag, field) in [(0x0a, node.as_bytes()), (0x12, session.as_bytes()), (0x1a, data)] {
        request.push(tag);
        request.extend_from_slice(&delimited(field));
    }
    request
}

fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// How a WebSocket ended: the close frame of the server.
fn ended(ws: &WebSocket) -> String {
    match ws.close_info().and_then(|info| info.received()) {
        Some(frame) => format!("{} {}", u16::from(frame.code), frame.reason),
        None => "without a close frame".to_owned(),
    }
}

fn take_line(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].to_vec();
    *bytes = &bytes[end + 1..];
    Some(line)
}

fn take_message(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    take_delimited(bytes).map(delimited)
}

/// Takes the data of one event from a stream of server-sent events. Other lines are empty data.
fn take_event(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let line = take_line(bytes)?;
    Some(line.strip_prefix(b"data: ").unwrap_or_default().to_vec())
}
