//! Options with a name: read from TOML, from environment variables and from flags, and described for the reference.

use std::any::Any;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeArray, DeValue};

use super::namespace::{Access, SlowConsumerPolicy};
use crate::auth::Secret;

/// The description of one option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionInfo {
    pub(crate) name: &'static str,
    /// The lines of its documentation.
    pub(crate) docs: &'static [&'static str],
    /// What a value looks like.
    pub(crate) kind: &'static str,
}

/// A group of options: a table of the configuration file.
pub(crate) trait Options: Any {
    /// The descriptions of all options.
    fn options(&self) -> &'static [OptionInfo];

    /// Sets an option. There must be one of this name.
    ///
    /// # Errors
    /// Returns what the value must be.
    fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), String>;

    /// The value of an option in TOML; `None` if it has none.
    fn get(&self, name: &str) -> Option<String>;

    /// Whether the option has the same value in another group of the same type. Compares secrets, which
    /// [`get`](Self::get) does not show.
    fn is_same(&self, name: &str, other: &dyn Options) -> bool;
}

/// The value of an option, before it is interpreted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// From a configuration file.
    Toml(&'a DeValue<'a>),
    /// From a flag or an environment variable. Lists are separated by commas.
    Text(&'a str),
}

/// A type of options.
pub(crate) trait OptionValue: Sized {
    /// What a value looks like.
    const KIND: &'static str;

    /// Interprets a value, or returns `None` if it is not valid.
    fn read(value: Value<'_>) -> Option<Self>;

    /// Formats the value as TOML; `None` if there is no value.
    fn write(&self) -> Option<String>;
}

/// How an option is read and written.
pub(crate) trait Format<T> {
    /// What a value looks like.
    const KIND: &'static str;

    /// Interprets a value, or returns `None` if it is not valid.
    fn read(value: Value<'_>) -> Option<T>;

    /// Formats the value as TOML; `None` if there is no value.
    fn write(value: &T) -> Option<String>;
}

/// The format of most options: that of their type.
#[derive(Debug)]
pub(crate) enum ByType {}

impl<T: OptionValue> Format<T> for ByType {
    const KIND: &'static str = T::KIND;

    fn read(value: Value<'_>) -> Option<T> {
        T::read(value)
    }

    fn write(value: &T) -> Option<String> {
        value.write()
    }
}

/// A number of bytes, which may have a unit.
#[derive(Debug)]
pub(crate) enum ByteSize {}

impl Format<usize> for ByteSize {
    const KIND: &'static str = "a number of bytes, or a size such as `\"64KiB\"`";

    fn read(value: Value<'_>) -> Option<usize> {
        read_size(value)?.try_into().ok()
    }

    fn write(value: &usize) -> Option<String> {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units
            .iter()
            .find(|(size, _)| *value >= *size && value.is_multiple_of(*size));
        Some(match unit {
            Some((size, unit)) => format!("\"{}{unit}\"", value / size),
            None => value.to_string(),
        })
    }
}

impl Format<Option<usize>> for ByteSize {
    const KIND: &'static str = <Self as Format<usize>>::KIND;

    fn read(value: Value<'_>) -> Option<Option<usize>> {
        match value {
            Value::Text(text) if text.trim().is_empty() => Some(None),
            value => <Self as Format<usize>>::read(value).map(Some),
        }
    }

    fn write(value: &Option<usize>) -> Option<String> {
        value.as_ref().and_then(<Self as Format<usize>>::write)
    }
}

impl<'a> Value<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Toml(_) => None,
            Self::Text(text) => Some(text),
        }
    }

    fn number(self) -> Option<u64> {
        match self {
            Self::Toml(DeValue::Integer(number)) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            Self::Toml(_) => None,
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    fn list(self) -> Option<Vec<Value<'a>>> {
        match self {
            Self::Toml(DeValue::Array(items)) => Some(toml_items(items)),
            Self::Toml(_) => None,
            Self::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(Value::Text).collect())
            }
        }
    }
}

fn toml_items<'a>(items: &'a DeArray<'a>) -> Vec<Value<'a>> {
    items.iter().map(|item| Value::Toml(item.get_ref())).collect()
}

/// Formats text as a TOML string.
pub(crate) fn quote(text: &str) -> String {
    // The escapes of JSON are a subset of those of TOML.
    serde_json::to_string(text).expect("a string is JSON")
}

impl OptionValue for bool {
    const KIND: &'static str = "`true` or `false`";

    fn read(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Toml(DeValue::Boolean(value)) => Some(*value),
            Value::Toml(_) => None,
            Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A number or a size with a unit.
fn read_size(value: Value<'_>) -> Option<u64> {
    if let Some(number) = value.number() {
        return Some(number);
    }
    let text = value.text()?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl OptionValue for usize {
    const KIND: &'static str = "a number";

    fn read(value: Value<'_>) -> Option<Self> {
        value.number()?.try_into().ok()
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl OptionValue for u64 {
    const KIND: &'static str = "a number";

    fn read(value: Value<'_>) -> Option<Self> {
        value.number()
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl OptionValue for u32 {
    const KIND: &'static str = "a number";

    fn read(value: Value<'_>) -> Option<Self> {
        value.number()?.try_into().ok()
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// The longest time of an option, a hundred years. Sums with the current time do not overflow.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl OptionValue for Duration {
    const KIND: &'static str = "a time such as `\"500ms\"`, `\"30s\"`, `\"5m\"` or `\"24h\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        let duration = match value {
            Value::Toml(DeValue::Integer(_)) => Self::from_secs(value.number()?),
            _ => parse_duration(value.text()?.trim())?,
        };
        (duration <= DURATION_MAX).then_some(duration)
    }

    fn write(&self) -> Option<String> {
        let seconds = self.as_secs();
        Some(match (self.subsec_millis(), seconds) {
            (0, 0) => "\"0s\"".to_owned(),
            (0, _) if seconds.is_multiple_of(3600) => format!("\"{}h\"", seconds / 3600),
            (0, _) if seconds.is_multiple_of(60) => format!("\"{}m\"", seconds / 60),
            (0, _) => format!("\"{seconds}s\""),
            _ => format!("\"{}ms\"", self.as_millis()),
        })
    }
}

/// Parses a time: numbers with units in descending order, such as `1m30s`, `500ms` or `1.5h`, or a number of seconds
/// without a unit. Returns `None` if it is not valid.
///
/// ```
/// use std::time::Duration;
/// use sockeye_server::settings::parse_duration;
///
/// assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
/// assert_eq!(parse_duration("10"), Some(Duration::from_secs(10)));
/// assert_eq!(parse_duration("30s1m"), None);
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) if is_number(text) => Duration::try_from_secs_f64(seconds).ok(),
        _ => sum_of_units(text),
    }
}

/// Whether the text has only digits and dots: `parse::<f64>` also accepts signs, exponents, `inf` and `NaN`.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn sum_of_units(text: &str) -> Option<Duration> {
    let (mut rest, mut sum, mut last_unit) = (text, Duration::ZERO, f64::INFINITY);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_seconds = match unit {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        if unit_seconds >= last_unit {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * unit_seconds).ok()?)?;
        (rest, last_unit) = (after, unit_seconds);
    }
    (!text.is_empty()).then_some(sum)
}

impl OptionValue for String {
    const KIND: &'static str = "text";

    fn read(value: Value<'_>) -> Option<Self> {
        value.text().map(str::to_owned)
    }

    fn write(&self) -> Option<String> {
        Some(quote(self))
    }
}

impl OptionValue for PathBuf {
    const KIND: &'static str = "a non-empty path";

    fn read(value: Value<'_>) -> Option<Self> {
        value.text().filter(|path| !path.is_empty()).map(Self::from)
    }

    fn write(&self) -> Option<String> {
        self.to_str().map(quote)
    }
}

impl OptionValue for Secret {
    const KIND: &'static str = "text, which is never logged";

    fn read(value: Value<'_>) -> Option<Self> {
        value.text().map(Self::new)
    }

    /// Shows that there is a secret, and not which.
    fn write(&self) -> Option<String> {
        Some("\"...\"".to_owned())
    }
}

impl<T: OptionValue> OptionValue for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Text(text) if text.trim().is_empty() => Some(None),
            value => T::read(value).map(Some),
        }
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(T::write)
    }
}

impl<T: OptionValue> OptionValue for Vec<T> {
    const KIND: &'static str = "a list";

    fn read(value: Value<'_>) -> Option<Self> {
        value.list()?.into_iter().map(T::read).collect()
    }

    fn write(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(T::write).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

impl OptionValue for Access {
    const KIND: &'static str = "`\"nobody\"`, `\"anyone\"`, `\"authenticated\"`, `\"subscriber\"` or `\"token\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        Some(match value.text()? {
            "nobody" => Self::Nobody,
            "anyone" => Self::Anyone,
            "authenticated" => Self::Authenticated,
            "subscriber" => Self::Subscriber,
            "token" => Self::Token,
            _ => return None,
        })
    }

    fn write(&self) -> Option<String> {
        Some(quote(match self {
            Self::Nobody => "nobody",
            Self::Anyone => "anyone",
            Self::Authenticated => "authenticated",
            Self::Subscriber => "subscriber",
            Self::Token => "token",
        }))
    }
}

impl OptionValue for SlowConsumerPolicy {
    const KIND: &'static str = "`\"disconnect\"`, `\"drop_oldest\"`, `\"latest\"` or `\"latest:TAG\"`";

    fn read(value: Value<'_>) -> Option<Self> {
        Some(match value.text()? {
            "disconnect" => Self::Disconnect,
            "drop_oldest" => Self::DropOldest,
            "latest" => Self::Latest { key_tag: None },
            text => Self::Latest {
                key_tag: Some(text.strip_prefix("latest:").filter(|tag| !tag.is_empty())?.to_owned()),
            },
        })
    }

    fn write(&self) -> Option<String> {
        Some(match self {
            Self::Disconnect => quote("disconnect"),
            Self::DropOldest => quote("drop_oldest"),
            Self::Latest { key_tag: None } => quote("latest"),
            Self::Latest { key_tag: Some(tag) } => quote(&format!("latest:{tag}")),
        })
    }
}

/// Declares a struct of options with their defaults, which implements [`Options`] and [`Default`].
///
/// `as FORMAT` behind a type selects another [`Format`]. The fields in `library_only { … }` are no options: the program
/// derives them from other settings.
macro_rules! options {
    (@format) => { $crate::config::options::ByType };
    (@format $format:ident) => { $crate::config::options::$format };
    (
        $(#[doc = $struct_doc:literal])*
        $(#[derive($($derive:ident),*)])?
        pub $(($visibility:ident))? struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                pub $(($field_visibility:ident))? $field:ident: $type:ty $(as $format:ident)? = $default:expr,
            )*
            $(library_only {
                $(
                    $(#[doc = $library_doc:literal])*
                    pub $library_field:ident: $library_type:ty = $library_default:expr,
                )*
            })?
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug $($(, $derive)*)?)]
        #[non_exhaustive]
        pub $(($visibility))? struct $name {
            $($(#[doc = $doc])* pub $(($field_visibility))? $field: $type,)*
            $($($(#[doc = $library_doc])* pub $library_field: $library_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($library_field: $library_default,)*)?
                }
            }
        }

        impl $crate::config::options::Options for $name {
            fn options(&self) -> &'static [$crate::config::options::OptionInfo] {
                use $crate::config::options::{Format, OptionInfo, options};
                const OPTIONS: &[OptionInfo] = &[
                    $(OptionInfo {
                        name: stringify!($field),
                        docs: &[$($doc),*],
                        kind: <options!(@format $($format)?) as Format<$type>>::KIND,
                    },)*
                ];
                OPTIONS
            }

            fn set(&mut self, name: &str, value: $crate::config::options::Value<'_>) -> Result<(), String> {
                use $crate::config::options::{Format, options};
                match name {
                    $(stringify!($field) => {
                        match <options!(@format $($format)?) as Format<$type>>::read(value) {
                            Some(value) => self.$field = value,
                            None => {
                                return Err(<options!(@format $($format)?) as Format<$type>>::KIND.to_owned());
                            }
                        }
                    })*
                    _ => debug_assert!(false, "unknown option {name}"),
                }
                Ok(())
            }

            fn get(&self, name: &str) -> Option<String> {
                use $crate::config::options::{Format, options};
                match name {
                    $(stringify!($field) => <options!(@format $($format)?) as Format<$type>>::write(&self.$field),)*
                    _ => None,
                }
            }

            fn is_same(&self, name: &str, other: &dyn $crate::config::options::Options) -> bool {
                let other: &dyn std::any::Any = other;
                let Some(other) = other.downcast_ref::<Self>() else {
                    return false;
                };
                match name {
                    $(stringify!($field) => self.$field == other.$field,)*
                    _ => true,
                }
            }
        }
    };
}

pub(crate) use options;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: OptionValue + PartialEq + std::fmt::Debug>(text: &str, expect: Option<T>) {
        assert_eq!(T::read(Value::Text(text)), expect, "{text}");
    }

    #[test]
    fn sizes_times_and_lists_are_read_from_text() {
        let size = |text| <ByteSize as Format<usize>>::read(Value::Text(text));
        assert_eq!(size("64KiB"), Some(64 << 10));
        assert_eq!(size("1 MB"), Some(1_000_000));
        assert_eq!(size("17"), Some(17));
        for text in ["", "KiB", "1.5MiB", "1kb", "-1", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        check("17", Some(17usize));
        check::<usize>("64KiB", None);
        check("500ms", Some(Duration::from_millis(500)));
        check("2m", Some(Duration::from_secs(120)));
        check("1d", Some(Duration::from_secs(86_400)));
        check("1m30s", Some(Duration::from_secs(90)));
        check("1.5s", Some(Duration::from_millis(1500)));
        // As with --drain 5.
        check("5", Some(Duration::from_secs(5)));
        for text in ["", "-5", "s", "5 parsecs", "30s1m", "36501d", "99999999999999999999h"] {
            check::<Duration>(text, None);
        }
        check("a, b,,", Some(vec!["a".to_owned(), "b".to_owned()]));
        check("", Some(None::<u32>));
        check(
            "latest:symbol",
            Some(SlowConsumerPolicy::Latest {
                key_tag: Some("symbol".to_owned()),
            }),
        );
        check::<SlowConsumerPolicy>("latest:", None);
        check("On", Some(true));
    }

    #[test]
    fn written_values_are_read_again() {
        fn round_trip<T: OptionValue + PartialEq + std::fmt::Debug>(value: T) {
            let written = value.write().unwrap();
            let document = format!("x = {written}");
            let table = toml::de::DeTable::parse(&document).unwrap();
            let read = table.get_ref().get("x").unwrap();
            assert_eq!(T::read(Value::Toml(read.get_ref())), Some(value), "{written}");
        }
        for count in [0usize, 1, 1024, 3 << 20] {
            round_trip(count);
            assert_eq!(count.write(), Some(count.to_string()));
        }
        for (bytes, written) in [
            (0usize, "0"),
            (1000, "1000"),
            (1024, "\"1KiB\""),
            (1025, "1025"),
            (3 << 20, "\"3MiB\""),
        ] {
            assert_eq!(ByteSize::write(&bytes).unwrap(), written);
            assert_eq!(
                <ByteSize as Format<usize>>::read(Value::Text(written.trim_matches('"'))),
                Some(bytes)
            );
            assert_eq!(ByteSize::write(&Some(bytes)).unwrap(), written);
        }
        for milliseconds in [0, 1, 1500, 33_000, 60_000, 90_000, 86_400_000] {
            round_trip(Duration::from_millis(milliseconds));
        }
        for who in [
            Access::Nobody,
            Access::Anyone,
            Access::Authenticated,
            Access::Subscriber,
            Access::Token,
        ] {
            round_trip(who);
        }
        round_trip(vec!["a \"quoted\" \\ \n text \u{1}".to_owned(), String::new()]);
        round_trip(SlowConsumerPolicy::DropOldest);
        round_trip(SlowConsumerPolicy::Latest {
            key_tag: Some("k".to_owned()),
        });
        round_trip(true);
    }
}
