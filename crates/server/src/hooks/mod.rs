//! Hooks: the backend decides about connections, subscriptions, publications and calls of clients, over HTTP.
//!
//! The JSON is that of Centrifugo's proxy protocol. A call has a deadline, the number of concurrent calls is limited, and after
//! several failures in a row a hook pauses (circuit breaker): calls then fail at once instead of waiting for a backend that
//! is down. Only the headers of an allow-list are forwarded.
//!
//! [`Hooks`] has the typed calls; [`Backend`] is what they are sent to, so that tests need no HTTP.

mod backend;
mod breaker;
mod types;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::options::options;
use crate::metrics::SharedMetrics;
use crate::protocol::encode;
pub(crate) use backend::{Backend, HttpBackend};
pub(crate) use types::{
    Common, ConnectCall, ConnectDecision, HookReply, PublishCall, PublishDecision, RefreshCall, RefreshDecision,
    RpcCall, RpcDecision, SubRefreshCall, SubRefreshDecision, SubscribeCall, SubscribeDecision,
};

options! {
    /// Hooks to the backend.
    #[derive(PartialEq, Eq)]
    pub(crate) struct HookOptions {
        /// Address that decides about connections of clients without a token.
        pub(crate) connect_url: Option<String> = None,
        /// Address that is asked when a connection expires.
        pub(crate) refresh_url: Option<String> = None,
        /// Address that decides about subscriptions.
        pub(crate) subscribe_url: Option<String> = None,
        /// Address that is asked when a subscription expires.
        pub(crate) sub_refresh_url: Option<String> = None,
        /// Address that decides about publications of clients.
        pub(crate) publish_url: Option<String> = None,
        /// Address of the calls (`rpc`) of clients. Without it, calls fail with error 108.
        pub(crate) rpc_url: Option<String> = None,
        /// Time for the answer of the backend. Then the command of the client fails with error 100, and may be repeated.
        pub(crate) timeout: Duration = Duration::from_secs(1),
        /// Maximum number of calls at the same time, for each hook. Further ones wait, within the timeout.
        pub(crate) concurrency_max: usize = 256,
        /// Number of failures in a row after which a hook pauses.
        pub(crate) failures_max: u32 = 10,
        /// How long a hook pauses. Then one call tries whether the backend is back.
        pub(crate) pause: Duration = Duration::from_secs(5),
        /// Names of the headers of the client's request that are forwarded to the backend, such as `Cookie`.
        pub(crate) forward_headers: Vec<String> = Vec::new(),
    }
}

/// The events that a backend can decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Connect,
    Refresh,
    Subscribe,
    SubRefresh,
    Publish,
    Rpc,
}

impl Hook {
    pub(crate) const ALL: [Self; 6] = [
        Self::Connect,
        Self::Refresh,
        Self::Subscribe,
        Self::SubRefresh,
        Self::Publish,
        Self::Rpc,
    ];

    fn url(self, options: &HookOptions) -> Option<&str> {
        match self {
            Self::Connect => options.connect_url.as_deref(),
            Self::Refresh => options.refresh_url.as_deref(),
            Self::Subscribe => options.subscribe_url.as_deref(),
            Self::SubRefresh => options.sub_refresh_url.as_deref(),
            Self::Publish => options.publish_url.as_deref(),
            Self::Rpc => options.rpc_url.as_deref(),
        }
    }

    /// The value of the label `hook`.
    fn name(self) -> &'static str {
        let option = self.option().trim_start_matches("hooks.");
        option.trim_end_matches("_url")
    }

    /// The option with the address.
    fn option(self) -> &'static str {
        match self {
            Self::Connect => "hooks.connect_url",
            Self::Refresh => "hooks.refresh_url",
            Self::Subscribe => "hooks.subscribe_url",
            Self::SubRefresh => "hooks.sub_refresh_url",
            Self::Publish => "hooks.publish_url",
            Self::Rpc => "hooks.rpc_url",
        }
    }
}

/// Why a call failed. The client gets error 100 and may repeat its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HookError {
    /// The hook pauses after failures.
    Paused,
    /// The backend did not answer in time.
    Timeout,
    /// The backend could not be reached, or its answer is not valid.
    Failed(String),
}

impl HookError {
    /// The value of the label `outcome`.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Timeout => "timeout",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("the backend failed several times in a row; the hook pauses"),
            Self::Timeout => f.write_str("the backend did not answer in time"),
            Self::Failed(reason) => write!(f, "the backend {reason}"),
        }
    }
}

impl std::error::Error for HookError {}

/// The calls to the backend.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    backend: Arc<dyn Backend>,
    /// Counts the calls.
    metrics: Option<SharedMetrics>,
}

impl Hooks {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, metrics: None }
    }

    /// Counts the calls in these metrics.
    pub(crate) fn with_metrics(mut self, metrics: SharedMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The hooks of a configuration.
    ///
    /// # Errors
    /// Returns the path of a setting that is not valid, and why.
    pub(crate) fn from_options(options: &HookOptions) -> Result<Self, (&'static str, String)> {
        Ok(Self::new(Arc::new(HttpBackend::new(options)?)))
    }

    /// Whether the backend decides about this event.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        self.backend.has(hook)
    }

    pub(crate) async fn connect(
        &self,
        headers: &HeaderMap,
        call: &ConnectCall<'_>,
    ) -> Result<HookReply<ConnectDecision>, HookError> {
        self.call(Hook::Connect, headers, call).await
    }

    pub(crate) async fn refresh(
        &self,
        headers: &HeaderMap,
        call: &RefreshCall<'_>,
    ) -> Result<HookReply<RefreshDecision>, HookError> {
        self.call(Hook::Refresh, headers, call).await
    }

    pub(crate) async fn subscribe(
        &self,
        headers: &HeaderMap,
        call: &SubscribeCall<'_>,
    ) -> Result<HookReply<SubscribeDecision>, HookError> {
        self.call(Hook::Subscribe, headers, call).await
    }

    pub(crate) async fn sub_refresh(
        &self,
        headers: &HeaderMap,
        call: &SubRefreshCall<'_>,
    ) -> Result<HookReply<SubRefreshDecision>, HookError> {
        self.call(Hook::SubRefresh, headers, call).await
    }

    pub(crate) async fn publish(
        &self,
        headers: &HeaderMap,
        call: &PublishCall<'_>,
    ) -> Result<HookReply<PublishDecision>, HookError> {
        self.call(Hook::Publish, headers, call).await
    }

    pub(crate) async fn rpc(
        &self,
        headers: &HeaderMap,
        call: &RpcCall<'_>,
    ) -> Result<HookReply<RpcDecision>, HookError> {
        self.call(Hook::Rpc, headers, call).await
    }

    async fn call<T: DeserializeOwned + Default>(
        &self,
        hook: Hook,
        headers: &HeaderMap,
        call: &impl Serialize,
    ) -> Result<HookReply<T>, HookError> {
        let body = self.backend.call(hook, headers, encode(call)).await;
        let reply = body.and_then(|body| HookReply::parse(&body));
        if let Some(metrics) = &self.metrics {
            metrics.hook_call(hook.name(), reply.as_ref().map_or_else(HookError::outcome, |_| "ok"));
        }
        reply
    }
}

#[cfg(test)]
mod tests;
