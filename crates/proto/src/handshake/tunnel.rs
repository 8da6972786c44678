//! A tunnel through an HTTP proxy (`CONNECT`, RFC 9110 §9.3.6), in which the opening handshake then takes place.

use alloc::format;
use alloc::vec::Vec;

use super::head::{HeadCollector, HeadKind, StatusLine};
use super::{HandshakeBuildError, HandshakeError, HandshakeLimits, Headers, Response, Uri, header_name};

/// Builder for the CONNECT request that asks an HTTP proxy for a tunnel to the host and port of a URI.
///
/// ```
/// use sockeye_proto::handshake::{TunnelProgress, TunnelRequest, Uri};
///
/// let uri: Uri = "wss://server.example.com/chat".parse()?;
/// let (to_send, awaiting) = TunnelRequest::new(&uri).start();
/// assert_eq!(
///     to_send,
///     b"CONNECT server.example.com:443 HTTP/1.1\r\nHost: server.example.com:443\r\n\r\n",
/// );
/// match awaiting.handle_bytes(b"HTTP/1.1 200 Connection established\r\n\r\n") {
///     // Continue with TLS and the opening handshake on the same connection.
///     TunnelProgress::Open { read_buf } => assert!(read_buf.is_empty()),
///     TunnelProgress::Incomplete(_) => panic!("read more and call handle_bytes again"),
///     TunnelProgress::Refused(response) => panic!("the proxy answered {}", response.status()),
///     TunnelProgress::Failed(error) => panic!("{error}"),
/// }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TunnelRequest {
    uri: Uri,
    headers: Headers,
    limits: HandshakeLimits,
}

impl TunnelRequest {
    /// Creates a request for a tunnel to the host and port of `uri`.
    #[must_use]
    pub fn new(uri: &Uri) -> Self {
        Self {
            uri: uri.clone(),
            headers: Headers::new(),
            limits: HandshakeLimits::default(),
        }
    }

    /// Adds a header, such as Proxy-Authorization.
    ///
    /// # Errors
    ///
    /// - [`HandshakeBuildError::InvalidHeaderName`] or [`HandshakeBuildError::InvalidHeaderValue`].
    /// - [`HandshakeBuildError::ReservedHeader`] if the request sets the header itself, such as Host, or must not
    ///   contain it, such as Content-Length.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HandshakeBuildError> {
        let is_reserved = header_name::is_one_of(&header_name::RESERVED, name)
            || header_name::is_one_of(&header_name::RESERVED_IN_REQUEST, name);
        if is_reserved {
            return Err(HandshakeBuildError::ReservedHeader);
        }
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    /// Sets the limits for the response head. Default: [`HandshakeLimits::default`].
    #[must_use]
    pub const fn limits(mut self, limits: HandshakeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the encoded request and the state that awaits the response.
    #[must_use]
    pub fn start(self) -> (Vec<u8>, AwaitingTunnel) {
        // RFC 9112 §3.2.3: the authority form always has a port.
        let (host, port) = (self.uri.host(), self.uri.port());
        let target = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut headers = Headers::new();
        headers.push(header_name::HOST, &target);
        headers.extend(&self.headers);
        let mut bytes = format!("CONNECT {target} HTTP/1.1\r\n").into_bytes();
        headers.write_lines(&mut bytes);
        bytes.extend_from_slice(b"\r\n");
        let awaiting = AwaitingTunnel {
            head: HeadCollector::new(HeadKind::Response, self.limits),
            informational_count: 0,
        };
        (bytes, awaiting)
    }
}

/// A client that awaits the proxy's response to CONNECT.
#[derive(Debug)]
pub struct AwaitingTunnel {
    head: HeadCollector,
    informational_count: usize,
}

/// Result of [`AwaitingTunnel::handle_bytes`].
#[derive(Debug)]
pub enum TunnelProgress {
    /// The response is incomplete: continue with this state.
    Incomplete(AwaitingTunnel),
    /// The tunnel is open.
    Open {
        /// Bytes received after the response head. They come from the host behind the tunnel, or from a proxy that
        /// impersonates it. A WebSocket server, with or without TLS, sends nothing before the client does.
        read_buf: Vec<u8>,
    },
    /// The proxy answered with a status that is not 2xx. The body is not read. Close the connection.
    Refused(Response),
    /// The response is invalid. Close the connection.
    Failed(HandshakeError),
}

impl AwaitingTunnel {
    /// Processes bytes from the proxy, in pieces of any size.
    #[must_use]
    pub fn handle_bytes(mut self, mut input: &[u8]) -> TunnelProgress {
        loop {
            let head_len = match self.head.handle_bytes(input) {
                Ok(Some(head_len)) => head_len,
                Ok(None) => return TunnelProgress::Incomplete(self),
                Err(error) => return TunnelProgress::Failed(error),
            };
            input = input.get(head_len..).unwrap_or_default();
            let line = match StatusLine::parse(self.head.split().0) {
                Ok(line) => line,
                Err(error) => return TunnelProgress::Failed(error),
            };
            let status = line.status.as_u16();
            if (200..300).contains(&status) {
                // RFC 9110 §9.3.6: Content-Length and Transfer-Encoding of a 2xx response to CONNECT are ignored.
                let read_buf = input.to_vec();
                return TunnelProgress::Open { read_buf };
            }
            if !line.status.is_informational() {
                let mut response = Response::new(line.status);
                response.headers = match self.head.headers() {
                    Ok(headers) => headers,
                    Err(error) => return TunnelProgress::Failed(error),
                };
                return TunnelProgress::Refused(response);
            }
            let count_max = self.head.limits().informational_count_max;
            if self.informational_count == count_max {
                return TunnelProgress::Failed(HandshakeError::TooManyInformational { count_max });
            }
            self.informational_count += 1;
            self.head = self.head.next();
        }
    }
}
