//! The JSON lines in which a peer reports.

use serde_json::Value;

use crate::Process;

/// One line of a peer; `tests/peers/report.mjs` shows each form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A case passed.
    Passed(String),
    /// A case failed.
    Failed {
        /// The name of the case.
        case: String,
        /// The peer's error message.
        error: String,
    },
    /// The peer waits until the harness has done this.
    Waiting(String),
    /// The peer is a server and listens on this port of 127.0.0.1.
    Listening(u16),
    /// The peer is a server and saw a connection end.
    Closed {
        /// The received close code, or 1005 or 1006 with their usual meaning.
        code: u16,
        /// The received reason.
        reason: String,
    },
}

impl Report {
    /// Returns the next report of `peer`; `None` if it has closed its output.
    ///
    /// # Panics
    /// If the peer prints anything else, or nothing in time.
    pub async fn next(peer: &mut Process) -> Option<Self> {
        let line = peer.line().await?;
        match Self::parse(&line) {
            Some(report) => Some(report),
            None => peer.fail(&format!("printed a line that is no report: {line}")),
        }
    }

    /// Parses one line.
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        if let Some(case) = text("case") {
            return Some(match text("error") {
                Some(error) => Self::Failed { case, error },
                None => Self::Passed(case),
            });
        }
        if let Some(what) = text("waiting") {
            return Some(Self::Waiting(what));
        }
        if let Some(port) = value["listening"].as_u64() {
            return u16::try_from(port).ok().map(Self::Listening);
        }
        let closed = &value["closed"];
        let code = closed["code"].as_u64().and_then(|code| u16::try_from(code).ok())?;
        Some(Self::Closed {
            code,
            reason: closed["reason"].as_str()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn parses_each_kind_of_line() {
        let case = "text 125".to_owned();
        assert_eq!(
            Report::parse(r#"{"case":"text 125"}"#),
            Some(Report::Passed(case.clone()))
        );
        let error = "no".to_owned();
        assert_eq!(
            Report::parse(r#"{"case":"text 125","error":"no"}"#),
            Some(Report::Failed { case, error })
        );
        assert_eq!(
            Report::parse(r#"{"waiting":"shutdown"}"#),
            Some(Report::Waiting("shutdown".to_owned()))
        );
        assert_eq!(Report::parse(r#"{"listening":4711}"#), Some(Report::Listening(4711)));
        let closed = Report::Closed {
            code: 1005,
            reason: String::new(),
        };
        assert_eq!(Report::parse(r#"{"closed":{"code":1005,"reason":""}}"#), Some(closed));
    }

    #[test]
    fn rejects_other_lines() {
        for line in [
            "",
            "hello",
            "{}",
            "[]",
            r#"{"listening":65536}"#,
            r#"{"closed":{"code":70000,"reason":""}}"#,
        ] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }
}
