//! fastwebsockets, as its echo example: hyper's upgrade, a `FragmentCollector`, one write per frame. It has no call that
//! queues a frame.

use std::error::Error;
use std::io;
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
use tokio_rustls::TlsAcceptor;

fn main() -> ExitCode {
    let can = Can {
        tls: true,
        ..Can::default()
    };
    bench_listen::exit(run(&Flags::parse(can)))
}

fn run(flags: &Flags) -> io::Result<()> {
    let Some((certificate, key)) = &flags.tls else {
        return bench_listen::serve(flags, open);
    };
    let acceptor = TlsAcceptor::from(bench_listen::server_config(certificate, key)?);
    bench_listen::serve(flags, move |tcp| {
        let acceptor = acceptor.clone();
        async move { Ok::<_, Box<dyn Error + Send + Sync>>(open(acceptor.accept(tcp).await?).await?) }
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
