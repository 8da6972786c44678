//! The floor of wss: tokio-rustls, 64 KiB per connection, what was decrypted is encrypted again.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const BUFFER_SIZE: usize = 64 * 1024;

fn main() -> ExitCode {
    let can = Can {
        tls: true,
        ..Can::default()
    };
    bench_listen::exit(run(&Flags::parse(can)))
}

fn run(flags: &Flags) -> io::Result<()> {
    let Some((certificate, key)) = &flags.tls else {
        return Err(io::Error::other("this server needs --tls CERT KEY"));
    };
    let acceptor = TlsAcceptor::from(bench_listen::server_config(certificate, key)?);
    bench_listen::serve(flags, move |tcp| open(acceptor.clone(), tcp))
}

async fn open(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    tokio::spawn(async move { echo(&mut tls).await });
    Ok(())
}

async fn echo(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match tls.read(&mut buffer).await? {
            0 => return Ok(()),
            len => {
                tls.write_all(&buffer[..len]).await?;
                tls.flush().await?;
            }
        }
    }
}
