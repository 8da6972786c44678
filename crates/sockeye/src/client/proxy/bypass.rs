//! The hosts that are connected to without a proxy: the syntax of `NO_PROXY`, as curl reads it, and ports.

use std::fmt;
use std::net::IpAddr;

use sockeye_proto::handshake::Uri;

/// A list of hosts.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bypass(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    hosts: Hosts,
    /// `None` means every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// A domain and its subdomains, in lower case, without dots at both ends.
    Domain(String),
    /// The addresses that have these leading bits in common with the address.
    Network {
        address: IpAddr,
        prefix_len: u32,
    },
}

impl Bypass {
    /// Parses a list. Entries that are no host match nothing.
    pub(crate) fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter_map(Rule::parse).collect())
    }

    /// Whether the list contains the host and port of a URI.
    pub(crate) fn matches(&self, uri: &Uri) -> bool {
        let host = uri.host().trim_end_matches('.');
        let address = host.parse().ok();
        self.0
            .iter()
            .any(|rule| rule.port.is_none_or(|port| port == uri.port()) && rule.hosts.contains(host, address))
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        if let Some(hosts) = Hosts::parse(entry) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = entry.rsplit_once(':')?;
        Some(Self {
            hosts: Hosts::parse(host)?,
            port: Some(port.parse().ok()?),
        })
    }
}

impl Hosts {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        let (address, prefix_len) = match entry.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (entry, None),
        };
        let unbracketed = address
            .strip_prefix('[')
            .and_then(|address| address.strip_suffix(']'))
            .unwrap_or(address);
        if let Ok(address) = unbracketed.parse::<IpAddr>() {
            let max = if address.is_ipv4() { 32 } else { 128 };
            let prefix_len = prefix_len.map_or(Some(max), |len| len.parse().ok())?;
            return (prefix_len <= max).then_some(Self::Network { address, prefix_len });
        }
        let domain = entry.trim_end_matches('.').trim_start_matches('.');
        let is_domain = !domain.is_empty() && !domain.contains(['/', ':', '[', ']', '*']);
        is_domain.then(|| Self::Domain(domain.to_ascii_lowercase()))
    }

    fn contains(&self, host: &str, host_address: Option<IpAddr>) -> bool {
        match (self, host_address) {
            (Self::All, _) => true,
            (Self::Domain(domain), None) => match host.strip_suffix(domain.as_str()) {
                Some(rest) => rest.is_empty() || rest.ends_with('.'),
                None => false,
            },
            (Self::Network { address, prefix_len }, Some(host)) => match (bits(*address), bits(host)) {
                ((address, true), (host, true)) | ((address, false), (host, false)) => {
                    // Addresses are in the upper bits, so that both families are compared alike.
                    let different = address ^ host;
                    different.leading_zeros() >= *prefix_len
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// The address in the upper bits of a number, and whether it is IPv6.
fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, false),
        IpAddr::V6(v6) => (v6.to_bits(), true),
    }
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_as_curl_does() {
        for (list, uri, expected) in [
            ("", "ws://a.example/", false),
            ("*", "ws://a.example/", true),
            ("b.example, *", "ws://a.example/", true),
            // Domains with and without a dot match subdomains, but no other name with the same end.
            ("example.com", "ws://example.com/", true),
            ("example.com", "ws://www.example.com/", true),
            (".example.com", "ws://example.com/", true),
            (".example.com", "ws://www.example.com/", true),
            ("example.com", "ws://nonexample.com/", false),
            ("www.example.com", "ws://example.com/", false),
            ("EXAMPLE.com.", "ws://Example.COM./", true),
            ("localhost", "ws://localhost:9001/", true),
            ("*.example.com", "ws://www.example.com/", false),
            // Separators are commas and white space.
            ("a.example,b.example", "ws://b.example/", true),
            (" a.example\tb.example ,, c.example", "ws://c.example/", true),
            // Addresses and networks.
            ("192.0.2.1", "ws://192.0.2.1/", true),
            ("192.0.2.1", "ws://192.0.2.11/", false),
            ("192.0.2.1", "ws://x.192.0.2.1.example/", false),
            ("10.0.0.0/8", "ws://10.255.1.2/", true),
            ("10.0.0.0/8", "ws://11.0.0.1/", false),
            ("192.0.2.128/25", "ws://192.0.2.127/", false),
            ("192.0.2.128/25", "ws://192.0.2.129/", true),
            ("0.0.0.0/0", "ws://203.0.113.9/", true),
            ("0.0.0.0/0", "ws://[::1]/", false),
            ("10.0.0.0/33", "ws://10.0.0.1/", false),
            ("10.0.0.0/x", "ws://10.0.0.1/", false),
            ("::1", "ws://[::1]:9001/", true),
            ("[::1]", "ws://[::1]:9001/", true),
            ("2001:db8::/32", "ws://[2001:db8:1::1]/", true),
            ("2001:db8::/32", "ws://[2001:db9::1]/", false),
            ("::/0", "ws://10.0.0.1/", false),
            ("127.0.0.1", "ws://localhost/", false),
            // Ports.
            ("example.com:8080", "ws://www.example.com:8080/", true),
            ("example.com:8080", "ws://example.com/", false),
            ("example.com:443", "wss://example.com/", true),
            ("192.0.2.1:81", "ws://192.0.2.1:81/", true),
            ("[::1]:81", "ws://[::1]:81/", true),
            ("[::1]:81", "ws://[::1]:82/", false),
            ("example.com:x", "ws://example.com/", false),
        ] {
            let found = Bypass::parse(list).matches(&Uri::parse(uri).unwrap());
            assert_eq!(found, expected, "{list:?} {uri}");
        }
    }
}
