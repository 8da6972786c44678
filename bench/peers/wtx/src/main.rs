//! wtx, like its WebSocket server example: borrowed reader and writer parts, payloads echoed from the read buffer, one
//! write per frame. It has no call to queue a frame.
//!
//! With compression: level 1 and its default window of 12 bits. It never takes over context.

use std::process::ExitCode;

use bench_listen::{Can, Flags};
use tokio::net::TcpStream;
use wtx::collection::Vector;
use wtx::rng::Xorshift64;
use wtx::web_socket::compression::{Flate2, NegotiatedCompression};
use wtx::web_socket::{
    CompressionLevel, DeflateConfig, OpCode, WebSocketAcceptor, WebSocketOwned, WebSocketPayloadOrigin,
};

fn main() -> ExitCode {
    let flags = Flags::parse(Can {
        deflate: true,
        ..Can::default()
    });
    let served = match flags.deflate {
        None => bench_listen::serve(&flags, open),
        Some(_) => bench_listen::serve(&flags, open_compressed),
    };
    bench_listen::exit(served)
}

async fn open(tcp: TcpStream) -> wtx::Result<()> {
    let mut ws = WebSocketAcceptor::default().accept(tcp).await?;
    tokio::spawn(async move { drop(echo(&mut ws).await) });
    Ok(())
}

async fn open_compressed(tcp: TcpStream) -> wtx::Result<()> {
    let config = DeflateConfig {
        compression_level: CompressionLevel::One,
        ..DeflateConfig::default()
    };
    let mut ws = WebSocketAcceptor::default()
        .compression(Flate2::from(config))
        .accept(tcp)
        .await?;
    tokio::spawn(async move { drop(echo(&mut ws).await) });
    Ok(())
}

async fn echo<C>(ws: &mut WebSocketOwned<C, Xorshift64, TcpStream, false>) -> wtx::Result<()>
where
    C: NegotiatedCompression,
{
    let (mut common, mut reader, mut writer) = ws.split_mut();
    let mut buffer = Vector::new();
    loop {
        let mut frame = reader
            .read_frame(&mut buffer, &mut common, WebSocketPayloadOrigin::Adaptive)
            .await?;
        match frame.op_code() {
            OpCode::Text | OpCode::Binary => writer.write_frame(&mut common, &mut frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
