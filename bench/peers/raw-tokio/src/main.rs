//! Lower bound for a tokio server with its own buffers: 64 KiB per connection, bytes are written as read.

use std::io;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BUFFER_SIZE: usize = 64 * 1024;

fn main() -> ExitCode {
    bench_listen::exit(bench_listen::serve(&Flags::parse(Can::default()), echo))
}

async fn echo(mut tcp: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match tcp.read(&mut buffer).await? {
            0 => return Ok(()),
            len => tcp.write_all(&buffer[..len]).await?,
        }
    }
}
