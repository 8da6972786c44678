//! The flags of all subcommands, as plain structs.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sockeye::{DeflateConfig, Origin, Takeover};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::values::{
    AllowedOrigin, Header, ProxyOption, Timer, Wait, parse_count, parse_duration, parse_listen, parse_log_filter,
    parse_size, parse_subprotocol, parse_threads,
};

/// WebSocket servers, and a WebSocket client for the terminal
#[derive(Debug, Parser)]
#[command(name = "sockeye", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Log level on standard error: off, error, warn, info, debug, trace, or `target=level,...`
    ///
    /// RUST_LOG is used if neither this flag nor SOCKEYE_LOG is set.
    #[arg(long, global = true, value_name = "FILTER", env = "SOCKEYE_LOG", value_parser = parse_log_filter)]
    log_level: Option<Targets>,
}

impl CommandLine {
    /// The log filter. By default, servers log at level info and the client at level warn.
    pub(crate) fn log_filter(&self) -> Targets {
        let rust_log = || std::env::var("RUST_LOG").ok()?.parse().ok();
        let default = match self.command {
            _ if self.is_quiet() => LevelFilter::OFF,
            Command::Connect(_) | Command::Config(_) => LevelFilter::WARN,
            Command::Echo(_) | Command::Serve(_) => LevelFilter::INFO,
        };
        let filter = self.log_level.clone().or_else(rust_log);
        filter.unwrap_or_else(|| Targets::new().with_default(default))
    }

    /// Whether error messages are suppressed.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(&self.command, Command::Connect(options) if options.quiet)
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Connect(Box<ConnectOptions>),
    Echo(EchoOptions),
    Serve(Box<ServeOptions>),
    Config(ConfigOptions),
}

/// Send lines from standard input as text messages, and print received messages as lines
///
/// Lines end with LF or CRLF. The line ending is not sent.
///
/// Standard input is read after the connection is open. At the end of the input, the program waits for replies (see
/// --wait) and closes the connection with 1000. An input that is empty from the start, such as /dev/null, means receive
/// only: messages are printed until the server closes the connection.
///
/// A FIFO ends when its last writer closes it. `sockeye connect URL <>FIFO` keeps it open.
///
/// On a terminal, sent lines start with `>` and received messages with `<`. Keys: arrows, Home, End, Ctrl-A, E, U, K,
/// W, and Ctrl-D for the end of the input.
#[derive(Debug, Args)]
#[command(after_help = CONNECT_EXAMPLES, after_long_help = format!("{CONNECT_EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(crate) struct ConnectOptions {
    /// URL of the server: ws://, wss://, http:// or https://; also HOST:PORT/PATH, or :PORT for this machine. USER:PASSWORD@
    /// before the host is sent as basic authentication, and is never printed
    pub(crate) url: String,

    /// Send this header with the request; can be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<Header>,

    /// Offer this subprotocol; can be repeated, in order of preference
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub(crate) subprotocols: Vec<String>,

    /// Send this Origin header, such as https://example.com, as a web page would
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Option<Origin>,

    /// Accept any certificate of the server. Insecure: anyone on the network path can read and change all messages
    #[arg(short = 'k', long)]
    pub(crate) insecure: bool,

    /// Trust the certificates in this PEM file instead of those of the system
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) cacert: Option<PathBuf>,

    /// Show the server this client certificate, a PEM file with the chain
    #[arg(short = 'E', long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// PEM file with the private key of the client certificate [default: the file of --cert]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Connect through this proxy: http://, https://, socks5:// or socks5h://, with USER:PASSWORD@ if it requires them;
    /// empty for none [default: from the environment]
    ///
    /// The environment is read as curl does: wss_proxy, https_proxy or all_proxy for wss://, and ws_proxy, http_proxy or
    /// all_proxy for ws://, also in upper case except http_proxy. no_proxy lists hosts without proxy, also for this flag.
    /// socks5h resolves the host name at the proxy. A password on the command line is visible to other users of this
    /// machine: prefer the environment.
    #[arg(short = 'x', long, value_name = "URL")]
    pub(crate) proxy: Option<ProxyOption>,

    /// Follow redirects, up to 10. Credentials are not sent to another host, port or scheme
    #[arg(short = 'L', long)]
    pub(crate) location: bool,

    /// Time limit for name resolution, TCP, proxy, TLS and opening handshake together; `off` for no limit
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) connect_timeout: Timer,

    /// Ping the server after this time without data, and give up if there is no answer within 10 s; `off` disables
    /// pings
    #[arg(long, value_name = "TIME", default_value = "20s")]
    pub(crate) ping_interval: Timer,

    /// After the end of the input, close when no message has arrived for this time; `forever` waits for the server to
    /// close [default: 1s, or 5s while fewer messages were received than sent]
    ///
    /// With an input that is empty from the start, or with --count, the default is `forever`; on a terminal it is 1s. A
    /// feed that never pauses for this time is never closed: use --count, Ctrl-C, or a reader that exits, such as `|
    /// head`.
    #[arg(short = 'w', long, value_name = "TIME")]
    pub(crate) wait: Option<Wait>,

    /// Connect again when the connection is lost or cannot be opened, after a random delay of at most 5 s, and after
    /// further failures of at most MAX [default: 60s]
    ///
    /// Standard error says how many of the sent lines may be lost. Lines are not sent again, and what the server sends
    /// meanwhile is missed. Errors that do not pass, such as an invalid certificate or the status 401, end the program.
    #[arg(long, value_name = "MAX", num_args = 0..=1, require_equals = true, default_missing_value = "60s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) reconnect: Option<Duration>,

    /// Close after this number of received messages; exit status 52 if the connection ends earlier
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count)]
    pub(crate) count: Option<NonZero<u64>>,

    /// Maximum size of a received message, such as 64KiB; a larger one closes the connection with 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub(crate) max_message_size: u64,

    /// Offer compression (permessage-deflate); with `takeover`, messages are compressed with context from earlier ones
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "off", default_missing_value = "no-takeover")]
    pub(crate) compression: Compression,

    /// Escape control characters in text, and print binary messages in hexadecimal: only on a terminal (`auto`),
    /// always, or never
    ///
    /// A pipe or file receives every message unchanged, followed by a newline. Use `always` if the output of the reader
    /// is shown on a terminal, as with `| cat` or `| grep`, because terminals interpret control characters.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) escape: Escape,

    /// Decode each line and send it as a binary message (`hex`: `00 ff 0a`)
    #[arg(long, value_name = "FORMAT")]
    pub(crate) binary_in: Option<BinaryIn>,

    /// Format of binary messages that are not escaped
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) binary_out: BinaryOut,

    /// Print the server's response on standard error, with the body if it refuses the WebSocket
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print no messages on standard error; the exit status reports errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// When received messages are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Escape {
    /// If standard output is a terminal
    Auto,
    /// Also in pipes and files
    Always,
    /// Not even on a terminal
    Never,
}

/// Format of lines that are sent as binary messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BinaryIn {
    /// In hexadecimal, with or without spaces
    Hex,
}

/// Format of binary messages that are not escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BinaryOut {
    /// Unchanged, with a newline after each message
    Raw,
    /// In hexadecimal, one line for each message
    Hex,
}

/// Modes of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// No compression
    Off,
    /// Each message is compressed independently
    NoTakeover,
    /// Messages are compressed with context from earlier ones, in both directions
    Takeover,
}

impl Compression {
    /// The configuration for the library.
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

/// Echo server: send every message back, to test clients
#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    /// Address to listen on; `:PORT` accepts only connections from this machine, and port 0 selects a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9001", value_parser = parse_listen)]
    pub(crate) listen: String,

    /// Support this subprotocol; can be repeated, in order of preference
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub(crate) subprotocols: Vec<String>,

    /// Maximum size of a received message, such as 64KiB; a larger one closes the connection with 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub(crate) max_message_size: u64,

    /// Accept offers of compression (permessage-deflate); with `takeover`, messages are compressed with context from
    /// earlier ones, which compresses better and costs up to 64 KiB per connection
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "off", default_missing_value = "no-takeover")]
    pub(crate) compression: Compression,

    /// Enable TLS (wss://) with the certificate chain in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Accept only web pages of this origin, such as https://example.com; can be repeated; `*` accepts any page [default:
    /// any page]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<AllowedOrigin>,

    /// Number of threads that serve connections, each with its own listener; 1 to 255
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_threads)]
    pub(crate) threads: NonZero<u8>,
}

/// Serve real-time channels to browsers and other clients, with demonstrations at /
///
/// Settings come from a file (--config), then from environment variables (SOCKEYE_LISTEN,
/// SOCKEYE_LIMITS_CONNECTIONS_MAX, ...), then from flags; later ones override earlier ones. Without a file the server
/// is open to anonymous clients. SIGHUP reads the file again.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// TOML file with settings; `sockeye config default` prints one with all settings
    #[arg(long, value_name = "FILE", env = "SOCKEYE_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Check the settings and the data folder, which is not changed, and exit
    #[arg(long)]
    pub(crate) check: bool,

    /// Address to listen on; `:PORT` accepts only connections from this machine, and port 0 selects a free port
    /// [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<String>,

    /// Keep histories over a restart in a log in this folder [default: only in memory]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,

    /// When publications are written to the disk: `always` before they are acknowledged, at most some time later, such
    /// as `50ms`, or `never` [default: 50ms]
    #[arg(long, value_name = "WHEN")]
    pub(crate) fsync: Option<String>,

    /// Address of the engine that several servers share [default: this server works alone]
    #[arg(long, value_name = "URL")]
    pub(crate) engine: Option<String>,

    /// Key of the HTTP API; can be repeated. Visible to other users of this machine: prefer SOCKEYE_API_KEY or the file
    #[arg(long = "api-key", value_name = "KEY")]
    pub(crate) api_keys: Vec<String>,

    /// Secret of connection and subscription tokens signed with HMAC. Visible to other users of this machine: prefer
    /// SOCKEYE_TOKEN_HMAC_SECRET or the file
    #[arg(long, value_name = "SECRET")]
    pub(crate) token_hmac_secret: Option<String>,

    /// Enable the admin console at /console with this password. Visible to other users of this machine: prefer
    /// SOCKEYE_CONSOLE_PASSWORD or the file
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) console_password: Option<String>,

    /// Time for a shutdown, over which clients are disconnected [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) drain: Option<Duration>,

    /// Enable TLS (https://, wss://) with the certificate chain in this PEM file, which SIGHUP reads again
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Format of log lines: `text` or `json` [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,

    /// Accept only web pages of this origin, such as https://example.com; can be repeated; `*` accepts the pages of any site
    /// [default: pages of the same host]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<String>,

    /// Accept only requests with this Host header; can be repeated [default: loopback names on a loopback address,
    /// otherwise any host]
    ///
    /// Applies to the page and the WebSocket. Set it to the public name if a proxy on this machine preserves the Host
    /// header.
    #[arg(long = "allow-host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,

    /// Maximum size of the data of a publication, such as 64KiB; a larger one fails with error 106 [default: 64KiB]
    ///
    /// Raises the limits of queues, replies, and the history of a channel if they are too small for it.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_publication_size: Option<u64>,

    /// Maximum size of a WebSocket message from a client, which may contain many commands; a larger one closes the
    /// connection with 1009, after which SDKs do not reconnect [default: 256KiB, or more for the largest publication]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_message_size: Option<u64>,

    /// Maximum size of the data of the connect command, which others receive with each publication of the client;
    /// larger data fails with error 106 [default: 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_client_info: Option<u64>,

    /// Accept offers of compression (permessage-deflate); a publication is compressed once for all subscribers. With
    /// `takeover`, messages are compressed with context from earlier ones, which costs up to 64 KiB per connection
    /// [default: no-takeover]
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "no-takeover")]
    pub(crate) compression: Option<Compression>,
}

/// Print settings of `sockeye serve`
#[derive(Debug, Args)]
pub(crate) struct ConfigOptions {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// The subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a commented TOML file with all settings, as they are without a file
    Default,
}

const EXAMPLES: &str = "\
Examples:
  sockeye echo                        start an echo server on ws://127.0.0.1:9001/
  sockeye connect :9001               send lines to it
  sockeye serve                       start a chat on http://127.0.0.1:8080/";

/// A test checks that this lists all values of [`Failure::exit_code`](super::Failure::exit_code).
pub(super) const EXIT_STATUS: &str = "\
Exit status:
    0  success; for `connect`, also if the server closed with 1000, 1001 or without a code, or
       the reader of standard output, such as `head`, closed it
    1  local error: a file, standard input or output, or the address to listen on
    2  invalid command line
    3  invalid URL
    5  the host name of the proxy cannot be resolved
    6  the host name cannot be resolved
    7  the TCP connection failed, to the server or to the proxy
   22  the server refused the WebSocket (the message contains the HTTP status)
   28  timeout, or the server stopped responding
   35  TLS error
   52  the connection ended before --count messages were received
   56  the connection was lost without a close frame
   60  the server's certificate is not trusted
   64  the server closed with another code, shown in the message; 1009: a sent message was too
       large
   65  the server violated the protocol, or is not a WebSocket server
   66  a received message or response is too large; --max-message-size sets the limit for
       messages
   97  the proxy refused the connection
  130  ended by Ctrl-C; also 143: SIGTERM, 129: the terminal was closed, 131: Ctrl-\\. A server
       that shuts down completely after a signal exits with 0";

const CONNECT_EXAMPLES: &str = "\
Examples:
  printf 'one\\ntwo\\n' | sockeye connect :9001
  echo '{\"op\":\"time\"}' | sockeye connect -n 1 wss://example.com/api
  sockeye connect -H 'Authorization: Bearer abc' wss://example.com/feed </dev/null | head";
