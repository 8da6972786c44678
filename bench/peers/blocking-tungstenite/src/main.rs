//! Echo with tungstenite on blocking sockets: a thread for each connection, with `read` and `send`.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

use bench_listen::{Can, Flags};

fn main() -> ExitCode {
    let flags = Flags::parse(Can::default());
    bench_listen::exit(run(&flags))
}

fn run(flags: &Flags) -> io::Result<()> {
    let listener = TcpListener::bind(flags.listen)?;
    bench_listen::announce(listener.local_addr()?);
    for tcp in listener.incoming() {
        let tcp = tcp?;
        tcp.set_nodelay(true)?;
        thread::spawn(move || echo(tcp));
    }
    Ok(())
}

fn echo(tcp: TcpStream) {
    let Ok(mut ws) = tungstenite::accept(tcp) else { return };
    while let Ok(message) = ws.read() {
        if (message.is_text() || message.is_binary()) && ws.send(message).is_err() {
            return;
        }
    }
}
