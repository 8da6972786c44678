//! Certificates that are not trusted: what is wrong with one, and what helps.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, OtherError};

use crate::escape::escape;

/// What is wrong, and what to do, in half a line.
pub(super) fn explain(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => {
            "nobody who is trusted here has signed it; --cacert trusts the certificates in a file, -k trusts anyone"
                .into()
        }
        E::BadSignature => {
            "who is trusted under the name of its issuer has not signed it; --cacert trusts a file, -k trusts anyone"
                .into()
        }
        E::Other(other) if is_authority_as_server(other) => {
            "it is self-signed; --cacert trusts it, given as a file, -k trusts anyone".into()
        }
        E::NotValidForNameContext { expected, presented } => wrong_name(&expected.to_str(), presented),
        E::NotValidForName => wrong_name("this host", &[]),
        E::ExpiredContext { time, not_after } => expired(&format!(" {} ago", between(*not_after, *time))),
        E::Expired => expired(""),
        E::NotValidYetContext { time, not_before } => {
            too_early(&format!(", not for {} more", between(*time, *not_before)))
        }
        E::NotValidYet => too_early(""),
        E::Revoked => "it has been revoked by who signed it; do not connect".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "it is not for servers; have the server use another, -k takes any".into()
        }
        // Its parts are what the server wrote.
        other => format!("{}; -k takes any certificate", escape(&other.to_string())),
    }
}

/// Whether a certificate is refused only because it is an authority's own, as self-signed ones often are.
pub(super) fn is_authority_as_server(error: &OtherError) -> bool {
    // rustls has no name for it, and passes on that of its verifier.
    error.to_string() == "CaUsedAsEndEntity"
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    let names: Vec<_> = presented.iter().map(|name| escape(bare(name))).collect();
    match names.as_slice() {
        [] => format!("it names no host, and so not {expected}; -k takes any certificate"),
        names => format!(
            "it is for {}, not for {expected}; connect by a name that it has, -k takes any",
            names.join(", ")
        ),
    }
}

/// A name without the kind that rustls puts around it: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

fn expired(since: &str) -> String {
    format!("it has expired{since}; have it renewed, or look at the clock of this machine; -k takes any certificate")
}

fn too_early(until: &str) -> String {
    format!("it is not valid yet{until}; look at the clock of this machine; -k takes any certificate")
}

/// The time between two points, in the largest unit that it has more than one of.
fn between(from: UnixTime, to: UnixTime) -> String {
    let seconds = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[track_caller]
    fn check(error: &CertificateError, parts: &[&str]) {
        let text = explain(error);
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.chars().any(char::is_control), "{text}");
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_certificate_out_of_its_time_says_by_how_much() {
        let day = 86_400;
        let (time, not_after) = (at(30 * day), at(18 * day));
        check(
            &CertificateError::ExpiredContext { time, not_after },
            &["12 days ago", "clock"],
        );
        let (time, not_before) = (at(0), at(3 * 3_600));
        check(
            &CertificateError::NotValidYetContext { time, not_before },
            &["3 h more", "clock"],
        );
    }

    #[test]
    fn a_wrong_name_says_which_ones_are_right() {
        let named = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: presented.iter().copied().map(Into::into).collect(),
        };
        let names = ["DnsName(\"b.example\")", "IpAddress(127.0.0.1)", "odd \u{1b}"];
        check(
            &named(&names),
            &["for b.example, 127.0.0.1, odd \\u001b, not for a.example"],
        );
        check(&named(&[]), &["names no host", "a.example"]);
    }

    #[test]
    fn what_has_no_sentence_of_its_own_is_shown_as_it_is() {
        check(&CertificateError::BadEncoding, &["BadEncoding", "-k"]);
        check(&CertificateError::Revoked, &["revoked"]);
    }
}
