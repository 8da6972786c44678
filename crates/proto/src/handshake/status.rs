use core::fmt;

/// An HTTP status code, 100 to 999.
///
/// The constants are the codes that a WebSocket handshake meets; they can be matched:
///
/// ```
/// use sockeye_proto::handshake::StatusCode;
///
/// fn is_worth_a_retry(status: StatusCode) -> bool {
///     matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
/// }
/// assert!(is_worth_a_retry(StatusCode::new(503).unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    /// 101, the only status that opens a WebSocket over HTTP/1.1.
    pub const SWITCHING_PROTOCOLS: Self = Self(101);
    /// 200, what opens a WebSocket over HTTP/2 and HTTP/3.
    pub const OK: Self = Self(200);
    /// 301, the resource is elsewhere for good.
    pub const MOVED_PERMANENTLY: Self = Self(301);
    /// 302, the resource is elsewhere for now.
    pub const FOUND: Self = Self(302);
    /// 303, another resource answers.
    pub const SEE_OTHER: Self = Self(303);
    /// 307, the resource is elsewhere for now; the method stays.
    pub const TEMPORARY_REDIRECT: Self = Self(307);
    /// 308, the resource is elsewhere for good; the method stays.
    pub const PERMANENT_REDIRECT: Self = Self(308);
    /// 400, the request breaks a rule of HTTP or of the handshake.
    pub const BAD_REQUEST: Self = Self(400);
    /// 401, the application wants credentials.
    pub const UNAUTHORIZED: Self = Self(401);
    /// 403, the origin (or the application's judgement) forbids it.
    pub const FORBIDDEN: Self = Self(403);
    /// 404, nothing at this target.
    pub const NOT_FOUND: Self = Self(404);
    /// 405, the method is not GET.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 408, the head did not arrive in time.
    pub const REQUEST_TIMEOUT: Self = Self(408);
    /// 409, the state of the resource forbids it.
    pub const CONFLICT: Self = Self(409);
    /// 410, nothing at this target any more.
    pub const GONE: Self = Self(410);
    /// 414, the request line alone is larger than the limit.
    pub const URI_TOO_LONG: Self = Self(414);
    /// 421, the request names a host this server does not answer for.
    pub const MISDIRECTED_REQUEST: Self = Self(421);
    /// 426, not a WebSocket request, or one of another version.
    pub const UPGRADE_REQUIRED: Self = Self(426);
    /// 429, the client asks too often.
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    /// 431, the head is larger than the limits.
    pub const REQUEST_HEADER_FIELDS_TOO_LARGE: Self = Self(431);
    /// 500, a mistake of the application.
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    /// 501, an extended CONNECT for another protocol.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// 502, the server behind a gateway answered nonsense.
    pub const BAD_GATEWAY: Self = Self(502);
    /// 503, try again later.
    pub const SERVICE_UNAVAILABLE: Self = Self(503);
    /// 504, the server behind a gateway did not answer in time.
    pub const GATEWAY_TIMEOUT: Self = Self(504);
    /// 505, another major version of HTTP.
    pub const HTTP_VERSION_NOT_SUPPORTED: Self = Self(505);

    /// Makes a status code; `None` outside 100 to 999.
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

    /// Whether more responses follow this one (1xx). 101 is among them by number.
    #[must_use]
    pub const fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// Whether the request succeeded (2xx).
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// The usual reason phrase, or an empty string for a code without one here.
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
