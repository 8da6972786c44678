//! C19 to C22: keys, credentials, and memory.

use sockeye_proto::handshake::{ClientProgress, ClientRequest, Key, Uri};
use sockeye_proto::{CloseCode, Data, Fragment, MessageKind};

use crate::common::{Endpoint, Frame, Local, close, keys_drawn, ping};

#[test]
fn cve_2025_10148_each_frame_has_a_new_key() {
    let mut client = Endpoint::client();
    let mut out = Vec::new();
    for _ in 0..1000 {
        client
            .connection
            .send(Data::Text("the same"), &mut out)
            .expect("connection is open");
    }
    let mut keys: Vec<_> = Frame::parse_all(&out).into_iter().map(|frame| frame.mask).collect();
    assert_eq!(keys.len(), 1000);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 1000, "all keys differ");
    assert!(!keys.contains(&None));
}

#[test]
fn cve_ghsa_w67g_5rqw_f597_fragments_and_control_frames_have_new_keys() {
    let mut client = Endpoint::client();
    let mut out = Vec::new();
    let before = keys_drawn();
    client
        .connection
        .send_fragment(Data::Binary(b"a"), Fragment::More, &mut out)
        .expect("connection is open");
    client
        .connection
        .send_fragment(Data::Binary(b"b"), Fragment::Last, &mut out)
        .expect("connection is open");
    client
        .connection
        .start_message(MessageKind::Text, 0, &mut out)
        .expect("connection is open");
    client.receives([ping("p")]);
    client.connection.ping(b"q").expect("connection is open");
    client.connection.poll_transmit(&mut out);
    client.connection.close(CloseCode::NORMAL, "").expect("valid");
    client.connection.poll_transmit(&mut out);
    // Two fragments, a message, a pong, a ping, a close frame.
    assert_eq!(client.read_sent(&out).len(), 6);
    assert_eq!(keys_drawn() - before, 6);
}

#[test]
fn cve_2026_42498_redirect_is_returned_and_not_followed() {
    let uri = Uri::parse("wss://h/").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    let request = ClientRequest::new(&uri, key).header("Authorization", "Bearer secret");
    let (_, awaiting) = request.expect("valid header").start();
    let response = b"HTTP/1.1 302 Found\r\nLocation: wss://attacker.net/\r\nContent-Length: 0\r\n\r\n";
    // The response consumed the state that held the header, so it cannot be sent again.
    let ClientProgress::Rejected(response) = awaiting.handle_bytes(response) else {
        panic!("expected a rejection");
    };
    assert_eq!(response.status().as_u16(), 302);
    assert_eq!(
        response.headers().get("location").and_then(|it| it.as_str()),
        Some("wss://attacker.net/")
    );
}

#[test]
fn cve_2026_42498_credentials_are_not_logged() {
    let uri = Uri::parse("ws://user:secret@h/");
    assert!(!format!("{uri:?}").contains("secret"));
    let uri = Uri::parse("ws://h/").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    let request = ClientRequest::new(&uri, key)
        .header("Cookie", "sid=secret")
        .expect("valid header");
    assert!(!format!("{request:?}").contains("secret"));
}

#[test]
fn cve_2026_45736_close_frame_contains_only_the_given_bytes() {
    for local in [Local::Server, Local::Client] {
        for len in 0..=123 {
            let reason = "r".repeat(len);
            let mut endpoint = Endpoint::new(local);
            endpoint.connection.close(CloseCode::NORMAL, &reason).expect("valid");
            assert_eq!(endpoint.transmits(), [close(1000, &reason)]);
        }
    }
}

#[test]
fn cve_2026_45736_ping_contains_only_the_given_bytes() {
    for local in [Local::Server, Local::Client] {
        for len in 0..=125 {
            let mut endpoint = Endpoint::new(local);
            endpoint.connection.ping(&vec![7; len]).expect("connection is open");
            assert_eq!(endpoint.transmits(), [ping(vec![7; len])]);
        }
    }
}

#[test]
fn cve_rustsec_2026_0007_proto_contains_no_unsafe_code() {
    // `forbid` applies to all modules and cannot be overridden.
    assert!(include_str!("../../src/lib.rs").contains("\n#![forbid(unsafe_code)]\n"));
}
