//! The codes of the client protocol: error codes, unsubscribe codes, and disconnect codes.
//!
//! Codes and texts are part of the wire format. Client libraries decide by the code whether to retry, so a code is
//! never reused with another meaning.

use std::fmt;

/// Why a command failed. The connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Internal error; a retry may succeed.
    Internal = 100,
    /// The client is not authenticated.
    Unauthorized = 101,
    /// The channel's namespace does not exist.
    UnknownChannel = 102,
    /// The client is not allowed to do this.
    PermissionDenied = 103,
    /// The server does not know this command or method.
    MethodNotFound = 104,
    /// The client is already subscribed to this channel.
    AlreadySubscribed = 105,
    /// A limit of the server is exceeded.
    LimitExceeded = 106,
    /// A parameter is invalid.
    BadRequest = 107,
    /// The feature is disabled or not supported.
    NotAvailable = 108,
    /// The token has expired.
    TokenExpired = 109,
    /// The connection or subscription has expired.
    Expired = 110,
    /// Too many commands in too short a time.
    TooManyRequests = 111,
    /// Recovery from the requested position is no longer possible.
    UnrecoverablePosition = 112,
    /// Another page of the same list is being read.
    ConcurrentPagination = 113,
}

impl ErrorCode {
    /// The number that is sent to the client.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text that is sent to the client with the number.
    pub fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
            Self::ConcurrentPagination => "concurrent pagination",
        }
    }

    /// Whether a retry of the command may succeed.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::Internal | Self::TooManyRequests | Self::ConcurrentPagination
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.code())
    }
}

impl std::error::Error for ErrorCode {}

/// Why the server ended a subscription. Clients resubscribe after codes from 2500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum UnsubscribeCode {
    /// Ended by the server permanently.
    Server = 2000,
    /// A publication was lost; the client must recover.
    InsufficientState = 2500,
    /// The subscription has expired.
    Expired = 2501,
    /// The state of the subscription is no longer valid.
    StateInvalidated = 2502,
}

impl UnsubscribeCode {
    /// The number that is sent to the client.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text that is sent to the client with the number.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Server => "server unsubscribe",
            Self::InsufficientState => "insufficient state",
            Self::Expired => "subscription expired",
            Self::StateInvalidated => "state invalidated",
        }
    }
}

/// Why the server disconnects a client: the code and reason of the WebSocket close frame.
///
/// Clients reconnect after 3000 to 3499, and do not after 3500 to 3999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum DisconnectCode {
    /// Generic close, also sent if `connect` did not arrive in time.
    ConnectionClosed = 3000,
    /// The server is shutting down.
    Shutdown = 3001,
    /// Internal error.
    ServerError = 3004,
    /// The connection has expired.
    Expired = 3005,
    /// A subscription has expired.
    SubscriptionExpired = 3006,
    /// The client reads more slowly than its channels publish.
    Slow = 3008,
    /// Writing to the client failed.
    WriteError = 3009,
    /// A publication was lost; the client must recover.
    InsufficientState = 3010,
    /// The server requests a reconnect.
    ForceReconnect = 3011,
    /// The client did not answer a ping in time.
    NoPong = 3012,
    /// The client sent too many commands in too short a time. Client libraries reconnect, with a growing delay.
    TooManyRequests = 3013,
    /// The state of the connection is no longer valid.
    StateInvalidated = 3014,
    /// The token is invalid.
    InvalidToken = 3500,
    /// The client violated the protocol.
    BadRequest = 3501,
    /// `connect` failed, and the client did not close the connection.
    Stale = 3502,
    /// The server disconnects the client permanently.
    ForceDisconnect = 3503,
    /// The server has reached its connection limit.
    ConnectionLimit = 3504,
    /// The client has reached its channel limit.
    ChannelLimit = 3505,
    /// The client uses another encoding than was negotiated.
    InappropriateProtocol = 3506,
    /// The client may not connect.
    PermissionDenied = 3507,
    /// A feature that the client needs is disabled.
    NotAvailable = 3508,
    /// Too many commands of the client failed.
    TooManyErrors = 3509,
}

impl DisconnectCode {
    /// The close code.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The close reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ConnectionClosed => "connection closed",
            Self::Shutdown => "shutdown",
            Self::ServerError => "internal server error",
            Self::Expired => "connection expired",
            Self::SubscriptionExpired => "subscription expired",
            Self::Slow => "slow",
            Self::WriteError => "write error",
            Self::InsufficientState => "insufficient state",
            Self::ForceReconnect => "force reconnect",
            Self::NoPong => "no pong",
            Self::TooManyRequests => "too many requests",
            Self::StateInvalidated => "state invalidated",
            Self::InvalidToken => "invalid token",
            Self::BadRequest => "bad request",
            Self::Stale => "stale",
            Self::ForceDisconnect => "force disconnect",
            Self::ConnectionLimit => "connection limit",
            Self::ChannelLimit => "channel limit",
            Self::InappropriateProtocol => "inappropriate protocol",
            Self::PermissionDenied => "permission denied",
            Self::NotAvailable => "not available",
            Self::TooManyErrors => "too many errors",
        }
    }

    /// Whether client libraries reconnect after this code.
    pub fn allows_reconnect(self) -> bool {
        self.code() < 3500
    }
}

impl fmt::Display for DisconnectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_the_wire_format() {
        assert_eq!(ErrorCode::Internal.code(), 100);
        assert_eq!(ErrorCode::ConcurrentPagination.code(), 113);
        assert_eq!(UnsubscribeCode::InsufficientState.code(), 2500);
        assert_eq!(DisconnectCode::Shutdown.code(), 3001);
        assert_eq!(DisconnectCode::NoPong.code(), 3012);
        assert_eq!(DisconnectCode::BadRequest.code(), 3501);
        assert_eq!(DisconnectCode::TooManyErrors.code(), 3509);
    }

    #[test]
    fn clients_reconnect_only_below_3500() {
        assert!(DisconnectCode::StateInvalidated.allows_reconnect());
        assert!(!DisconnectCode::InvalidToken.allows_reconnect());
    }
}
