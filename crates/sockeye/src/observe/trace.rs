//! The spans and events of connections. Their names are listed in docs/guide/observability.md.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sockeye_proto::CloseInfo;
use tracing::field::{Empty, display};
use tracing::{Level, Span, debug, enabled, info_span};

use super::labels::{EndCause, RequestPath, Role};
use crate::error::Error;
use crate::stats::ConnectionStats;

/// The target of all spans and events, for filters.
const TARGET: &str = "sockeye";

pub(super) fn handshake_span(
    role: Role,
    path: Option<RequestPath>,
    peer_addr: impl FnOnce() -> Option<SocketAddr>,
) -> Span {
    let span = info_span!(target: TARGET, "handshake", role = role.as_str(), peer = Empty, path = Empty);
    if !span.is_disabled() {
        if let Some(RequestPath { path }) = path {
            span.record("path", &*path);
        }
        record_peer(&span, peer_addr);
    }
    span
}

pub(super) fn handshake_failed(span: &Span, error: &Error) {
    debug!(target: TARGET, parent: span, kind = ?error.kind(), error = %error, "the opening handshake failed");
}

pub(super) fn connection_span(role: Role, path: &str, peer_addr: impl FnOnce() -> Option<SocketAddr>) -> Span {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);

    if !enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let span = info_span!(
        target: TARGET,
        "connection",
        id = NEXT_ID.fetch_add(1, Relaxed),
        role = role.as_str(),
        peer = Empty,
        path,
        close_cause = Empty,
        close_code = Empty,
    );
    record_peer(&span, peer_addr);
    debug!(target: TARGET, parent: &span, "the connection is open");
    span
}

fn record_peer(span: &Span, peer_addr: impl FnOnce() -> Option<SocketAddr>) {
    if let Some(peer_addr) = peer_addr() {
        span.record("peer", display(peer_addr));
    }
}

pub(super) fn connection_closed(
    span: &Span,
    stats: &ConnectionStats,
    cause: EndCause,
    close_info: Option<&CloseInfo>,
    failure: Option<&Error>,
) {
    // The frame of the peer says why it closed; otherwise, ours says why this side did.
    let frame = close_info.and_then(|info| info.received().or(info.sent()));
    let code = frame.map(|frame| u16::from(frame.code));
    span.record("close_cause", cause.as_str());
    if let Some(code) = code {
        span.record("close_code", code);
    }
    debug!(
        target: TARGET,
        parent: span,
        cause = cause.as_str(),
        code,
        error = failure.map(display),
        sent_messages = stats.sent.messages,
        sent_bytes = stats.sent.bytes,
        received_messages = stats.received.messages,
        received_bytes = stats.received.bytes,
        "the connection is closed"
    );
}
