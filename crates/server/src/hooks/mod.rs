//! Hooks: the backend decides about connections, subscriptions, publications and calls of clients, over HTTP.
//!
//! The JSON is that of Centrifugo's proxy protocol. A call has a deadline, the number of concurrent calls is limited,
//! and after several failures in a row a hook pauses (circuit breaker): calls then fail at once instead of waiting for
//! a backend that is down. Only the headers of an allow-list are forwarded.
//!
//! The session of a client asks, and its [`Client`](crate::client::Client) sends the calls, without waiting for the
//! answer. [`Backend`] is what they are sent to, so that tests need no HTTP.

mod backend;
mod breaker;
mod types;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

use crate::config::options::options;
use crate::metrics::SharedMetrics;
pub(crate) use backend::{Backend, HttpBackend};
pub(crate) use types::{
    BoolValue, CallData, Common, ConnectCall, ConnectDecision, HookReply, PublishCall, PublishDecision, RefreshCall,
    RefreshDecision, ReplyDisconnect, ReplyError, RpcCall, RpcDecision, SubRefreshCall, SubRefreshDecision,
    SubscribeCall, SubscribeDecision,
};

options! {
    /// Hooks to the backend.
    #[derive(PartialEq, Eq)]
    pub struct HookOptions {
        /// URL called when a client connects without a token.
        pub connect_url: Option<String> = None,
        /// URL called when a connection expires. Clients then need no new token.
        pub refresh_url: Option<String> = None,
        /// URL called when a client subscribes without a token, in namespaces with
        /// [`subscribe_hook`](crate::NamespaceOptions::subscribe_hook).
        pub subscribe_url: Option<String> = None,
        /// URL called when a subscription expires, in namespaces with
        /// [`sub_refresh_hook`](crate::NamespaceOptions::sub_refresh_hook).
        pub sub_refresh_url: Option<String> = None,
        /// URL called when a client publishes, in namespaces with
        /// [`publish_hook`](crate::NamespaceOptions::publish_hook).
        pub publish_url: Option<String> = None,
        /// URL called when a client calls a method (`rpc`). Without it, calls fail with error 108, unless the embedding
        /// program handles them.
        pub rpc_url: Option<String> = None,
        /// Time for the answer of the backend, or of a handler of the embedding program; after that, the command of the
        /// client fails with error 100, and may be retried. With [`connect_url`](Self::connect_url), it must be shorter
        /// than [`connect`](crate::Timeouts::connect).
        pub timeout: Duration = Duration::from_secs(1),
        /// Maximum number of calls to the backend at the same time, for each hook. Further ones wait, within the
        /// timeout.
        pub concurrency_max: usize = 256,
        /// Maximum number of calls (`rpc`) of one client at the same time. With 1, the backend gets them in the order
        /// in which the client sent them. Further ones wait, and so do all later commands of the client.
        pub rpc_per_client_max: usize = 1,
        /// Consecutive failures that open the circuit breaker.
        pub failures_max: u32 = 10,
        /// How long the circuit breaker stays open before one call probes the backend.
        pub pause: Duration = Duration::from_secs(5),
        /// Names of the headers of the client's request that are forwarded to the backend, such as `Cookie`.
        pub forward_headers: Vec<String> = Vec::new(),
        /// Names of the headers that clients may send in their `connect` command (`headers` of the SDK), because
        /// browsers cannot set headers of a WebSocket. They are forwarded like those of the request, which take
        /// precedence. Do not list headers that the backend trusts because a proxy sets them: clients can forge them.
        pub emulated_headers: Vec<String> = Vec::new(),
    }
}

impl HookOptions {
    /// Whether the backend decides about this event.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        hook.url(self).is_some()
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

    /// The name of the hook.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::SubRefresh => "sub_refresh",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
        }
    }

    /// The option with the address.
    pub(crate) fn option(self) -> &'static str {
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
            Self::Failed(reason) => write!(f, "the call to the backend failed: {reason}"),
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

    /// The headers of a client's request that are forwarded to the backend; `None` if there are none.
    pub(crate) fn forwarded(&self, headers: &HeaderMap) -> Option<Arc<HeaderMap>> {
        let forwarded = self.backend.forwarded(headers);
        (!forwarded.is_empty()).then(|| Arc::new(forwarded))
    }

    /// Adds the headers of a client's `connect` command that are forwarded to the backend.
    pub(crate) fn add_emulated(
        &self,
        headers: &mut Option<Arc<HeaderMap>>,
        emulated: &BTreeMap<Cow<'_, str>, Cow<'_, str>>,
    ) {
        let mut all = headers.as_deref().cloned().unwrap_or_default();
        for name in self.backend.emulated_headers() {
            let given = emulated
                .iter()
                .find(|(given, _)| given.eq_ignore_ascii_case(name.as_str()));
            // A value that is not valid in a header is left out.
            let value = given.and_then(|(_, value)| HeaderValue::from_str(value).ok());
            if let (Some(value), false) = (value, all.contains_key(name)) {
                all.insert(name.clone(), value);
            }
        }
        *headers = (!all.is_empty()).then(|| Arc::new(all));
    }

    /// Sends the JSON of a call, and parses the answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection to the backend, which may or may not have seen the call.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        hook: Hook,
        headers: &HeaderMap,
        body: String,
    ) -> Result<HookReply<T>, HookError> {
        let body = self.backend.call(hook, headers, body).await;
        let reply = body.and_then(|body| HookReply::parse(&body));
        if let Some(metrics) = &self.metrics {
            metrics.hook_call(hook.name(), reply.as_ref().map_or_else(HookError::outcome, |_| "ok"));
        }
        reply
    }
}

#[cfg(test)]
mod tests;
