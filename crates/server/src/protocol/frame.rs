//! Splitting of a frame into commands.

use super::command::Command;

/// Error: the frame violates the protocol, and the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Returns the commands of one frame, in order.
///
/// # Errors
/// Returns [`Malformed`] for a frame without a command, and as an item for a line that is not a command.
pub(crate) fn commands(frame: &str) -> Result<impl Iterator<Item = Result<Command<'_>, Malformed>>, Malformed> {
    let mut lines = frame
        .split('\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .peekable();
    if lines.peek().is_none() {
        return Err(Malformed);
    }
    Ok(lines.map(Command::parse))
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
