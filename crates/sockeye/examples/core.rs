//! The protocol without I/O, driven by hand over sockets of the standard library: `core [ADDRESS]`, an echo server.
//!
//! One thread serves one connection after the other, so that only the protocol is shown.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use sockeye_proto::handshake::{Acceptance, HandshakeLimits, ServerHandshake, ServerProgress};
use sockeye_proto::{Config, Connection, Data, Event, Instant, MessageKind, Role, TransportAction};

/// Time for the opening handshake as a whole.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening on ws://{}/", listener.local_addr()?);
    for tcp in listener.incoming() {
        // A connection that fails ends alone.
        if let Err(error) = serve(tcp?) {
            eprintln!("{error}");
        }
    }
    Ok(())
}

fn serve(mut tcp: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
    // A client that does not read must not block the server for ever.
    tcp.set_write_timeout(Some(Duration::from_secs(10)))?;
    let started = Clock::now();
    let now = || Instant::from_origin(started.elapsed());
    let mut buffer = [0; 16 * 1024];

    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    let incoming = loop {
        let rest = HANDSHAKE_TIMEOUT.saturating_sub(started.elapsed());
        tcp.set_read_timeout(Some(rest.max(Duration::from_millis(1))))?;
        let len = match tcp.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if is_timeout(&error) => match handshake.handle_timeout() {
                Some(invalid) => return Ok(tcp.write_all(&invalid.response.to_bytes())?),
                None => return Err("the client sent no request".into()),
            },
            Err(error) => return Err(error.into()),
        };
        match handshake.handle_bytes(&buffer[..len]) {
            ServerProgress::Incomplete(more) => handshake = more,
            ServerProgress::Incoming(incoming) => break incoming,
            ServerProgress::Invalid(invalid) => return Ok(tcp.write_all(&invalid.response.to_bytes())?),
        }
    };
    let accepted = incoming.accept(Acceptance::new())?;
    tcp.write_all(&accepted.response.to_bytes())?;

    let mut connection = Connection::new(Role::Server, Arc::new(Config::default()), now());
    let mut received = accepted.read_buf;
    let mut out = Vec::new();
    loop {
        let mut rest = &mut received[..];
        loop {
            let progress = connection.handle_bytes(now(), rest);
            let consumed = progress.consumed;
            let echo = match progress.event {
                Some(Event::Message { kind, payload }) => Some((kind, payload.into_owned())),
                Some(_) => None,
                None => break,
            };
            if let Some((kind, payload)) = echo {
                match kind {
                    MessageKind::Text => connection.send(Data::Text(std::str::from_utf8(&payload)?), &mut out)?,
                    MessageKind::Binary => connection.send(Data::Binary(&payload), &mut out)?,
                }
            }
            rest = &mut rest[consumed..];
        }
        // After the input: bytes that arrived while the process was suspended show that the peer is alive.
        connection.handle_timeout(now());
        connection.poll_transmit(&mut out);
        tcp.write_all(&out)?;
        out.clear();
        connection.handle_transmitted(now());
        match connection.transport_action() {
            TransportAction::Open => {}
            TransportAction::HalfClose => tcp.shutdown(std::net::Shutdown::Write)?,
            TransportAction::Close => return Ok(()),
        }
        let wait = connection.poll_timeout().map(|at| at.saturating_since(now()));
        tcp.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
        match tcp.read(&mut buffer) {
            Ok(0) => connection.handle_transport_end(),
            Ok(len) => received = buffer[..len].to_vec(),
            Err(error) if is_timeout(&error) => received.clear(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the read timeout of the socket has passed. Unix and Windows report it differently.
fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
