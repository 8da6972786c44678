//! Values of flags: sizes.

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
        Some(size @ 1..) => Ok(size),
        _ => Err("write a size such as 1000, 64KiB or 16MiB".into()),
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
