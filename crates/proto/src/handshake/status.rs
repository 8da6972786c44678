//! HTTP status codes (RFC 9110 §15).

use core::fmt;

/// An HTTP status code, 100 to 999.
///
/// The associated constants are codes that occur in WebSocket handshakes. They can be used in patterns:
///
/// ```
/// use sockeye_proto::handshake::StatusCode;
///
/// fn should_retry(status: StatusCode) -> bool {
///     matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
/// }
/// assert!(should_retry(StatusCode::new(503).unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    /// 101, the only status that opens a WebSocket over HTTP/1.1.
    pub const SWITCHING_PROTOCOLS: Self = Self(101);
    /// 200, the status that opens a WebSocket over HTTP/2 and HTTP/3.
    pub const OK: Self = Self(200);
    /// 301, the resource has moved permanently.
    pub const MOVED_PERMANENTLY: Self = Self(301);
    /// 302, the resource is temporarily at another location.
    pub const FOUND: Self = Self(302);
    /// 303, see another resource.
    pub const SEE_OTHER: Self = Self(303);
    /// 307, the resource is temporarily at another location; keep the method.
    pub const TEMPORARY_REDIRECT: Self = Self(307);
    /// 308, the resource has moved permanently; keep the method.
    pub const PERMANENT_REDIRECT: Self = Self(308);
    /// 400, the request violates HTTP or the handshake.
    pub const BAD_REQUEST: Self = Self(400);
    /// 401, the application requires credentials.
    pub const UNAUTHORIZED: Self = Self(401);
    /// 403, the origin is not allowed, or the application denies access.
    pub const FORBIDDEN: Self = Self(403);
    /// 404, there is no resource at this target.
    pub const NOT_FOUND: Self = Self(404);
    /// 405, the method is not GET.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 408, the head did not arrive in time.
    pub const REQUEST_TIMEOUT: Self = Self(408);
    /// 409, the request conflicts with the state of the resource.
    pub const CONFLICT: Self = Self(409);
    /// 410, the resource no longer exists.
    pub const GONE: Self = Self(410);
    /// 414, the request line is longer than the limit for the head.
    pub const URI_TOO_LONG: Self = Self(414);
    /// 421, the server does not serve the requested host.
    pub const MISDIRECTED_REQUEST: Self = Self(421);
    /// 426, not a WebSocket request, or an unsupported version.
    pub const UPGRADE_REQUIRED: Self = Self(426);
    /// 429, the client sends too many requests.
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    /// 431, the head is larger than the limits.
    pub const REQUEST_HEADER_FIELDS_TOO_LARGE: Self = Self(431);
    /// 500, an error in the application.
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    /// 501, an extended CONNECT for another protocol.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// 502, a gateway received an invalid response from the upstream server.
    pub const BAD_GATEWAY: Self = Self(502);
    /// 503, the service is unavailable; try again later.
    pub const SERVICE_UNAVAILABLE: Self = Self(503);
    /// 504, a gateway received no response from the upstream server in time.
    pub const GATEWAY_TIMEOUT: Self = Self(504);
    /// 505, an unsupported major version of HTTP.
    pub const HTTP_VERSION_NOT_SUPPORTED: Self = Self(505);

    /// Creates a status code. Returns `None` if `code` is not 100 to 999.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 100 && code <= 999 {
            Some(Self(code))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Whether the status is 1xx. Includes 101, although no further response follows it.
    #[must_use]
    pub const fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// Whether the request succeeded (2xx).
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// The standard reason phrase, or an empty string for codes unknown to this crate.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            101 => "Switching Protocols",
            200 => "OK",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            414 => "URI Too Long",
            421 => "Misdirected Request",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
