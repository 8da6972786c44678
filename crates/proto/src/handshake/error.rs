//! What a peer can do wrong in the opening handshake, and the one ladder from there to HTTP.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::error::Error;
use core::fmt;

use super::{Denial, StatusCode};

/// A rule of the opening handshake that the peer broke.
///
/// The text can be logged. It holds nothing that the peer sent but the origin and host of a [`Denial`], which are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    // HTTP/1.1 syntax, either direction.
    /// The first line alone is larger than the limit for the whole head.
    StartLineTooLong {
        /// The limit, in bytes.
        size_max: usize,
    },
    /// The head is larger than the limit.
    HeadTooLarge {
        /// The limit, in bytes.
        size_max: usize,
    },
    /// The head has more header lines than the limit.
    TooManyHeaders {
        /// The limit, in lines.
        count_max: usize,
    },
    /// A line ends in LF without CR.
    BareLineFeed,
    /// A CR is followed by something else than LF.
    BareCarriageReturn,
    /// A control byte other than the tab stands in the head.
    ControlByte(u8),
    /// The first line is not `METHOD target HTTP/x.y`.
    InvalidRequestLine,
    /// The first line is not `HTTP/x.y code reason`.
    InvalidStatusLine,
    /// A header line is folded, has a space before its colon, or a name that is no token.
    InvalidHeaderLine,
    /// HTTP/1.0 or older, which has no Upgrade.
    HttpVersionTooOld,
    /// A major version of HTTP that does not look like this on the wire.
    HttpVersionUnknown,
    /// The peer closed before its head was complete.
    ClosedEarly,
    /// The head was not complete in time.
    TimedOut,

    // The request.
    /// The method is not GET.
    MethodNotGet,
    /// The target is neither a path nor an absolute http, https, ws or wss URI.
    InvalidTarget,
    /// No Host header.
    HostMissing,
    /// More than one Host header.
    HostRepeated,
    /// The Host header is not `host` or `host:port`.
    HostInvalid,
    /// The host named is none of those this server answers for.
    HostDenied(Box<Denial>),
    /// The request announces a body.
    RequestHasBody,
    /// The Upgrade header of the request lacks `websocket`, or there is none.
    UpgradeMissing,
    /// The Connection header lacks `upgrade`, or there is none.
    ConnectionMissing,
    /// Not exactly one `Sec-WebSocket-Version: 13`.
    VersionUnsupported,
    /// No Sec-WebSocket-Key header.
    KeyMissing,
    /// More than one Sec-WebSocket-Key header.
    KeyRepeated,
    /// The key is not the base64 of 16 bytes.
    KeyInvalid,
    /// The subprotocols offered are empty, repeated or no tokens.
    SubprotocolsInvalid,
    /// The list of extensions does not follow its grammar.
    ExtensionsInvalid,
    /// More than one Origin header.
    OriginRepeated,
    /// The origin is not allowed here.
    OriginDenied(Box<Denial>),
    /// An extended CONNECT carries headers of the HTTP/1.1 handshake.
    HopByHopHeader,
    /// An extended CONNECT asks for another protocol.
    ProtocolUnknown,

    // The response.
    /// The Upgrade header of the response is not exactly `websocket`.
    UpgradeInvalid,
    /// No Sec-WebSocket-Accept header.
    AcceptMissing,
    /// More than one Sec-WebSocket-Accept header.
    AcceptRepeated,
    /// Sec-WebSocket-Accept does not answer the key sent.
    AcceptMismatch,
    /// The server chose more than one subprotocol.
    SubprotocolRepeated,
    /// The server chose a subprotocol that was not offered.
    SubprotocolNotOffered,
    /// The server chose an extension that was not offered.
    ExtensionNotOffered,
    /// The server chose an extension twice, or with parameters that the offer does not allow.
    ExtensionMismatch,
    /// The server accepted permessage-deflate and ignored `server_no_context_takeover` in the offer (RFC 7692 §7.1.1.1).
    /// `DeflateConfig::falls_back` accepts that.
    TakeoverIgnored,
    /// More informational responses than the limit.
    TooManyInformational {
        /// The limit, in responses.
        count_max: usize,
    },
}

impl HandshakeError {
    /// The status a server answers this fault with: the one place where that is decided.
    ///
    /// Faults of a response have no status of their own; a gateway passes them on as 502.
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
            // RFC 9110 §7.8: an Upgrade in an HTTP/1.0 request is to be ignored; what is left of
            // the request is nothing this server can answer. 505 is about the major version.
            Self::HttpVersionTooOld => StatusCode::BAD_REQUEST,
            Self::HttpVersionUnknown => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            // RFC 6455 §10.2. [6455-4.2.2-4, 6455-10.2-2]
            Self::OriginDenied(_) => StatusCode::FORBIDDEN,
            Self::MethodNotGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::StartLineTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HostDenied(_) => StatusCode::MISDIRECTED_REQUEST,
            // RFC 9110 §15.5.22 for the plain request, RFC 6455 §4.4 for the other version. [6455-4.2.2-5]
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
            | Self::TakeoverIgnored
            | Self::TooManyInformational { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}

impl HandshakeError {
    /// What a policy refused, if that is the fault.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::OriginDenied(denial) | Self::HostDenied(denial) => Some(denial),
            _ => None,
        }
    }

    /// What the client is told: as the text, but nothing of what a policy allows.
    pub(super) fn text_for_client(&self) -> String {
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
                return write!(f, "first line is larger than {size_max} bytes");
            }
            Self::HeadTooLarge { size_max } => {
                return write!(f, "head is larger than {size_max} bytes");
            }
            Self::TooManyHeaders { count_max } => {
                return write!(f, "head has more than {count_max} header lines");
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
            Self::HttpVersionTooOld => "websocket needs HTTP/1.1",
            Self::HttpVersionUnknown => "unknown HTTP version",
            Self::ClosedEarly => "connection closed before the head was complete",
            Self::TimedOut => "head was not complete in time",
            Self::MethodNotGet => "method is not GET",
            Self::InvalidTarget => "invalid request target",
            Self::HostMissing => "missing Host header",
            Self::HostRepeated => "more than one Host header",
            Self::HostInvalid => "invalid Host header",
            Self::RequestHasBody => "websocket request with a body",
            Self::UpgradeMissing => "this is a websocket endpoint: Upgrade: websocket is needed",
            Self::ConnectionMissing => "Connection header lacks upgrade",
            Self::VersionUnsupported => "Sec-WebSocket-Version is not 13",
            Self::KeyMissing => "missing Sec-WebSocket-Key header",
            Self::KeyRepeated => "more than one Sec-WebSocket-Key header",
            Self::KeyInvalid => "Sec-WebSocket-Key is not the base64 of 16 bytes",
            Self::SubprotocolsInvalid => "invalid Sec-WebSocket-Protocol header",
            Self::ExtensionsInvalid => "invalid Sec-WebSocket-Extensions header",
            Self::OriginRepeated => "more than one Origin header",
            Self::HopByHopHeader => "header of the HTTP/1.1 handshake in an extended CONNECT",
            Self::ProtocolUnknown => "protocol of the extended CONNECT is not websocket",
            Self::UpgradeInvalid => "Upgrade header of the response is not websocket",
            Self::AcceptMissing => "missing Sec-WebSocket-Accept header",
            Self::AcceptRepeated => "more than one Sec-WebSocket-Accept header",
            Self::AcceptMismatch => "Sec-WebSocket-Accept does not answer the key sent",
            Self::SubprotocolRepeated => "server chose more than one subprotocol",
            Self::SubprotocolNotOffered => "server chose a subprotocol that was not offered",
            Self::ExtensionNotOffered => "server chose an extension that was not offered",
            Self::ExtensionMismatch => "server chose an extension otherwise than it was offered",
            Self::TakeoverIgnored => {
                "server accepted permessage-deflate without server_no_context_takeover, which was asked for: \
                 DeflateConfig::falls_back accepts that"
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
    fn check(status: u16, faults: &[HandshakeError]) {
        for fault in faults {
            assert_eq!(fault.status().as_u16(), status, "{fault:?}");
            let text = fault.to_string();
            assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn server_answers_each_fault_with_its_status() {
        // checks [6455-10.7-3]
        use HandshakeError as F;
        check(400, &[F::BareLineFeed, F::BareCarriageReturn, F::ControlByte(0)]);
        check(
            400,
            &[
                F::InvalidRequestLine,
                F::InvalidHeaderLine,
                F::InvalidTarget,
                F::ClosedEarly,
            ],
        );
        check(400, &[F::HostMissing, F::HostRepeated, F::HostInvalid]);
        check(400, &[F::RequestHasBody, F::ConnectionMissing, F::HttpVersionTooOld]);
        check(400, &[F::KeyMissing, F::KeyRepeated, F::KeyInvalid]);
        check(
            400,
            &[
                F::SubprotocolsInvalid,
                F::ExtensionsInvalid,
                F::OriginRepeated,
                F::HopByHopHeader,
            ],
        );
        check(405, &[F::MethodNotGet]);
        check(408, &[F::TimedOut]);
        check(414, &[F::StartLineTooLong { size_max: 1 }]);
        check(426, &[F::UpgradeMissing, F::VersionUnsupported]);
        check(
            431,
            &[F::HeadTooLarge { size_max: 1 }, F::TooManyHeaders { count_max: 1 }],
        );
        check(501, &[F::ProtocolUnknown]);
        check(505, &[F::HttpVersionUnknown]);
    }

    #[test]
    fn server_answers_a_denial_with_its_status_and_without_what_is_allowed() {
        use crate::handshake::{HandshakeLimits, HostPolicy, OriginPolicy, ServerHandshake, ServerStep};
        let request = b"GET / HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\nOrigin: null\r\n\r\n";
        let ServerStep::Requested(incoming) = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(request)
        else {
            panic!("a valid request");
        };
        let origin = OriginPolicy::SameHost.check(incoming.request()).expect_err("null");
        check(403, core::slice::from_ref(&origin));
        assert_eq!(
            origin.to_string(),
            "origin \"null\" is not allowed for host \"h:1\"; allowed: pages of the same host"
        );
        assert_eq!(origin.text_for_client(), "origin \"null\" is not allowed");
        let host = HostPolicy::Loopback.check(incoming.request()).expect_err("h");
        check(421, core::slice::from_ref(&host));
        assert_eq!(
            host.to_string(),
            "host \"h:1\" is not served here; allowed: localhost, names under it and loopback addresses"
        );
        assert_eq!(host.text_for_client(), "host \"h:1\" is not served here");
        assert_eq!(host.denial().and_then(Denial::origin), Some("null"));
    }

    #[test]
    fn gateway_answers_each_fault_of_a_response_with_502() {
        use HandshakeError as F;
        check(502, &[F::InvalidStatusLine, F::UpgradeInvalid]);
        check(502, &[F::AcceptMissing, F::AcceptRepeated, F::AcceptMismatch]);
        check(
            502,
            &[F::SubprotocolRepeated, F::SubprotocolNotOffered, F::ExtensionNotOffered],
        );
        check(502, &[F::ExtensionMismatch, F::TakeoverIgnored]);
        check(502, &[F::TooManyInformational { count_max: 1 }]);
    }
}
