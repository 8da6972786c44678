//! Frames received together with the handshake, for every split; and a server that rejects connections under load.

use sockeye_proto::handshake::{
    Acceptance, ClientProgress, ClientRequest, HandshakeLimits, Key, Rejection, ServerHandshake, ServerProgress,
    StatusCode, Uri,
};

use crate::common::{Endpoint, Got, KEY, Local, ping, text, wire};
use crate::handshake_support::{incoming, plus};

fn expected() -> [Got; 3] {
    [Got::text("first"), Got::ping("p"), Got::text("second")]
}

#[test]
fn server_delivers_frames_received_with_the_request_for_every_split() {
    let frames = [text("first"), ping("p"), text("second")].map(|frame| frame.masked(KEY));
    let stream = [plus(&[]), wire(frames)].concat();
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let got = match ServerHandshake::new(HandshakeLimits::default()).handle_bytes(head) {
            ServerProgress::Incoming(incoming) => {
                let accepted = incoming.accept(Acceptance::new()).expect("plain");
                then_receives(Local::Server, &[&accepted.read_buf, tail])
            }
            ServerProgress::Incomplete(handshake) => {
                let ServerProgress::Incoming(incoming) = handshake.handle_bytes(tail) else {
                    panic!("split at {cut}: the rest must complete it");
                };
                let accepted = incoming.accept(Acceptance::new()).expect("plain");
                then_receives(Local::Server, &[&accepted.read_buf])
            }
            ServerProgress::Invalid(invalid) => panic!("split at {cut}: {invalid:?}"),
        };
        assert_eq!(got, expected(), "split at {cut}");
    }
}

#[test]
fn client_delivers_frames_received_with_the_response_for_every_split() {
    let uri = Uri::parse("ws://server.example.com/chat").expect("valid");
    let key = Key::parse(b"x3JJHMbDL1EzLkh9GBhXDw==").expect("canonical");
    let response = incoming(&plus(&[])).accept(Acceptance::new()).expect("plain").response;
    let frames = wire([text("first"), ping("p"), text("second")]);
    let stream = [response.to_bytes(), frames].concat();
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let (_, awaiting) = ClientRequest::new(&uri, key).start();
        let got = match awaiting.handle_bytes(head) {
            ClientProgress::Connected(connected) => then_receives(Local::Client, &[&connected.read_buf, tail]),
            ClientProgress::Incomplete(awaiting) => {
                let ClientProgress::Connected(connected) = awaiting.handle_bytes(tail) else {
                    panic!("split at {cut}: the rest must complete it");
                };
                then_receives(Local::Client, &[&connected.read_buf])
            }
            progress => panic!("split at {cut}: {progress:?}"),
        };
        assert_eq!(got, expected(), "split at {cut}");
    }
}

fn then_receives(local: Local, pieces: &[&[u8]]) -> Vec<Got> {
    let mut endpoint = Endpoint::new(local);
    pieces.iter().flat_map(|piece| endpoint.receives_bytes(piece)).collect()
}

#[test]
fn server_sheds_load_with_503_and_retry_after() {
    let status = StatusCode::new(503).expect("three digits");
    let rejection = Rejection::new(status).and_then(|rejection| rejection.header("Retry-After", "5"));
    let response = incoming(&plus(&[])).reject(rejection.expect("allowed"));
    let response = String::from_utf8(response.to_bytes()).expect("ASCII");
    assert!(
        response.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"),
        "{response}"
    );
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
}
