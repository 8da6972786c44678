//! Explanations for untrusted certificates.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, OtherError};

use crate::escape::escape;

/// Returns the problem and what to do about it, as the second half of an error line.
pub(super) fn explain(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => {
            "its issuer is not trusted; --cacert trusts the certificates in a file, -k trusts any certificate".into()
        }
        E::BadSignature => {
            "its signature does not match the trusted certificate of its issuer; --cacert trusts the certificates in a \
             file, -k trusts any certificate"
                .into()
        }
        E::Other(other) if is_authority_as_server(other) => {
            "it is self-signed; --cacert trusts the certificate in a file, -k trusts any certificate".into()
        }
        E::NotValidForNameContext { expected, presented } => wrong_name(&expected.to_str(), presented),
        E::NotValidForName => wrong_name("this host", &[]),
        E::ExpiredContext { time, not_after } => expired(&format!(" {} ago", duration_text(*not_after, *time))),
        E::Expired => expired(""),
        E::NotValidYetContext { time, not_before } => {
            too_early(&format!("; it will be in {}", duration_text(*time, *not_before)))
        }
        E::NotValidYet => too_early(""),
        E::Revoked => "it was revoked by its issuer; do not connect".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "it is not a server certificate; the server needs another one, or -k trusts any certificate".into()
        }
        // Escaped, because it contains data from the server.
        other => format!("{}; -k trusts any certificate", escape(&other.to_string())),
    }
}

/// Whether a certificate is rejected only because it is a CA certificate, which self-signed certificates often are.
fn is_authority_as_server(error: &OtherError) -> bool {
    // rustls has no variant for it, and returns the error of webpki.
    error.to_string() == "CaUsedAsEndEntity"
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    let names: Vec<_> = presented.iter().map(|name| escape(bare(name))).collect();
    match names.as_slice() {
        [] => format!("it contains no host name, and {expected} is required; -k trusts any certificate"),
        names => format!(
            "it is valid for {}, not for {expected}; use one of these names in the URL, or -k to trust any certificate",
            names.join(", ")
        ),
    }
}

/// Removes the kind that rustls puts around a name: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

fn expired(since: &str) -> String {
    format!("it expired{since}; renew it, or check the clock of this machine; -k trusts any certificate")
}

fn too_early(until: &str) -> String {
    format!("it is not valid yet{until}; check the clock of this machine; -k trusts any certificate")
}

/// Formats the time between two points in the largest unit that gives at least 2.
fn duration_text(from: UnixTime, to: UnixTime) -> String {
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
    fn an_expired_or_future_certificate_shows_the_time_difference() {
        let day = 86_400;
        let (time, not_after) = (at(30 * day), at(18 * day));
        check(
            &CertificateError::ExpiredContext { time, not_after },
            &["12 days ago", "clock"],
        );
        let (time, not_before) = (at(0), at(3 * 3_600));
        check(
            &CertificateError::NotValidYetContext { time, not_before },
            &["in 3 h", "clock"],
        );
    }

    #[test]
    fn a_wrong_name_lists_the_names_of_the_certificate() {
        let named = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: presented.iter().copied().map(Into::into).collect(),
        };
        let names = ["DnsName(\"b.example\")", "IpAddress(127.0.0.1)", "odd \u{1b}"];
        check(
            &named(&names),
            &["for b.example, 127.0.0.1, odd \\u001b, not for a.example"],
        );
        check(&named(&[]), &["no host name", "a.example"]);
    }

    #[test]
    fn other_errors_are_shown_as_they_are() {
        check(&CertificateError::BadEncoding, &["BadEncoding", "-k"]);
        check(&CertificateError::Revoked, &["revoked"]);
    }
}
