//! The close codes that a browser sends: 1000 and 3000 to 4999 (WHATWG WebSockets §3.1, `close`).

use std::fmt;

use sockeye_proto::{CloseCode, CloseFrame};

use crate::error::Error;

/// Added to a code of the protocol to get a code that a browser sends: 1013 becomes 4013.
const OFFSET: u16 = 3000;

/// The close frame that a browser sends for a code and a reason, and the error if it is not the one that was asked for.
///
/// The frame is always sent: a connection is closed in every case. Invalid values are replaced as by
/// [`CloseFrame::new_lossy`], and a code of the protocol by the same code plus 3000, because 1000 would report success.
pub(crate) fn close_frame(code: CloseCode, reason: &str) -> (CloseFrame, Result<(), Error>) {
    let valid = CloseFrame::new(code, reason);
    let mut frame = CloseFrame::new_lossy(code, reason);
    if matches!(frame.code.0, 1000 | 3000..=4999) || frame.code == CloseCode::NO_STATUS {
        return (frame, valid.map(drop).map_err(Error::from));
    }
    frame.code = CloseCode(frame.code.0 + OFFSET);
    let unsendable = Unsendable {
        code,
        instead: frame.code,
    };
    let result = valid.map_err(Error::from).and(Err(Error::invalid_input(unsendable)));
    (frame, result)
}

/// A close code that scripts may not send.
#[derive(Debug)]
struct Unsendable {
    code: CloseCode,
    instead: CloseCode,
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, instead } = self;
        write!(
            f,
            "a browser does not send close code {code}, so {instead} was sent; use 1000 or 3000 to 4999"
        )
    }
}

impl std::error::Error for Unsendable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_becomes_one_that_a_browser_sends() {
        for code in (0..=u16::MAX).map(CloseCode) {
            let (frame, result) = close_frame(code, "why");
            assert!(matches!(frame.code.0, 1000 | 3000..=4999), "{code}: {frame}");
            assert_eq!(frame.reason, "why");
            assert_eq!(result.is_ok(), frame.code == code, "{code}");
        }
        let (frame, result) = close_frame(CloseCode::NO_STATUS, "");
        assert_eq!(frame.code, CloseCode::NO_STATUS);
        assert!(result.is_ok());
    }

    #[test]
    fn codes_of_the_protocol_are_replaced_and_reported() {
        let (frame, result) = close_frame(CloseCode::GOING_AWAY, "");
        let error = result.unwrap_err();
        assert_eq!(frame.code, CloseCode(4001));
        assert!(error.is_invalid_input());
        assert_eq!(
            error.to_string(),
            "invalid input: a browser does not send close code 1001 (going away), so 4001 was sent; use 1000 or 3000 to \
             4999"
        );
        // Must not be sent by anyone.
        assert_eq!(close_frame(CloseCode::ABNORMAL, "").0.code, CloseCode(4011));
    }

    #[test]
    fn long_reason_is_truncated_and_reported() {
        let (frame, result) = close_frame(CloseCode(4000), &"r".repeat(124));
        assert_eq!(frame.reason.len(), 123);
        assert!(result.unwrap_err().is_invalid_input());
    }
}
