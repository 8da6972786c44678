//! Errors of the peer in the opening handshake, and their HTTP status.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::error::Error;
use core::fmt;

use super::{Denial, StatusCode};

/// A rule of the opening handshake that the peer violated, or a policy that rejected its request.
///
/// `Display` is safe to log: it contains no data from the peer except the escaped origin and host of a [`Denial`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    // HTTP/1.1 syntax of requests and responses.
    /// The first line is longer than [`HandshakeLimits::head_size_max`](super::HandshakeLimits::head_size_max).
    StartLineTooLong {
        /// The limit, in bytes.
        size_max: usize,
    },
    /// The head is larger than [`HandshakeLimits::head_size_max`](super::HandshakeLimits::head_size_max).
    HeadTooLarge {
        /// The limit, in bytes.
        size_max: usize,
    },
    /// The head has more header lines than
    /// [`HandshakeLimits::header_count_max`](super::HandshakeLimits::header_count_max).
    TooManyHeaders {
        /// The limit, in lines.
        count_max: usize,
    },
    /// A line ends in LF without CR.
    BareLineFeed,
    /// A CR is not followed by LF.
    BareCarriageReturn,
    /// The head contains a control byte other than tab.
    ControlByte(u8),
    /// The first line is not `METHOD target HTTP/x.y`.
    InvalidRequestLine,
    /// The first line is not `HTTP/x.y code reason`.
    InvalidStatusLine,
    /// A header line is folded, has a space before its colon, or has an invalid name.
    InvalidHeaderLine,
    /// HTTP/1.0 or older, which does not support Upgrade.
    HttpVersionTooOld,
    /// A major version of HTTP other than 1.
    HttpVersionUnknown,
    /// The peer closed the connection before its head was complete.
    ClosedEarly,
    /// The head was not complete in time.
    TimedOut,

    // The request.
    /// The method is not GET.
    MethodNotGet,
    /// The target is neither a path nor an absolute http, https, ws or wss URI.
    InvalidTarget,
    /// The Host header is missing.
    HostMissing,
    /// More than one Host header.
    HostRepeated,
    /// The Host header is not `host` or `host:port`.
    HostInvalid,
    /// The host is not allowed by the [`HostPolicy`](super::HostPolicy).
    HostDenied(Box<Denial>),
    /// The request declares a body.
    RequestHasBody,
    /// The Upgrade header of the request is missing or does not contain `websocket`.
    UpgradeMissing,
    /// The Connection header is missing or does not contain `upgrade`.
    ConnectionMissing,
    /// There is not exactly one `Sec-WebSocket-Version: 13` header.
    VersionUnsupported,
    /// The Sec-WebSocket-Key header is missing.
    KeyMissing,
    /// More than one Sec-WebSocket-Key header.
    KeyRepeated,
    /// The Sec-WebSocket-Key header is not the base64 encoding of 16 bytes.
    KeyInvalid,
    /// The Sec-WebSocket-Protocol header contains a repeated or invalid token.
    SubprotocolsInvalid,
    /// The Sec-WebSocket-Extensions header does not match its grammar (RFC 6455 §9.1).
    ExtensionsInvalid,
    /// More than one Origin header.
    OriginRepeated,
    /// The origin is not allowed by the [`OriginPolicy`](super::OriginPolicy).
    OriginDenied(Box<Denial>),
    /// An extended CONNECT, or the response to it, contains headers of the HTTP/1.1 handshake.
    HopByHopHeader,
    /// An extended CONNECT requests a protocol other than `websocket`.
    ProtocolUnknown,

    // The response.
    /// The Upgrade header of the response is not exactly `websocket`.
    UpgradeInvalid,
    /// The Sec-WebSocket-Accept header is missing.
    AcceptMissing,
    /// More than one Sec-WebSocket-Accept header.
    AcceptRepeated,
    /// Sec-WebSocket-Accept does not match the key that was sent.
    AcceptMismatch,
    /// The server chose more than one subprotocol.
    SubprotocolRepeated,
    /// The server chose a subprotocol that was not offered.
    SubprotocolNotOffered,
    /// The server chose an extension that was not offered.
    ExtensionNotOffered,
    /// The server chose an extension twice, or with parameters that do not match the offer.
    ExtensionMismatch,
    /// The server accepted permessage-deflate but ignored `server_no_context_takeover` in the offer (RFC 7692
    /// §7.1.1.1). Set `DeflateConfig::allow_fallback` to accept such servers.
    NoContextTakeoverIgnored,
    /// The server sent more informational responses than
    /// [`HandshakeLimits::informational_count_max`](super::HandshakeLimits::informational_count_max).
    TooManyInformational {
        /// The limit, in responses.
        count_max: usize,
    },
}

impl HandshakeError {
    /// The HTTP status with which a server answers this error.
    ///
    /// Errors in a response map to 502, which a gateway can send to its client.
    // [6455-10.7-3]
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::ControlByte(_)
            | Self::InvalidRequestLine
            | Self::InvalidHeaderLine
            | Self::InvalidTarget
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::RequestHasBody
            | Self::ConnectionMissing
            | Self::KeyMissing
            | Self::KeyRepeated
            | Self::KeyInvalid
            | Self::SubprotocolsInvalid
            | Self::ExtensionsInvalid
            | Self::OriginRepeated
            | Self::HopByHopHeader
            | Self::ClosedEarly => StatusCode::BAD_REQUEST,
            // RFC 9110 §7.8: Upgrade in an HTTP/1.0 request must be ignored, and what remains is not a WebSocket
            // request. 505 applies only to the major version.
            Self::HttpVersionTooOld => StatusCode::BAD_REQUEST,
            Self::HttpVersionUnknown => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            // RFC 6455 §10.2. [6455-4.2.2-4, 6455-10.2-2]
            Self::OriginDenied(_) => StatusCode::FORBIDDEN,
            Self::MethodNotGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::StartLineTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HostDenied(_) => StatusCode::MISDIRECTED_REQUEST,
            // RFC 9110 §15.5.22 for a request without Upgrade, RFC 6455 §4.4 for an unsupported version. [6455-4.2.2-5]
            Self::UpgradeMissing | Self::VersionUnsupported => StatusCode::UPGRADE_REQUIRED,
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // RFC 9220 §3.
            Self::ProtocolUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::InvalidStatusLine
            | Self::UpgradeInvalid
            | Self::AcceptMissing
            | Self::AcceptRepeated
            | Self::AcceptMismatch
            | Self::SubprotocolRepeated
            | Self::SubprotocolNotOffered
            | Self::ExtensionNotOffered
            | Self::ExtensionMismatch
            | Self::NoContextTakeoverIgnored
            | Self::TooManyInformational { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}

impl HandshakeError {
    /// Details of the rejected request, if a policy rejected it.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::OriginDenied(denial) | Self::HostDenied(denial) => Some(denial),
            _ => None,
        }
    }

    /// The message for the client: as `Display`, but without what the policy allows.
    pub(super) fn client_message(&self) -> String {
        match self {
            Self::OriginDenied(denial) => {
                let origin = denial.origin().unwrap_or_default();
                format!("origin \"{origin}\" is not allowed")
            }
            Self::HostDenied(denial) => format!("host \"{}\" is not served here", denial.host()),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OriginDenied(denial) => {
                let (origin, host) = (denial.origin().unwrap_or_default(), denial.host());
                let allowed = denial.allowed();
                return write!(
                    f,
                    "origin \"{origin}\" is not allowed for host \"{host}\"; allowed: {allowed}"
                );
            }
            Self::HostDenied(denial) => {
                let (host, allowed) = (denial.host(), denial.allowed());
                return write!(f, "host \"{host}\" is not served here; allowed: {allowed}");
            }
            Self::StartLineTooLong { size_max } => {
                return write!(f, "first line is longer than {size_max} bytes");
            }
            Self::HeadTooLarge { size_max } => {
                return write!(f, "head is larger than {size_max} bytes");
            }
            Self::TooManyHeaders { count_max } => {
                return write!(f, "head has more than {count_max} header lines");
            }
            // The content type of the first record of TLS.
            Self::ControlByte(0x16) => {
                "control byte 0x16 in the head, as of TLS: the peer may have used wss instead of ws"
            }
            Self::ControlByte(byte) => return write!(f, "control byte {byte:#04x} in the head"),
            Self::TooManyInformational { count_max } => {
                return write!(f, "more than {count_max} informational responses");
            }
            Self::BareLineFeed => "line ends in LF without CR",
            Self::BareCarriageReturn => "CR is not followed by LF",
            Self::InvalidRequestLine => "invalid request line",
            Self::InvalidStatusLine => "invalid status line",
            Self::InvalidHeaderLine => "invalid header line",
            Self::HttpVersionTooOld => "WebSocket requires HTTP/1.1",
            Self::HttpVersionUnknown => "unsupported HTTP version",
            Self::ClosedEarly => "connection closed before the head was complete",
            Self::TimedOut => "head was not received in time",
            Self::MethodNotGet => "method is not GET",
            Self::InvalidTarget => "invalid request target",
            Self::HostMissing => "missing Host header",
            Self::HostRepeated => "more than one Host header",
            Self::HostInvalid => "invalid Host header",
            Self::RequestHasBody => "WebSocket request must not have a body",
            Self::UpgradeMissing => "not a WebSocket request: this endpoint requires the header Upgrade: websocket",
            Self::ConnectionMissing => "Connection header does not contain upgrade",
            Self::VersionUnsupported => "Sec-WebSocket-Version is not 13",
            Self::KeyMissing => "missing Sec-WebSocket-Key header",
            Self::KeyRepeated => "more than one Sec-WebSocket-Key header",
            Self::KeyInvalid => "Sec-WebSocket-Key is not the base64 encoding of 16 bytes",
            Self::SubprotocolsInvalid => "invalid Sec-WebSocket-Protocol header",
            Self::ExtensionsInvalid => "invalid Sec-WebSocket-Extensions header",
            Self::OriginRepeated => "more than one Origin header",
            Self::HopByHopHeader => "extended CONNECT contains a header of the HTTP/1.1 handshake",
            Self::ProtocolUnknown => "protocol of the extended CONNECT is not websocket",
            Self::UpgradeInvalid => "Upgrade header of the response is not websocket",
            Self::AcceptMissing => "missing Sec-WebSocket-Accept header",
            Self::AcceptRepeated => "more than one Sec-WebSocket-Accept header",
            Self::AcceptMismatch => "Sec-WebSocket-Accept does not match the key that was sent",
            Self::SubprotocolRepeated => "server chose more than one subprotocol",
            Self::SubprotocolNotOffered => "server chose a subprotocol that was not offered",
            Self::ExtensionNotOffered => "server chose an extension that was not offered",
            Self::ExtensionMismatch => "server chose an extension with parameters that do not match the offer",
            Self::NoContextTakeoverIgnored => {
                "server accepted permessage-deflate but ignored server_no_context_takeover; \
                 set DeflateConfig::allow_fallback to accept this"
            }
        })
    }
}

impl Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[track_caller]
    fn check(status: u16, errors: &[HandshakeError]) {
        for error in errors {
            assert_eq!(error.status().as_u16(), status, "{error:?}");
            let text = error.to_string();
            assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn request_errors_map_to_their_status() {
        // checks [6455-10.7-3]
        use HandshakeError as E;
        check(400, &[E::BareLineFeed, E::BareCarriageReturn, E::ControlByte(0)]);
        check(
            400,
            &[
                E::InvalidRequestLine,
                E::InvalidHeaderLine,
                E::InvalidTarget,
                E::ClosedEarly,
            ],
        );
        check(400, &[E::HostMissing, E::HostRepeated, E::HostInvalid]);
        check(400, &[E::RequestHasBody, E::ConnectionMissing, E::HttpVersionTooOld]);
        check(400, &[E::KeyMissing, E::KeyRepeated, E::KeyInvalid]);
        check(
            400,
            &[
                E::SubprotocolsInvalid,
                E::ExtensionsInvalid,
                E::OriginRepeated,
                E::HopByHopHeader,
            ],
        );
        check(405, &[E::MethodNotGet]);
        check(408, &[E::TimedOut]);
        check(414, &[E::StartLineTooLong { size_max: 1 }]);
        check(426, &[E::UpgradeMissing, E::VersionUnsupported]);
        check(
            431,
            &[E::HeadTooLarge { size_max: 1 }, E::TooManyHeaders { count_max: 1 }],
        );
        check(501, &[E::ProtocolUnknown]);
        check(505, &[E::HttpVersionUnknown]);
    }

    #[test]
    fn denial_has_its_status_and_hides_the_policy_from_the_client() {
        use crate::handshake::{HandshakeLimits, HostPolicy, OriginPolicy, ServerHandshake, ServerProgress};
        let request = b"GET / HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\nOrigin: null\r\n\r\n";
        let ServerProgress::Incoming(incoming) = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request)
        else {
            panic!("a valid request");
        };
        let origin = OriginPolicy::SameHost.check(incoming.request()).expect_err("null");
        check(403, core::slice::from_ref(&origin));
        assert_eq!(
            origin.to_string(),
            "origin \"null\" is not allowed for host \"h:1\"; allowed: pages of the same host"
        );
        assert_eq!(origin.client_message(), "origin \"null\" is not allowed");
        let host = HostPolicy::Loopback.check(incoming.request()).expect_err("h");
        check(421, core::slice::from_ref(&host));
        assert_eq!(
            host.to_string(),
            "host \"h:1\" is not served here; allowed: localhost, its subdomains and loopback addresses"
        );
        assert_eq!(host.client_message(), "host \"h:1\" is not served here");
        assert_eq!(host.denial().and_then(Denial::origin), Some("null"));
    }

    #[test]
    fn response_errors_map_to_502() {
        use HandshakeError as E;
        check(502, &[E::InvalidStatusLine, E::UpgradeInvalid]);
        check(502, &[E::AcceptMissing, E::AcceptRepeated, E::AcceptMismatch]);
        check(
            502,
            &[E::SubprotocolRepeated, E::SubprotocolNotOffered, E::ExtensionNotOffered],
        );
        check(502, &[E::ExtensionMismatch, E::NoContextTakeoverIgnored]);
        check(502, &[E::TooManyInformational { count_max: 1 }]);
    }
}
