//! Label and span-field values.

use sockeye_proto::{CloseCause, CloseInfo};

use crate::error::{Error, Kind};

/// The role of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// The path of the request, without its query, which may contain credentials.
#[derive(Debug)]
pub(crate) struct RequestPath {
    #[cfg(feature = "tracing")]
    pub(super) path: Box<str>,
}

/// Why a connection ended, for the label `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCause {
    Local,
    Peer,
    ProtocolError,
    TransportEnd,
    KeepaliveTimeout,
    CloseTimeout,
    WriteTimeout,
    Overflow,
    Dropped,
}

impl RequestPath {
    /// The path of a request target such as `/chat?token=x`.
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
    pub(crate) fn of(resource: &str) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            path: resource.split(['?', '#']).next().unwrap_or_default().into(),
        }
    }
}

#[cfg_attr(not(any(feature = "metrics", feature = "tracing")), allow(dead_code))]
impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

#[cfg_attr(not(any(feature = "metrics", feature = "tracing")), allow(dead_code))]
impl EndCause {
    pub(super) fn new(close_info: Option<&CloseInfo>, failure: Option<&Error>) -> Self {
        match failure.map(Error::inner_kind) {
            Some(Kind::Stalled | Kind::MutualStall) => return Self::WriteTimeout,
            Some(Kind::Overflow) => return Self::Overflow,
            Some(Kind::Aborted) => return Self::Dropped,
            _ => {}
        }
        match close_info.map(CloseInfo::cause) {
            None => Self::Dropped,
            Some(CloseCause::Local) => Self::Local,
            Some(CloseCause::Peer) => Self::Peer,
            Some(CloseCause::ProtocolError(_)) => Self::ProtocolError,
            Some(CloseCause::KeepaliveTimeout) => Self::KeepaliveTimeout,
            Some(CloseCause::CloseTimeout) => Self::CloseTimeout,
            Some(_) => Self::TransportEnd,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Peer => "peer",
            Self::ProtocolError => "protocol_error",
            Self::TransportEnd => "transport_end",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::CloseTimeout => "close_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Overflow => "overflow",
            Self::Dropped => "dropped",
        }
    }
}
