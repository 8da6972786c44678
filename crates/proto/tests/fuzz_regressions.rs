//! Minimized inputs of bugs found by fuzzing.

use sockeye_proto::handshake::{HandshakeError, HandshakeLimits, InvalidRequest, ServerHandshake, ServerProgress};

#[track_caller]
fn invalid(pieces: &[&[u8]]) -> InvalidRequest {
    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    for piece in pieces {
        match handshake.handle_bytes(piece) {
            ServerProgress::Incomplete(next) => handshake = next,
            ServerProgress::Incoming(_) => panic!("accepted"),
            ServerProgress::Invalid(invalid) => return invalid,
        }
    }
    panic!("incomplete");
}

/// RFC 9110 §9.3.2. An error in the first piece of a head used to be answered with a body, because the piece with the
/// method was not kept.
#[test]
fn server_answers_invalid_head_request_without_a_body_for_every_split() {
    let request = b"HEAD / HTTP/1.1\r\nHost: \0";
    for cut in 0..request.len() {
        let (first, second) = request.split_at(cut);
        let invalid = invalid(&[first, second]);
        assert_eq!(invalid.error, HandshakeError::ControlByte(0));
        assert_eq!(invalid.response.body(), b"", "split at {cut}");
    }
}
