//! sockudo-ws: its `WebSocketStream` directly over the socket, with the handshake of its simple echo example. Feeds
//! every message that has been decoded, then flushes once: its writes coalesce up to 64 KiB by default.
//!
//! With compression: its `CompressedWebSocketStream`, level 1, one codec per connection.

use std::process::ExitCode;

use bench_listen::{Can, Flags, Takeover};
use bytes::BytesMut;
use futures_util::future::poll_immediate;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use sockudo_ws::deflate::{DeflateConfig, negotiate_server_deflate};
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::stream::CompressedWebSocketStream;
use sockudo_ws::{Config, Error, Message, Result, WebSocketStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn main() -> ExitCode {
    let flags = Flags::parse(Can {
        deflate: true,
        takeover: true,
        ..Can::default()
    });
    let policy = flags.deflate.map(|takeover| {
        let is_reset = takeover == Takeover::No;
        DeflateConfig {
            server_no_context_takeover: is_reset,
            client_no_context_takeover: is_reset,
            compression_level: 1,
            ..DeflateConfig::default()
        }
    });
    // Calibrates the clock now, for which the first connection would otherwise wait.
    sockudo_ws::init_clock();
    bench_listen::exit(bench_listen::serve(&flags, move |tcp| open(tcp, policy.clone())))
}

async fn open(mut tcp: TcpStream, policy: Option<DeflateConfig>) -> Result<()> {
    let agreed = shake_hands(&mut tcp, policy).await?;
    let config = Config::default();
    match agreed {
        None => {
            let mut ws = WebSocketStream::server(tcp, config);
            tokio::spawn(async move { drop(echo(&mut ws).await) });
        }
        Some(deflate) => {
            let mut ws = CompressedWebSocketStream::server(tcp, config, deflate);
            tokio::spawn(async move { drop(echo(&mut ws).await) });
        }
    }
    Ok(())
}

async fn shake_hands(tcp: &mut TcpStream, policy: Option<DeflateConfig>) -> Result<Option<DeflateConfig>> {
    let mut buffer = BytesMut::with_capacity(4096);
    let (response, deflate) = loop {
        if tcp.read_buf(&mut buffer).await? == 0 {
            return Err(Error::ConnectionClosed);
        }
        if let Some((request, _)) = parse_request(&buffer)? {
            let offers = request.extensions.unwrap_or_default();
            let agreed = policy.and_then(|policy| negotiate_server_deflate(offers, &policy));
            let header = agreed.as_ref().map(|agreed| agreed.to_response_header());
            let response = build_response(&generate_accept_key(request.key), None, header.as_deref());
            break (response, agreed.map(|agreed| agreed.config));
        }
    };
    tcp.write_all(&response).await?;
    Ok(deflate)
}

async fn echo<W>(ws: &mut W) -> Result<()>
where
    W: Stream<Item = Result<Message>> + Sink<Message, Error = Error> + Unpin,
{
    while let Some(first) = ws.next().await {
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message?;
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                ws.feed(message).await?;
            }
            next = poll_immediate(ws.next()).await.flatten();
        }
        ws.flush().await?;
    }
    Ok(())
}
