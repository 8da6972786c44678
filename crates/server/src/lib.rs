//! The Sockeye server: real-time channels for browsers and other programs, over WebSocket.
//!
//! A client connects, subscribes to channels and is told what others publish there. It can ask who else is there, is
//! told who comes and goes, reads what was said before it came, and after a lost connection gets what it missed or is
//! told that it cannot. The protocol is Centrifugo's, in JSON, so its client libraries work as they are.
//!
//! [`serve`] is the whole server; [`Config`] says how it behaves. The program `sockeye` is this library with a
//! command line.

mod accept;
mod channel;
mod client;
pub mod codes;
mod config;
mod connection;
mod engine;
mod http;
mod node;
mod page;
mod presence;
mod protocol;
mod queue;
mod serve;
mod session;
mod sync;

pub use config::{ChannelOptions, Config, Limits, PublishPolicy, Timeouts};
pub use serve::serve;
pub use sockeye::OriginPolicy;
pub use sockeye::handshake::HostPolicy;
