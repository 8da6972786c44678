//! `sockeye connect`: lines from standard input become text messages, messages become lines on standard output.
//!
//! One task owns the connection ([`session`]). Standard input and standard output each have a thread, because both may
//! block for any length of time. The queues between them are bounded.

mod address;
mod input;
mod open;
mod output;
mod reconnect;
mod session;

pub(crate) use address::redact_url;
pub(crate) use input::InputError;

use std::io::{self, IsTerminal};

use tokio::runtime::Builder;

use crate::cli::{ConnectOptions, Failure};
use crate::log;
use crate::platform::terminal::{self, Terminal};
use crate::platform::{self, Signals};
use address::Target;
use input::Input;
use open::Opener;
use output::{Output, OutputFormat};
use reconnect::ReconnectSession;
use session::Session;

/// Connects, exchanges messages until one side ends the connection, and returns how it ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Failure> {
    let target = address::parse(&options.url)?;
    let opener = Opener::new(options, &target)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut output_closed = std::pin::pin!(platform::stdout_closed());
        // Before connecting, which may take long, so that lines typed or pasted meanwhile are edited too.
        let terminal = Terminal::open();
        let mut input = None;
        if terminal.is_some() {
            signals.watch_terminal()?;
            input = Some(Input::start(true)?);
        }
        if let Some(delay_max) = options.reconnect {
            let input = match input {
                Some(input) => input,
                None => Input::start(false)?,
            };
            terminal::show_prompt();
            let format = OutputFormat::new(options.escape, options.binary_out, terminal.is_some());
            let (output, writer) = Output::start(format)?;
            let session = ReconnectSession::new(options, &target, opener.reconnecting(delay_max), output, input);
            return session.run(writer, output_closed, &mut signals).await;
        }
        let ws = tokio::select! {
            biased;
            signal = signals.next() => return Err(Failure::Interrupted(signal)),
            opened = opener.open() => opened?,
            // The reader of our output, such as `head`, needs no more of it.
            () = &mut output_closed => return Ok(()),
        };
        print_greeting(&target, options);
        terminal::show_prompt();
        let format = OutputFormat::new(options.escape, options.binary_out, terminal.is_some());
        let (output, writer) = Output::start(format)?;
        let input = match input {
            Some(input) => input,
            // Started after connecting, so that a pipe is left unread if the connection cannot be opened.
            None => Input::start(false)?,
        };
        let session = Session::start(options, ws, output, input);
        session.run(writer, output_closed, &mut signals).await
    });
    // Do not wait for the resolver, which may block on a name server that does not answer.
    runtime.shutdown_background();
    result
}

/// Prints a line that tells a user at a terminal to begin.
fn print_greeting(target: &Target, options: &ConnectOptions) {
    if io::stdin().is_terminal() && !options.quiet {
        log::line(&format!(
            "connected to {}; each line is a message, Ctrl-D ends",
            target.uri()
        ));
        // So that the line is above the prompt.
        log::flush();
    }
}
