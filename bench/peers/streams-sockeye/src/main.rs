//! Echo with Sockeye, with each message copied from `recv_stream` to `send_stream`, as its guide shows. Replies are in
//! fragments of 64 KiB.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use sockeye::{Error, Incoming, Receiver, Sender, Server};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    let flags = Flags::parse(Can::default());
    bench_listen::exit(run(&flags))
}

fn run(flags: &Flags) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(flags.listen).await?;
        bench_listen::announce(listener.local_addr()?);
        Server::default().serve(listener).run(serve).await;
        Ok(())
    })
}

async fn serve(incoming: Incoming) -> Result<(), Error> {
    let (sender, receiver) = incoming.accept().await?.split();
    // A client that ends in the middle of a message is no failure of this server.
    let _ = echo(&sender, receiver).await;
    Ok(())
}

async fn echo(sender: &Sender, mut receiver: Receiver) -> io::Result<()> {
    while let Some(mut message) = receiver.recv_stream().await? {
        let mut reply = sender.send_stream(message.kind());
        tokio::io::copy(&mut message, &mut reply).await?;
        reply.finish().await?;
    }
    Ok(())
}
