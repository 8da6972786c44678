//! Decimal numbers compared as text, exactly and without allocation.
//!
//! The grammar is the one of the decimal type that Centrifugo uses: an optional sign, digits, and optionally a point
//! with 1 to 19 digits; at most 200 bytes. Exponents, spaces, `.5` and `5.` are invalid.

use std::cmp::Ordering;

const LEN_MAX: usize = 200;
const FRACTION_DIGITS_MAX: usize = 19;

/// A decimal number in the text it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal<'a> {
    is_negative: bool,
    /// Without leading zeros: a longer one is a larger number.
    integer: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > LEN_MAX {
            return None;
        }
        let (is_negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (integer, fraction) = match digits.split_once('.') {
            Some((_, fraction)) if fraction.is_empty() || fraction.len() > FRACTION_DIGITS_MAX => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if integer.is_empty() || !are_digits(integer) || !are_digits(fraction) {
            return None;
        }
        let integer = integer.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        Some(Self {
            is_negative: is_negative && !(integer.is_empty() && fraction.is_empty()),
            integer,
            fraction,
        })
    }

    pub(super) fn cmp(&self, other: &Decimal<'_>) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
        }
    }

    fn cmp_magnitude(&self, other: &Decimal<'_>) -> Ordering {
        let by_length = self.integer.len().cmp(&other.integer.len());
        by_length
            .then_with(|| self.integer.cmp(other.integer))
            .then_with(|| self.fraction.cmp(other.fraction))
    }
}

/// A [`Decimal`] that owns its digits.
#[derive(Clone, Debug)]
pub(super) struct DecimalBuf {
    is_negative: bool,
    integer: Box<str>,
    fraction: Box<str>,
}

impl DecimalBuf {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let decimal = Decimal::parse(text)?;
        Some(Self {
            is_negative: decimal.is_negative,
            integer: decimal.integer.into(),
            fraction: decimal.fraction.into(),
        })
    }

    pub(super) fn as_decimal(&self) -> Decimal<'_> {
        Decimal {
            is_negative: self.is_negative,
            integer: &self.integer,
            fraction: &self.fraction,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(left: &str, right: &str) -> Ordering {
        let right = DecimalBuf::parse(right).unwrap();
        Decimal::parse(left).unwrap().cmp(&right.as_decimal())
    }

    #[test]
    fn numbers_compare_by_value() {
        for (left, right, expect) in [
            ("1", "1", Ordering::Equal),
            ("1", "1.0", Ordering::Equal),
            ("+1", "001.000", Ordering::Equal),
            ("-0", "0", Ordering::Equal),
            ("-0.00", "+0", Ordering::Equal),
            ("9", "10", Ordering::Less),
            ("0.9", "0.10", Ordering::Greater),
            ("-9", "-10", Ordering::Greater),
            ("-1", "0", Ordering::Less),
            ("-0.5", "-0.25", Ordering::Less),
            ("42.00000001", "42", Ordering::Greater),
            ("41.99999999", "42", Ordering::Less),
            ("0.1234567890123456789", "0.1234567890123456788", Ordering::Greater),
            (
                "340282366920938463463374607431768211457",
                "340282366920938463463374607431768211456",
                Ordering::Greater,
            ),
        ] {
            assert_eq!(compare(left, right), expect, "{left} {right}");
            assert_eq!(compare(right, left), expect.reverse(), "{right} {left}");
        }
    }

    #[test]
    fn only_plain_decimals_are_numbers() {
        for text in [
            "",
            "+",
            "-",
            ".",
            ".5",
            "5.",
            "-.5",
            "1e5",
            " 1",
            "1 ",
            "1_000",
            "0x10",
            "--1",
            "+-1",
            "1.2.3",
            "NaN",
            "inf",
            "1,5",
            "\u{661}",
            "1.\u{661}",
            "1.+5",
        ] {
            assert!(Decimal::parse(text).is_none(), "{text:?}");
        }
        assert!(Decimal::parse("0.1234567890123456789").is_some());
        assert!(Decimal::parse("0.12345678901234567890").is_none());
        assert!(Decimal::parse(&"9".repeat(200)).is_some());
        assert!(Decimal::parse(&"9".repeat(201)).is_none());
    }

    proptest! {
        #[test]
        fn integers_agree_with_i128(left: i128, right: i128) {
            prop_assert_eq!(compare(&left.to_string(), &right.to_string()), left.cmp(&right));
        }

        #[test]
        fn fractions_agree_with_scaled_integers(left in -99_999i64..=99_999, right in -99_999i64..=99_999) {
            let text = |value: i64| {
                let sign = if value < 0 { "-" } else { "" };
                format!("{sign}{}.{:03}", value.abs() / 1000, value.abs() % 1000)
            };
            prop_assert_eq!(compare(&text(left), &text(right)), left.cmp(&right));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+]?[0-9.e ]{0,12}") {
            let owned = DecimalBuf::parse(&text);
            prop_assert_eq!(owned.is_some(), Decimal::parse(&text).is_some());
            if let Some(owned) = owned {
                prop_assert_eq!(Decimal::parse(&text).unwrap().cmp(&owned.as_decimal()), Ordering::Equal);
            }
        }
    }
}
