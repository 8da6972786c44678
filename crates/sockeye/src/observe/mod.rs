//! Reports opening handshakes and connections to the crates `tracing` and `metrics`.
//!
//! Without the features of the same names, the types here are empty and their methods do nothing. No method is called
//! for each message: a connection reports its counters when it waits or has written everything.

mod labels;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(feature = "tracing")]
mod trace;

use std::net::SocketAddr;
use std::time::Duration;

use sockeye_proto::CloseInfo;

use crate::error::Error;
use crate::stats::ConnectionStats;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use labels::EndCause;
pub(crate) use labels::{RequestPath, Role};

/// One opening handshake.
#[derive(Clone)]
pub(crate) struct Handshake {
    #[cfg(feature = "metrics")]
    role: Role,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

/// One open connection.
#[derive(Default)]
pub(crate) struct Observer {
    /// `None` for a connection that was not reported, or whose end was.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    observed: Option<Box<Observed>>,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
struct Observed {
    #[cfg(feature = "metrics")]
    metrics: metrics::Connection,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
pin_project_lite::pin_project! {
    /// The future of [`Handshake::observe`]. Not an async function, which would store `part` twice.
    pub(crate) struct Observe<'a, F> {
        #[pin]
        part: F,
        handshake: &'a Handshake,
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl<T, F: Future<Output = Result<T, Error>>> Future for Observe<'_, F> {
    type Output = Result<T, Error>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let this = self.project();
        #[cfg(feature = "tracing")]
        let _entered = this.handshake.span.enter();
        this.part.poll(cx).map(|result| this.handshake.report(result))
    }
}

#[cfg_attr(not(all(feature = "metrics", feature = "tracing")), allow(unused_variables))]
impl Handshake {
    /// Begins an opening handshake. A client knows the path, a server usually the address.
    pub(crate) fn begin(role: Role, path: Option<&str>, peer_addr: impl FnOnce() -> Option<SocketAddr>) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            role,
            #[cfg(feature = "tracing")]
            span: trace::handshake_span(role, path.map(RequestPath::of), peer_addr),
        }
    }

    /// Records the path of the request that a server has received.
    pub(crate) fn record_path(&self, resource: &str) {
        #[cfg(feature = "tracing")]
        self.span.record("path", &*RequestPath::of(resource).path);
    }

    /// Runs a part of the handshake within its span, and reports its failure.
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    pub(crate) fn observe<F: Future>(&self, part: F) -> F {
        part
    }

    /// Runs a part of the handshake within its span, and reports its failure.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) fn observe<F: Future>(&self, part: F) -> Observe<'_, F> {
        Observe { part, handshake: self }
    }

    /// Reports the failure of a part of the handshake.
    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), allow(dead_code))]
    pub(crate) fn report<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        if let Err(error) = &result {
            #[cfg(feature = "metrics")]
            metrics::record_handshake_failure(self.role, error);
            #[cfg(feature = "tracing")]
            trace::handshake_failed(&self.span, error);
        }
        result
    }
}

/// Reports a request that was rejected, or whose transport was lost before the WebSocket was open.
#[cfg(feature = "hyper")]
pub(crate) fn report_failed_upgrade(error: &Error) {
    let _ = Handshake::begin(Role::Server, None, || None).report::<()>(Err(error.clone()));
}

#[cfg_attr(not(all(feature = "metrics", feature = "tracing")), allow(unused_variables))]
impl Observer {
    /// Reports a connection that was opened.
    pub(crate) fn open(role: Role, path: &RequestPath, peer_addr: impl FnOnce() -> Option<SocketAddr>) -> Self {
        Self {
            #[cfg(any(feature = "metrics", feature = "tracing"))]
            observed: Some(Box::new(Observed {
                #[cfg(feature = "metrics")]
                metrics: metrics::Connection::open(role),
                #[cfg(feature = "tracing")]
                span: trace::connection_span(role, &path.path, peer_addr),
            })),
        }
    }

    /// Whether there is anything to report to.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        return self.observed.is_some();
        #[cfg(not(any(feature = "metrics", feature = "tracing")))]
        false
    }

    /// Reports what was sent and received since the last call.
    #[inline]
    pub(crate) fn record_counts(&mut self, stats: &ConnectionStats) {
        #[cfg(feature = "metrics")]
        if let Some(observed) = &mut self.observed {
            observed.metrics.record_counts(stats);
        }
    }

    /// Reports the round trip of the ping with this number, once.
    pub(crate) fn record_round_trip(&mut self, ping: u32, time: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(observed) = &mut self.observed {
            observed.metrics.record_round_trip(ping, time);
        }
    }

    pub(crate) fn record_queue_wait(&self, time: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(observed) = &self.observed {
            observed.metrics.record_queue_wait(time);
        }
    }

    /// Reports the end of the connection, the first time.
    pub(crate) fn close(&mut self, stats: &ConnectionStats, close_info: Option<&CloseInfo>, failure: Option<&Error>) {
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        if let Some(observed) = self.observed.take() {
            let cause = EndCause::new(close_info, failure);
            #[cfg(feature = "metrics")]
            observed.metrics.close(stats, cause);
            #[cfg(feature = "tracing")]
            trace::connection_closed(&observed.span, stats, cause, close_info, failure);
        }
    }

    /// The span of the connection. A disabled one after its end.
    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self) -> tracing::Span {
        self.observed
            .as_ref()
            .map_or_else(tracing::Span::none, |observed| observed.span.clone())
    }
}
