//! `sockeye connect`: lines from standard input become text messages, messages become lines on standard output.
//!
//! One task talks ([`session`]); standard input and standard output each have a thread of their own, for both may block
//! for as long as they like. What lies between is bounded.

mod address;
mod escape;
mod input;
mod open;
mod output;
mod session;

pub(crate) use escape::{close_frame, escape};
pub(crate) use input::InputError;

use std::io::{self, IsTerminal};

use sockeye::handshake::Uri;
use tokio::runtime::Builder;

use crate::cli::{ConnectOptions, Failure, Signals};
use crate::log;
use open::Opener;
use output::{Form, Output};

/// Connects, talks until either side has had enough, and says how it ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Failure> {
    let uri = address::parse(&options.url)?;
    let opener = Opener::new(options)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let ws = tokio::select! {
            biased;
            signal = signals.next() => return Err(Failure::Interrupted(signal)),
            opened = opener.open(&uri) => opened?,
        };
        greet(&uri, options);
        let (output, writer) = Output::start(Form::of_standard_output(options.binary_out))?;
        session::talk(ws, output, writer, options, &mut signals).await
    });
    // The resolver may still be waiting for a name server that does not answer.
    runtime.shutdown_background();
    result
}

/// Tells a person that it is their turn.
fn greet(uri: &Uri, options: &ConnectOptions) {
    if io::stdin().is_terminal() && !options.quiet {
        log::line(&format!("connected to {uri}; each line is a message, Ctrl-D ends"));
    }
}
