//! soketto with the buffer sizes of its server example, 8 KiB to read and 16 KiB to write. Flushes when no further
//! message has arrived. The pending receive future is kept across the flush, because it must not be dropped.

use std::pin::pin;
use std::process::ExitCode;

use bench_listen::{Can, Flags};
use futures_util::future::poll_immediate;
use futures_util::io::{BufReader, BufWriter};
use soketto::handshake::Server;
use soketto::handshake::server::Response;
use soketto::{BoxedError, Data, Receiver, Sender};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

type Io = BufReader<BufWriter<Compat<TcpStream>>>;

const READ_BUFFER_SIZE: usize = 8 * 1024;
const WRITE_BUFFER_SIZE: usize = 16 * 1024;

fn main() -> ExitCode {
    bench_listen::exit(bench_listen::serve(&Flags::parse(Can::default()), open))
}

async fn open(tcp: TcpStream) -> Result<(), BoxedError> {
    let io = BufWriter::with_capacity(WRITE_BUFFER_SIZE, tcp.compat());
    let mut server = Server::new(BufReader::with_capacity(READ_BUFFER_SIZE, io));
    let key = server.receive_request().await?.key();
    server.send_response(&Response::Accept { key, protocol: None }).await?;
    let (mut sender, mut receiver) = server.into_builder().finish();
    tokio::spawn(async move { drop(echo(&mut sender, &mut receiver).await) });
    Ok(())
}

async fn echo(sender: &mut Sender<Io>, receiver: &mut Receiver<Io>) -> Result<(), BoxedError> {
    let mut message = Vec::new();
    loop {
        message.clear();
        let data = {
            let mut received = pin!(receiver.receive_data(&mut message));
            match poll_immediate(&mut received).await {
                Some(data) => data?,
                None => {
                    sender.flush().await?;
                    received.await?
                }
            }
        };
        match data {
            Data::Text(_) => sender.send_text(std::str::from_utf8(&message)?).await?,
            Data::Binary(_) => sender.send_binary_mut(&mut message).await?,
        }
    }
}
