//! The program `sockeye`: WebSocket servers, and a WebSocket client for the terminal.

mod cli;
mod connect;
mod echo;
mod escape;
mod log;
#[cfg_attr(unix, path = "platform/unix/mod.rs")]
#[cfg_attr(not(unix), path = "platform/other.rs")]
mod platform;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command_line = match cli::parse() {
        Ok(command_line) => command_line,
        Err(exit_code) => return exit_code,
    };
    // Dropped last, which flushes the log.
    let _log = log::start(command_line.log_filter(), cli::log_format(&command_line.command));
    match cli::run(&command_line.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !command_line.is_quiet()
                && let Some(message) = failure.message()
            {
                for line in message.lines() {
                    log::line(&format!("sockeye: {line}"));
                }
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
