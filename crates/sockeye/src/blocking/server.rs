//! Accepting in a thread.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use sockeye_proto::handshake::{self, HttpBinding, ServerHandshake, ServerProgress};

use super::{WebSocket, saturating_deadline};
use crate::convert;
use crate::error::Error;
use crate::observe::{Handshake, Role};
use crate::server::response::{Acceptance, Rejection};
use crate::server::{LINGER, LINGER_LEN, READ_LEN, Server};
use crate::transport::blocking::{BlockingStream, Socket};

/// A client's valid request to open a WebSocket, which the application accepts or rejects. Dropping it closes the
/// socket without a response.
pub struct Incoming {
    io: BlockingStream,
    socket: Arc<Socket>,
    handshake: handshake::Incoming,
    request: Request<()>,
    server: Server,
    observed: Handshake,
}

impl Server {
    /// Performs the TLS handshake if TLS is configured, then reads and checks a client's opening request, in the
    /// calling thread: see [`blocking`](crate::blocking). An invalid one is answered with the matching HTTP status.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:9001")?;
    /// let server = sockeye::Server::default();
    /// for tcp in listener.incoming() {
    ///     let (server, tcp) = (server.clone(), tcp?);
    ///     std::thread::spawn(move || -> Result<(), sockeye::Error> {
    ///         let mut ws = server.accept_blocking(tcp)?.accept()?;
    ///         while let Some(message) = ws.recv()? {
    ///             ws.feed(message)?; // written when `recv` waits
    ///         }
    ///         Ok(())
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    pub fn accept_blocking(&self, socket: impl Into<Socket>) -> Result<Incoming, Error> {
        let socket = socket.into();
        let observed = Handshake::begin(Role::Server, None, || socket.peer_addr());
        observed.report(self.accept_unreported(socket, &observed))
    }

    fn accept_unreported(&self, socket: Socket, observed: &Handshake) -> Result<Incoming, Error> {
        let deadline = saturating_deadline(self.timeouts().handshake);
        let socket = Arc::new(socket);
        let mut io = BlockingStream::new(socket.clone()).map_err(Error::io)?;
        self.start_blocking_tls(&mut io, deadline)?;
        let mut handshake = ServerHandshake::new(self.handshake_limits());
        let mut buffer = [0; READ_LEN];
        let invalid = loop {
            match io.read_until(&mut buffer, deadline) {
                Ok(0) => return Err(Error::from(handshake::HandshakeError::ClosedEarly)),
                Ok(len) => match handshake.handle_bytes(&buffer[..len]) {
                    ServerProgress::Incomplete(next) => handshake = next,
                    ServerProgress::Invalid(invalid) => break invalid,
                    ServerProgress::Incoming(incoming) => match self
                        .check(incoming.request())
                        .and_then(|()| convert::request(incoming.request()))
                    {
                        Err(error) => break incoming.reject_with_error(error),
                        Ok(request) => {
                            observed.record_path(request.uri().path());
                            return Ok(Incoming {
                                io,
                                socket,
                                handshake: incoming,
                                request,
                                server: self.clone(),
                                observed: observed.clone(),
                            });
                        }
                    },
                },
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if let Some(invalid) = handshake.handle_timeout() {
                        send_rejection(&mut io, &socket, &invalid.response.to_bytes());
                    }
                    return Err(Error::timeout("the opening handshake"));
                }
                Err(error) => return Err(Error::io(error)),
            }
        };
        send_rejection(&mut io, &socket, &invalid.response.to_bytes());
        Err(Error::from(invalid.error))
    }

    #[cfg(feature = "tls")]
    fn start_blocking_tls(&self, io: &mut BlockingStream, deadline: Instant) -> Result<(), Error> {
        match self.tls_config() {
            Some(config) => {
                let session = crate::transport::tls::server_session(config.clone())?;
                finish_tls(io, session.into(), deadline, "Timeouts::handshake")
            }
            None => Ok(()),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn start_blocking_tls(&self, _: &mut BlockingStream, _: Instant) -> Result<(), Error> {
        Ok(())
    }
}

/// Performs the TLS handshake, and checks the protocol that it negotiated. `setting` names the timeout of the deadline.
#[cfg(feature = "tls")]
pub(super) fn finish_tls(
    io: &mut BlockingStream,
    tls: rustls::Connection,
    deadline: Instant,
    setting: &'static str,
) -> Result<(), Error> {
    use crate::transport::tls::{check_alpn, tls_error};

    match io.start_tls(tls, deadline) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::timeout_of("the TLS handshake", setting)),
        Err(error) => Err(tls_error(error)),
        Ok(()) => check_alpn(io.tls().and_then(|tls| tls.alpn_protocol())),
    }
}

impl Incoming {
    /// The request: path and query as [`uri`](Request::uri), and the headers.
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// Accepts the request with the first of the server's subprotocols that the client offered.
    ///
    /// # Errors
    ///
    /// Those of [`Incoming::accept`](crate::Incoming::accept).
    pub fn accept(self) -> Result<WebSocket, Error> {
        self.accept_with(Acceptance::new())
    }

    /// Accepts the request with a chosen subprotocol and headers.
    ///
    /// # Errors
    ///
    /// Those of [`Incoming::accept_with`](crate::Incoming::accept_with).
    pub fn accept_with(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        let observed = self.observed.clone();
        observed.report(self.accept_unreported(acceptance))
    }

    fn accept_unreported(self, acceptance: Acceptance) -> Result<WebSocket, Error> {
        let Self {
            mut io,
            socket,
            handshake,
            server,
            ..
        } = self;
        let accepted = match server.accept_handshake(handshake, acceptance) {
            Ok(accepted) => accepted,
            Err((error, response)) => {
                send_rejection(&mut io, &socket, &response.to_bytes());
                return Err(error);
            }
        };
        let deadline = saturating_deadline(server.timeouts().handshake);
        let sent = io.write_all_until(&accepted.accepted.response.to_bytes(), deadline);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::timeout("the opening handshake"),
            _ => Error::io(error),
        })?;
        let ws = server.open_with(Box::new(io), accepted, server.blocking_group());
        Ok(WebSocket::new(ws, socket))
    }

    /// Rejects the request. Takes up to one second, until the client has read the response.
    pub fn reject(mut self, rejection: impl Into<Rejection>) {
        let response = rejection.into().into_proto().into_response(HttpBinding::Upgrade);
        send_rejection(&mut self.io, &self.socket, &response.to_bytes());
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Sends a rejection, then reads until the client closes. Ignores failures.
fn send_rejection(io: &mut BlockingStream, socket: &Socket, response: &[u8]) {
    let deadline = Instant::now() + LINGER;
    let mut exchange = || {
        io.write_all_until(response, deadline)?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let (mut buffer, mut discarded) = ([0; 1024], 0);
        while discarded < LINGER_LEN {
            match io.read_until(&mut buffer, deadline)? {
                0 => break,
                len => discarded += len,
            }
        }
        io::Result::Ok(())
    };
    let _ = exchange();
}
