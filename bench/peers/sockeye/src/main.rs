//! Echo with Sockeye: the loop of `recv` and `feed` from the README.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use sockeye::{DeflateConfig, Error, Server, Takeover, WebSocket};
use tokio::net::TcpStream;

fn main() -> ExitCode {
    let flags = Flags::parse(Can {
        tls: true,
        deflate: true,
        takeover: true,
    });
    bench_listen::exit(run(&flags))
}

fn run(flags: &Flags) -> io::Result<()> {
    let mut server = Server::builder();
    if let Some((certificate, key)) = &flags.tls {
        server = server.tls_config(bench_listen::server_config(certificate, key)?);
    }
    if let Some(takeover) = flags.deflate {
        let takeover = match takeover {
            bench_listen::Takeover::No => Takeover::Reset,
            bench_listen::Takeover::Yes => Takeover::Keep,
        };
        let mut config = DeflateConfig::default();
        (config.takeover, config.peer_takeover) = (takeover, takeover);
        server = server.compression(config);
    }
    // The default message limit of 16 MiB is the size of the largest measured message.
    let server = server.build();
    bench_listen::serve(flags, move |tcp| open(server.clone(), tcp))
}

async fn open(server: Server, tcp: TcpStream) -> Result<(), Error> {
    let mut ws = server.accept(tcp).await?.accept().await?;
    // Runs the echo in a new task, so that the memory of the handshake is freed. The loop borrows the WebSocket,
    // because a future that owns it has room for it twice.
    tokio::spawn(async move { drop(echo(&mut ws).await) });
    Ok(())
}

async fn echo(ws: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
