//! Which hosts a server answers for.
//!
//! A page of `attacker.net` can have its own name resolve to 127.0.0.1 a minute later (DNS
//! rebinding). Its requests then reach a server on this machine with `attacker.net` as origin and as
//! host alike, which passes for the same host. Checking the host itself is what stops it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::denial::listed;
use super::{Authority, Denial, HandshakeError, Request};

/// Which hosts a request may be for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Any host. Right for a server that faces the network, where names are the proxy's matter.
    #[default]
    Any,
    /// `localhost`, names under it, and loopback addresses, at any port. Right for a server that
    /// listens on a loopback address and has no proxy in front.
    Loopback,
    /// These hosts; one given without a port is meant at any port.
    List(Vec<Authority>),
}

impl HostPolicy {
    /// Judges a request.
    ///
    /// # Errors
    /// [`HandshakeError::HostDenied`], which is answered with 421 and names the host and what is allowed.
    pub fn check(&self, request: &Request) -> Result<(), HandshakeError> {
        let authority = request.authority();
        let is_allowed = match self {
            Self::Any => true,
            Self::Loopback => is_loopback(authority.host()),
            Self::List(hosts) => hosts.iter().any(|host| {
                host.host() == authority.host() && (host.port().is_none() || host.port() == authority.port())
            }),
        };
        if is_allowed {
            return Ok(());
        }
        let allowed = match self {
            Self::Any => "any".into(),
            Self::Loopback => "localhost, names under it and loopback addresses".into(),
            Self::List(hosts) => listed(hosts),
        };
        Err(HandshakeError::HostDenied(Box::new(Denial::new(request, allowed))))
    }
}

/// RFC 6761 §6.3 for the names.
fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}
