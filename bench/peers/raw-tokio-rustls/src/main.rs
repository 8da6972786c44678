//! Lower bound for TLS: tokio-rustls with a buffer of 64 KiB per connection; decrypted bytes are encrypted again.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

const BUFFER_SIZE: usize = 64 * 1024;

fn main() -> ExitCode {
    let flags = Flags::parse(Can::TLS);
    bench_listen::exit(match &flags.tls {
        None => Err(io::Error::other("this server needs --tls CERT KEY")),
        Some(files) => bench_listen::serve_tls(&flags, files, open),
    })
}

async fn open(mut tls: TlsStream<TcpStream>) {
    tokio::spawn(async move { echo(&mut tls).await });
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
