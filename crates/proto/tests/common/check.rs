//! Checks one input in every split that TCP may produce.

use sockeye_proto::{CloseCause, ProtocolError, Side, State, TransportAction};

use super::endpoint::{Endpoint, Got, Local};
use super::frame::{Frame, KEY, binary, close, ping, text};

/// Checks that a server fails with `error` on `wire` and sends the close frame.
#[track_caller]
pub(crate) fn server_fails(wire: impl AsRef<[u8]>, error: ProtocolError) {
    check_fails(Local::Server, wire.as_ref(), &[], error);
}

/// Checks that a client fails with `error` on `wire` and sends the close frame.
#[track_caller]
pub(crate) fn client_fails(wire: impl AsRef<[u8]>, error: ProtocolError) {
    check_fails(Local::Client, wire.as_ref(), &[], error);
}

/// Checks that a server receives `expected` from `wire` and stays open.
#[track_caller]
pub(crate) fn server_receives(wire: impl AsRef<[u8]>, expected: &[Got]) {
    check_receives(Local::Server, wire.as_ref(), expected);
}

/// Checks that a client receives `expected` from `wire` and stays open.
#[track_caller]
pub(crate) fn client_receives(wire: impl AsRef<[u8]>, expected: &[Got]) {
    check_receives(Local::Client, wire.as_ref(), expected);
}

/// Checks that `wire` gives the events `before`, then `error`, and no further events.
#[track_caller]
pub(crate) fn check_fails(local: Local, wire: &[u8], before: &[Got], error: ProtocolError) {
    let mut expected = before.to_vec();
    expected.push(Got::ProtocolError(error));
    for_every_split(local, wire, &expected, |mut endpoint| {
        let Endpoint { connection, .. } = &endpoint;
        let close_info = connection.close_info().expect("failed").clone();
        assert_eq!(
            (close_info.cause(), close_info.initiator()),
            (CloseCause::ProtocolError(error), Side::Local)
        );
        assert_eq!((close_info.received(), close_info.code().0), (None, 1006));
        assert!(!close_info.is_clean());
        assert_eq!(connection.buffered_len(), 0, "a failed connection holds no memory");
        endpoint.is(State::Draining, TransportAction::HalfClose);
        assert_eq!(endpoint.transmits(), [close(error.close_code().0, error.reason())]);
        // A failed connection stays failed.
        assert_eq!(endpoint.receives([text("later"), ping(""), close(1000, "")]), []);
        assert_eq!(endpoint.transmits(), []);
        assert_eq!(endpoint.connection.close_info(), Some(&close_info));
    });
}

/// Checks that `wire`, which ends between messages, gives `expected`, and that the connection stays open.
#[track_caller]
pub(crate) fn check_receives(local: Local, wire: &[u8], expected: &[Got]) {
    let ends_in_control = matches!(expected.last(), Some(Got::Ping(_) | Got::Pong(_)));
    for_every_split(local, wire, expected, |mut endpoint| {
        endpoint.is(State::Open, TransportAction::Open);
        assert_eq!(endpoint.receives([text("after")]), [Got::text("after")]);
        // The payload of a split control frame is kept until the next one.
        let kept = if ends_in_control { 2 * 125 } else { 0 };
        assert!(
            endpoint.connection.buffered_len() <= kept,
            "a delivered message is not kept"
        );
    });
}

#[track_caller]
fn for_every_split(local: Local, wire: &[u8], expected: &[Got], check_end: impl Fn(Endpoint)) {
    let check = |pieces: &[&[u8]], expected: &[Got], split: &str| {
        let mut endpoint = Endpoint::new(local);
        let got: Vec<Got> = pieces.iter().flat_map(|piece| endpoint.receives_bytes(piece)).collect();
        assert_eq!(got, expected, "{split}");
        check_end(endpoint);
    };
    check(&[wire], expected, "in one piece");
    for cut in cuts(wire.len()) {
        let (head, tail) = wire.split_at(cut);
        check(&[head, tail], expected, &format!("split at {cut}"));
    }
    let bytes: Vec<&[u8]> = wire.chunks(1).collect();
    check(&bytes, expected, "byte by byte");

    let as_peer_sends = |frame: Frame| match local {
        Local::Server => frame.masked(KEY).bytes(),
        Local::Client => frame.bytes(),
    };
    let combined = [as_peer_sends(binary("before")), wire.to_vec()].concat();
    let with_other = [&[Got::binary("before")], expected].concat();
    check(&[&combined], &with_other, "after another message");
    let combined = [wire.to_vec(), as_peer_sends(binary("after"))].concat();
    let mut with_other = expected.to_vec();
    if !matches!(expected.last(), Some(Got::ProtocolError(_))) {
        with_other.push(Got::binary("after"));
    }
    check(&[&combined], &with_other, "before another message");
}

/// All split positions in a short input; positions near both ends and a few others in a long one.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..=len).filter(move |&cut| len <= 400 || cut < 20 || len - cut < 20 || cut % 8191 < 2)
}
