//! A client without an async runtime: `blocking URL`. Sends each line of standard input, and prints each message.
//!
//! The main thread receives. A second thread reads standard input and sends through a clone of the sender, so that both
//! directions are independent.

use std::io::{BufRead as _, Result, stdin};
use std::thread;

use sockeye::blocking::{self, Sender};
use sockeye::{CloseCode, Error};

/// Sends lines until the end of the input, then closes.
fn send_lines(sender: &Sender) -> Result<()> {
    for line in stdin().lock().lines() {
        sender.send(line?)?;
    }
    sender.close(CloseCode::NORMAL, "")?;
    Ok(())
}

fn run(url: &str) -> std::result::Result<(), Error> {
    let (sender, mut receiver) = blocking::connect(url)?.split();
    let on_error = sender.clone();
    thread::spawn(move || {
        if let Err(error) = send_lines(&sender) {
            eprintln!("{error}");
            // Wakes the receiver.
            on_error.abort();
        }
    });
    // Ends after the peer's close frame. A peer that does not answer pings is an error after 30 s.
    while let Some(message) = receiver.recv()? {
        match message.as_text() {
            Some(text) => println!("{text}"),
            None => println!("({} bytes)", message.len()),
        }
    }
    Ok(())
}

fn main() {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: blocking URL");
        std::process::exit(2);
    };
    if let Err(error) = run(&url) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
