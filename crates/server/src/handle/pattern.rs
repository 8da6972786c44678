//! Patterns of channel names, such as `chat:*` and `{news,chat}:[a-f]*`.

use std::iter::Peekable;
use std::str::Chars;

/// A pattern that names are compared with.
///
/// `*` stands for any number of characters, `?` for one, `[abc]`, `[a-z]` and `[!a-z]` for one of or beside a set,
/// `{a,b}` for one of several patterns, and `\` makes the next character an ordinary one. The empty pattern matches all
/// names.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// The pattern with each choice of alternatives. Empty if all names match.
    choices: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Char(char),
    /// Ranges of characters, and whether they are excluded.
    Set(Vec<(char, char)>, bool),
}

/// A text is not a pattern: an unclosed or empty set, unclosed alternatives, or too many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidPattern;

/// Maximum number of combinations of alternatives, which limits the work of a comparison.
const CHOICES_MAX: usize = 64;

impl Pattern {
    /// # Errors
    /// Fails if the text is not a pattern.
    pub(crate) fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Ok(Self { choices: Vec::new() });
        }
        let choices = sequence(&mut text.chars().peekable(), 0)?;
        Ok(Self { choices })
    }

    /// Whether the pattern matches the whole name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.choices.is_empty() || self.choices.iter().any(|parts| matches(parts, name))
    }
}

/// Maximum number of alternatives inside each other. Each level is a recursion.
const DEPTH_MAX: usize = 8;

/// Parses up to the end, or inside of alternatives (`depth` is not zero) up to `,` or `}`, which stays.
fn sequence(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Part>>, InvalidPattern> {
    if depth > DEPTH_MAX {
        return Err(InvalidPattern);
    }
    let mut choices = vec![Vec::new()];
    while let Some(next) = chars.peek() {
        if depth > 0 && matches!(next, ',' | '}') {
            return Ok(choices);
        }
        let options = match chars.next() {
            Some('*') => vec![vec![Part::Any]],
            Some('?') => vec![vec![Part::One]],
            Some('[') => vec![vec![set(chars)?]],
            Some('{') => alternatives(chars, depth + 1)?,
            Some('\\') => vec![vec![Part::Char(chars.next().ok_or(InvalidPattern)?)]],
            Some(char) => vec![vec![Part::Char(char)]],
            None => break,
        };
        if choices.len() * options.len() > CHOICES_MAX {
            return Err(InvalidPattern);
        }
        choices = choices
            .iter()
            .flat_map(|choice| options.iter().map(move |option| [&choice[..], option].concat()))
            .collect();
    }
    match depth {
        0 => Ok(choices),
        _ => Err(InvalidPattern),
    }
}

fn alternatives(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Part>>, InvalidPattern> {
    let mut alternatives = Vec::new();
    loop {
        alternatives.extend(sequence(chars, depth)?);
        if alternatives.len() > CHOICES_MAX {
            return Err(InvalidPattern);
        }
        if chars.next() == Some('}') {
            return Ok(alternatives);
        }
    }
}

fn set(chars: &mut Peekable<Chars<'_>>) -> Result<Part, InvalidPattern> {
    let is_excluded = chars.next_if_eq(&'!').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next().ok_or(InvalidPattern)? {
            ']' if ranges.is_empty() => return Err(InvalidPattern),
            ']' => return Ok(Part::Set(ranges, is_excluded)),
            '\\' => chars.next().ok_or(InvalidPattern)?,
            char => char,
        };
        let last = match chars.next_if_eq(&'-') {
            Some(_) => chars.next().filter(|last| *last != ']').ok_or(InvalidPattern)?,
            None => first,
        };
        ranges.push((first, last));
    }
}

/// Compares in linear time for each `*`: a `*` that failed never has to take fewer characters again.
fn matches(parts: &[Part], name: &str) -> bool {
    let (mut parts, mut name) = (parts, name.chars());
    // Where to continue when a later part does not match: after the last `*`, one character further in the name.
    let mut retry: Option<(&[Part], Chars<'_>)> = None;
    loop {
        match parts {
            [Part::Any, rest @ ..] => {
                retry = Some((rest, name.clone()));
                parts = rest;
                continue;
            }
            [] if name.as_str().is_empty() => return true,
            [part, rest @ ..] if name.next().is_some_and(|char| part.accepts(char)) => {
                parts = rest;
                continue;
            }
            _ => {}
        }
        let Some((after_star, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (parts, name) = (after_star, from.clone());
    }
}

impl Part {
    /// Whether one character matches.
    fn accepts(&self, char: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Char(expected) => char == *expected,
            Self::Set(ranges, is_excluded) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != *is_excluded
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expect) in [
            ("", "chat:general", true),
            ("*", "chat:general", true),
            ("chat:*", "chat:general", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chat", false),
            ("chat:*", "xchat:a", false),
            ("*:general", "chat:general", true),
            ("*:general", "chat:general2", false),
            ("c*:g*l", "chat:general", true),
            ("c?at:*", "chat:a", true),
            ("c?at:*", "cat:a", false),
            ("?", "é", true),
            ("*a*b*c", "aXbXbXc", true),
            ("*a*b*c", "aXcXb", false),
            ("chat", "chat", true),
            ("chat", "chats", false),
            ("{news,chat}:*", "chat:a", true),
            ("{news,chat}:*", "chats:a", false),
            ("{a,{b,c}d}{1,2}", "cd2", true),
            ("{a,{b,c}d}{1,2}", "c2", false),
            ("{,x}a", "a", true),
            ("a,b}", "a,b}", true),
            ("[a-cx]1", "b1", true),
            ("[a-cx]1", "x1", true),
            ("[a-cx]1", "d1", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "a", false),
            (r"\*[\]]\{", "*]{", true),
            (r"\*", "x", false),
        ] {
            let parsed = Pattern::new(pattern).unwrap_or_else(|_| panic!("{pattern} is invalid"));
            assert_eq!(parsed.matches(name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_is_not_complete_is_invalid() {
        for pattern in [
            "[", "[]", "[a", "[a-", "[a-]", "[!]", "{", "{a", "{a,", "{a,[}", "\\", "[\\",
        ] {
            assert_eq!(Pattern::new(pattern).err(), Some(InvalidPattern), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).unwrap().matches(name);
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
        assert!(!matches(&format!("{}b", "*a".repeat(60)), &"a".repeat(255)));
    }

    #[test]
    fn the_number_of_alternatives_is_limited() {
        assert!(Pattern::new(&"{a,b}".repeat(6)).is_ok());
        assert!(Pattern::new(&"{a,b}".repeat(7)).is_err());
        assert!(Pattern::new(&"{a,".repeat(10_000)).is_err());
    }
}
