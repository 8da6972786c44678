//! Escaping of text from a peer before it is shown on a terminal.
//!
//! Control characters move the cursor, change the title, and on some terminals put text into the input line.
//! Bidirectional formatting characters make text look like other text. All of them are escaped; other text of any
//! language is unchanged.

use sockeye::CloseFrame;

/// Replaces every control character by its escape sequence, such as `\n` or `\u001b`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            _ if is_dangerous(character) => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Escapes the control characters of bytes that should be text, and replaces invalid UTF-8 by the replacement
/// character.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes))
}

/// Formats a close frame as its code and its escaped reason.
pub(crate) fn close_frame(frame: &CloseFrame) -> String {
    match frame.reason.is_empty() {
        true => frame.code.to_string(),
        false => format!("{} \"{}\"", frame.code, escape(&frame.reason)),
    }
}

/// Whether a terminal may interpret the character instead of showing it.
pub(crate) fn is_dangerous(character: char) -> bool {
    match character {
        // Unicode TR 9: directional marks, embeddings, overrides and isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}' => true,
        // C0, DEL and C1.
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_language_is_unchanged() {
        for text in ["", "plain", "naïve café", "日本語", "עברית", "👩‍🚀", r#"{"a":"b\\c"}"#] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("a\nb\r\tc"), "a\\nb\\r\\tc");
        assert_eq!(escape("\u{1b}]0;pwned\u{7}"), "\\u001b]0;pwned\\u0007");
        assert_eq!(escape("\0\u{7f}\u{9b}31m"), "\\u0000\\u007f\\u009b31m");
        assert_eq!(escape("abc\u{202e}fed\u{2069}"), "abc\\u202efed\\u2069");
        assert_eq!(escape("\u{2028}"), "\\u2028");
    }

    #[test]
    fn no_control_or_direction_character_remains() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        let escaped = escape(&all);
        assert!(!escaped.chars().any(char::is_control));
        assert!(!escaped.contains(['\u{61c}', '\u{200e}', '\u{200f}', '\u{202e}', '\u{2066}', '\u{2069}']));
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(escape_bytes(b"a\xff\x1b"), "a\u{fffd}\\u001b");
    }
}
