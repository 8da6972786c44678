//! Errors of proxies.

use std::fmt;

use sockeye_proto::handshake::HandshakeError;

use crate::error::Error;
use crate::error::connect::TimeLimit;

/// The error of a failed connection through a proxy. Returned by [`Error::proxy_error`](crate::Error::proxy_error).
///
/// `Display` names the proxy, without user name and password.
#[derive(Debug)]
pub struct ProxyError {
    /// The URL of the proxy, without credentials.
    pub(crate) proxy: String,
    /// Host and port of the server.
    pub(crate) target: String,
    pub(crate) failure: ProxyFailure,
}

#[derive(Debug)]
pub(crate) enum ProxyFailure {
    /// No connection to the proxy.
    Connect(Error),
    /// TLS to the proxy, or reading or writing, failed.
    Transport(Error),
    /// The HTTP proxy rejected CONNECT.
    Rejected {
        response: http::Response<()>,
        has_credentials: bool,
    },
    /// The response to CONNECT is not valid HTTP.
    Invalid(HandshakeError),
    /// The proxy sent bytes before the client did.
    EarlyBytes,
    /// The proxy closed the connection before it answered.
    Closed,
    /// No answer within this time.
    TimedOut(TimeLimit),
    /// The SOCKS version in an answer.
    SocksVersion(u8),
    /// The SOCKS proxy accepts no method of authentication that was offered.
    SocksMethods { has_credentials: bool },
    /// The SOCKS proxy rejected user name and password.
    SocksCredentials,
    /// The SOCKS reply code.
    SocksReply(u8),
    /// The SOCKS reply has an unknown type of address.
    SocksAddress(u8),
    /// A host with a zone, which has no meaning for the proxy.
    Zone,
    /// The host name is too long for SOCKS.
    NameTooLong,
}

impl ProxyError {
    /// The URL of the proxy, without user name and password.
    #[must_use]
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// Host and port of the server.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The response of an HTTP proxy that rejected CONNECT, without its body.
    #[must_use]
    pub fn response(&self) -> Option<&http::Response<()>> {
        match &self.failure {
            ProxyFailure::Rejected { response, .. } => Some(response),
            _ => None,
        }
    }

    /// The reply code of a SOCKS5 proxy that rejected the request (RFC 1928 §6), such as 2 for a rule of the proxy.
    #[must_use]
    pub fn socks_reply(&self) -> Option<u8> {
        match &self.failure {
            ProxyFailure::SocksReply(code) => Some(*code),
            _ => None,
        }
    }

    /// Whether the proxy requires a user name and password, or rejected those of its URL.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        match &self.failure {
            ProxyFailure::Rejected { response, .. } => is_challenge(response.status()),
            ProxyFailure::SocksMethods { .. } | ProxyFailure::SocksCredentials => true,
            _ => false,
        }
    }

    /// Whether the proxy did not answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        match &self.failure {
            ProxyFailure::TimedOut(_) => true,
            ProxyFailure::Connect(error) | ProxyFailure::Transport(error) => error.is_timeout(),
            _ => false,
        }
    }

    pub(crate) fn is_invalid_input(&self) -> bool {
        match &self.failure {
            ProxyFailure::Zone | ProxyFailure::NameTooLong => true,
            ProxyFailure::Connect(error) => error.is_invalid_input(),
            _ => false,
        }
    }

    pub(crate) fn is_retryable(&self) -> bool {
        match &self.failure {
            ProxyFailure::Connect(error) | ProxyFailure::Transport(error) => error.is_retryable(),
            ProxyFailure::Rejected { response, .. } => super::is_status_retryable(response.status()),
            ProxyFailure::Closed | ProxyFailure::TimedOut(_) => true,
            // RFC 1928 §6: general failure, network or host unreachable, refused, TTL expired.
            ProxyFailure::SocksReply(code) => matches!(code, 1 | 3..=6),
            _ => false,
        }
    }

    pub(crate) fn inner(&self) -> Option<&Error> {
        match &self.failure {
            ProxyFailure::Connect(error) | ProxyFailure::Transport(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether a response to CONNECT is about user name and password: 407 (RFC 9110 §15.5.8), or 401, which tinyproxy
/// sends.
fn is_challenge(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 407)
}

/// The meaning of a SOCKS5 reply (RFC 1928 §6).
const fn socks_meaning(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown code",
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proxy, target) = (&self.proxy, &self.target);
        let needs_credentials = |has_credentials: bool| match has_credentials {
            true => "it did not accept the user name and password",
            false => "it requires a user name and password, in its URL: http://user:password@host",
        };
        match &self.failure {
            ProxyFailure::Connect(error) => write!(f, "proxy {proxy}: {error}"),
            ProxyFailure::Transport(error) => write!(f, "proxy {proxy} for {target}: {error}"),
            ProxyFailure::Rejected {
                response,
                has_credentials,
            } => {
                let status = response.status();
                let reason = status.canonical_reason().unwrap_or_default();
                write!(
                    f,
                    "proxy {proxy} refused CONNECT {target} with status {}",
                    status.as_u16()
                )?;
                if !reason.is_empty() {
                    write!(f, " {reason}")?;
                }
                match is_challenge(status) {
                    true => write!(f, ": {}", needs_credentials(*has_credentials)),
                    false => Ok(()),
                }
            }
            ProxyFailure::Invalid(error) => {
                write!(f, "proxy {proxy} answered CONNECT {target} with invalid HTTP: {error}")
            }
            ProxyFailure::EarlyBytes => {
                write!(
                    f,
                    "proxy {proxy} sent unexpected data after opening the tunnel to {target}"
                )
            }
            ProxyFailure::Closed => write!(f, "proxy {proxy} closed the connection before it answered for {target}"),
            ProxyFailure::TimedOut(limit) => {
                let within = limit.duration;
                write!(f, "proxy {proxy} did not answer for {target} within {within:?}")
            }
            ProxyFailure::SocksVersion(version) => {
                write!(
                    f,
                    "proxy {proxy} answered with SOCKS version {version}: it is no SOCKS5 proxy"
                )
            }
            ProxyFailure::SocksMethods { has_credentials } => match has_credentials {
                true => write!(
                    f,
                    "proxy {proxy} supports neither authentication by user name and password nor anonymous access"
                ),
                false => write!(
                    f,
                    "proxy {proxy} does not accept clients without authentication; give it a user name and password, \
                     in its URL: socks5h://user:password@host"
                ),
            },
            ProxyFailure::SocksCredentials => write!(f, "proxy {proxy} did not accept the user name and password"),
            ProxyFailure::SocksReply(code) => {
                write!(
                    f,
                    "proxy {proxy} refused {target} with SOCKS reply {code}: {}",
                    socks_meaning(*code)
                )
            }
            ProxyFailure::SocksAddress(kind) => {
                write!(
                    f,
                    "proxy {proxy} answered for {target} with the unknown SOCKS address type {kind}"
                )
            }
            ProxyFailure::Zone => write!(
                f,
                "proxy {proxy} cannot connect to {target}: the zone exists only on this machine"
            ),
            ProxyFailure::NameTooLong => write!(f, "proxy {proxy}: the host name is longer than 255 bytes"),
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner()?.source()
    }
}
