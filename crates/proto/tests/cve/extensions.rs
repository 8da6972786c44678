//! C6, C7: extensions that were not negotiated.

use sockeye_proto::ProtocolError;
use sockeye_proto::handshake::{Acceptance, ClientProgress, ClientRequest, HandshakeError, Key, Uri};

use crate::common::{Local, binary, frame, text};
use crate::cost::{rejects, sent_to};
use crate::handshake_support::{incoming, plus};

#[test]
fn cve_ghsa_mq44_7p77_q5h7_rsv1_is_rejected_without_negotiation() {
    for local in [Local::Server, Local::Client] {
        for opcode in [0x1, 0x2, 0x8, 0x9, 0xa] {
            rejects(
                local,
                sent_to(local, [frame(opcode, "").rsv(4)]),
                ProtocolError::ReservedBits,
                1002,
            );
        }
        let continued = [text("a").fin(false), frame(0x0, "b").rsv(4)];
        rejects(local, sent_to(local, continued), ProtocolError::ReservedBits, 1002);
    }
}

#[test]
fn cve_2022_39386_rsv2_and_rsv3_are_rejected_without_panic() {
    for local in [Local::Server, Local::Client] {
        for rsv in [1, 2, 3, 5, 6, 7] {
            rejects(
                local,
                sent_to(local, [binary("a").rsv(rsv)]),
                ProtocolError::ReservedBits,
                1002,
            );
        }
    }
}

#[test]
fn cve_2026_2229_invalid_extension_parameters_decline_without_panic() {
    for params in [
        "server_max_window_bits=0",
        "server_max_window_bits=99",
        "client_max_window_bits=\"7\"",
        "x; x",
    ] {
        let request = plus(&[&format!("Sec-WebSocket-Extensions: permessage-deflate; {params}")]);
        let accepted = incoming(&request).accept(Acceptance::new()).expect("plain");
        assert_eq!(accepted.response.status().as_u16(), 101);
        assert!(!accepted.response.headers().contains("Sec-WebSocket-Extensions"));
    }
}

#[test]
fn cve_2026_2229_extension_not_offered_fails_the_client() {
    // checks [7692-5-11]
    for params in ["", "; server_max_window_bits=0", "; server_max_window_bits=99"] {
        let uri = Uri::parse("ws://h/").expect("valid");
        let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
        let (_, awaiting) = ClientRequest::new(&uri, key).start();
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
            Sec-WebSocket-Extensions: permessage-deflate{params}\r\n\r\n"
        );
        let step = awaiting.handle_bytes(response.as_bytes());
        assert!(
            matches!(step, ClientProgress::Failed(HandshakeError::ExtensionNotOffered)),
            "{step:?}"
        );
    }
}
