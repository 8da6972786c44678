//! Values of flags: sizes, times, headers.

use std::num::NonZero;
use std::str::FromStr;
use std::time::Duration;

use sockeye::handshake::{Authority, ClientRequest, Key, OriginError, Subprotocol, Uri};
use sockeye::{Origin, OriginPolicy};

use crate::connect::escape;

/// The longest time that can be asked for; the clock reaches further.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long to wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// So long.
    For(Duration),
    /// Until the other side has had enough.
    Forever,
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => parse_duration(text).map(Self::For),
        }
    }
}

/// Whose web pages may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedOrigin {
    /// Anybody's: `*`.
    Any,
    /// This one's.
    Only(Origin),
}

impl AllowedOrigin {
    /// All that are allowed together; `None` if the flag was not given.
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

/// Reads a time: `10s`, `500ms`, `1.5m`, `2h`; seconds if it has no unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let advice = || String::from("write a time such as 10s, 500ms or 2m");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(advice()),
    };
    let number: f64 = number.parse().map_err(|_| advice())?;
    match Duration::try_from_secs_f64(number * unit_seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(advice()),
    }
}

/// Reads a header as curl's `-H` has it: `Name: value`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => (name, value.trim()),
        _ => return Err("write a header as `Name: value`".into()),
    };
    // A request that is never sent tells whether the header may be in one.
    let uri = Uri::parse("ws://localhost/").map_err(|error| error.to_string())?;
    match ClientRequest::new(&uri, Key::from_bytes([0; 16])).header(name, value) {
        Ok(_) => Ok((name.to_owned(), value.to_owned())),
        Err(error) => Err(format!("the header `{}` cannot be sent: {error}", escape(name))),
    }
}

/// Reads the name of a subprotocol.
pub(super) fn parse_subprotocol(text: &str) -> Result<String, String> {
    match Subprotocol::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write one name, without spaces, commas and other separators".into()),
    }
}

/// Reads where to listen; whether it can be had is seen later.
pub(super) fn parse_listen(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("write it as ADDRESS:PORT, such as 127.0.0.1:9001; 0.0.0.0 listens on all IPv4 addresses".into()),
    }
}

/// Reads a number of threads.
pub(super) fn parse_threads(text: &str) -> Result<NonZero<u8>, String> {
    text.parse()
        .map_err(|_| format!("write a number from 1 to {}", NonZero::<u8>::MAX))
}

/// Reads `host` or `host:port`.
pub(super) fn parse_host(text: &str) -> Result<Authority, String> {
    Authority::parse(text).map_err(|error| error.to_string())
}

/// Reads a size in bytes: `1000`, `64KiB`, `16MiB`, `1GB`.
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

/// A size as [`parse_size`] reads it, in the largest unit that leaves nothing over.
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
    fn sizes_are_shown_in_the_unit_that_fits() {
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
            ("2h", 7_200_000),
            ("3", 3_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Wait::Forever));
        assert_eq!("2s".parse(), Ok(Wait::For(Duration::from_secs(2))));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "s", "-1s", "1 s", "1d", "1.2.3s", "99999999h", "ever"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_is_parted_at_its_first_colon() {
        let parted = |text: &str| parse_header(text).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(
            parted("Authorization: Bearer a:b"),
            Ok("Authorization|Bearer a:b".into())
        );
        assert_eq!(parted("X-Empty:"), Ok("X-Empty|".into()));
        assert!(parted("no colon").is_err());
        for name in ["Sec-WebSocket-Key", "upgrade", "Host", "a b"] {
            let error = parted(&format!("{name}: x")).unwrap_err();
            assert!(error.contains(&format!("`{name}` cannot be sent")), "{error}");
        }
        assert!(parted(": value").is_err());
    }

    #[test]
    fn origins_add_up_to_a_policy() {
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
    fn an_address_to_listen_on_has_a_port() {
        for text in ["127.0.0.1:0", "localhost:65535", "[::1]:9001"] {
            assert_eq!(parse_listen(text), Ok(text.into()));
        }
        for text in [
            "",
            "foo",
            ":9001",
            "127.0.0.1",
            "127.0.0.1:",
            "a:65536",
            "a:http",
            "[::1]",
        ] {
            assert!(parse_listen(text).unwrap_err().contains("127.0.0.1:9001"), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
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
