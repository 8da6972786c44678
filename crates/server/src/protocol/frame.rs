//! Cutting a text frame into commands.
//!
//! The frame is scanned once for nesting before any of it is parsed: a value nested a hundred thousand levels deep costs
//! one pass over its bytes and no stack, here and in every client it would have been passed on to.

use super::command::Command;

/// Deepest nesting of objects and arrays in a frame, the command's own two levels included.
const DEPTH_MAX: usize = 64;

/// What came is not the protocol; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The commands of one text frame, in order.
///
/// # Errors
/// [`Malformed`] for a frame without any command or nested too deep, and as an item for a line that is not a command.
pub(crate) fn commands(frame: &str) -> Result<impl Iterator<Item = Result<Command<'_>, Malformed>>, Malformed> {
    if !is_shallow(frame.as_bytes()) {
        return Err(Malformed);
    }
    let mut lines = frame
        .split('\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .peekable();
    if lines.peek().is_none() {
        return Err(Malformed);
    }
    Ok(lines.map(Command::parse))
}

/// Whether no object or array lies deeper than [`DEPTH_MAX`]. Linear in the text, which need not be valid JSON.
pub(super) fn is_shallow(text: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Request;

    fn ids(frame: &str) -> Vec<u32> {
        commands(frame).unwrap().map(|command| command.unwrap().id).collect()
    }

    #[test]
    fn commands_come_in_the_order_of_their_lines() {
        assert_eq!(ids("{\"id\":1,\"ping\":{}}\n{\"id\":2,\"ping\":{}}\n"), [1, 2]);
        assert_eq!(ids("{}"), [0]);
    }

    #[test]
    fn a_frame_without_a_command_is_malformed() {
        assert!(commands("").is_err());
        assert!(commands("\n \n").is_err());
    }

    #[test]
    fn a_good_line_is_kept_before_a_bad_one() {
        let mut lines = commands("{\"id\":1,\"ping\":{}}\nnonsense").unwrap();
        assert!(matches!(
            lines.next(),
            Some(Ok(Command {
                id: 1,
                request: Some(Request::Ping)
            }))
        ));
        assert!(matches!(lines.next(), Some(Err(Malformed))));
    }

    #[test]
    fn nesting_is_allowed_to_64_and_not_65() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_shallow(nested(64).as_bytes()));
        assert!(!is_shallow(nested(65).as_bytes()));
        assert!(!is_shallow(nested(100_000).as_bytes()));
    }

    #[test]
    fn brackets_inside_strings_are_not_nesting() {
        let text = format!("\"{}\\\"{}\"", "[".repeat(100), "{".repeat(100));
        assert!(is_shallow(text.as_bytes()));
    }
}
