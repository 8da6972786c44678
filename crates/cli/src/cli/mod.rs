//! The command line: flags become plain values here, and nothing happens until [`run`].

mod arguments;
mod certificate;
mod failure;
mod listen;
mod options;
mod serve;
mod signals;
pub(crate) mod tls;
mod values;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

pub(crate) use failure::Failure;
pub(crate) use listen::{announce, bind};
pub(crate) use options::{BinaryOut, Command, CommandLine, ConnectOptions, EchoOptions, Escape, ServeOptions};
pub(crate) use signals::{Signal, Signals};
pub(crate) use values::{AllowedOrigin, Header, Wait};

/// Reads the command line. On an error, the message about it, or the help that was asked for, has been printed.
pub(crate) fn parse() -> Result<CommandLine, ExitCode> {
    let arguments: Vec<_> = std::env::args_os().collect();
    CommandLine::try_parse_from(arguments::normalize(&arguments)).map_err(|error| {
        let text = arguments::redact(&error.render().to_string(), &arguments);
        // A closed terminal or pipe is no reason to fail in another way.
        let _ = match error.use_stderr() {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout()
                .write_all(text.as_bytes())
                .and_then(|()| io::stdout().flush()),
        };
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
    })
}

/// Does what the command line says.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Connect(options) => crate::connect::run(options),
        Command::Echo(options) => crate::echo::run(options),
        Command::Serve(options) => serve::run(options),
    }
}
