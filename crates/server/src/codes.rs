//! The numbers of the client protocol: errors in replies, reasons to unsubscribe, reasons to disconnect.
//!
//! The numbers and their texts are part of the wire format. A client library decides by the number alone whether
//! it tries again, so a number is never reused for something else.

use std::fmt;

/// Why one command failed; the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The server failed; trying again may help.
    Internal = 100,
    /// Who the client is could not be established.
    Unauthorized = 101,
    /// The channel's namespace does not exist.
    UnknownChannel = 102,
    /// The client may not do this here.
    PermissionDenied = 103,
    /// The server does not know this command or method.
    MethodNotFound = 104,
    /// The client is already subscribed to this channel.
    AlreadySubscribed = 105,
    /// A limit of the server does not allow this.
    LimitExceeded = 106,
    /// The command is understood but makes no sense.
    BadRequest = 107,
    /// The feature is not turned on for this channel.
    NotAvailable = 108,
    /// The token has expired; a new one may be accepted.
    TokenExpired = 109,
    /// The connection or subscription has expired.
    Expired = 110,
    /// Too many commands in too short a time.
    TooManyRequests = 111,
    /// The position asked for can no longer be recovered from.
    UnrecoverablePosition = 112,
    /// Another page of the same list is still being read.
    ConcurrentPagination = 113,
}

impl ErrorCode {
    /// The number sent to the client.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text sent to the client beside the number.
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

    /// Whether the same command may succeed a little later.
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

/// Why the server ended a subscription. From 2500 on the client subscribes again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum UnsubscribeCode {
    /// Ended by the server for good.
    Server = 2000,
    /// A message of the channel was lost on its way to this client: it has to recover.
    InsufficientState = 2500,
    /// The subscription has expired.
    Expired = 2501,
    /// What the subscription was built on is no longer valid.
    StateInvalidated = 2502,
}

impl UnsubscribeCode {
    /// The number sent to the client.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The text sent to the client beside the number.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Server => "server unsubscribe",
            Self::InsufficientState => "insufficient state",
            Self::Expired => "subscription expired",
            Self::StateInvalidated => "state invalidated",
        }
    }
}

/// Why the server ends a connection: the code and reason of the WebSocket close frame.
///
/// Clients connect again after 3000 to 3499 and stay away after 3500 to 3999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum DisconnectCode {
    /// Generic close; also sent when `connect` did not arrive in time (clients reconnect).
    ConnectionClosed = 3000,
    /// This server is going away; another one, or this one after its restart, will serve the client.
    Shutdown = 3001,
    /// The server failed.
    ServerError = 3004,
    /// The connection's permission has expired.
    Expired = 3005,
    /// A subscription's permission has expired.
    SubscriptionExpired = 3006,
    /// The client does not read as fast as its channels speak.
    Slow = 3008,
    /// Writing to the client failed.
    WriteError = 3009,
    /// A message was lost on its way to this client.
    InsufficientState = 3010,
    /// The server asks the client to connect again.
    ForceReconnect = 3011,
    /// The client did not answer a ping in time.
    NoPong = 3012,
    /// The client sent too many commands in too short a time.
    TooManyRequests = 3013,
    /// What the connection was built on is no longer valid.
    StateInvalidated = 3014,
    /// The token is not one this server accepts.
    InvalidToken = 3500,
    /// What the client sent is not the protocol.
    BadRequest = 3501,
    /// The client was refused by an error in reply to `connect`, and did not leave by itself.
    Stale = 3502,
    /// The server sends the client away.
    ForceDisconnect = 3503,
    /// The server has as many connections as it takes.
    ConnectionLimit = 3504,
    /// The client has as many channels as it may.
    ChannelLimit = 3505,
    /// The client speaks another protocol than was agreed.
    InappropriateProtocol = 3506,
    /// The client may not connect.
    PermissionDenied = 3507,
    /// What the client needs is not turned on here.
    NotAvailable = 3508,
    /// The client made too many errors.
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

    /// Whether client libraries connect again after this code.
    pub fn is_reconnect(self) -> bool {
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
    fn numbers_are_the_ones_on_the_wire() {
        assert_eq!(ErrorCode::Internal.code(), 100);
        assert_eq!(ErrorCode::ConcurrentPagination.code(), 113);
        assert_eq!(UnsubscribeCode::InsufficientState.code(), 2500);
        assert_eq!(DisconnectCode::Shutdown.code(), 3001);
        assert_eq!(DisconnectCode::NoPong.code(), 3012);
        assert_eq!(DisconnectCode::BadRequest.code(), 3501);
        assert_eq!(DisconnectCode::TooManyErrors.code(), 3509);
    }

    #[test]
    fn clients_return_below_3500_only() {
        assert!(DisconnectCode::StateInvalidated.is_reconnect());
        assert!(!DisconnectCode::InvalidToken.is_reconnect());
    }
}
