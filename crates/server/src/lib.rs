//! The Sockeye server: real-time channels for browsers and other programs, over WebSocket.
//!
//! A client connects, subscribes to channels and is told what others publish there. It can ask who else is there, is
//! told who comes and goes, reads what was said before it came, and after a lost connection gets what it missed or is
//! told that it cannot. The protocol is Centrifugo's, in JSON, so its client libraries work as they are.
//!
//! What a client can rely on:
//!
//! - Commands of one frame are carried out in order; the reply to a subscription comes before anything the channel says.
//! - Publications of a channel are numbered, and arrive in order. Should one be missing, the client is unsubscribed with
//!   2500 and recovers: everything it missed, or the word that this is not possible, never a part.
//! - Whoever subscribes may publish ([`PublishPolicy`]), and ask for presence and history. Without authentication every
//!   client is anonymous: a token is refused, and so are channels that only a token or a user could open (`$private`,
//!   `dialog#42`).
//! - The `data` of the `connect` command is what a client says about itself. Others see it as `conn_info.unverified`, up
//!   to 4 KiB.
//! - A command that cannot be carried out is answered with an error, and the connection goes on; so does what this server
//!   does not have: maps, shared polls, filters on tags, calls (`rpc`).
//! - A client that falls silent is out of its channels within 33 s.
//!
//! What a server can rely on: every limit is finite ([`Limits`], [`Timeouts`]), and a client that breaks one is told by
//! an error or a close code ([`codes`]) and costs its neighbours nothing.
//!
//! [`serve`] is the whole server; [`Config`] says how it behaves. The program `sockeye` is this library with a
//! command line.

// For the program `sockeye`, which is built on this library, and no part of what the library promises.
#[doc(hidden)]
pub mod accept;
#[doc(hidden)]
pub mod sync;

mod channel;
mod client;
pub mod codes;
mod config;
mod connection;
mod engine;
mod http;
mod node;
mod page;
mod policy;
mod presence;
mod protocol;
mod queue;
mod refusals;
mod serve;
mod session;

pub use config::{ChannelOptions, Config, ConfigError, Limits, PublishPolicy, Timeouts};
pub use serve::serve;
pub use sockeye::HostPolicy;
pub use sockeye::handshake::Authority;
pub use sockeye::{Origin, OriginPolicy};
