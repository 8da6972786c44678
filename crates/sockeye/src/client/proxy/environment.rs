//! The proxy variables of the environment, with the rules of curl.

use std::fmt;

use sockeye_proto::handshake::Uri;

use crate::client::proxy::bypass::Bypass;
use crate::client::proxy::{InvalidProxy, Proxy};

/// Lower case precedes upper case, and the scheme of the URI precedes that of HTTP.
const WSS: [&str; 6] = [
    "wss_proxy",
    "WSS_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// `HTTP_PROXY` in upper case is missing: in CGI programs it contains the request header `Proxy`.
const WS: [&str; 5] = ["ws_proxy", "WS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"];

const BYPASS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The variables with their values, as they were when the environment was read.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    wss: Option<(&'static str, String)>,
    ws: Option<(&'static str, String)>,
    bypass: Option<String>,
}

impl Proxy {
    /// Returns the proxy for a URI from the environment, with the rules of curl. `None` means a direct connection.
    ///
    /// These variables are read, and the first that is not empty counts:
    ///
    /// | scheme | variables |
    /// |---|---|
    /// | `wss` | `wss_proxy`, `WSS_PROXY`, `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` |
    /// | `ws` | `ws_proxy`, `WS_PROXY`, `http_proxy`, `all_proxy`, `ALL_PROXY` |
    ///
    /// `HTTP_PROXY` in upper case is not read: in a CGI program it contains the request header `Proxy`. `no_proxy`, or
    /// else `NO_PROXY`, lists hosts that are connected to directly: see [`bypass`](Self::bypass). As in curl, loopback
    /// is no exception unless it is in that list.
    ///
    /// # Errors
    ///
    /// The variable contains an invalid URL. The error names it.
    pub fn from_env(uri: &Uri) -> Result<Option<Self>, InvalidProxy> {
        Variables::read(|name| std::env::var(name).ok()).proxy(uri)
    }
}

impl Variables {
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let mut values = names.iter().filter_map(|name| Some((*name, variable(name)?)));
            values.find(|(_, value)| !value.trim().is_empty())
        };
        Self {
            wss: first(&WSS),
            ws: first(&WS),
            bypass: first(&BYPASS).map(|(_, value)| value),
        }
    }

    /// The proxy for a URI, unless its host is exempt.
    pub(crate) fn proxy(&self, uri: &Uri) -> Result<Option<Proxy>, InvalidProxy> {
        let found = if uri.is_secure() { &self.wss } else { &self.ws };
        let Some((name, url)) = found else {
            return Ok(None);
        };
        let bypass = Bypass::parse(self.bypass.as_deref().unwrap_or_default());
        if bypass.matches(uri) {
            return Ok(None);
        }
        let proxy = Proxy::parse(url).map_err(|error| error.in_variable(name))?;
        Ok(Some(proxy))
    }
}

/// Omits the values, which may contain passwords.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |found: &Option<(&'static str, String)>| found.as_ref().map(|(name, _)| *name);
        f.debug_struct("Variables")
            .field("wss", &name(&self.wss))
            .field("ws", &name(&self.ws))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(uri: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name)?;
            Some(found.1.to_owned())
        };
        let read = Variables::read(variable);
        assert!(!format!("{read:?}").contains("secret"));
        let found = read
            .proxy(&Uri::parse(uri).unwrap())
            .map_err(|error| error.to_string())?;
        Ok(found.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn variable_of_the_scheme_comes_first() {
        let wss = "wss://api.a.example/";
        let ws = "ws://a.example/";
        for (uri, variables, expected) in [
            (wss, &[][..], None),
            (wss, &[("HTTPS_PROXY", "http://p:1")], Some("http://p:1")),
            (
                wss,
                &[("https_proxy", "p:1"), ("HTTPS_PROXY", "p:2")],
                Some("http://p:1"),
            ),
            (wss, &[("https_proxy", "p:1"), ("WSS_PROXY", "p:2")], Some("http://p:2")),
            (
                wss,
                &[("https_proxy", ""), ("ALL_PROXY", "socks5h://p:2")],
                Some("socks5h://p:2"),
            ),
            (wss, &[("http_proxy", "p:1"), ("ws_proxy", "p:1")], None),
            (ws, &[("http_proxy", "p:1"), ("ws_proxy", "p:2")], Some("http://p:2")),
            (ws, &[("http_proxy", "p:1")], Some("http://p:1")),
            // Only in lower case.
            (ws, &[("HTTP_PROXY", "p:1")], None),
            (ws, &[("HTTP_PROXY", "p:1"), ("ALL_PROXY", "p:2")], Some("http://p:2")),
            (
                ws,
                &[("ALL_PROXY", "socks5://u:secret@p:1"), ("all_proxy", "socks5://p:2")],
                Some("socks5://p:2"),
            ),
            // As in curl, and unlike in Go.
            ("ws://localhost/", &[("http_proxy", "p:1")], Some("http://p:1")),
            ("ws://[::1]/", &[("http_proxy", "p:1"), ("NO_PROXY", "::1")], None),
            (wss, &[("ALL_PROXY", "p:1"), ("NO_PROXY", "b.example, a.example")], None),
            (
                wss,
                &[("ALL_PROXY", "p:1"), ("no_proxy", "b.example"), ("NO_PROXY", "*")],
                Some("http://p:1"),
            ),
            (wss, &[("ALL_PROXY", "p:1"), ("no_proxy", "*")], None),
            (wss, &[("ALL_PROXY", "p:1"), ("no_proxy", ""), ("NO_PROXY", "*")], None),
            // A variable that is not used, or an exempt host, needs no valid URL.
            (
                wss,
                &[("https_proxy", "p:1"), ("ALL_PROXY", "ftp://p")],
                Some("http://p:1"),
            ),
            (wss, &[("https_proxy", "ftp://p"), ("NO_PROXY", "*")], None),
        ] {
            assert_eq!(
                proxy(uri, variables),
                Ok(expected.map(str::to_owned)),
                "{uri} {variables:?}"
            );
        }
        assert_eq!(
            proxy(wss, &[("ALL_PROXY", "socks4://bob:secret@p")]).unwrap_err(),
            "the URL of the proxy in the environment variable ALL_PROXY has an unsupported scheme; use http, https, \
             socks5 or socks5h"
        );
    }
}
