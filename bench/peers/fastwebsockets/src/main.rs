//! fastwebsockets, like its echo example: hyper upgrade, `FragmentCollector`, one write per frame. It has no call to
//! queue a frame.

use std::process::ExitCode;

use bench_listen::{Can, Flags};
use fastwebsockets::upgrade::{self, UpgradeFut};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;

fn main() -> ExitCode {
    let flags = Flags::parse(Can::TLS);
    bench_listen::exit(match &flags.tls {
        None => bench_listen::serve(&flags, open),
        Some(files) => bench_listen::serve_tls(&flags, files, open),
    })
}

async fn open<S>(io: S) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    http1::Builder::new()
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .with_upgrades()
        .await
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(unconstrained(async { drop(echo(upgraded).await) }));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut ws = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = ws.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => ws.write_frame(frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
