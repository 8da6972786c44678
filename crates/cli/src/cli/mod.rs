//! The command line. Parsing only produces plain values; [`run`] acts on them.

mod arguments;
mod certificate;
mod failure;
mod listen;
mod options;
mod serve;
mod signal;
pub(crate) mod tls;
mod values;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use sockeye_server::settings::LogFormat;

pub(crate) use failure::Failure;
pub(crate) use listen::{announce, bind};
pub(crate) use options::{
    BinaryIn, BinaryOut, Command, CommandLine, ConfigCommand, ConnectOptions, EchoOptions, Escape, ServeOptions,
};
pub(crate) use signal::Signal;
pub(crate) use values::{AllowedOrigin, Header, ProxyOption, Wait};

/// Parses the command line. Before returning an error it prints the error message, or the help that was asked for.
pub(crate) fn parse() -> Result<CommandLine, ExitCode> {
    let arguments: Vec<_> = std::env::args_os().collect();
    CommandLine::try_parse_from(arguments::normalize(&arguments)).map_err(|error| {
        let text = arguments::redact(&error.render().to_string(), &arguments);
        // The exit code already reports the error, so a failed write is ignored.
        let _ = match error.use_stderr() {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout()
                .write_all(text.as_bytes())
                .and_then(|()| io::stdout().flush()),
        };
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
    })
}

/// The format of log lines.
pub(crate) fn log_format(command: &Command) -> LogFormat {
    match command {
        Command::Serve(options) => serve::log_format(options),
        _ => LogFormat::Text,
    }
}

/// Runs a subcommand.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Connect(options) => crate::connect::run(options),
        Command::Echo(options) => crate::echo::run(options),
        Command::Serve(options) => serve::run(options),
        Command::Config(options) => serve::print_config(&options.command),
    }
}
