//! Settings outside of tables.

use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Secret;
use crate::config::options::{OptionValue, Value, options, quote};
use crate::engine::Fsync;

options! {
    /// Settings of the program that are not in a table of the file.
    #[derive(PartialEq, Eq)]
    pub struct ProgramOptions {
        /// Address to listen on, such as `0.0.0.0:8080`. Port 0 selects a free port.
        pub listen: String = "127.0.0.1:8080".to_owned(),
        /// Name of this server, as the `info` call of the HTTP API shows it.
        pub name: String = "sockeye".to_owned(),
        /// Folder of the log on disk, which keeps histories over a restart. Without it, histories are in memory only.
        pub data: Option<PathBuf> = None,
        /// When publications are flushed to disk: before acknowledgement (`always`), at most this long after it
        /// (`50ms`), or when the OS decides (`never`).
        pub fsync: Fsync = Fsync::Every(Duration::from_millis(50)),
        /// Starts with a damaged log: keeps all valid records and gives every channel a new epoch, so no client
        /// recovers. Use it for one start only, as `SOCKEYE_REPAIR_JOURNAL=true`.
        pub repair_journal: bool = false,
        /// URL of Redis or NATS JetStream, which several nodes share: `redis://`, `rediss://`, `redis+sentinel://`,
        /// `redis+cluster://`, `nats://` or `tls://`. The page on scaling lists the parameters. Without it, the
        /// embedded engine serves this node alone.
        pub engine: Option<Secret> = None,
        /// Time for a shutdown. Clients are disconnected in random order over four fifths of it, so that they do not
        /// all reconnect at once.
        pub drain: Duration = Duration::from_secs(10),
        /// Format of log lines.
        pub log_format: LogFormat = LogFormat::Text,
        /// Origins of the web pages that may connect, such as `https://example.com`; `*` allows any page. By default, pages of
        /// the same host may.
        pub allow_origins: Vec<String> = Vec::new(),
        /// Accepted values of the `Host` header. By default, loopback names on a loopback address, otherwise any host.
        pub allow_hosts: Vec<String> = Vec::new(),
        /// Compression (permessage-deflate) for clients that offer it. With `takeover`, messages are compressed with
        /// context from earlier ones, which costs up to 64 KiB per connection.
        pub compression: CompressionMode = CompressionMode::NoTakeover,
        /// Whether clients without a token may connect.
        pub anonymous: bool = false,
        /// Namespace of personal channels. With `users`, a client of the user 42 is subscribed to `users:#42` when it
        /// connects, and with an empty text to `#42`. Without it, there are no personal channels.
        pub personal_channels: Option<String> = None,
        /// Keys of the HTTP API. Without one, every request is answered with 401.
        pub api_keys: Vec<Secret> = Vec::new(),
        /// Whether the demonstrations are served at `/`.
        pub demos: bool = false,
        /// PEM file of the certificate chain for TLS. Read again on SIGHUP.
        pub tls_cert: Option<PathBuf> = None,
        /// PEM file of the private key of the certificate.
        pub tls_key: Option<PathBuf> = None,
        /// Accepts requests of the HTTP API without a key. For development only.
        pub insecure_api: bool = false,
        /// Lets every client do everything in every channel, with and without tokens. For development only.
        pub insecure_clients: bool = false,
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Modes of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionMode {
    /// No compression.
    Off,
    /// Each message is compressed independently.
    NoTakeover,
    /// Messages are compressed with context from earlier ones.
    Takeover,
}

impl OptionValue for Fsync {
    const KIND: &'static str = "`\"always\"`, a time such as `\"50ms\"`, or `\"never\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        String::read(value)?.parse().ok()
    }

    fn write(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

impl OptionValue for LogFormat {
    const KIND: &'static str = "`\"text\"` or `\"json\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        match String::read(value)?.as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn write(&self) -> Option<String> {
        Some(quote(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}

impl OptionValue for CompressionMode {
    const KIND: &'static str = "`\"off\"`, `\"no-takeover\"` or `\"takeover\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        match String::read(value)?.as_str() {
            "off" => Some(Self::Off),
            "no-takeover" => Some(Self::NoTakeover),
            "takeover" => Some(Self::Takeover),
            _ => None,
        }
    }

    fn write(&self) -> Option<String> {
        Some(quote(match self {
            Self::Off => "off",
            Self::NoTakeover => "no-takeover",
            Self::Takeover => "takeover",
        }))
    }
}
