//! Cookies (RFC 6265) that a client sends with its requests and receives in responses.

use http::HeaderValue;
use sockeye_proto::handshake::Uri;

/// Store of cookies, for [`ClientBuilder::cookie_store`](crate::ClientBuilder::cookie_store).
///
/// The store decides which cookies belong to a URI (RFC 6265 §5.4) and which are accepted from a response (§5.3).
/// `ws` and `wss` stand for `http` and `https` there: a cookie that a page received from `https://example.com` is sent
/// to `wss://example.com`. [`CookieJar`](crate::CookieJar) is an implementation, with the feature `cookie_store`.
pub trait CookieStore: Send + Sync {
    /// Returns the value of the Cookie header for a request to this URI; `None` if there is no cookie.
    fn cookies(&self, uri: &Uri) -> Option<HeaderValue>;

    /// Stores the cookies of a response to a request to this URI: the values of its `Set-Cookie` headers. Not called
    /// without one.
    fn set_cookies(&self, uri: &Uri, set_cookie: &mut dyn Iterator<Item = &HeaderValue>);
}

#[cfg(feature = "cookie_store")]
pub use jar::CookieJar;

#[cfg(feature = "cookie_store")]
mod jar {
    use std::fmt;
    use std::sync::{Mutex, MutexGuard};

    use cookie_store::CookieStore as Store;
    use http::HeaderValue;
    use sockeye_proto::handshake::Uri;
    use url::Url;

    use crate::client::cookies::CookieStore;
    use crate::sync::lock;

    /// Cookies in memory, with the rules of RFC 6265, implemented by the crate `cookie_store`.
    ///
    /// It does not know which domains are public suffixes such as `co.uk`, unless it is created from a store that does.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// let cookies = Arc::new(sockeye::CookieJar::default());
    /// let client = sockeye::Client::builder().cookie_store(cookies.clone()).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[derive(Default)]
    pub struct CookieJar(Mutex<Store>);

    impl CookieJar {
        /// Uses the cookies of a store, which may have been loaded from a file.
        #[must_use]
        pub fn new(store: Store) -> Self {
            Self(Mutex::new(store))
        }

        /// Locks the store, to inspect, change or save the cookies. Connecting waits while it is locked.
        pub fn lock(&self) -> MutexGuard<'_, Store> {
            lock(&self.0)
        }
    }

    impl CookieStore for CookieJar {
        fn cookies(&self, uri: &Uri) -> Option<HeaderValue> {
            let url = http_url(uri)?;
            let pairs: Vec<_> = self
                .lock()
                .get_request_values(&url)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if pairs.is_empty() {
                return None;
            }
            let mut value = HeaderValue::try_from(pairs.join("; ")).ok()?;
            value.set_sensitive(true);
            Some(value)
        }

        fn set_cookies(&self, uri: &Uri, set_cookie: &mut dyn Iterator<Item = &HeaderValue>) {
            let Some(url) = http_url(uri) else {
                return;
            };
            let mut store = self.lock();
            for value in set_cookie.filter_map(|value| value.to_str().ok()) {
                // RFC 6265 §5.2: an invalid cookie is ignored.
                let _ = store.parse(value, &url);
            }
        }
    }

    /// The URL with the scheme of HTTP, which decides about cookies with the attribute Secure.
    fn http_url(uri: &Uri) -> Option<Url> {
        let uri = uri.to_string();
        // `ws://` becomes `http://`, and `wss://` becomes `https://`.
        Url::parse(&format!("http{}", uri.strip_prefix("ws")?)).ok()
    }

    /// Omits the cookies.
    impl fmt::Debug for CookieJar {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("CookieJar")
        }
    }
}
