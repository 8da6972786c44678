//! C14, C15: time to parse HTTP heads.
//!
//! Time is not measured, because such a test would fail on a busy machine. Instead, the tests raise the limits and
//! parse heads so large that a quadratic parser would take hours.

use sockeye_proto::handshake::{
    AwaitingResponse, ClientProgress, ClientRequest, HandshakeError, HandshakeLimits, Incoming, Key, ServerHandshake,
    ServerProgress, Uri,
};

use crate::handshake_support::{incoming, plus};

/// Size of a head, in bytes, for which a quadratic parser takes 10^12 steps.
const LARGE: usize = 1 << 20;

/// Limits that allow a large head.
fn large_limits() -> HandshakeLimits {
    HandshakeLimits {
        head_size_max: 2 * LARGE,
        header_count_max: LARGE,
        ..HandshakeLimits::default()
    }
}

#[test]
fn cve_rustsec_2023_0065_megabyte_in_single_bytes_takes_linear_time() {
    let request = plus(&[&format!("X: {}", "a".repeat(LARGE))]);
    let request = parse_in_pieces(&request, 1).expect("valid");
    assert_eq!(request.request().path(), "/chat");
}

#[test]
fn cve_rustsec_2023_0065_many_headers_in_small_pieces_take_linear_time() {
    let request = plus(&vec!["X: y"; LARGE / 8]);
    let request = parse_in_pieces(&request, 7).expect("valid");
    assert_eq!(request.request().headers().iter().count(), LARGE / 8 + 5);
}

#[test]
fn cve_2021_32640_spaces_in_a_list_of_subprotocols_take_linear_time() {
    let spaces = " ".repeat(LARGE / 2);
    let request = plus(&[&format!("Sec-WebSocket-Protocol: b{spaces},{spaces}x")]);
    let offered = parse_in_pieces(&request, LARGE).expect("valid");
    assert!(offered.request().subprotocols().eq(["b", "x"]));
    let inside = plus(&[&format!("Sec-WebSocket-Protocol: b{spaces}x")]);
    let refused = parse_in_pieces(&inside, LARGE).map(drop);
    assert_eq!(refused, Err(HandshakeError::SubprotocolsInvalid));
}

#[test]
fn cve_2021_32640_many_subprotocols_take_subquadratic_time() {
    let names: Vec<_> = (0..LARGE / 8).map(|number| format!("p{number}")).collect();
    let request = plus(&[&format!("Sec-WebSocket-Protocol: {}", names.join(","))]);
    let offered = parse_in_pieces(&request, LARGE).expect("valid");
    assert_eq!(offered.request().subprotocols().count(), names.len());
}

#[test]
fn cve_2024_37890_two_thousand_headers_are_rejected_with_431() {
    let request = plus(&vec!["X: y"; 2000]);
    match ServerHandshake::new(HandshakeLimits::default()).handle_bytes(&request) {
        ServerProgress::Invalid(invalid) => {
            assert_eq!(invalid.error, HandshakeError::TooManyHeaders { count_max: 100 });
            assert_eq!(invalid.response.status().as_u16(), 431);
        }
        progress => panic!("{progress:?}"),
    }
}

#[test]
fn cve_ghsa_5v72_xg48_5rpm_javascript_property_names_are_ordinary_names() {
    for name in ["constructor", "__proto__", "toString", "hasOwnProperty"] {
        let line = format!("Sec-WebSocket-Extensions: {name}; {name}={name}");
        let incoming = incoming(&plus(&[&line]));
        assert!(incoming.request().extensions().map(|offer| offer.name()).eq([name]));
    }
}

#[test]
fn cve_2020_7662_quoted_backslashes_take_linear_time_on_a_server() {
    let quoted = "\\c".repeat(LARGE / 2);
    let open = plus(&[&format!("Sec-WebSocket-Extensions: a; b=\"{quoted}")]);
    let refused = parse_in_pieces(&open, LARGE).map(drop);
    assert_eq!(refused, Err(HandshakeError::ExtensionsInvalid));
    let closed = plus(&[&format!("Sec-WebSocket-Extensions: a; b=\"{quoted}\"")]);
    assert!(parse_in_pieces(&closed, LARGE).is_ok());
    let semicolons = plus(&[&format!("Sec-WebSocket-Extensions: a{}", ";b".repeat(LARGE / 2))]);
    assert!(parse_in_pieces(&semicolons, LARGE).is_ok());
}

#[test]
fn cve_ghsa_g6wq_qcwm_j5g2_quoted_backslashes_take_linear_time_on_a_client() {
    let quoted = "\\c".repeat(LARGE / 2);
    let response = format!(
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\nSec-WebSocket-Extensions: a; b=\"{quoted}\r\n\r\n"
    );
    let step = awaiting(large_limits()).handle_bytes(response.as_bytes());
    assert!(matches!(
        step,
        ClientProgress::Failed(HandshakeError::ExtensionsInvalid)
    ));
}

#[test]
fn cve_2026_47073_informational_responses_are_limited() {
    let mut awaiting = awaiting(HandshakeLimits::default());
    for count in 1.. {
        match awaiting.handle_bytes(b"HTTP/1.1 100 x\r\n\r\n") {
            ClientProgress::Incomplete(next) => awaiting = next,
            ClientProgress::Failed(error) => {
                assert_eq!(error, HandshakeError::TooManyInformational { count_max: 10 });
                assert_eq!(count, 11);
                return;
            }
            progress => panic!("{progress:?}"),
        }
    }
}

#[test]
fn cve_2026_47073_body_of_a_rejection_is_limited() {
    let head = b"HTTP/1.1 403 No\r\n\r\n";
    let info = allocation_counter::measure(|| {
        let ClientProgress::Incomplete(mut awaiting) = awaiting(HandshakeLimits::default()).handle_bytes(head) else {
            panic!("the body has not arrived");
        };
        for _ in 0..1000 {
            match awaiting.handle_bytes(&[b'x'; 1000]) {
                ClientProgress::Incomplete(next) => awaiting = next,
                ClientProgress::Rejected(response) => {
                    assert!(response.is_body_truncated());
                    return assert_eq!(response.body().len(), HandshakeLimits::default().body_size_max);
                }
                progress => panic!("{progress:?}"),
            }
        }
        panic!("the response never ends");
    });
    assert!(info.bytes_max <= 4 * 16 * 1024, "{info:?}");
}

#[test]
fn cve_ghsa_8j3g_f24p_4mpw_slow_handshake_ends_at_the_driver_timeout() {
    for len in [1, 20, 100] {
        let request = plus(&[]);
        let step = ServerHandshake::new(HandshakeLimits::default()).handle_bytes(&request[..len]);
        let ServerProgress::Incomplete(handshake) = step else {
            panic!("{len} bytes are not a complete request");
        };
        let invalid = handshake.handle_timeout().expect("bytes were received");
        assert_eq!(invalid.response.status().as_u16(), 408);
    }
    let ClientProgress::Incomplete(awaiting) = awaiting(HandshakeLimits::default()).handle_bytes(b"HTTP/1.1 1") else {
        panic!("the response is incomplete");
    };
    assert_eq!(awaiting.handle_timeout().map(drop), Err(HandshakeError::TimedOut));
}

fn parse_in_pieces(request: &[u8], piece_len: usize) -> Result<Incoming, HandshakeError> {
    let mut handshake = ServerHandshake::new(large_limits());
    for piece in request.chunks(piece_len) {
        match handshake.handle_bytes(piece) {
            ServerProgress::Incomplete(next) => handshake = next,
            ServerProgress::Incoming(incoming) => return Ok(incoming),
            ServerProgress::Invalid(invalid) => return Err(invalid.error),
        }
    }
    panic!("the head is complete");
}

fn awaiting(limits: HandshakeLimits) -> AwaitingResponse {
    let uri = Uri::parse("ws://h/").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    ClientRequest::new(&uri, key).limits(limits).start().1
}
