//! The command line: flags become plain values here, and nothing happens until [`run`].

mod certificate;
mod failure;
mod listen;
mod options;
mod serve;
mod signals;
pub(crate) mod tls;
mod values;

use std::process::ExitCode;

use clap::Parser;

pub(crate) use failure::Failure;
pub(crate) use listen::{announce, bind};
pub(crate) use options::{BinaryOut, Command, CommandLine, ConnectOptions, EchoOptions, ServeOptions};
pub(crate) use signals::{Signal, Signals};
pub(crate) use values::{AllowedOrigin, Wait};

/// Reads the command line. What is wrong with it, or the help it asks for, has been printed on an error.
pub(crate) fn parse() -> Result<CommandLine, ExitCode> {
    CommandLine::try_parse().map_err(|error| {
        // Who closed the terminal does not want to read it either.
        let _ = error.print();
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
