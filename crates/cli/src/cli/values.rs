//! Parsers for the values of flags: sizes, times, headers.

use std::num::NonZero;
use std::str::FromStr;
use std::time::Duration;

use sockeye::handshake::{ClientRequest, Key, OriginError, Subprotocol, Uri};
use sockeye::{InvalidProxy, Origin, OriginPolicy, Proxy};
use tracing_subscriber::filter::Targets;

use crate::escape::escape;

/// The longest accepted time, which is in the range of the clock.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The format of a time, for error messages.
const DURATION_ADVICE: &str = "write a time such as 90, 500ms, 10s or 1m30s";

/// How long to wait for more messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For this time.
    For(Duration),
    /// Until the peer closes the connection.
    Forever,
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => match parse_duration(text) {
                Ok(duration) => Ok(Self::For(duration)),
                Err(advice) => Err(format!("{advice}, or `forever`")),
            },
        }
    }
}

/// A timer that can be disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Expires after this time, which is not zero.
    After(Duration),
    /// Never expires: `off` or `0`.
    Off,
}

impl Timer {
    /// The time, or `None` if the timer is off.
    pub(crate) const fn duration(self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::Off => None,
        }
    }
}

impl FromStr for Timer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => match parse_duration(text) {
                Ok(Duration::ZERO) => Ok(Self::Off),
                Ok(duration) => Ok(Self::After(duration)),
                Err(advice) => Err(format!("{advice}, or `off`")),
            },
        }
    }
}

/// A value of `--proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyOption {
    /// Empty: connect directly, also if the environment sets a proxy.
    None,
    /// Connect through this proxy.
    Proxy(Proxy),
}

impl FromStr for ProxyOption {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        match text {
            "" => Ok(Self::None),
            url => Proxy::parse(url).map(Self::Proxy),
        }
    }
}

/// A value of `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedOrigin {
    /// `*`: pages of any origin.
    Any,
    /// Pages of this origin.
    Only(Origin),
}

impl AllowedOrigin {
    /// Combines all values to a policy; `None` if the flag was not given.
    pub(crate) fn policy(allowed: &[Self]) -> Option<OriginPolicy> {
        let list: Option<Vec<_>> = allowed
            .iter()
            .map(|allowed| match allowed {
                Self::Any => None,
                Self::Only(origin) => Some(origin.clone()),
            })
            .collect();
        match list {
            None => Some(OriginPolicy::Any),
            Some(list) => (!list.is_empty()).then_some(OriginPolicy::List(list)),
        }
    }
}

impl FromStr for AllowedOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        match text {
            "*" => Ok(Self::Any),
            _ => Origin::parse(text).map(Self::Only),
        }
    }
}

/// Parses a time: numbers with units in descending order, such as `1m30s`, `500ms` or `1.5h`, or a number of seconds
/// without a unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match sockeye_server::settings::parse_duration(text) {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        Some(_) => Err(format!("the maximum is 365d; {DURATION_ADVICE}")),
        None => Err(DURATION_ADVICE.into()),
    }
}

/// A header given with `-H`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Sent unchanged.
    Plain { name: String, value: String },
    /// `Sec-WebSocket-Protocol`, with the offered subprotocols.
    Subprotocols(Vec<String>),
    /// `Origin`.
    Origin(Origin),
}

impl FromStr for Header {
    type Err = String;

    /// Parses a header in the format of curl's `-H`: `Name: value`. Headers that have their own option are treated like
    /// that option.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) if !name.is_empty() => (name, value.trim()),
            _ => return Err("write a header as `Name: value`".into()),
        };
        match name.to_ascii_lowercase().as_str() {
            "sec-websocket-protocol" => return parse_subprotocols(value),
            "origin" => {
                return Origin::parse(value)
                    .map(Self::Origin)
                    .map_err(|error| error.to_string());
            }
            _ => {}
        }
        // Build a request, which validates the header.
        let uri = Uri::parse("ws://localhost/").map_err(|error| error.to_string())?;
        match ClientRequest::new(&uri, Key::from_bytes([0; 16])).header(name, value) {
            Ok(_) => Ok(Self::Plain {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            Err(error) => Err(format!(
                "the header `{}` cannot be sent: {error}{}",
                escape(name),
                advice_for_header(name)
            )),
        }
    }
}

fn parse_subprotocols(value: &str) -> Result<Header, String> {
    let names = value.split(',').map(str::trim);
    let names: Result<Vec<_>, _> = names.filter(|name| !name.is_empty()).map(parse_subprotocol).collect();
    match names {
        Ok(names) if names.is_empty() => Err("write at least one subprotocol, or omit the header".into()),
        Ok(names) => Ok(Header::Subprotocols(names)),
        Err(advice) => Err(format!("{advice}; --subprotocol does the same")),
    }
}

fn advice_for_header(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        "sec-websocket-extensions" => "; --compression offers permessage-deflate",
        "host" => "; it comes from the URL",
        _ => "",
    }
}

/// Parses the name of a subprotocol.
pub(super) fn parse_subprotocol(text: &str) -> Result<String, String> {
    match Subprotocol::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write one name, without spaces, commas or other separators".into()),
    }
}

/// Parses an address to listen on: `ADDRESS:PORT`, or `:PORT` or `PORT` for the loopback address.
pub(super) fn parse_listen(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_host = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    match (is_port && is_host, host) {
        (true, "") => Ok(format!("127.0.0.1:{port}")),
        (true, _) => Ok(text.to_owned()),
        (false, _) => Err(
            "write ADDRESS:PORT, such as 127.0.0.1:9001, or :PORT for connections from this machine only; \
             0.0.0.0 listens on all IPv4 addresses, [::] on all addresses"
                .into(),
        ),
    }
}

/// Parses a log filter: a level, or a list of `target=level`. Words that are not levels are rejected, because
/// `tracing-subscriber` would treat them as targets and log nothing else.
pub(super) fn parse_log_filter(text: &str) -> Result<Targets, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_good = text.split(',').all(|directive| match directive.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    });
    match text.parse() {
        Ok(targets) if is_good => Ok(targets),
        _ => Err(format!("write one of {}, or target=level,...", LEVELS.join(", "))),
    }
}

/// Parses a number of messages.
pub(super) fn parse_count(text: &str) -> Result<NonZero<u64>, String> {
    text.parse().map_err(|_| "write a number of messages, 1 or more".into())
}

/// Parses a number of threads.
pub(super) fn parse_threads(text: &str) -> Result<NonZero<u8>, String> {
    text.parse()
        .map_err(|_| format!("write a number from 1 to {}", NonZero::<u8>::MAX))
}

/// Parses a size in bytes: `1000`, `64KiB`, `16MiB`, `1GB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return Err("write a size such as 1000, 64KiB or 16MiB".into()),
    };
    let size = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(unit_bytes));
    match size {
        Some(0) => Err("at least 1 byte is needed; write a size such as 1000, 64KiB or 16MiB".into()),
        Some(size) => Ok(size),
        None => Err("write a size such as 1000, 64KiB or 16MiB".into()),
    }
}

/// Formats a size in the format of [`parse_size`], in the largest binary unit without a remainder.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units
        .into_iter()
        .find(|(_, unit_bytes)| bytes != 0 && bytes.is_multiple_of(*unit_bytes));
    match unit {
        Some((unit, unit_bytes)) => format!("{} {unit}", bytes / unit_bytes),
        None if bytes == 1 => "1 byte".into(),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_their_unit_says() {
        for (text, size) in [
            ("1", 1),
            ("7B", 7),
            ("2k", 2_000),
            ("64KiB", 65_536),
            ("16 mib", 16 << 20),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn sizes_are_formatted_in_the_largest_exact_unit() {
        for (bytes, text) in [
            (1, "1 byte"),
            (1000, "1000 bytes"),
            (1 << 10, "1 KiB"),
            (16 << 20, "16 MiB"),
            (3 << 30, "3 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("1m30s", 90_000),
            ("1h1ms", 3_600_001),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("90", 90_000),
            ("0.5", 500),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Wait::Forever));
        assert_eq!("1m30s".parse(), Ok(Wait::For(Duration::from_secs(90))));
    }

    #[test]
    fn invalid_times_are_rejected() {
        for text in [
            "",
            "s",
            "-1s",
            "1 s",
            "1y",
            "1.2.3s",
            "99999999h",
            "366d",
            "ever",
            "inf",
            "NaN",
            "1e3",
            "30s1m",
            "1m30",
            "1s1s",
            ".",
            "off",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_timer_of_zero_is_off() {
        for text in ["off", "0", "0s", "0ms"] {
            assert_eq!(text.parse(), Ok(Timer::Off), "{text}");
        }
        assert_eq!("1s".parse(), Ok(Timer::After(Duration::from_secs(1))));
        assert!("never".parse::<Timer>().unwrap_err().contains("`off`"));
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        let plain = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            Ok(Header::Plain { name, value })
        };
        assert_eq!(
            "Authorization: Bearer a:b".parse(),
            plain("Authorization", "Bearer a:b")
        );
        assert_eq!("X-Empty:".parse(), plain("X-Empty", ""));
        assert!("no colon".parse::<Header>().is_err());
        assert!(": value".parse::<Header>().is_err());
    }

    #[test]
    fn a_header_with_its_own_option_is_treated_like_the_option() {
        let names = |names: &[&str]| Ok(Header::Subprotocols(names.iter().copied().map(Into::into).collect()));
        assert_eq!("Sec-WebSocket-Protocol: a, b".parse(), names(&["a", "b"]));
        assert_eq!("sec-websocket-protocol:a,,b".parse(), names(&["a", "b"]));
        let origin = Origin::parse("https://a.example").unwrap();
        assert_eq!("Origin: https://a.example".parse(), Ok(Header::Origin(origin)));
        for (text, advice) in [
            ("Sec-WebSocket-Protocol: a b", "--subprotocol"),
            ("Sec-WebSocket-Protocol:", "at least one"),
            ("Origin: a.example", "scheme://host"),
        ] {
            let error = text.parse::<Header>().unwrap_err();
            assert!(error.contains(advice), "{error}");
        }
    }

    #[test]
    fn headers_of_the_handshake_are_rejected_by_name() {
        for (name, advice) in [
            ("Sec-WebSocket-Key", ""),
            ("Sec-WebSocket-Version", ""),
            ("Sec-WebSocket-Extensions", "--compression"),
            ("upgrade", ""),
            ("Connection", ""),
            ("Content-Length", ""),
            ("Host", "from the URL"),
            ("a b", ""),
        ] {
            let error = format!("{name}: x").parse::<Header>().unwrap_err();
            assert!(error.contains(&format!("`{name}` cannot be sent")), "{error}");
            assert!(error.contains(advice), "{error}");
        }
    }

    #[test]
    fn a_log_filter_consists_of_levels() {
        for text in ["off", "info", "WARN", "debug,hyper=off", "sockeye=trace"] {
            assert!(parse_log_filter(text).is_ok(), "{text}");
        }
        for text in ["", "bogus", "hyper", "hyper=loud", "=info", "info,"] {
            assert!(parse_log_filter(text).unwrap_err().contains("trace"), "{text}");
        }
    }

    #[test]
    fn origins_are_combined_to_a_policy() {
        let policy = |texts: &[&str]| {
            let allowed: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
            AllowedOrigin::policy(&allowed)
        };
        let origin = |text| Origin::parse(text).unwrap();
        assert_eq!(policy(&[]), None);
        let list = vec![origin("https://a.example"), origin("http://b.example")];
        assert_eq!(
            policy(&["https://a.example", "http://b.example"]),
            Some(OriginPolicy::List(list))
        );
        assert_eq!(policy(&["https://a.example", "*"]), Some(OriginPolicy::Any));
        assert!("*.example".parse::<AllowedOrigin>().is_err());
    }

    #[test]
    fn a_listen_address_needs_a_port() {
        for text in ["127.0.0.1:0", "localhost:65535", "[::1]:9001"] {
            assert_eq!(parse_listen(text), Ok(text.into()));
        }
        for text in [":9001", "9001"] {
            assert_eq!(parse_listen(text), Ok("127.0.0.1:9001".into()));
        }
        for text in [
            "",
            ":",
            "foo",
            "127.0.0.1",
            "127.0.0.1:",
            "a:65536",
            "a:http",
            "a:+1",
            "[::1]",
            "::1:9001",
        ] {
            assert!(parse_listen(text).unwrap_err().contains("127.0.0.1:9001"), "{text}");
        }
    }

    #[test]
    fn invalid_sizes_are_rejected() {
        for text in [
            "",
            "0",
            "KiB",
            "-1",
            "1.5MiB",
            "1 TiB",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
