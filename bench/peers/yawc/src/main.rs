//! yawc, like the tuned server of its own benchmarks: a read buffer of 128 KiB, backpressure from 64 KiB, up to 32
//! received messages per flush. UTF-8 checking is enabled, as there; it is off by default.
//!
//! With compression, as documented for many connections: the fast level, no takeover, a codec pool, no compression
//! below 64 bytes, small buffers.

use std::process::ExitCode;
use std::sync::Arc;

use bench_listen::{Can, Flags, Takeover};
use futures_util::SinkExt as _;
use futures_util::future::poll_immediate;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use yawc::{DeflatePool, OpCode, Options, Result, UpgradeFut, WebSocket};

const BATCH_MAX: usize = 32;
const READ_BUFFER_SIZE: usize = 128 * 1024;
const BACKPRESSURE: usize = 64 * 1024;

/// Its default is 1 MiB, but messages of 16 MiB are measured.
const MESSAGE_SIZE_MAX: usize = 64 * 1024 * 1024;

/// One thread uses one codec at a time.
const POOLED_CODECS: usize = 4;

fn main() -> ExitCode {
    let flags = Flags::parse(Can {
        deflate: true,
        takeover: true,
        ..Can::default()
    });
    let options = Arc::new(options(flags.deflate));
    bench_listen::exit(bench_listen::serve(&flags, move |tcp| open(tcp, options.clone())))
}

fn options(deflate: Option<Takeover>) -> Options {
    let options = Options::default().with_utf8().with_max_payload_read(MESSAGE_SIZE_MAX);
    match deflate {
        None => options
            .without_compression()
            .with_read_buffer_capacity(READ_BUFFER_SIZE)
            .with_backpressure_boundary(BACKPRESSURE),
        Some(Takeover::No) => options
            .with_low_latency_compression()
            .server_no_context_takeover()
            .client_no_context_takeover()
            .with_deflate_pool(DeflatePool::new(POOLED_CODECS))
            .with_compression_threshold(64)
            .with_read_buffer_capacity(1024)
            .with_write_buffer_capacity(1024),
        Some(Takeover::Yes) => options.with_low_latency_compression(),
    }
}

async fn open(tcp: TcpStream, options: Arc<Options>) -> hyper::Result<()> {
    let answer = service_fn(move |request| answer(request, options.clone()));
    http1::Builder::new()
        .serve_connection(TokioIo::new(tcp), answer)
        .with_upgrades()
        .await
}

async fn answer(mut request: Request<Incoming>, options: Arc<Options>) -> Result<Response<Empty<Bytes>>> {
    let (response, upgraded) = WebSocket::upgrade_with_options(&mut request, Options::clone(&options))?;
    tokio::spawn(async { drop(echo(upgraded).await) });
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<()> {
    let mut ws = upgraded.await?;
    loop {
        let mut next = Some(ws.next_frame().await?);
        let mut batched = 0;
        while let Some(frame) = next {
            match frame.opcode() {
                OpCode::Text | OpCode::Binary => ws.feed(frame).await?,
                OpCode::Close => return ws.close().await,
                _ => {}
            }
            batched += 1;
            if batched == BATCH_MAX {
                break;
            }
            next = poll_immediate(ws.next_frame()).await.transpose()?;
        }
        ws.flush().await?;
    }
}
