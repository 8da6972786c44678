//! C16 to C18: header injection by the application, foreign origins, and DNS rebinding.

use sockeye_proto::handshake::{
    Acceptance, ClientRequest, HandshakeBuildError, HandshakeError, HostPolicy, Key, Origin, OriginPolicy, Rejection,
    StatusCode, Subprotocol, Uri, UriError,
};

use crate::handshake_support::{incoming, with};

fn request() -> ClientRequest {
    let uri = Uri::parse("ws://h/").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    ClientRequest::new(&uri, key)
}

#[test]
fn cve_2026_47072_line_end_in_host_or_path_is_rejected() {
    for text in [
        "ws://h\r\nX: y/",
        "ws://h/\r\nX: y",
        "ws://h/?\nX: y",
        "ws://h/\0",
        "ws://h/ HTTP/1.1",
    ] {
        let found = Uri::parse(text);
        assert!(
            matches!(found, Err(UriError::InvalidCharacter(_))),
            "{text:?}: {found:?}"
        );
    }
    // Percent-encoded line ends stay encoded.
    let uri = Uri::parse("ws://h/%0d%0aX:%20y").expect("valid");
    assert_eq!(uri.resource(), "/%0d%0aX:%20y");
}

#[test]
fn cve_2026_1527_line_end_in_a_subprotocol_is_rejected() {
    for name in ["a\r\nX: y", "a\n", "\ra", "a\0b", ""] {
        assert_eq!(
            request().subprotocol(name).map(drop),
            Err(HandshakeBuildError::InvalidSubprotocol)
        );
        assert_eq!(Subprotocol::new(name), Err(HandshakeBuildError::InvalidSubprotocol));
    }
}

#[test]
fn cve_2026_1527_line_end_in_an_extension_or_origin_is_rejected() {
    for text in ["a\r\nX: y", "a; b=\"\r\n\"", "a; b=\"c\0\""] {
        assert_eq!(
            request().extension(text).map(drop),
            Err(HandshakeBuildError::InvalidExtension)
        );
        assert!(Acceptance::new().extension(text).is_err());
    }
    for text in ["http://h\r\nX: y", "http://h\0", "ht\ntp://h"] {
        assert!(Origin::parse(text).is_err());
    }
}

#[test]
fn cve_rustsec_2017_0002_line_end_in_a_value_is_rejected() {
    for value in ["a\r\nX: y", "a\nX: y", "a\rb", "a\0b", "\r\n"] {
        let error = Err(HandshakeBuildError::InvalidHeaderValue);
        assert_eq!(request().header("X", value).map(drop), error);
        assert_eq!(Acceptance::new().header("X", value).map(drop), error);
    }
}

#[test]
fn cve_rustsec_2024_0008_line_end_in_a_name_is_rejected_by_a_server() {
    for name in ["a\r\nX", "a\n", "a b", "a:", ""] {
        let error = Err(HandshakeBuildError::InvalidHeaderName);
        assert_eq!(Acceptance::new().header(name, "v").map(drop), error);
        let rejection = Rejection::new(StatusCode::FORBIDDEN).expect("valid status");
        assert_eq!(rejection.header(name, "v").map(drop), error);
    }
}

#[test]
fn cve_rustsec_2024_0009_line_end_in_a_name_is_rejected_by_a_client() {
    for name in ["a\r\nX", "a\n", "a b", "a:", ""] {
        assert_eq!(
            request().header(name, "v").map(drop),
            Err(HandshakeBuildError::InvalidHeaderName)
        );
    }
}

/// Checks that the same-host policy of a server at `host` and a policy with a list both deny this origin with 403.
#[track_caller]
fn denies(host: &str, origin: &str) {
    let lines = [format!("Host: {host}"), format!("Origin: {origin}")];
    let request = with("Host", &[&lines[0], &lines[1]]);
    let list = OriginPolicy::List(vec![Origin::parse("https://example.com").expect("an origin")]);
    for policy in [OriginPolicy::default(), list] {
        let incoming = incoming(&request);
        let error = policy.check(incoming.request()).expect_err("another origin");
        assert!(matches!(error, HandshakeError::OriginDenied(_)), "{error:?}");
        assert_eq!(incoming.reject_with_error(error).response.status().as_u16(), 403);
    }
}

#[test]
fn cve_2026_59390_foreign_origin_is_denied_by_default() {
    denies("example.com", "https://attacker.net");
    denies("example.com", "null");
    denies("example.com", "");
}

#[test]
fn cve_2022_42975_origin_with_the_same_suffix_is_denied() {
    denies("example.com", "https://attackerexample.com");
    denies("example.com", "https://attacker.net/example.com");
    denies("example.com", "https://attacker.example.com");
}

#[test]
fn cve_ghsa_frjg_g767_7363_origin_with_the_same_prefix_is_denied() {
    denies("example.com", "https://example.com.attacker.net");
    denies("example.com", "https://example.com@attacker.net");
    denies("example.com", "https://example.com:8443");
}

#[test]
fn cve_2026_44211_local_server_denies_foreign_pages() {
    denies("localhost:3000", "https://attacker.net");
    denies("localhost:3000", "http://localhost:3001");
    denies("127.0.0.1:3000", "http://localhost:3000");
}

#[test]
fn cve_2026_44211_name_that_looks_like_an_address_is_a_name() {
    denies("127.0.0.1:8080", "http://127.attacker.example:8080");
    denies("127.0.0.1", "http://127.1");
    denies("127.0.0.1", "http://2130706433");
}

#[test]
fn cve_2026_133111_two_origins_are_rejected() {
    let request = with("Host", &["Host: h", "Origin: http://attacker.net", "Origin: http://h"]);
    use sockeye_proto::handshake::{HandshakeLimits, ServerHandshake, ServerProgress};
    let step = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(&request);
    let error = HandshakeError::OriginRepeated;
    assert!(
        matches!(step, ServerProgress::Invalid(invalid) if invalid.error == error && error.status().as_u16() == 400)
    );
}

#[track_caller]
fn host_is_denied(host: &str) {
    let incoming = incoming(&with(
        "Host",
        &[&format!("Host: {host}"), &format!("Origin: http://{host}")],
    ));
    // Origin and host are the same, so the origin check passes.
    assert_eq!(OriginPolicy::SameHost.check(incoming.request()), Ok(()));
    let error = HostPolicy::Loopback
        .check(incoming.request())
        .expect_err("a foreign name");
    assert_eq!(error.status().as_u16(), 421);
}

#[test]
fn cve_2025_66414_foreign_host_on_a_loopback_address_is_denied() {
    host_is_denied("attacker.net");
    host_is_denied("attacker.net:8080");
}

#[test]
fn cve_2025_66416_host_that_looks_local_is_denied() {
    host_is_denied("localhost.attacker.net");
    host_is_denied("127.0.0.1.attacker.net");
    host_is_denied("128.0.0.1");
}
