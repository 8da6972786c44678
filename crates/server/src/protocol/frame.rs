//! Splitting of a frame into commands.

use super::command::Command;

/// Error: the frame violates the protocol, and the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Parses the next command of a frame. Also returns the number of bytes consumed, including separators.
pub(super) fn next_command(rest: &[u8]) -> Option<(Result<Command<'_>, Malformed>, usize)> {
    let mut at = 0;
    loop {
        let left = rest.get(at..).filter(|left| !left.is_empty())?;
        let line_len = left.iter().position(|&byte| byte == b'\n').unwrap_or(left.len());
        let line = &left[..line_len];
        at += (line_len + 1).min(left.len());
        if !line.trim_ascii().is_empty() {
            let command = std::str::from_utf8(line)
                .map_err(|_| Malformed)
                .and_then(Command::parse);
            return Some((command, at));
        }
    }
}

/// Returns the commands of one frame, in order.
///
/// # Errors
/// Returns [`Malformed`] for a frame without a command, and as an item for a line that is not a command.
#[cfg(test)]
pub(crate) fn commands(frame: &str) -> Result<impl Iterator<Item = Result<Command<'_>, Malformed>>, Malformed> {
    let mut rest = frame.as_bytes();
    let mut commands = std::iter::from_fn(move || {
        let (command, len) = next_command(rest)?;
        rest = &rest[len..];
        Some(command)
    })
    .peekable();
    match commands.peek() {
        None => Err(Malformed),
        Some(_) => Ok(commands),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Request;

    fn ids(frame: &str) -> Vec<u32> {
        commands(frame).unwrap().map(|command| command.unwrap().id).collect()
    }

    #[test]
    fn commands_are_in_the_order_of_their_lines() {
        assert_eq!(ids("{\"id\":1,\"ping\":{}}\n{\"id\":2,\"ping\":{}}\n"), [1, 2]);
        assert_eq!(ids("{}"), [0]);
    }

    #[test]
    fn a_frame_without_a_command_is_malformed() {
        assert!(commands("").is_err());
        assert!(commands("\n \n").is_err());
    }

    #[test]
    fn a_valid_line_before_a_malformed_one_is_kept() {
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
}
