//! A peer that does only what the test says.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use sockeye_proto::handshake::Key;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::frame::Frame;
use crate::client::Client;
use crate::error::Error;
use crate::server::Server;
use crate::websocket::WebSocket;

/// How many bytes a connection to a scripted peer buffers in each direction. Less than sockets do, so that a peer that
/// does not read is noticed soon.
const CAPACITY: usize = 16 * 1024;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The key of the example in RFC 6455 §5.7.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A peer that does only what the test says: it answers no ping and no close frame, and reads only when
/// [`recv`](Self::recv), [`read_slowly`](Self::read_slowly) or [`drain`](Self::drain) is called. Made by
/// [`scripted_client`] and [`scripted_server`].
///
/// To be silent, call nothing. Sending never fails: what the code under test does not read is lost once it has closed
/// the connection.
pub struct ScriptedPeer {
    io: DuplexStream,
    /// Whether it is a client, which masks its frames (RFC 6455 §5.1).
    is_client: bool,
    received: Vec<u8>,
    is_reset: Arc<AtomicBool>,
}

/// A server's connection in memory, and its client, which does only what the test says. The opening handshake is done.
///
/// # Errors
///
/// The server rejects the request: `GET /` of the host `localhost`, without origin, subprotocol and extensions.
pub async fn scripted_client(server: &Server) -> Result<(WebSocket, ScriptedPeer), Error> {
    let (near, mut peer) = transport(true);
    peer.send_bytes(REQUEST).await;
    let accepting = async { server.accept(near).await?.accept().await };
    let (ws, _response) = tokio::join!(accepting, peer.read_head());
    Ok((ws?, peer))
}

/// A client's connection in memory, and its server, which does only what the test says. The opening handshake is done.
///
/// # Errors
///
/// The client rejects the response, which accepts no subprotocol and no extension.
pub async fn scripted_server(client: &Client) -> Result<(WebSocket, ScriptedPeer), Error> {
    let (near, mut peer) = transport(false);
    let answering = async {
        let request = peer.read_head().await;
        let key = request
            .lines()
            .find_map(|line| Key::parse(line.strip_prefix("Sec-WebSocket-Key: ")?.as_bytes()));
        if let Some(key) = key {
            peer.send_bytes(format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                key.accept().as_str()
            ))
            .await;
        }
    };
    let (ws, ()) = tokio::join!(client.request("ws://localhost/").connect_over(near), answering);
    Ok((ws?.0, peer))
}

fn transport(is_client: bool) -> (Transport, ScriptedPeer) {
    let (near, far) = tokio::io::duplex(CAPACITY);
    let is_reset = Arc::new(AtomicBool::new(false));
    let transport = Transport {
        io: near,
        is_reset: is_reset.clone(),
    };
    let peer = ScriptedPeer {
        io: far,
        is_client,
        received: Vec::new(),
        is_reset,
    };
    (transport, peer)
}

impl ScriptedPeer {
    /// Sends a text message, as a correct peer does.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Frame::text(text)).await;
    }

    /// Sends a frame, masked if this is a client.
    pub async fn send(&mut self, frame: Frame) {
        let mask = self.is_client.then_some(MASK);
        self.send_bytes(frame.encode(mask)).await;
    }

    /// Sends a text message that is masked although this is a server, or not masked although this is a client. The code
    /// under test fails with 1002 (RFC 6455 §5.1).
    pub async fn send_wrongly_masked(&mut self, text: impl Into<String>) {
        let mask = (!self.is_client).then_some(MASK);
        self.send_bytes(Frame::text(text).encode(mask)).await;
    }

    /// Sends a text message that is not UTF-8. The code under test fails with 1007 (RFC 6455 §8.1).
    pub async fn send_invalid_text(&mut self) {
        self.send(Frame::new(1, *b"caf\xe9")).await;
    }

    /// Sends the header of a binary message that declares `len` bytes, and none of them. If `len` exceeds
    /// [`Limits::message_size_max`](crate::Limits::message_size_max), the code under test fails with 1009.
    pub async fn send_declared_len(&mut self, len: u64) {
        self.send(Frame {
            declared_len: Some(len),
            ..Frame::binary([])
        })
        .await;
    }

    /// Sends any bytes: an incomplete frame, a reserved opcode, noise.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        // The other end may be closed.
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    /// Receives the next frame, unmasked. `None` once the code under test has closed the connection.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.received) {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads and discards everything until the code under test closes the connection.
    pub async fn drain(&mut self) {
        while self.recv().await.is_some() {}
    }

    /// Reads `bytes_per_second`, and discards it, until the code under test closes the connection. It does so itself
    /// after [`Timeouts::write`](crate::Timeouts::write) if this is less than
    /// [`Limits::write_rate_min`](crate::Limits::write_rate_min) and enough is queued.
    pub async fn read_slowly(&mut self, bytes_per_second: usize) {
        // Ten times a second, at least one byte.
        let mut bytes = vec![0; (bytes_per_second / 10).max(1)];
        let pause = Duration::from_secs_f64(bytes.len() as f64 / bytes_per_second.max(1) as f64);
        loop {
            tokio::time::sleep(pause).await;
            if self.io.read(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    /// Closes the transport without a close frame: the process was killed. The code under test reports 1006.
    pub fn abort(self) {}

    /// Resets the connection: reads and writes of the code under test fail with
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset), and what was sent and not read is lost.
    pub fn reset(self) {
        self.is_reset.store(true, Ordering::Relaxed);
        // Dropping the pipe wakes the other end.
    }

    /// Reads the head of a request or response.
    async fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.io.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&head).into_owned()
    }
}

impl fmt::Debug for ScriptedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedPeer")
            .field("is_client", &self.is_client)
            .finish_non_exhaustive()
    }
}

/// The end of the pipe for the code under test. The peer can reset it.
struct Transport {
    io: DuplexStream,
    is_reset: Arc<AtomicBool>,
}

impl Transport {
    fn check(&self) -> io::Result<()> {
        match self.is_reset.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
