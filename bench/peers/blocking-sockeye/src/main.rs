//! Echo with `sockeye::blocking`: a thread for each connection, with the loop of its documentation.

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;

use bench_listen::{Can, Flags};
use sockeye::{Error, Server, blocking};

fn main() -> ExitCode {
    let flags = Flags::parse(Can::default());
    bench_listen::exit(run(&flags))
}

fn run(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.listen)?;
    bench_listen::announce(listener.local_addr()?);
    let server = Server::default();
    for tcp in listener.incoming() {
        let (server, tcp) = (server.clone(), tcp?);
        thread::spawn(move || echo(server.accept_blocking(tcp)?.accept()?));
    }
    Ok(())
}

fn echo(mut ws: blocking::WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv()? {
        ws.feed(message)?;
    }
    Ok(())
}
