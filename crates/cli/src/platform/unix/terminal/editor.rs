//! A line editor without I/O: it turns the bytes of keys into lines and into the bytes that draw the prompt.
//!
//! The prompt takes one row. A wider line scrolls horizontally, so redrawing costs at most the width of the terminal.

use std::collections::VecDeque;
use std::mem;

use unicode_width::UnicodeWidthChar;

use crate::escape::{escape, is_dangerous};

/// Drawn before the line.
const PROMPT: &str = "> ";

/// Maximum number of lines in the history.
const HISTORY_LINES_MAX: usize = 500;

/// Maximum size of a line in the history, in bytes.
const HISTORY_LINE_MAX: usize = 64 << 10;

/// Maximum number of characters in a line, of 4 bytes each. Further characters are ignored.
const LINE_CHARS_MAX: usize = 16 << 20;

/// An event caused by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The user entered a line.
    Line(String),
    /// The user pressed Ctrl-D on an empty line.
    End,
}

/// The state of the line being edited.
#[derive(Debug, Default)]
pub(super) struct Editor {
    line: Vec<char>,
    /// Number of characters before the cursor.
    cursor: usize,
    keys: Keys,
    history: VecDeque<String>,
    /// The index of the shown history line, from the newest, and the line that was being typed.
    recalled: Option<(usize, Vec<char>)>,
}

impl Editor {
    /// Handles one byte of input.
    pub(super) fn handle(&mut self, byte: u8) -> Option<Event> {
        let [replaced, key] = self.keys.handle(byte);
        // A replacement character changes the line and causes no event.
        replaced.and_then(|replaced| self.apply(replaced));
        key.and_then(|key| self.apply(key))
    }

    fn apply(&mut self, key: Key) -> Option<Event> {
        match key {
            Key::Enter => return Some(Event::Line(self.enter())),
            Key::End if self.line.is_empty() => return Some(Event::End),
            Key::Character(character) => self.insert(character),
            Key::End | Key::DeleteForward => {
                if self.cursor < self.line.len() {
                    self.line.remove(self.cursor);
                }
            }
            Key::Backspace => self.erase(self.cursor.saturating_sub(1)),
            Key::EraseWord => self.erase(self.word_start()),
            Key::EraseBefore => self.erase(0),
            Key::EraseAfter => self.line.truncate(self.cursor),
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.line.len()),
            Key::Home => self.cursor = 0,
            Key::LineEnd => self.cursor = self.line.len(),
            Key::Older => self.recall(self.recalled.as_ref().map_or(0, |(idx, _)| idx + 1)),
            Key::Newer => match &self.recalled {
                Some((0, _)) => self.stop_recalling(),
                Some((idx, _)) => self.recall(idx - 1),
                None => {}
            },
        }
        None
    }

    /// The bytes that draw the prompt over the current row and place the cursor.
    pub(super) fn draw(&self, columns: usize) -> String {
        // One column is reserved for the cursor after the last character.
        let room = columns.saturating_sub(PROMPT.len() + 1).max(1);
        let start = self.window_start(room);
        let mut row = String::from("\r\u{1b}[K");
        row.push_str(PROMPT);
        let (mut width, mut cursor_width) = (0, 0);
        for (idx, character) in self.line.iter().enumerate().skip(start) {
            let (shown, shown_width) = shown(*character);
            if width + shown_width > room {
                break;
            }
            row.push(shown);
            width += shown_width;
            if idx < self.cursor {
                cursor_width = width;
            }
        }
        row.push_str(&format!("\r\u{1b}[{}C", PROMPT.len() + cursor_width));
        row
    }

    /// The bytes that remove the prompt.
    pub(super) const fn erase_prompt() -> &'static str {
        "\r\u{1b}[K"
    }

    /// The bytes that replace the prompt by an entered line.
    pub(super) fn draw_entered(line: &str) -> String {
        format!("\r\u{1b}[K{PROMPT}{}\n", escape(line))
    }

    /// The index of the first drawn character. The row has room for all characters from there to the cursor, and a
    /// quarter of it for characters after the cursor, if there are any.
    fn window_start(&self, room: usize) -> usize {
        let budget = if self.cursor == self.line.len() {
            room
        } else {
            room - room / 4
        };
        let mut width = 0;
        for idx in (0..self.cursor).rev() {
            width += shown(self.line[idx]).1;
            if width > budget {
                return idx + 1;
            }
        }
        0
    }

    fn enter(&mut self) -> String {
        let line: String = mem::take(&mut self.line).into_iter().collect();
        self.cursor = 0;
        self.recalled = None;
        let is_worth_it = !line.is_empty() && line.len() <= HISTORY_LINE_MAX && self.history.front() != Some(&line);
        if is_worth_it {
            self.history.push_front(line.clone());
            self.history.truncate(HISTORY_LINES_MAX);
        }
        line
    }

    fn insert(&mut self, character: char) {
        if self.line.len() < LINE_CHARS_MAX {
            self.line.insert(self.cursor, character);
            self.cursor += 1;
        }
    }

    /// Removes the characters from `start` to the cursor.
    fn erase(&mut self, start: usize) {
        self.line.drain(start..self.cursor);
        self.cursor = start;
    }

    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let word_end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |idx| idx + 1);
        before[..word_end]
            .iter()
            .rposition(|c| c.is_whitespace())
            .map_or(0, |idx| idx + 1)
    }

    fn recall(&mut self, idx: usize) {
        let Some(line) = self.history.get(idx) else {
            return;
        };
        let shown = mem::replace(&mut self.line, line.chars().collect());
        let typed = self.recalled.take().map_or(shown, |(_, typed)| typed);
        self.recalled = Some((idx, typed));
        self.cursor = self.line.len();
    }

    fn stop_recalling(&mut self) {
        if let Some((_, typed)) = self.recalled.take() {
            self.line = typed;
            self.cursor = self.line.len();
        }
    }
}

/// The character that is drawn for a character of the line, and its width.
fn shown(character: char) -> (char, usize) {
    match character {
        '\t' => (' ', 1),
        _ if is_dangerous(character) => ('?', 1),
        _ => (character, character.width().unwrap_or(0)),
    }
}

/// The function of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Character(char),
    Enter,
    /// Ctrl-D.
    End,
    Backspace,
    DeleteForward,
    EraseWord,
    EraseBefore,
    EraseAfter,
    Left,
    Right,
    Home,
    LineEnd,
    Older,
    Newer,
}

/// Parser for keys: UTF-8, and the escape sequences that terminals send.
#[derive(Debug, Default)]
enum Keys {
    #[default]
    Start,
    /// An incomplete UTF-8 character.
    Utf8 { bytes: [u8; 4], len: usize },
    /// ESC.
    Escape,
    /// `ESC [` and a parameter, which saturates.
    Control { parameter: u8 },
    /// `ESC O`.
    Single,
}

impl Keys {
    /// Handles one byte. Returns a replacement character if the byte ended invalid UTF-8, and the key that it
    /// completed.
    fn handle(&mut self, byte: u8) -> [Option<Key>; 2] {
        match mem::take(self) {
            Self::Utf8 { bytes, len } => self.continue_utf8(bytes, len, byte),
            state => [None, self.handle_in(state, byte)],
        }
    }

    fn handle_in(&mut self, state: Self, byte: u8) -> Option<Key> {
        match state {
            Self::Start | Self::Utf8 { .. } => self.start(byte),
            Self::Escape => {
                *self = match byte {
                    b'[' => Self::Control { parameter: 0 },
                    b'O' => Self::Single,
                    // Alt with a key is ignored.
                    _ => Self::Start,
                };
                None
            }
            Self::Control { parameter } => match byte {
                b'0'..=b'9' => {
                    let parameter = parameter.saturating_mul(10).saturating_add(byte - b'0');
                    *self = Self::Control { parameter };
                    None
                }
                // ECMA-48: other parameter bytes and intermediate bytes, such as modifiers, are ignored.
                b' '..=b'?' => {
                    *self = Self::Control { parameter };
                    None
                }
                b'~' => match parameter {
                    1 | 7 => Some(Key::Home),
                    3 => Some(Key::DeleteForward),
                    4 | 8 => Some(Key::LineEnd),
                    _ => None,
                },
                _ => arrow(byte),
            },
            Self::Single => arrow(byte),
        }
    }

    fn start(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            b'\r' | b'\n' => Key::Enter,
            b'\t' => Key::Character('\t'),
            0x1b => {
                *self = Self::Escape;
                return None;
            }
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x04 => Key::End,
            0x05 => Key::LineEnd,
            0x06 => Key::Right,
            0x08 | 0x7f => Key::Backspace,
            0x0b => Key::EraseAfter,
            0x0e => Key::Newer,
            0x10 => Key::Older,
            0x15 => Key::EraseBefore,
            0x17 => Key::EraseWord,
            0x00..=0x1f => return None,
            0x20..=0x7e => Key::Character(char::from(byte)),
            // Lead bytes of UTF-8.
            0xc2..=0xf4 => {
                *self = Self::Utf8 {
                    bytes: [byte, 0, 0, 0],
                    len: 1,
                };
                return None;
            }
            0x80.. => Key::Character(char::REPLACEMENT_CHARACTER),
        })
    }

    /// Handles a further byte of a character. An incomplete character becomes the replacement character, because
    /// messages must be UTF-8, and the byte is then handled as the start of a new key.
    fn continue_utf8(&mut self, mut bytes: [u8; 4], len: usize, byte: u8) -> [Option<Key>; 2] {
        bytes[len] = byte;
        match std::str::from_utf8(&bytes[..=len]) {
            Ok(text) => [None, text.chars().next().map(Key::Character)],
            Err(error) if error.error_len().is_none() => {
                *self = Self::Utf8 { bytes, len: len + 1 };
                [None, None]
            }
            Err(_) => [Some(Key::Character(char::REPLACEMENT_CHARACTER)), self.start(byte)],
        }
    }
}

fn arrow(byte: u8) -> Option<Key> {
    match byte {
        b'A' => Some(Key::Older),
        b'B' => Some(Key::Newer),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::LineEnd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(editor: &mut Editor, keys: &str) -> Vec<Event> {
        keys.bytes().filter_map(|byte| editor.handle(byte)).collect()
    }

    #[track_caller]
    fn check(keys: &str, lines: &[&str]) {
        let lines: Vec<_> = lines.iter().map(|line| Event::Line((*line).into())).collect();
        assert_eq!(press(&mut Editor::default(), keys), lines, "{keys:?}");
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, lines) in [
            ("abc\r", &["abc"][..]),
            ("a\nb\n", &["a", "b"]),
            ("\n", &[""]),
            ("naïve 日本\r", &["naïve 日本"]),
            ("a\tb\r", &["a\tb"]),
            ("abd\x7fc\r", &["abc"]),
            ("日本\x7f\r", &["日"]),
            ("\x7fa\r", &["a"]),
            ("ac\x1b[Db\r", &["abc"]),
            ("ac\x1bODb\x1bOCd\r", &["abcd"]),
            ("bc\x01a\x05d\r", &["abcd"]),
            ("bc\x1b[Ha\x1b[Fd\r", &["abcd"]),
            ("bc\x1b[1~a\x1b[4~d\r", &["abcd"]),
            ("abc\x01\x1b[3~\r", &["bc"]),
            ("abc\x01\x04\r", &["bc"]),
            ("abc\x04\r", &["abc"]),
            ("one two  \x17three\r", &["one three"]),
            ("one\x15two\r", &["two"]),
            ("onetwo\x1b[D\x1b[D\x1b[D\x0b\r", &["one"]),
            // Keys without a function do not change the line.
            ("a\x1b[15~b\x1b[1;5Cc\x1bxd\x00\x1b[200~e\r", &["abcde"]),
        ] {
            check(keys, lines);
        }
    }

    #[test]
    fn history_recalls_lines() {
        check("one\ntwo\n\x1b[A\x1b[A\n", &["one", "two", "one"]);
        check("one\nty\x10\x10\x0eped\n", &["one", "typed"]);
        check("one\none\n\x10\x10!\n", &["one", "one", "one!"]);
    }

    #[test]
    fn ctrl_d_ends_the_input_only_on_an_empty_line() {
        assert_eq!(press(&mut Editor::default(), "\x04"), [Event::End]);
        assert_eq!(press(&mut Editor::default(), "a\x04\x7f\x04"), [Event::End]);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        for (keys, line) in [
            (&b"a\xffb\n"[..], "a\u{fffd}b"),
            (b"a\x80\xc0\xf5b\n", "a\u{fffd}\u{fffd}\u{fffd}b"),
            // Incomplete characters before a key, Enter, or another character.
            (b"\xe6b\n", "\u{fffd}b"),
            (b"b\xe6\x97\n", "b\u{fffd}"),
            (b"\xe6\xe6\x97\xa5\n", "\u{fffd}\u{65e5}"),
            (b"\xe6\x97\xc3\xbc\n", "\u{fffd}\u{fc}"),
            (b"\xed\xa0\x80\n", "\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            let mut editor = Editor::default();
            let events: Vec<_> = keys.iter().filter_map(|byte| editor.handle(*byte)).collect();
            assert_eq!(events, [Event::Line(line.into())], "{keys:?}");
        }
    }

    #[test]
    fn a_line_of_any_length_is_one_row() {
        let mut editor = Editor::default();
        press(&mut editor, &"x".repeat(6_000));
        assert_eq!(editor.draw(20), format!("\r\u{1b}[K> {}\r\u{1b}[19C", "x".repeat(17)));
        press(&mut editor, "\x01");
        assert_eq!(editor.draw(20), format!("\r\u{1b}[K> {}\r\u{1b}[2C", "x".repeat(17)));
        let mut editor = Editor::default();
        press(&mut editor, "日本語");
        assert_eq!(editor.draw(8), "\r\u{1b}[K> 本語\r\u{1b}[6C");
        // A width of zero must not panic.
        assert!(editor.draw(0).starts_with("\r\u{1b}[K> "));
    }

    #[test]
    fn control_characters_are_not_drawn() {
        let mut editor = Editor::default();
        press(&mut editor, "a\u{202e}b\u{9b}\t");
        assert_eq!(editor.draw(80), "\r\u{1b}[K> a?b? \r\u{1b}[7C");
        assert_eq!(Editor::draw_entered("a\u{9b}"), "\r\u{1b}[K> a\\u009b\n");
    }
}
