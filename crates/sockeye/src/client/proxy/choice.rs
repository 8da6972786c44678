//! Which proxy a connection uses.

use sockeye_proto::handshake::Uri;

use crate::client::proxy::environment::Variables;
use crate::client::proxy::{InvalidProxy, Proxy};

/// Which proxy the connections of a client use.
#[derive(Clone, Debug, Default)]
pub(crate) enum ProxyChoice {
    /// None.
    #[default]
    Direct,
    /// This one, unless it is bypassed.
    Fixed(Proxy),
    /// The one that the environment sets for the URI.
    Environment(Variables),
}

impl ProxyChoice {
    /// The proxy for a URI. `None` means a direct connection.
    pub(crate) fn proxy(&self, uri: &Uri) -> Result<Option<Proxy>, InvalidProxy> {
        match self {
            Self::Direct => Ok(None),
            Self::Fixed(proxy) if proxy.is_bypassed(uri) => Ok(None),
            Self::Fixed(proxy) => Ok(Some(proxy.clone())),
            Self::Environment(variables) => variables.proxy(uri),
        }
    }
}
