//! C3, C4: messages in many pieces.

use sockeye_proto::{Config, ProtocolError};

use crate::common::{Endpoint, Got, Local, binary, close, continuation, ping, text};
use crate::cost::{FAILURE, connection, flood, limited, rejects, sent_to};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// Peak number of allocations of a connection: a message, its copy while growing, and a pending pong.
const ALLOCATIONS: u64 = 3;

#[test]
fn cve_2026_42786_endless_continuations_are_limited() {
    const LIMIT: u64 = 1 << 20;
    for local in BOTH {
        let mut connection = connection(local, limited(LIMIT));
        let first = sent_to(local, [binary([7; 1000]).fin(false)]);
        let piece = sent_to(local, [continuation([7; 1000]).fin(false)]);
        let cost = flood(&mut connection, &first, &piece, usize::MAX - 1);
        assert_eq!(cost.error, Some(ProtocolError::MessageTooBig));
        assert!(cost.bytes_max <= 3 * LIMIT, "{cost:?}");
        assert!(cost.bytes_left <= FAILURE as i64, "{cost:?}");
    }
}

#[test]
fn cve_2026_9675_limit_applies_to_the_sum_of_fragments() {
    for (len, expected) in [(9, Got::text("aaaaaaaaa")), (10, Got::text("aaaaaaaaaa"))] {
        let mut client = Endpoint::with(Local::Client, limited(10));
        let fragments = (0..len).map(|idx| if idx == 0 { text("a") } else { continuation("a") }.fin(idx == len - 1));
        assert_eq!(client.receives(fragments), [expected]);
    }
    let mut client = Endpoint::with(Local::Client, limited(10));
    let fragments = (0..11).map(|idx| if idx == 0 { text("a") } else { continuation("a") }.fin(false));
    assert_eq!(
        client.receives(fragments),
        [Got::ProtocolError(ProtocolError::MessageTooBig)]
    );
    assert_eq!(client.transmits(), [close(1009, "message too big")]);
}

#[test]
fn cve_2014_0193_fragment_over_the_limit_is_rejected_before_buffering() {
    let mut connection = connection(Local::Server, limited(1000));
    let first = sent_to(Local::Server, [binary([7; 1000]).fin(false)]);
    let piece = sent_to(Local::Server, [continuation([7; 100_000])]);
    let cost = flood(&mut connection, &first, &piece, 1);
    assert_eq!(cost.error, Some(ProtocolError::MessageTooBig));
    assert!(cost.bytes_max <= 2000 + FAILURE, "{cost:?}");
}

#[test]
fn cve_2026_48779_empty_fragments_are_limited_to_1000() {
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let first = sent_to(local, [text("").fin(false)]);
        let piece = sent_to(local, [continuation("").fin(false)]);
        let cost = flood(&mut connection, &first, &piece, 10_000_000);
        assert_eq!(cost.error, Some(ProtocolError::TooManyEmptyFragments));
        assert_eq!(ProtocolError::TooManyEmptyFragments.close_code().0, 1008);
        assert!(cost.bytes_max <= FAILURE, "{cost:?}");
    }
}

#[test]
fn cve_2026_62389_one_byte_fragments_use_memory_for_their_payload() {
    const COUNT: usize = 200_000;
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let first = sent_to(local, [binary("x").fin(false)]);
        let piece = sent_to(local, [continuation("x").fin(false)]);
        let cost = flood(&mut connection, &first, &piece, COUNT);
        assert_eq!(cost.error, None);
        assert!(cost.bytes_max <= 3 * COUNT as u64, "{cost:?}");
        assert!(cost.count_max <= ALLOCATIONS, "no allocation per fragment: {cost:?}");
    }
}

#[test]
fn cve_2026_12151_pings_do_not_reset_the_empty_fragment_count() {
    let mut connection = connection(Local::Client, Config::default());
    let first = sent_to(Local::Client, [binary("").fin(false)]);
    let piece = sent_to(Local::Client, [ping("p"), continuation("").fin(false)]);
    let cost = flood(&mut connection, &first, &piece, 10_000_000);
    assert_eq!(
        (cost.error, cost.event_count),
        (Some(ProtocolError::TooManyEmptyFragments), 1000)
    );
    assert!(cost.bytes_max <= FAILURE, "{cost:?}");
}

#[test]
fn cve_2026_123817_message_in_single_bytes_uses_memory_for_its_payload() {
    const LEN: usize = 200_000;
    for local in BOTH {
        let mut connection = connection(local, Config::default());
        let header = sent_to(local, [binary("").declaring(LEN as u64 + 1)]);
        let cost = flood(&mut connection, &header, &[0], LEN);
        assert_eq!((cost.error, cost.event_count), (None, 0));
        assert!(cost.bytes_max <= 3 * LEN as u64, "{cost:?}");
        assert!(cost.count_max <= ALLOCATIONS, "{cost:?}");
    }
}

#[test]
fn cve_2026_123817_control_frame_in_single_bytes_uses_memory_for_its_payload() {
    let mut connection = connection(Local::Server, Config::default());
    let wire = sent_to(Local::Server, [ping([7; 125]), text("").fin(false), continuation("")]);
    for byte in wire.repeat(100) {
        let cost = flood(&mut connection, &[byte], &[], 0);
        assert_eq!(cost.error, None);
        assert!(connection.buffered_len() <= 2 * 125);
    }
}

#[test]
fn cve_2026_54274_unfinished_frame_counts_with_its_declared_length() {
    for local in BOTH {
        let mut connection = connection(local, limited(1000));
        let first = sent_to(local, [binary([7; 600]).fin(false)]);
        // Only the header and one byte of the second frame arrive.
        let piece = sent_to(local, [continuation("x").declaring(401)]);
        let cost = flood(&mut connection, &first, &piece, 1);
        assert_eq!(cost.error, Some(ProtocolError::MessageTooBig));
        assert!(cost.bytes_max <= 1200 + FAILURE, "{cost:?}");
    }
}

#[test]
fn cve_2026_54274_new_message_does_not_replace_an_unfinished_one() {
    for local in BOTH {
        let wire = sent_to(local, [binary([7; 100]).fin(false), binary("")]);
        rejects(local, wire, ProtocolError::ExpectedContinuation, 1002);
    }
}
