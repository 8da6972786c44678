//! Errors of the program: exit statuses and error messages.

use std::fmt;
use std::io;
use std::path::PathBuf;

use sockeye::handshake::{HandshakeError, Uri};
use sockeye::http::{Response, StatusCode};
use sockeye::{CloseCause, CloseFrame, CloseInfo, ConnectError, Error, NoRootCertificates, ProxyError};

use super::Signal;
use super::certificate::explain;
use super::options::ConnectOptions;
use super::values::size;
use crate::connect::InputError;
use crate::escape::{close_frame, escape, escape_bytes};

/// An error that ends the program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Binding the listen address failed.
    Listen { address: String, error: io::Error },
    /// Settings are invalid. One line for each problem.
    Settings { problems: Vec<String> },
    /// A certificate or key file is invalid.
    TlsFile { path: PathBuf, reason: String },
    /// A basic system call failed.
    System(io::Error),
    /// Reading standard input failed, or a line cannot be sent.
    Input(InputError),
    /// Writing to standard output failed.
    Output(io::Error),
    /// The combination of flags is invalid.
    Usage(String),
    /// The URL is invalid.
    BadUrl { url: String, reason: String },
    /// Name resolution failed.
    Unresolved {
        target: String,
        reason: String,
        advice: &'static str,
    },
    /// TCP connections failed.
    Unreachable {
        target: String,
        reason: String,
        advice: &'static str,
    },
    /// The proxy cannot be reached, or rejects the request.
    Proxy {
        /// The number of curl.
        exit_code: u8,
        reason: String,
    },
    /// Connecting timed out.
    TooLate { uri: String, reason: String },
    /// The peer stopped responding.
    Silent(Error),
    /// The server rejected the WebSocket.
    Rejected {
        uri: String,
        status: StatusCode,
        /// The first line of the response body, and what to do.
        detail: String,
    },
    /// The connection ended before `--count` messages were received.
    TooFew { received: u64, count: u64 },
    /// The peer is not an HTTP server.
    NoWebSocket { uri: String, fault: HandshakeError },
    /// The response violates the opening handshake.
    Handshake { uri: String, fault: HandshakeError },
    /// The response exceeds a size limit.
    AnswerTooBig { uri: String, fault: HandshakeError },
    /// A message exceeds `--max-message-size`.
    TooBig { size_max: u64 },
    /// TLS failed.
    Tls(String),
    /// The server does not speak TLS.
    NoTls(String),
    /// The system has no trusted CA certificates.
    NoRoots,
    /// The server's certificate is not trusted.
    Certificate(String),
    /// The connection ended without a close frame.
    Lost(Error),
    /// The peer closed with a code that reports an error.
    Closed(CloseFrame),
    /// The peer violated the protocol.
    Protocol(Error),
    /// A signal ended the client.
    Interrupted(Signal),
    /// A second signal arrived before the shutdown was complete.
    Signal(Signal),
}

impl Failure {
    /// The exit status. The numbers are those of curl where it has one; 64 to 66 are specific to this program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. }
            | Self::Settings { .. }
            | Self::TlsFile { .. }
            | Self::System(_)
            | Self::Input(_)
            | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::BadUrl { .. } => 3,
            Self::Unresolved { .. } => 6,
            Self::Unreachable { .. } => 7,
            Self::Proxy { exit_code, .. } => *exit_code,
            Self::Rejected { .. } => 22,
            Self::TooLate { .. } | Self::Silent(_) => 28,
            Self::Tls(_) | Self::NoTls(_) | Self::NoRoots => 35,
            Self::TooFew { .. } => 52,
            Self::Lost(_) => 56,
            Self::Certificate(_) => 60,
            Self::Closed(_) => 64,
            Self::NoWebSocket { .. } | Self::Handshake { .. } | Self::Protocol(_) => 65,
            Self::AnswerTooBig { .. } | Self::TooBig { .. } => 66,
            Self::Interrupted(signal) | Self::Signal(signal) => signal.exit_code(),
        }
    }

    /// The error message; `None` if there is nothing to report. One line, except for settings, which have one for each
    /// problem.
    pub(crate) fn message(&self) -> Option<String> {
        Some(match self {
            Self::Listen { address, error } => {
                let advice = advice_for_listening(error);
                format!("cannot listen on {address}: {error}; {advice}")
            }
            Self::Settings { problems } => problems.join("\n"),
            Self::TlsFile { path, reason } => format!("{}: {reason}", path.display()),
            Self::System(error) => error.to_string(),
            Self::Input(error) => error.to_string(),
            Self::Output(error) => format!("cannot write to standard output: {error}"),
            Self::Usage(reason) => format!("{reason}; see `sockeye connect --help`"),
            Self::BadUrl { url, reason } => format!("cannot connect to \"{url}\": {reason}"),
            Self::Unresolved { target, reason, advice } | Self::Unreachable { target, reason, advice } => {
                format!("cannot connect to {target}: {reason}; {advice}")
            }
            Self::Proxy { reason, .. } => reason.clone(),
            Self::TooLate { uri, reason } => format!("{uri}: {reason}; --connect-timeout sets the limit"),
            Self::Silent(error) => {
                let cause = error.close_info().map(CloseInfo::cause);
                let advice = match cause {
                    Some(CloseCause::KeepaliveTimeout) => {
                        "; use --ping-interval=off if the server does not answer pings"
                    }
                    _ => "",
                };
                format!("{}{advice}", without_setting(error))
            }
            Self::Rejected { uri, status, detail } => {
                let reason = status.canonical_reason().unwrap_or_default();
                format!("{uri} refused the WebSocket with {} {reason}{detail}", status.as_u16())
            }
            Self::TooFew { received, count } => {
                format!("the connection ended after {received} of {count} messages (--count)")
            }
            Self::NoWebSocket { uri, fault } => {
                format!("no WebSocket server at {uri} ({fault}); check the port, and whether the server needs wss://")
            }
            Self::Handshake { uri, fault } => format!("{uri}: the server's handshake is invalid: {fault}"),
            Self::AnswerTooBig { uri, fault } => {
                format!("{uri}: the server's response is too large: {fault}")
            }
            Self::TooBig { size_max } => format!(
                "the server sent a message larger than {}; --max-message-size sets the limit",
                size(*size_max)
            ),
            Self::Tls(reason) => format!("TLS failed: {reason}"),
            Self::NoTls(reason) => format!("TLS failed: {reason}; check that this port speaks TLS, or use ws://"),
            Self::NoRoots => {
                "TLS failed: this machine has no trusted CA certificates; install them (usually the package \
                              ca-certificates), or pass a PEM file with --cacert or SSL_CERT_FILE"
                    .into()
            }
            Self::Certificate(reason) => format!("the server's certificate is not trusted: {reason}"),
            Self::Lost(error) => format!("the connection was lost without a close frame{}", cause_suffix(error)),
            Self::Closed(frame) => format!("closed by the server: {}", close_frame(frame)),
            Self::Protocol(error) => format!("the server violated the protocol{}", cause_suffix(error)),
            Self::Interrupted(_) => return None,
            Self::Signal(_) => "stopped by a second signal; open connections were dropped".into(),
        })
    }

    pub(crate) fn usage(error: &Error) -> Self {
        Self::Usage(error.to_string())
    }

    pub(crate) fn tls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::Certificate(explain(&error)),
            rustls::Error::InvalidMessage(_) => Self::NoTls(error.to_string()),
            error => Self::Tls(error.to_string()),
        }
    }

    /// Converts an error that occurred while opening the WebSocket.
    pub(crate) fn opening(uri: &Uri, error: Error, options: &ConnectOptions) -> Self {
        if let Some(proxy) = error.proxy_error() {
            return Self::proxy(uri, &error, proxy);
        }
        if let Some(error) = error.connect_error() {
            return Self::connecting(uri, error);
        }
        if let Some(response) = error.response() {
            return Self::Rejected {
                uri: uri.to_string(),
                status: response.status(),
                // With `-v` the response was already printed.
                detail: refusal_detail(&error, response, options),
            };
        }
        if error.is_timeout() {
            let within = options.connect_timeout.duration().unwrap_or_default();
            return Self::TooLate {
                uri: uri.to_string(),
                reason: format!("not open within {within:?} ({})", without_setting(&error)),
            };
        }
        if error.is_tls() {
            return Self::tls_handshake(&error);
        }
        // All other flags were validated before, so the URL is the cause.
        if error.is_invalid_input() {
            return Self::BadUrl {
                url: uri.to_string(),
                reason: error.to_string().replacen("invalid URL: ", "", 1),
            };
        }
        match error.handshake_error() {
            Some(HandshakeError::ClosedEarly) => Self::Lost(error),
            Some(fault) => Self::handshake(uri, fault.clone()),
            None => Self::connection(error),
        }
    }

    /// Converts an error of the proxy.
    fn proxy(uri: &Uri, error: &Error, proxy: &ProxyError) -> Self {
        if error.is_timeout() {
            return Self::TooLate {
                uri: uri.to_string(),
                reason: without_setting(error),
            };
        }
        let exit_code = match error.connect_error() {
            Some(error) if error.is_unresolved() => 5,
            Some(_) => 7,
            None => 97,
        };
        let advice = match proxy.is_authentication() {
            true => "; set it with --proxy, or in the environment",
            false => "; -x '' connects without a proxy",
        };
        Self::Proxy {
            exit_code,
            reason: format!("{error}{advice}"),
        }
    }

    /// Converts an error that occurred before TCP was connected.
    fn connecting(uri: &Uri, error: &ConnectError) -> Self {
        if error.is_timeout() {
            return Self::TooLate {
                uri: uri.to_string(),
                reason: error.to_string(),
            };
        }
        let target = error.target().to_owned();
        if error.is_unresolved() {
            let advice = match uri.zone() {
                Some(_) => "check that this machine has a network interface of that name",
                None => "check the spelling, and the network",
            };
            return Self::Unresolved {
                target,
                reason: error.to_string(),
                advice,
            };
        }
        let attempts: Vec<_> = error.attempts().collect();
        let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        Self::Unreachable {
            advice: match attempts.iter().any(|(_, error)| error.is_some_and(is_refused)) {
                true => "check that the server is running on this port",
                false => "check the address, and the network",
            },
            reason: match attempts[..] {
                // The message already contains the address.
                [(address, Some(error))] if address.to_string() == target => error.to_string(),
                _ => error.to_string(),
            },
            target,
        }
    }

    /// Converts an error of a TLS handshake.
    fn tls_handshake(error: &Error) -> Self {
        let Some(io_error) = error.io_error() else {
            return Self::Tls(error.to_string());
        };
        let cause = io_error.get_ref();
        if cause.is_some_and(|cause| cause.is::<NoRootCertificates>()) {
            return Self::NoRoots;
        }
        match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::tls(error.clone()),
            // A server without TLS may close the connection when it receives the ClientHello.
            None if is_connection_end(io_error.kind()) => Self::NoTls(io_error.to_string()),
            None => Self::Tls(io_error.to_string()),
        }
    }

    /// Converts an invalid response.
    fn handshake(uri: &Uri, fault: HandshakeError) -> Self {
        let uri = uri.to_string();
        match fault {
            // The first line is not HTTP: another protocol, or TLS is required.
            HandshakeError::StartLineTooLong { .. }
            | HandshakeError::BareLineFeed
            | HandshakeError::BareCarriageReturn
            | HandshakeError::ControlByte(_)
            | HandshakeError::InvalidStatusLine
            | HandshakeError::HttpVersionTooOld
            | HandshakeError::HttpVersionUnknown => Self::NoWebSocket { uri, fault },
            HandshakeError::HeadTooLarge { .. }
            | HandshakeError::TooManyHeaders { .. }
            | HandshakeError::TooManyInformational { .. } => Self::AnswerTooBig { uri, fault },
            _ => Self::Handshake { uri, fault },
        }
    }

    /// Converts an error of an open connection.
    pub(crate) fn connection(error: Error) -> Self {
        let cause = error.close_info().map(|info| info.cause());
        match cause {
            Some(CloseCause::ProtocolError(_)) => Self::Protocol(error),
            Some(CloseCause::TransportEnd) => Self::Lost(error),
            _ if error.is_timeout() => Self::Silent(error),
            _ if error.is_invalid_input() => Self::usage(&error),
            _ => Self::Lost(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// The message of a timeout without the name of the library's setting, for which the program has flags.
fn without_setting(error: &Error) -> String {
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((reason, setting)) if setting.starts_with("the limit is ") => reason.to_owned(),
        _ => text,
    }
}

fn is_connection_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

/// Returns the first line of the response body and advice, for the error message.
fn refusal_detail(error: &Error, response: &Response<impl AsRef<[u8]>>, options: &ConnectOptions) -> String {
    /// Maximum number of characters of the body.
    const SHOWN_MAX: usize = 200;
    let is_shown = options.verbose;
    let mut detail = String::new();
    if !is_shown && let Some(line) = first_line(response.body().as_ref()) {
        let shown: String = line.chars().take(SHOWN_MAX).collect();
        let dots = if shown.len() < line.len() { "..." } else { "" };
        detail = format!(": \"{}{dots}\"", escape(&shown));
    }
    match (response.status().as_u16(), response.headers().get("Location")) {
        // The library says why it was not followed.
        (301..=308, location) if options.location || location.is_none() => {
            let reason = response.status().canonical_reason().unwrap_or_default();
            let text = error.to_string();
            let why = text.split_once(reason).map_or("", |(_, why)| why);
            detail += why.strip_suffix(" (ClientBuilder::redirects)").unwrap_or(why);
        }
        (300..=399, Some(location)) => {
            detail += &format!(
                "; it redirects to {}: connect to that URL, or use -L",
                escape_bytes(location.as_bytes())
            );
        }
        (401, _) => detail += "; send credentials with -H 'Authorization: ...' or as USER:PASSWORD@ in the URL",
        _ => {}
    }
    if !is_shown {
        detail += "; -v shows the whole response";
    }
    detail
}

/// The first line of a text body; `None` for HTML, whose first line is not useful.
fn first_line(body: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // The size limit of the body may have split a character.
        Err(error) => std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default(),
    };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    (!line.starts_with('<')).then_some(line)
}

/// The cause of an error, in parentheses with a leading space.
fn cause_suffix(error: &Error) -> impl fmt::Display {
    let reason = match error.close_info().map(|close_info| close_info.cause()) {
        Some(CloseCause::ProtocolError(fault)) => Some(fault.to_string()),
        _ => error.io_error().map(ToString::to_string),
    };
    let reason = reason.or_else(|| error.handshake_error().map(ToString::to_string));
    let Some(reason) = reason else {
        return String::new();
    };
    format!(" ({reason})")
}

fn advice_for_listening(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that uses it, or choose another port (0 selects a free one)",
        io::ErrorKind::PermissionDenied => "choose a port from 1024",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        _ => "write --listen as ADDRESS:PORT, such as 127.0.0.1:9001",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::options::EXIT_STATUS;
    use crate::cli::{Command, CommandLine};

    fn io_error() -> io::Error {
        io::ErrorKind::Other.into()
    }

    #[test]
    fn the_help_lists_every_exit_status() {
        let uri = Uri::parse("ws://localhost/").unwrap();
        let failures = [
            Failure::System(io_error()),
            Failure::Usage(String::new()),
            Failure::BadUrl {
                url: String::new(),
                reason: String::new(),
            },
            Failure::Unresolved {
                target: String::new(),
                reason: String::new(),
                advice: "",
            },
            Failure::Unreachable {
                target: String::new(),
                reason: String::new(),
                advice: "",
            },
            Failure::Proxy {
                exit_code: 97,
                reason: String::new(),
            },
            Failure::Rejected {
                uri: String::new(),
                status: StatusCode::NOT_FOUND,
                detail: String::new(),
            },
            Failure::TooFew { received: 0, count: 1 },
            Failure::handshake(&uri, HandshakeError::AcceptMismatch),
            Failure::TooBig { size_max: 1 },
            Failure::TooLate {
                uri: String::new(),
                reason: String::new(),
            },
            Failure::tls(rustls::Error::DecryptError),
            Failure::tls(rustls::CertificateError::Expired.into()),
            Failure::Interrupted(Signal::Interrupt),
            Failure::Interrupted(Signal::Hangup),
            Failure::Interrupted(Signal::Quit),
            Failure::Signal(Signal::Terminate),
        ];
        for failure in failures {
            let code = failure.exit_code();
            let words = EXIT_STATUS.split(|c: char| !c.is_ascii_digit());
            assert!(words.into_iter().any(|word| word == code.to_string()), "{failure:?}");
        }
    }

    #[test]
    fn only_the_first_line_of_a_text_body_is_shown() {
        for (body, line) in [
            (&b"origin is not allowed\n"[..], Some("origin is not allowed")),
            (b"\n\n  no\nreally", Some("no")),
            (b"<html>", None),
            (b"", None),
            (b"ab\xe2\x82", Some("ab")),
            (b"\xff\xfe", None),
        ] {
            assert_eq!(first_line(body), line);
        }
    }

    /// TLS accepts fewer host names than URLs.
    #[tokio::test]
    async fn a_host_that_is_invalid_in_tls_is_a_bad_url() {
        let tls = sockeye::ClientTls::new().danger_accept_any_certificate();
        let client = sockeye::Client::builder().tls(tls).build().unwrap();
        let (io, _peer) = tokio::io::duplex(64);
        let url = "wss://-a.example/";
        let error = client.request(url).connect_over(io).await.unwrap_err();
        let command_line = CommandLine::parse_from(["sockeye", "connect", url]);
        let Command::Connect(options) = &command_line.command else {
            panic!("{command_line:?}");
        };
        let failure = Failure::opening(&Uri::parse(url).unwrap(), error, options);
        assert_eq!(failure.exit_code(), 3, "{failure:?}");
        let message = failure.message().unwrap();
        assert_eq!(message, "cannot connect to \"wss://-a.example/\": invalid dns name");
    }

    #[test]
    fn every_message_is_one_line() {
        let failure = Failure::Listen {
            address: "127.0.0.1:80".into(),
            error: io::ErrorKind::PermissionDenied.into(),
        };
        let message = failure.message().unwrap();
        assert!(message.ends_with("choose a port from 1024"), "{message}");
        assert!(!message.contains('\n'));
    }
}
