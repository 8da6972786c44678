//! All flags, as plain structs that do nothing.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sockeye::handshake::Authority;
use sockeye::{DeflateConfig, Origin, Takeover};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::values::{
    AllowedOrigin, Header, Timer, Wait, parse_count, parse_host, parse_listen, parse_log_filter, parse_size,
    parse_subprotocol, parse_threads,
};

/// WebSocket servers, and a client for the terminal.
#[derive(Debug, Parser)]
#[command(name = "sockeye", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// What to log on standard error: off, error, warn, info, debug, trace, or `target=level,...`
    ///
    /// RUST_LOG counts when neither this nor SOCKEYE_LOG is given.
    #[arg(long, global = true, value_name = "FILTER", env = "SOCKEYE_LOG", value_parser = parse_log_filter)]
    log_level: Option<Targets>,
}

impl CommandLine {
    /// What is to be logged: of a server, what it does; of a client, what goes wrong.
    pub(crate) fn log_filter(&self) -> Targets {
        let rust_log = || std::env::var("RUST_LOG").ok()?.parse().ok();
        let default = match self.command {
            _ if self.is_quiet() => LevelFilter::OFF,
            Command::Connect(_) => LevelFilter::WARN,
            Command::Echo(_) | Command::Serve(_) => LevelFilter::INFO,
        };
        let filter = self.log_level.clone().or_else(rust_log);
        filter.unwrap_or_else(|| Targets::new().with_default(default))
    }

    /// Whether only the exit status is to tell what went wrong.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(&self.command, Command::Connect(options) if options.quiet)
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Connect(ConnectOptions),
    Echo(EchoOptions),
    Serve(ServeOptions),
}

/// Send lines from standard input as text messages, and print messages as lines
///
/// Standard input is read once the connection is open. At its end everything is sent, replies are awaited for the time of
/// --wait, and the connection is closed with 1000. An input that is empty from the start, such as /dev/null, means to
/// receive only: messages are printed until the server closes.
///
/// A FIFO as input ends when its last writer closes it. `sockeye connect URL <>FIFO` keeps it open.
///
/// On a terminal, sent lines begin with `>` and received messages with `<`. Keys: arrows, Home, End, Ctrl-A, E, U, K, W;
/// Ctrl-D ends.
#[derive(Debug, Args)]
#[command(after_help = CONNECT_EXAMPLES, after_long_help = format!("{CONNECT_EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(crate) struct ConnectOptions {
    /// Where to connect: ws:// or wss://, also http(s)://, HOST:PORT/PATH, or :PORT on this machine. USER:PASSWORD@ before
    /// the host is sent as basic authentication, and never printed
    pub(crate) url: String,

    /// Send this header with the request; repeat for more
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<Header>,

    /// Offer this subprotocol, the best liked first; repeat for more
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub(crate) subprotocols: Vec<String>,

    /// Claim to be a web page of this origin, such as https://example.com
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Option<Origin>,

    /// Take any certificate of the server: whoever sits in between can read and change everything
    #[arg(short = 'k', long)]
    pub(crate) insecure: bool,

    /// Trust the certificates in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) cacert: Option<PathBuf>,

    /// How long connecting may take, from the name to the open WebSocket; `off` for no limit
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) connect_timeout: Timer,

    /// Ping the server after this much silence; without an answer within 10 s more it is taken to be gone. `off` never
    /// pings
    #[arg(long, value_name = "TIME", default_value = "20s")]
    pub(crate) ping_interval: Timer,

    /// After the end of input, close when no message has come for so long; `forever` leaves closing to the server
    /// [default: 1s, or 5s while fewer messages have come than were sent]
    ///
    /// With an input that is empty from the start, or with --count, the default is `forever`; on a terminal it is 1s. A feed
    /// that never pauses for so long is never closed: use --count, Ctrl-C, or close what reads the messages, as `| head`
    /// does.
    #[arg(short = 'w', long, value_name = "TIME")]
    pub(crate) wait: Option<Wait>,

    /// Close when so many messages have come; exit status 52 if the connection ends before
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<NonZero<u64>>,

    /// The largest message taken, such as 64KiB; at a larger one the connection is closed with 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub(crate) max_message_size: u64,

    /// Offer to compress messages (permessage-deflate); with `takeover`, they may refer back to earlier ones
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "off", default_missing_value = "no-takeover")]
    pub(crate) compression: Compression,

    /// Spell out control characters in text, and print binary messages in hexadecimal: on a terminal only (`auto`), always,
    /// or never
    ///
    /// A pipe or file gets every message exactly, and a newline after it. Use `always` when the reader is a terminal in the
    /// end, as with `| cat` or `| grep`: a terminal obeys control characters.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) escape: Escape,

    /// How binary messages are written where they are not escaped
    #[arg(long, value_name = "FORM", default_value = "raw")]
    pub(crate) binary_out: BinaryOut,

    /// Show the server's response on standard error, with its whole body when it refuses
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Say nothing on standard error; the exit status tells
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// When messages are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Escape {
    /// When standard output is a terminal.
    Auto,
    /// Into pipes and files too.
    Always,
    /// On a terminal neither.
    Never,
}

/// How binary messages are written where they are not escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BinaryOut {
    /// Byte for byte, with a newline behind each message.
    Raw,
    /// In hexadecimal, a line for each message.
    Hex,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all.
    Off,
    /// Each message by itself.
    NoTakeover,
    /// With reference to earlier messages, in both directions.
    Takeover,
}

impl Compression {
    /// What the library is to be told.
    pub(crate) fn config(self) -> Option<DeflateConfig> {
        let takeover = match self {
            Self::Off => return None,
            Self::NoTakeover => Takeover::Reset,
            Self::Takeover => Takeover::Keep,
        };
        let mut config = DeflateConfig::default();
        (config.takeover, config.peer_takeover) = (takeover, takeover);
        Some(config)
    }
}

/// Send every message back: a server to try clients with
#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    /// Where to listen; `:PORT` is on this machine only, and port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9001", value_parser = parse_listen)]
    pub(crate) listen: String,

    /// A subprotocol that the server speaks, the best liked first; repeat for more
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub(crate) subprotocols: Vec<String>,

    /// The largest message taken, such as 64KiB; beyond it a connection is closed with 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub(crate) max_message_size: u64,

    /// Compress messages for clients that offer it (permessage-deflate); with `takeover`, messages refer back to earlier
    /// ones, which compresses better and costs each connection up to 64 KiB
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "off", default_missing_value = "no-takeover")]
    pub(crate) compression: Compression,

    /// Speak TLS (wss://): a file with the server's certificate and those above it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The file with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Only take web pages of this origin, such as https://example.com; repeat for more; `*` takes any page [default: any
    /// page]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<AllowedOrigin>,

    /// Threads that serve connections, each with a listener of its own; 1 to 255
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_threads)]
    pub(crate) threads: NonZero<u8>,
}

/// Serve real-time channels to browsers and other clients, with a chat to try it at /
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Where to listen; `:PORT` is on this machine only, and port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = parse_listen)]
    pub(crate) listen: String,

    /// Only take web pages of this origin, such as https://example.com; repeat for more; `*` takes any page, whoever
    /// made it [default: pages of the same host]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<AllowedOrigin>,

    /// Only answer for this host, as in the Host header; repeat for more [default: on a loopback address localhost,
    /// otherwise any]
    ///
    /// For the page and the WebSocket alike. Give the public name when a proxy on this machine passes it on.
    #[arg(long = "allow-host", value_name = "HOST", value_parser = parse_host)]
    pub(crate) hosts: Vec<Authority>,

    /// The largest data of a publication taken from a client, such as 64KiB; a larger one is answered with error 106
    ///
    /// Queues, replies, and the history of a channel grow with it, where they would be too small.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) max_publication_size: u64,

    /// The largest WebSocket message taken from a client, which may carry many commands; beyond it a connection is closed
    /// with 1009, after which SDKs do not connect again [default: 256KiB, or more for the largest publication]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_message_size: Option<u64>,

    /// The largest data that a client may connect with, which others see with each of its publications; a larger one is
    /// answered with error 106
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = parse_size)]
    pub(crate) max_client_info: u64,

    /// Compress messages for clients that offer it (permessage-deflate), a publication once for all who hear it; with
    /// `takeover`, clients' messages refer back to earlier ones, which costs each connection up to 64 KiB
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "no-takeover", default_missing_value = "no-takeover")]
    pub(crate) compression: Compression,
}

const EXAMPLES: &str = "\
Examples:
  sockeye echo                        send messages back on ws://127.0.0.1:9001/
  sockeye connect :9001               talk to it, line by line
  sockeye serve                       a chat on http://127.0.0.1:8080/";

/// Kept in one place with [`Failure::exit_code`](super::Failure::exit_code) by a test.
pub(super) const EXIT_STATUS: &str = "\
Exit status:
    0  done; with `connect`, closed with 1000, 1001 or without a code, or who reads standard
       output has closed it, as `head` does
    1  trouble on this machine: a file, standard input or output, the address to listen on
    2  the command line is wrong
    3  the URL is wrong
    6  the host is not found
    7  the host does not take the connection
   22  the server refuses to open a WebSocket (its HTTP status is shown)
   28  something took too long, or the server has fallen silent
   35  TLS fails
   52  fewer messages came than --count asks for
   56  the connection is lost without a close frame
   60  the server's certificate is not trusted
   64  the server closed with another code (which is shown)
   65  the server broke the protocol, or does not speak it
   66  the server sent more at once than is taken here; --max-message-size takes larger messages
  130  Ctrl-C; 143: SIGTERM; on a terminal 129: it is gone, 131: Ctrl-\\. A server that ends
       in good order exits with 0";

const CONNECT_EXAMPLES: &str = "\
Examples:
  printf 'one\\ntwo\\n' | sockeye connect :9001
  echo '{\"op\":\"time\"}' | sockeye connect -n 1 wss://example.com/api
  sockeye connect -H 'Authorization: Bearer abc' wss://example.com/feed </dev/null | head";
