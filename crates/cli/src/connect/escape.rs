//! What a peer says, made harmless for a terminal.
//!
//! A terminal obeys control bytes: they move the cursor, change the title, and on some terminals put text into the input
//! line. Controls of the writing direction make text read as what it is not. None of them gets through; all other text,
//! of any language, does.

use sockeye::CloseFrame;

/// Text in which every control character is spelled out, as `\n`, `\u001b` and so on.
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

/// Escapes bytes that should be text, as [`escape`] does; invalid UTF-8 becomes the replacement character.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes))
}

/// A close frame: its code, and its reason as [`escape`] has it.
pub(crate) fn close_frame(frame: &CloseFrame) -> String {
    match frame.reason.is_empty() {
        true => frame.code.to_string(),
        false => format!("{} \"{}\"", frame.code, escape(&frame.reason)),
    }
}

pub(super) fn is_dangerous(character: char) -> bool {
    match character {
        // Unicode TR 9: marks, embeddings, overrides and isolates of the writing direction.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Line and paragraph separator.
        '\u{2028}' | '\u{2029}' => true,
        // C0, DEL and C1.
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_language_stays() {
        for text in ["", "plain", "naïve café", "日本語", "עברית", "👩‍🚀", r#"{"a":"b\\c"}"#] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn controls_are_spelled_out() {
        assert_eq!(escape("a\nb\r\tc"), "a\\nb\\r\\tc");
        assert_eq!(escape("\u{1b}]0;pwned\u{7}"), "\\u001b]0;pwned\\u0007");
        assert_eq!(escape("\0\u{7f}\u{9b}31m"), "\\u0000\\u007f\\u009b31m");
        assert_eq!(escape("abc\u{202e}fed\u{2069}"), "abc\\u202efed\\u2069");
        assert_eq!(escape("\u{2028}"), "\\u2028");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        let escaped = escape(&all);
        assert!(!escaped.chars().any(char::is_control));
        assert!(!escaped.contains(['\u{61c}', '\u{200e}', '\u{200f}', '\u{202e}', '\u{2066}', '\u{2069}']));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(escape_bytes(b"a\xff\x1b"), "a\u{fffd}\\u001b");
    }
}
