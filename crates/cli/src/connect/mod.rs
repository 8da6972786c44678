//! `sockeye connect`: lines from standard input become text messages, messages become lines on standard output.
//!
//! One task talks ([`session`]); standard input and standard output each have a thread of their own, for both may block
//! for as long as they like. What lies between is bounded.

mod address;
mod escape;
mod input;
mod open;
mod output;
mod proxy;
mod session;
mod stdio;
#[cfg_attr(not(unix), path = "terminal_none.rs")]
pub(crate) mod terminal;

pub(crate) use address::redact_url;
pub(crate) use escape::{close_frame, escape, escape_bytes};
pub(crate) use input::InputError;

use std::io::{self, IsTerminal};

use tokio::runtime::Builder;

use crate::cli::{ConnectOptions, Failure, Signals};
use crate::log;
use address::Target;
use input::Input;
use open::Opener;
use output::{Form, Output};
use session::Session;
use terminal::Terminal;

/// Connects, talks until either side has had enough, and says how it ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Failure> {
    let target = address::parse(&options.url)?;
    let opener = Opener::new(options, &target)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut output_closed = std::pin::pin!(output::closed());
        // Before the connection is opened, which may take long: what is typed or pasted meanwhile is edited too.
        let terminal = Terminal::open();
        let mut input = None;
        if terminal.is_some() {
            signals.watch_terminal()?;
            input = Some(Input::start(true)?);
        }
        let ws = tokio::select! {
            biased;
            signal = signals.next() => return Err(Failure::Interrupted(signal)),
            opened = opener.open() => opened?,
            // Who reads our output, as `head` does, has enough of it.
            () = &mut output_closed => return Ok(()),
        };
        greet(&target, options);
        terminal::show_prompt();
        let form = Form::new(options.escape, options.binary_out, terminal.is_some());
        let (output, writer) = Output::start(form)?;
        let input = match input {
            Some(input) => input,
            // If the connection cannot be opened, a pipe is left unread.
            None => Input::start(false)?,
        };
        let session = Session::start(options, ws, output, input);
        session.talk(writer, output_closed, &mut signals).await
    });
    // The resolver may still be waiting for a name server that does not answer.
    runtime.shutdown_background();
    result
}

/// Tells a person that it is their turn.
fn greet(target: &Target, options: &ConnectOptions) {
    if io::stdin().is_terminal() && !options.quiet {
        log::line(&format!(
            "connected to {}; each line is a message, Ctrl-D ends",
            target.uri()
        ));
        // Before the prompt.
        log::flush();
    }
}
