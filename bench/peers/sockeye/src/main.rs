//! Echo with Sockeye: the server from the README.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use sockeye::{DeflateConfig, Error, Incoming, Server, Takeover};
use tokio::net::TcpListener;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen).await?;
        bench_listen::announce(listener.local_addr()?);
        server.serve(listener).run(echo).await;
        Ok(())
    })
}

async fn echo(incoming: Incoming) -> Result<(), Error> {
    let mut ws = incoming.accept().await?;
    while let Some(message) = ws.recv().await? {
        ws.feed(message).await?;
    }
    Ok(())
}
