//! All flags, as plain structs that do nothing.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sockeye::Origin;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::values::parse_size;

/// WebSocket servers, and a client for the terminal.
#[derive(Debug, Parser)]
#[command(name = "sockeye", version, after_help = EXAMPLES, after_long_help = EXAMPLES_AND_EXIT_STATUS)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// What to log on standard error: off, error, warn, info, debug, trace, or `target=level,...`
    ///
    /// RUST_LOG counts when neither this nor SOCKEYE_LOG is given.
    #[arg(long, global = true, value_name = "FILTER", env = "SOCKEYE_LOG")]
    log_level: Option<Targets>,
}

impl CommandLine {
    /// What is to be logged.
    pub(crate) fn log_filter(&self) -> Targets {
        let rust_log = || std::env::var("RUST_LOG").ok()?.parse().ok();
        let default = || Targets::new().with_default(LevelFilter::INFO);
        self.log_level.clone().or_else(rust_log).unwrap_or_else(default)
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Echo(EchoOptions),
    Serve(ServeOptions),
}

/// Send every message back: a server to try clients with
#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9001")]
    pub(crate) listen: String,

    /// A subprotocol that the server speaks, the best liked first; repeat for more
    #[arg(long = "subprotocol", value_name = "NAME")]
    pub(crate) subprotocols: Vec<String>,

    /// The largest message taken, such as 64KiB; beyond it a connection is closed with 1009
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    pub(crate) max_message_size: u64,

    /// Speak TLS (wss://): a file with the server's certificate and those above it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The file with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Only take web pages of this origin, such as https://example.com; repeat for more [default: any page]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<Origin>,

    /// Threads that serve connections, each with a listener of its own
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZero<u8>,
}

/// Serve real-time channels to browsers and other clients, with a chat to try it at /
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,

    /// Also take web pages of this origin, such as https://example.com; repeat for more [default: pages of the same
    /// host]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub(crate) origins: Vec<Origin>,
}

const EXAMPLES: &str = "\
Examples:
  sockeye echo                                    echo on ws://127.0.0.1:9001/
  sockeye serve                                   a chat on http://127.0.0.1:8080/";

const EXAMPLES_AND_EXIT_STATUS: &str = EXAMPLES;
