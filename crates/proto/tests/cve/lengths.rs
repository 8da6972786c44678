//! C1, C2: declared lengths.

use sockeye_proto::handshake::{HandshakeError, HandshakeLimits, ServerHandshake, ServerProgress};
use sockeye_proto::{Config, ProtocolError};

use crate::common::{Local, binary, continuation, frame, text};
use crate::cost::{connection, flood, limited, rejects, sent_to};

#[test]
fn cve_2020_13935_length_with_the_top_bit_is_rejected() {
    let wire = [0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4];
    rejects(Local::Server, wire, ProtocolError::LengthOverflow, 1002);
}

#[test]
fn cve_2020_27813_length_of_2_63_minus_1_after_a_fragment_does_not_wrap() {
    for local in [Local::Server, Local::Client] {
        let wire = sent_to(
            local,
            [binary("x").fin(false), continuation("").declaring(i64::MAX as u64)],
        );
        rejects(local, wire, ProtocolError::MessageTooBig, 1009);
    }
}

#[test]
fn cve_2021_26423_length_negative_as_signed_is_rejected() {
    let wire = [0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0];
    rejects(Local::Client, wire, ProtocolError::LengthOverflow, 1002);
}

#[test]
fn cve_2026_1528_largest_length_is_too_big_for_a_client() {
    let wire = [0x82, 0x7f, 0x7f, 255, 255, 255, 255, 255, 255, 255];
    rejects(Local::Client, wire, ProtocolError::MessageTooBig, 1009);
}

#[test]
fn cve_pysec_2026_4395_length_after_a_buffered_fragment_does_not_overflow() {
    // The sum of buffered and declared bytes is 2^63 - 8 to 2^63 + 11, around a sign change.
    for declared in (0..20).map(|n| (1_u64 << 63) - 18 + n) {
        let wire = sent_to(
            Local::Client,
            [text("0123456789").fin(false), continuation("").declaring(declared)],
        );
        let (error, code) = match declared >> 63 {
            0 => (ProtocolError::MessageTooBig, 1009),
            _ => (ProtocolError::LengthOverflow, 1002),
        };
        rejects(Local::Client, wire, error, code);
    }
}

#[test]
fn cve_2026_50161_space_for_the_mask_does_not_overflow() {
    // Adding the four bytes of the masking key to this length overflows 64 or 63 bits.
    for declared in u64::MAX - 4..=u64::MAX {
        let wire = frame(0x2, "").declaring(declared).masked([9; 4]).bytes();
        rejects(Local::Server, wire, ProtocolError::LengthOverflow, 1002);
    }
    for declared in (1 << 63) - 5..1 << 63 {
        let wire = frame(0x2, "").declaring(declared).masked([9; 4]).bytes();
        rejects(Local::Server, wire, ProtocolError::MessageTooBig, 1009);
    }
}

#[test]
fn cve_go_2026_6559_lengths_around_32_bits_are_too_big() {
    for declared in [
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 4,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 1,
    ] {
        for local in [Local::Server, Local::Client] {
            let wire = sent_to(local, [binary("").declaring(declared)]);
            rejects(local, wire, ProtocolError::MessageTooBig, 1009);
        }
    }
}

#[test]
fn cve_rustsec_2022_0035_declared_length_allocates_nothing() {
    for local in [Local::Server, Local::Client] {
        let costs = [1, 16 << 20].map(|declared| {
            let mut connection = connection(local, Config::default());
            let header = sent_to(local, [binary("").declaring(declared)]);
            let cost = flood(&mut connection, &header, &[], 0);
            assert_eq!(cost.error, None);
            cost.bytes_max
        });
        // Memory for an incomplete message, regardless of its length.
        assert_eq!(costs[0], costs[1]);
        assert!(costs[0] <= 128, "{costs:?}");
    }
}

#[test]
fn cve_2018_21035_two_gigabytes_are_rejected_at_the_header() {
    for local in [Local::Server, Local::Client] {
        let wire = sent_to(local, [text("").declaring((2 << 30) - 1)]);
        rejects(local, wire, ProtocolError::MessageTooBig, 1009);
    }
}

#[test]
fn cve_2018_21035_without_limit_memory_follows_received_bytes() {
    let mut connection = connection(Local::Server, limited(u64::MAX));
    let header = sent_to(Local::Server, [binary("").declaring(i64::MAX as u64)]);
    let cost = flood(&mut connection, &header, &[0; 1000], 100);
    assert_eq!(cost.error, None);
    assert!(cost.bytes_max <= 3 * 100_000, "{cost:?}");
}

#[test]
fn cve_2026_15565_endless_head_is_limited_then_431() {
    let HandshakeLimits { head_size_max, .. } = HandshakeLimits::default();
    let head = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let mut error = None;
    let info = allocation_counter::measure(|| {
        let mut handshake = ServerHandshake::new(HandshakeLimits::default());
        for (idx, piece) in head.chunks(100).enumerate() {
            match handshake.handle_bytes(piece) {
                ServerProgress::Incomplete(next) => handshake = next,
                ServerProgress::Invalid(invalid) => return error = Some((invalid.error, idx)),
                ServerProgress::Incoming(_) => panic!("the head is incomplete"),
            }
        }
    });
    let (error, idx) = error.expect("the head is rejected");
    assert_eq!(error.status().as_u16(), 431);
    assert_eq!(
        error,
        HandshakeError::HeadTooLarge {
            size_max: head_size_max
        }
    );
    assert_eq!(idx, head_size_max / 100, "rejected at the piece that exceeds the limit");
    assert!(info.bytes_max <= 3 * head_size_max as u64 + 1024, "{info:?}");
}
