//! Preprocessing of the arguments, and redaction of credentials in error messages.

use std::ffi::{OsStr, OsString};

use crate::connect::redact_url;

/// The modes of `--compression`.
const COMPRESSION_MODES: [&str; 3] = ["off", "no-takeover", "takeover"];

/// Joins `--compression takeover` to `--compression=takeover`. The value is optional, so clap only accepts it with `=`,
/// and would treat a separate mode as the URL.
pub(super) fn normalize(arguments: &[OsString]) -> Vec<OsString> {
    let mut normalized = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let mode = (argument == "--compression")
            .then(|| rest.next_if(|next| COMPRESSION_MODES.iter().any(|mode| *next == OsStr::new(mode))))
            .flatten();
        match mode {
            Some(mode) => {
                let mut joined = argument.clone();
                joined.push("=");
                joined.push(mode);
                normalized.push(joined);
            }
            None => normalized.push(argument.clone()),
        }
        if argument == "--" {
            normalized.extend(rest.by_ref().cloned());
        }
    }
    normalized
}

/// Replaces the credentials of all URLs among the arguments in a message about them.
pub(super) fn redact(text: &str, arguments: &[OsString]) -> String {
    let mut text = text.to_owned();
    for argument in arguments.iter().skip(1) {
        let argument = argument.to_string_lossy();
        let value = argument.split_once('=').map(|(_, value)| value);
        for secret in [Some(&*argument), value].into_iter().flatten() {
            if secret.contains('@') {
                text = text.replace(secret, &redact_url(secret));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Vec<OsString> {
        texts.iter().map(Into::into).collect()
    }

    #[test]
    fn a_mode_of_compression_needs_no_equals_sign() {
        for (given, normalized) in [
            (
                &["--compression", "takeover", ":1"][..],
                &["--compression=takeover", ":1"][..],
            ),
            (&[":1", "--compression", "off"], &[":1", "--compression=off"]),
            (&["--compression", ":1"], &["--compression", ":1"]),
            (&["--compression=off", "off"], &["--compression=off", "off"]),
            (&["--", "--compression", "off"], &["--", "--compression", "off"]),
            (&["--compression"], &["--compression"]),
        ] {
            assert_eq!(normalize(&arguments(given)), arguments(normalized));
        }
    }

    #[test]
    fn credentials_in_arguments_are_redacted() {
        let given = arguments(&["sockeye", "ws://bob:se=cret@a/", "--wait=ws://bob:se=cret@b/"]);
        let text = redact("not 'ws://bob:se=cret@a/', not 'ws://bob:se=cret@b/'", &given);
        assert_eq!(text, "not 'ws://***@a/', not 'ws://***@b/'");
    }
}
