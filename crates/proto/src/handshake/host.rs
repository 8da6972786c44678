//! Host policy: which hosts a server accepts requests for. Protects against DNS rebinding.
//!
//! In a DNS rebinding attack, a page of `attacker.net` changes the DNS record of its own name to 127.0.0.1. Its
//! requests then reach a server on the user's machine with `attacker.net` as both origin and host, so a same-host
//! origin check passes. Checking the host itself prevents this.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::denial::join_entries;
use super::{Authority, Denial, HandshakeError, Request};

/// The hosts that a server accepts requests for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Any host. For servers on a network, where a proxy or DNS determines the host.
    #[default]
    Any,
    /// `localhost`, its subdomains and loopback addresses, at any port. For servers that listen on a loopback address
    /// and are not behind a proxy.
    Loopback,
    /// The listed hosts. An entry without a port matches any port.
    List(Vec<Authority>),
}

impl HostPolicy {
    /// Checks whether a request is for an allowed host.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::HostDenied`] (status 421), which contains the host and the allowed hosts. Pass it to
    /// [`Incoming::reject_with_error`](super::Incoming::reject_with_error).
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
            Self::Loopback => "localhost, its subdomains and loopback addresses".into(),
            Self::List(hosts) => join_entries(hosts),
        };
        Err(HandshakeError::HostDenied(Box::new(Denial::new(
            request.origin(),
            request.authority(),
            allowed,
        ))))
    }
}

/// Whether the host is a loopback address or a localhost name (RFC 6761 §6.3).
fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}
