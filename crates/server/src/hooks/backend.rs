//! Where calls go: the backend over HTTP.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::HeaderName;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::breaker::Breaker;
use super::{Hook, HookError, HookOptions};
use crate::http_client::{HttpClient, HttpClientError};

/// The future of a call. Boxed, so that the task of an idle connection does not reserve memory for it.
pub(crate) type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, HookError>> + Send + 'a>>;

/// What decides about the events of clients.
pub(crate) trait Backend: Send + Sync + fmt::Debug {
    /// The headers of a client's request that are forwarded.
    fn forwarded(&self, headers: &HeaderMap) -> HeaderMap;

    /// Names of the headers of `connect` commands that are forwarded.
    fn emulated_headers(&self) -> &[HeaderName];

    /// Sends the JSON of a call, and returns the JSON of the answer. `headers` are those of the client's request.
    fn call<'a>(&'a self, hook: Hook, headers: &'a HeaderMap, body: String) -> HookFuture<'a>;
}

/// A backend over HTTP or HTTPS.
pub(crate) struct HttpBackend {
    endpoints: Vec<(Hook, Endpoint)>,
    timeout: Duration,
    forward_headers: Vec<HeaderName>,
    emulated_headers: Vec<HeaderName>,
}

struct Endpoint {
    source: HttpClient,
    permits: Semaphore,
    breaker: Breaker,
}

impl HttpBackend {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the path of a setting that is not valid, and why.
    pub(crate) fn new(options: &HookOptions) -> Result<Self, (&'static str, String)> {
        let mut endpoints = Vec::new();
        for hook in Hook::ALL {
            let Some(url) = hook.url(options) else { continue };
            let source = HttpClient::new(url, None).map_err(|problem| (hook.option(), problem))?;
            let permits = options.concurrency_max.clamp(1, Semaphore::MAX_PERMITS);
            let endpoint = Endpoint {
                source,
                permits: Semaphore::new(permits),
                breaker: Breaker::new(options.failures_max, options.pause),
            };
            endpoints.push((hook, endpoint));
        }
        Ok(Self {
            endpoints,
            timeout: options.timeout,
            forward_headers: header_names("hooks.forward_headers", &options.forward_headers)?,
            emulated_headers: header_names("hooks.emulated_headers", &options.emulated_headers)?,
        })
    }

    fn endpoint(&self, hook: Hook) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|(known, _)| *known == hook)
            .map(|(_, endpoint)| endpoint)
    }

    async fn send(&self, hook: Hook, headers: &HeaderMap, body: String) -> Result<Vec<u8>, HookError> {
        let endpoint = self
            .endpoint(hook)
            .ok_or_else(|| HookError::Failed(format!("{} is not set", hook.option())))?;
        let deadline = Instant::now() + self.timeout;
        // A full queue says nothing about the backend's health beyond what its failures say, so it is not counted.
        let Ok(Ok(_permit)) = timeout_at(deadline, endpoint.permits.acquire()).await else {
            return Err(HookError::Timeout);
        };
        if !endpoint.breaker.admit() {
            return Err(HookError::Paused);
        }
        // Again, because the lists may have been shortened since the client connected.
        let is_listed = |name: &HeaderName| self.forward_headers.contains(name) || self.emulated_headers.contains(name);
        let forwarded = headers.iter().filter(|(name, _)| is_listed(name));
        let forwarded: Vec<_> = forwarded.map(|(name, value)| (name.clone(), value.clone())).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        match endpoint.source.post(forwarded.into_iter(), body, left).await {
            Ok(answer) => {
                endpoint.breaker.succeeded();
                Ok(answer.to_vec())
            }
            Err(error) => {
                if endpoint.breaker.failed() {
                    tracing::error!(hook = hook.option(), %error, "the backend failed several times; the hook pauses");
                }
                Err(match error {
                    HttpClientError::Timeout(_) => HookError::Timeout,
                    error => HookError::Failed(error.to_string()),
                })
            }
        }
    }
}

/// Checks the names of headers that are forwarded.
fn header_names(option: &'static str, names: &[String]) -> Result<Vec<HeaderName>, (&'static str, String)> {
    let names = names.iter().map(|text| {
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| (option, format!("has {text:?}, which is not the name of a header")))?;
        match HOP_BY_HOP.contains(&name.as_str()) {
            true => Err((
                option,
                format!("has {name}, which belongs to the connection of the client"),
            )),
            false => Ok(name),
        }
    });
    names.collect()
}

/// Headers that describe the connection or the body of the client's request.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl Backend for HttpBackend {
    fn forwarded(&self, headers: &HeaderMap) -> HeaderMap {
        let mut forwarded = HeaderMap::new();
        for name in &self.forward_headers {
            for value in headers.get_all(name) {
                forwarded.append(name, value.clone());
            }
        }
        forwarded
    }

    fn emulated_headers(&self) -> &[HeaderName] {
        &self.emulated_headers
    }

    fn call<'a>(&'a self, hook: Hook, headers: &'a HeaderMap, body: String) -> HookFuture<'a> {
        Box::pin(self.send(hook, headers, body))
    }
}

impl fmt::Debug for HttpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks: Vec<_> = self.endpoints.iter().map(|(hook, _)| hook).collect();
        f.debug_struct("HttpBackend")
            .field("hooks", &hooks)
            .finish_non_exhaustive()
    }
}
