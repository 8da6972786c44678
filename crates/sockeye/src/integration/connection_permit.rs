//! The permit of one connection under a limit of their number.

use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

/// The place of one connection under the limit of a [`HandshakeLayer`](crate::tower::HandshakeLayer), which puts it
/// into the extensions of the request. The place is free once all clones are dropped.
///
/// An [`Upgrader`](crate::hyper::Upgrader) and the extractor for axum keep it until the handler returns. With
/// [`upgrade`](crate::hyper::upgrade), or the upgrade of another library, remove it from
/// [`extensions`](http::Request::extensions_mut) and keep it as long as the connection.
#[derive(Clone)]
pub struct ConnectionPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl ConnectionPermit {
    #[cfg(feature = "tower")]
    pub(crate) fn new(permit: OwnedSemaphorePermit) -> Self {
        let _permit = Arc::new(permit);
        Self { _permit }
    }
}

impl fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPermit").finish_non_exhaustive()
    }
}
