//! The opening handshake (RFC 6455 §4), which upgrades an HTTP connection to a WebSocket.
//!
//! Each side is a chain of states. Every transition consumes the previous state, so calling methods out of order does
//! not compile:
//!
//! ```text
//! server  ServerHandshake --bytes--> Incoming --accept--> Accepted    response, read_buf
//!                          \               \--reject--> Response
//!                           \-> InvalidRequest    error, response
//! client  ClientRequest --start--> AwaitingResponse --bytes--> Connected   subprotocol, read_buf
//!                                                          \-> Response (rejected) or HandshakeError
//! ```
//!
//! The states accept received bytes in pieces of any size and return bytes to send. The caller provides the socket, the
//! deadline and the random key. Bytes received after the HTTP head are returned as `read_buf`: pass them to the
//! [`Connection`](crate::Connection) as its first input.
//!
//! Memory and CPU time are linear in the bytes that have arrived and bounded by [`HandshakeLimits`]. Errors of the peer
//! are a [`HandshakeError`], which [maps to an HTTP status](HandshakeError::status). Errors of the caller are a
//! [`HandshakeBuildError`] and are detected before anything is sent.
//!
//! HTTP parsing and the handshake rules are separate. [`Incoming::from_upgrade`] accepts an HTTP/1.1 request that was
//! parsed elsewhere, and [`Incoming::from_extended_connect`] accepts an extended CONNECT of HTTP/2 or HTTP/3. Both
//! continue with the same negotiation.
//!
//! # Examples
//!
//! A server that supports the subprotocol `chat`:
//!
//! ```
//! use sockeye_proto::handshake::{
//!     Acceptance, HandshakeLimits, OriginPolicy, ServerHandshake, ServerProgress,
//! };
//!
//! let received = b"GET /chat HTTP/1.1\r\n\
//!     Host: server.example.com\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\
//!     Sec-WebSocket-Protocol: chat, superchat\r\n\
//!     Sec-WebSocket-Version: 13\r\n\
//!     Origin: http://example.com\r\n\r\n";
//!
//! let handshake = ServerHandshake::new(HandshakeLimits::default());
//! let incoming = match handshake.handle_bytes(received) {
//!     ServerProgress::Incoming(incoming) => incoming,
//!     ServerProgress::Incomplete(_) => panic!("read more and call handle_bytes again"),
//!     ServerProgress::Invalid(invalid) => panic!("send {:?} and close", invalid.response),
//! };
//!
//! // The application decides. By default, `OriginPolicy` allows only pages of the same host.
//! let policy = OriginPolicy::List(vec!["http://example.com".parse()?]);
//! policy.check(incoming.request())?;
//! assert_eq!(incoming.request().path(), "/chat");
//! let subprotocol = incoming.request().choose_subprotocol(["chat", "superchat"]);
//!
//! let accepted = incoming.accept(Acceptance::new().subprotocol(subprotocol))?;
//! assert_eq!(
//!     accepted.response.to_bytes(),
//!     b"HTTP/1.1 101 Switching Protocols\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
//!     Sec-WebSocket-Protocol: chat\r\n\r\n",
//! );
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! The corresponding client:
//!
//! ```
//! use sockeye_proto::handshake::{ClientRequest, ClientProgress, Key, Uri};
//!
//! let uri: Uri = "ws://server.example.com/chat".parse()?;
//! // Fixed bytes for this example. Use 16 random bytes for each handshake.
//! let key = Key::from_bytes(*b"\xc7\x72\x49\x1c\xc6\xc3\x2f\x51\x33\x2e\x48\x7d\x18\x18\x57\x0f");
//! let request = ClientRequest::new(&uri, key)
//!     .subprotocol("chat")?
//!     .subprotocol("superchat")?;
//!
//! let (to_send, awaiting) = request.start();
//! assert!(to_send.starts_with(b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\n"));
//!
//! let received = b"HTTP/1.1 101 Switching Protocols\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
//!     Sec-WebSocket-Protocol: chat\r\n\r\n\x81\x02hi";
//! match awaiting.handle_bytes(received) {
//!     ClientProgress::Connected(connected) => {
//!         assert_eq!(connected.subprotocol.unwrap(), "chat");
//!         assert_eq!(connected.read_buf, b"\x81\x02hi");
//!     }
//!     ClientProgress::Incomplete(_) => panic!("read more and call handle_bytes again"),
//!     ClientProgress::Rejected(response) => panic!("the server answered {}", response.status()),
//!     ClientProgress::Failed(error) => panic!("{error}"),
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod authority;
mod body;
mod build_error;
mod client;
mod denial;
mod error;
mod extension;
mod head;
mod header_name;
mod headers;
mod host;
mod key;
mod limits;
mod origin;
mod request;
mod response;
mod server;
mod status;
mod subprotocol;
mod token;
mod tunnel;
mod uri;
mod uri_error;
mod version;

pub use authority::Authority;
pub use build_error::HandshakeBuildError;
pub use client::{AwaitingConnect, AwaitingResponse, ClientProgress, ClientRequest, Connected};
pub use denial::Denial;
pub use error::HandshakeError;
pub use extension::Extension;
pub use headers::{HeaderName, HeaderValue, Headers};
pub use host::HostPolicy;
pub use key::{AcceptKey, Key};
pub use limits::HandshakeLimits;
pub use origin::{Origin, OriginError, OriginPolicy};
pub use request::{ConnectParts, HttpBinding, PlainRequest, Request, UpgradeParts};
pub use response::{Rejection, Response};
pub use server::{AcceptError, Acceptance, Accepted, Incoming, InvalidRequest, ServerHandshake, ServerProgress};
pub use status::StatusCode;
pub use subprotocol::Subprotocol;
pub use tunnel::{AwaitingTunnel, TunnelProgress, TunnelRequest};
pub use uri::{Scheme, Uri};
pub use uri_error::UriError;
pub use version::HttpVersion;
