//! Detection of proxy variables in the environment, by the rules of curl. Proxies are not supported yet, and the user is
//! warned, because the connection may fail without the proxy.

use sockeye::handshake::Uri;

/// Returns the name of the variable that sets a proxy for this URI, unless the host is exempt.
pub(super) fn ignored_variable(uri: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let names = match uri.is_secure() {
        true => &[
            "wss_proxy",
            "WSS_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ][..],
        // HTTP_PROXY in upper case is ignored: in CGI programs it contains the request header `Proxy`.
        false => &["ws_proxy", "WS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"],
    };
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.trim().is_empty());
    let name = *names.iter().find(|name| is_set(name))?;
    let exempt = ["no_proxy", "NO_PROXY"].into_iter().find_map(variable);
    let is_exempt = exempt.is_some_and(|list| list.split(',').any(|entry| is_match(entry.trim(), uri.host())));
    (!is_exempt && !is_loopback(uri.host())).then_some(name)
}

/// Whether an entry of `NO_PROXY` matches a host: `*`, the host, or a parent domain.
fn is_match(entry: &str, host: &str) -> bool {
    let entry = entry.trim_start_matches('.').to_ascii_lowercase();
    match host.strip_suffix(entry.as_str()) {
        _ if entry == "*" => true,
        Some(rest) => !entry.is_empty() && (rest.is_empty() || rest.ends_with('.')),
        None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let is_loopback_ip = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    is_loopback_ip || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_the_scheme_is_found_unless_the_host_is_exempt() {
        let wss = "wss://api.a.example/";
        for (uri, variables, expected) in [
            (wss, &[][..], None),
            (wss, &[("HTTPS_PROXY", "http://p:1")], Some("HTTPS_PROXY")),
            (wss, &[("https_proxy", "http://p:1")], Some("https_proxy")),
            // As in curl, the variable of the scheme comes first.
            (
                wss,
                &[("https_proxy", "http://p:1"), ("wss_proxy", "http://p:2")],
                Some("wss_proxy"),
            ),
            (
                "ws://a.example/",
                &[("http_proxy", "http://p:1"), ("ws_proxy", "http://p:2")],
                Some("ws_proxy"),
            ),
            (wss, &[("ws_proxy", "http://p:1")], None),
            (wss, &[("HTTPS_PROXY", " ")], None),
            (wss, &[("http_proxy", "http://p:1")], None),
            ("ws://a.example/", &[("http_proxy", "http://p:1")], Some("http_proxy")),
            ("ws://a.example/", &[("ALL_PROXY", "socks5://p:1")], Some("ALL_PROXY")),
            (
                wss,
                &[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", "b.example, a.example")],
                None,
            ),
            (wss, &[("ALL_PROXY", "socks5://p:1"), ("no_proxy", "*")], None),
            (
                wss,
                &[("ALL_PROXY", "x"), ("NO_PROXY", "pi.a.example,,")],
                Some("ALL_PROXY"),
            ),
            ("ws://localhost:9001/", &[("ALL_PROXY", "x")], None),
            ("ws://[::1]:9001/", &[("ALL_PROXY", "x")], None),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(other, _)| *other == name)?;
                Some(found.1.to_owned())
            };
            assert_eq!(
                ignored_variable(&Uri::parse(uri).unwrap(), variable),
                expected,
                "{uri} {variables:?}"
            );
        }
    }
}
