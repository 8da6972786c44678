//! Why the program ends otherwise than well: an exit status, and one line that says what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use sockeye::handshake::{HandshakeError, Uri};
use sockeye::http::{Response, StatusCode};
use sockeye::{CloseCause, CloseFrame, CloseInfo, ConnectError, Error, NoRootCertificates};

use super::Signal;
use super::certificate::explain;
use super::options::ConnectOptions;
use super::values::size;
use crate::connect::{InputError, close_frame, escape, escape_bytes};

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The address to listen on cannot be had.
    Listen { address: String, error: io::Error },
    /// A file with certificates or a key is of no use.
    TlsFile { path: PathBuf, reason: String },
    /// The system does not give what every program needs.
    System(io::Error),
    /// Standard input cannot be sent.
    Input(InputError),
    /// Standard output does not take what was received.
    Output(io::Error),
    /// Flags ask for what cannot be.
    Usage(String),
    /// The URL is none.
    BadUrl { url: String, reason: String },
    /// The host has no address.
    Unresolved {
        target: String,
        reason: String,
        advice: &'static str,
    },
    /// The host does not take the connection.
    Unreachable {
        target: String,
        reason: String,
        advice: &'static str,
    },
    /// Connecting took too long.
    TooLate { uri: String, reason: String },
    /// The peer has fallen silent.
    Silent(Error),
    /// The server opened no WebSocket.
    Refused {
        uri: String,
        status: StatusCode,
        /// What more the server said, and what to do.
        detail: String,
    },
    /// The connection ended before as many messages came as were asked for.
    TooFew { received: u64, count: u64 },
    /// What answers is no HTTP server.
    NoWebSocket { uri: String, fault: HandshakeError },
    /// The server's answer breaks a rule of the opening handshake.
    Handshake { uri: String, fault: HandshakeError },
    /// The server's answer is larger than is taken here.
    AnswerTooBig { uri: String, fault: HandshakeError },
    /// A message is larger than is taken here.
    TooBig { size_max: u64 },
    /// TLS failed.
    Tls(String),
    /// The server's first bytes are not TLS.
    NoTls(String),
    /// There are no certificates that a server could be checked against.
    NoRoots,
    /// The server's certificate is not trusted.
    Certificate(String),
    /// The connection ended without a close frame.
    Lost(Error),
    /// The peer closed with a code that is not a good end.
    Closed(CloseFrame),
    /// The peer broke the protocol.
    Protocol(Error),
    /// A signal ended a client.
    Interrupted(Signal),
    /// A second signal came before the work for the first was done.
    Signal(Signal),
}

impl Failure {
    /// The exit status. The numbers are curl's where curl has one; those in the sixties are our own.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::TlsFile { .. } | Self::System(_) | Self::Input(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::BadUrl { .. } => 3,
            Self::Unresolved { .. } => 6,
            Self::Unreachable { .. } => 7,
            Self::Refused { .. } => 22,
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

    /// One line that says what to do, if there is anything to say.
    pub(crate) fn message(&self) -> Option<String> {
        Some(match self {
            Self::Listen { address, error } => {
                let advice = advice_for_listening(error);
                format!("cannot listen on {address}: {error}; {advice}")
            }
            Self::TlsFile { path, reason } => format!("{}: {reason}", path.display()),
            Self::System(error) => error.to_string(),
            Self::Input(error) => error.to_string(),
            Self::Output(error) => format!("cannot write to standard output: {error}"),
            Self::Usage(reason) => format!("{reason}; see `sockeye connect --help`"),
            Self::BadUrl { url, reason } => format!("cannot connect to \"{url}\": {reason}"),
            Self::Unresolved { target, reason, advice } | Self::Unreachable { target, reason, advice } => {
                format!("cannot connect to {target}: {reason}; {advice}")
            }
            Self::TooLate { uri, reason } => format!("{uri}: {reason}; --connect-timeout waits longer"),
            Self::Silent(error) => {
                let cause = error.close_info().map(CloseInfo::cause);
                let advice = match cause {
                    Some(CloseCause::PeerGone) => "; use --ping-interval off if the server does not answer pings",
                    _ => "",
                };
                format!("{error}{advice}")
            }
            Self::Refused { uri, status, detail } => {
                let reason = status.canonical_reason().unwrap_or_default();
                format!(
                    "{uri} answers {} {reason} and opens no WebSocket{detail}",
                    status.as_u16()
                )
            }
            Self::TooFew { received, count } => {
                format!("the connection ended after {received} of the {count} messages that --count asks for")
            }
            Self::NoWebSocket { uri, fault } => {
                format!("no WebSocket server answers at {uri} ({fault}); check the port, and whether it wants wss://")
            }
            Self::Handshake { uri, fault } => format!("{uri}: the server's handshake is faulty: {fault}"),
            Self::AnswerTooBig { uri, fault } => {
                format!("{uri}: the server's answer is larger than is taken here: {fault}")
            }
            Self::TooBig { size_max } => format!(
                "the server sent a message larger than {}, the most that is taken; --max-message-size takes larger ones",
                size(*size_max)
            ),
            Self::Tls(reason) => format!("TLS failed: {reason}"),
            Self::NoTls(reason) => format!("TLS failed: {reason}; check that this port speaks TLS, or use ws://"),
            Self::NoRoots => "TLS failed: no trusted CA certificates were found on this machine; install them (the \
                              package is mostly named ca-certificates), or name a PEM file of them with --cacert or \
                              SSL_CERT_FILE"
                .into(),
            Self::Certificate(reason) => format!("the server's certificate is not trusted: {reason}"),
            Self::Lost(error) => format!("the connection was lost without a close frame{}", because(error)),
            Self::Closed(frame) => format!("closed by the server: {}", close_frame(frame)),
            Self::Protocol(error) => format!("the server broke the protocol{}", because(error)),
            Self::Interrupted(_) => return None,
            Self::Signal(_) => "ended by a second signal; connections were dropped".into(),
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

    /// Of an error while the WebSocket was being opened.
    pub(crate) fn opening(uri: &Uri, error: Error, options: &ConnectOptions) -> Self {
        if let Some(error) = error.connect_error() {
            return Self::connecting(uri, error);
        }
        if let Some(response) = error.response() {
            return Self::Refused {
                uri: uri.to_string(),
                status: response.status(),
                // With `-v` it has been shown already.
                detail: refusal_detail(response, options.verbose),
            };
        }
        if error.is_timeout() {
            let within = options.connect_timeout.duration().unwrap_or_default();
            return Self::TooLate {
                uri: uri.to_string(),
                reason: format!("not open within {within:?} ({error})"),
            };
        }
        if error.is_tls() {
            return Self::tls_handshake(&error);
        }
        // Everything else that could be sent wrong was checked before.
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

    /// Of an error before there was a TCP connection.
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
                None => "check how it is written, and the network",
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
                true => "check that the server runs and that this is its port",
                false => "check the address, and the network",
            },
            reason: match attempts[..] {
                // The address has been named.
                [(address, Some(error))] if address.to_string() == target => error.to_string(),
                _ => error.to_string(),
            },
            target,
        }
    }

    /// Of an error of a TLS handshake.
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
            // A server without TLS may answer the first bytes of it by closing.
            None if is_connection_end(io_error.kind()) => Self::NoTls(io_error.to_string()),
            None => Self::Tls(io_error.to_string()),
        }
    }

    /// Of an answer that is not as it should be.
    fn handshake(uri: &Uri, fault: HandshakeError) -> Self {
        let uri = uri.to_string();
        match fault {
            // Not even the first line is HTTP's: a server of something else, or one that wants TLS.
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

    /// Of an error of an open connection.
    pub(crate) fn connection(error: Error) -> Self {
        let cause = error.close_info().map(|closure| closure.cause());
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

fn is_connection_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

/// The beginning of what a server says about a refusal, for one line on a terminal.
fn refusal_detail(response: &Response<impl AsRef<[u8]>>, is_shown: bool) -> String {
    /// Characters of the body.
    const SHOWN_MAX: usize = 200;
    let mut detail = String::new();
    if !is_shown && let Some(line) = first_line(response.body().as_ref()) {
        let shown: String = line.chars().take(SHOWN_MAX).collect();
        let dots = if shown.len() < line.len() { "..." } else { "" };
        detail = format!(": \"{}{dots}\"", escape(&shown));
    }
    match (response.status().as_u16(), response.headers().get("Location")) {
        (300..=399, Some(location)) => {
            detail += &format!(
                "; it redirects to {}, connect to that",
                escape_bytes(location.as_bytes())
            );
        }
        (401, _) => detail += "; send credentials with -H 'Authorization: ...' or as USER:PASSWORD@ in the URL",
        _ => {}
    }
    if !is_shown {
        detail += "; -v shows the whole answer";
    }
    detail
}

/// The first line of a body that is plain text; a page of HTML says little in its first line.
fn first_line(body: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // A limit may have cut a character.
        Err(error) => std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default(),
    };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    (!line.starts_with('<')).then_some(line)
}

/// What is behind an error, in brackets.
fn because(error: &Error) -> impl fmt::Display {
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
        io::ErrorKind::AddrInUse => "end the program that uses it, or choose another port (0 picks a free one)",
        io::ErrorKind::PermissionDenied => "choose a port from 1024 on",
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
    fn the_help_knows_every_exit_status() {
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
            Failure::Refused {
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
    fn only_text_of_a_refusal_is_shown() {
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

    /// TLS takes fewer names than the URL may have.
    #[tokio::test]
    async fn a_host_that_no_certificate_can_name_is_a_bad_url() {
        let tls = super::super::tls::danger_client_config_trusting_anyone().unwrap();
        let client = sockeye::Client::builder().tls_config(tls.into()).build().unwrap();
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
        assert!(message.ends_with("choose a port from 1024 on"), "{message}");
        assert!(!message.contains('\n'));
    }
}
