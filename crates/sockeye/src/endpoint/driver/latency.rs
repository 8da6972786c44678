//! Round trips and queue waits, and what is reported to an observer.

use sockeye_proto::Instant;

use super::Driver;
use crate::endpoint::latency::Latency;
use crate::observe::Observer;

impl Driver {
    /// Reports this connection from now on.
    pub(crate) fn set_observer(&mut self, observer: Observer) {
        self.observer = observer;
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    #[inline]
    pub(super) fn latency(&self) -> Option<&Latency> {
        self.busy.as_ref()?.latency.as_deref()
    }

    fn latency_mut(&mut self) -> Option<&mut Latency> {
        self.busy.as_mut()?.latency.as_deref_mut()
    }

    /// Called after a control frame was received. Records the round trip of a ping that was just answered.
    pub(super) fn record_round_trip(&mut self) {
        let answered_ping = self.connection.last_answered_ping();
        let Some(rtt) = self.connection.rtt() else { return };
        if let Some(latency) = self.latency_mut()
            && latency.is_new_pong(answered_ping)
        {
            latency.round_trip.record(rtt);
        }
        self.observer.record_round_trip(answered_ping, rtt);
    }

    /// The time at which a message is queued. `None` if it is not measured.
    pub(super) fn queue_time(&self) -> Option<Instant> {
        self.latency().map(|_| self.group.runtime.now())
    }

    /// Measures the message that was just queued, unless another one is measured.
    #[cold]
    #[inline(never)]
    pub(super) fn start_sample(&mut self, queued_at: Option<Instant>) {
        let (end, runtime) = (self.write_queue.end(), self.runtime());
        // The end of a message that is compressed in parts is not known yet.
        if self.is_message_open() {
            return;
        }
        if let Some(latency) = self.latency_mut()
            && !latency.is_sampling()
        {
            latency.start_sample(queued_at.unwrap_or_else(|| runtime.now()), end);
        }
    }

    /// Called after a write. Records the message that is measured, if it is written.
    pub(super) fn finish_sample(&mut self) {
        let (written_total, runtime) = (self.write_queue.written_total(), self.runtime());
        if let Some(latency) = self.latency_mut()
            && let Some(wait) = latency.finish_sample(written_total, || runtime.now())
        {
            self.observer.record_queue_wait(wait);
        }
    }

    pub(super) fn cancel_sample(&mut self) {
        if let Some(latency) = self.latency_mut() {
            latency.cancel_sample();
        }
    }

    /// Reports what was sent and received.
    #[inline]
    pub(super) fn report_counts(&mut self) {
        if self.observer.is_active() {
            let stats = self.counts();
            self.observer.record_counts(&stats);
        }
    }

    /// Reports the end of the connection, the first time.
    pub(super) fn report_end(&mut self) {
        if self.observer.is_active() {
            let stats = self.counts();
            self.observer
                .close(&stats, self.connection.close_info(), self.transport.failure());
        }
    }
}
