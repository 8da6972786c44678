//! Sockeye: the README's loop of `recv` and `feed`.

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
    // A message of 16 MiB is measured too, and is just what the default allows.
    let server = server.build();
    bench_listen::serve(flags, move |tcp| open(server.clone(), tcp))
}

async fn open(server: Server, tcp: TcpStream) -> Result<(), Error> {
    let mut ws = server.accept(tcp).await?.accept().await?;
    // A task of its own: what the handshake needed goes with this one. Its WebSocket is lent to the loop, not given: a
    // future has room for what it was given and again for what it gives on.
    tokio::spawn(async move { drop(echo(&mut ws).await) });
    Ok(())
}

async fn echo(ws: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
