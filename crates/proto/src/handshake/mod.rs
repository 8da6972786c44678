//! The opening handshake (RFC 6455 §4): how an HTTP connection becomes a WebSocket.
//!
//! Both sides are chains of values, each consumed by what leads to the next, so that using them
//! out of order does not compile:
//!
//! ```text
//! server  ServerHandshake --bytes--> Incoming --accept--> Accepted    response, read_buf
//!                          \               \--reject--> Response
//!                           \-> InvalidRequest (fault and ready response)
//! client  ClientRequest --start--> AwaitingResponse --bytes--> Connected   subprotocol, read_buf
//!                                                          \-> Response (refused), fault
//! ```
//!
//! They take bytes in pieces of any size and give bytes to send; sockets, clocks and random
//! numbers are the caller's. What comes glued behind a head is not lost: it is the `read_buf`, to
//! be fed to the connection as its first frames.
//!
//! A peer can cost no more than [`HandshakeLimits`]: memory follows the bytes that arrived, and
//! work is linear in them. What it does wrong is a [`HandshakeError`], which
//! [maps to a status](HandshakeError::status) in one place; what the caller does wrong is a
//! [`HandshakeBuildError`], found before a byte is sent.
//!
//! The syntax of HTTP/1.1 and the rules of the handshake are apart.
//! [`Incoming::from_upgrade`] takes a request that something else parsed, and
//! [`Incoming::from_extended_connect`] one of HTTP/2 or HTTP/3; both lead into the same negotiation.
//!
//! # Examples
//!
//! A server that speaks `chat`:
//!
//! ```
//! use sockeye_proto::handshake::{
//!     Acceptance, HandshakeLimits, OriginPolicy, ServerHandshake, ServerStep,
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
//!     ServerStep::Requested(incoming) => incoming,
//!     ServerStep::Incomplete(_) => panic!("read more and call handle_bytes again"),
//!     ServerStep::Refused(refusal) => panic!("send {:?} and close", refusal.response),
//! };
//!
//! // Now the application decides. A page of another host is refused by default.
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
//! And its client:
//!
//! ```
//! use sockeye_proto::handshake::{ClientRequest, ClientStep, Key, Uri};
//!
//! let uri: Uri = "ws://server.example.com/chat".parse()?;
//! // The bytes that give the key x3JJHMbDL1EzLkh9GBhXDw==; yours come from a random source.
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
//!     ClientStep::Connected(connected) => {
//!         assert_eq!(connected.subprotocol.unwrap(), "chat");
//!         assert_eq!(connected.read_buf, b"\x81\x02hi");
//!     }
//!     ClientStep::Incomplete(_) => panic!("read more and call handle_bytes again"),
//!     ClientStep::Refused(response) => panic!("the server said {}", response.status()),
//!     ClientStep::Failed(fault) => panic!("{fault}"),
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
mod headers;
mod host;
mod key;
mod limits;
mod name;
mod origin;
mod request;
mod response;
mod server;
mod status;
mod subprotocol;
mod uri;
mod version;

pub use authority::Authority;
pub use build_error::HandshakeBuildError;
pub use client::{AwaitingConnect, AwaitingResponse, ClientRequest, ClientStep, Connected};
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
pub use server::{AcceptError, Acceptance, Accepted, Incoming, InvalidRequest, ServerHandshake, ServerStep};
pub use status::StatusCode;
pub use subprotocol::Subprotocol;
pub use uri::{Scheme, Uri, UriError};
pub use version::HttpVersion;
