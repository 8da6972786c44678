//! Rules for single frames: masking, reserved bits, opcodes, lengths (RFC 6455 §5.1 to §5.5).
//!
//! Input is written as bytes. Masked frames mostly use a key of zeros, which is legal (§5.3) and keeps the payload
//! readable.

mod common;

use common::{
    Got, Local, binary, check_fails, client_fails, client_receives, frame, server_fails, server_receives, text,
};
use sockeye_proto::ProtocolError;

/// A masked frame with the first byte `first`, an empty payload and a key of zeros.
fn masked_empty(first: u8) -> [u8; 6] {
    [first, 0x80, 0, 0, 0, 0]
}

// RFC 6455 §5.1: clients mask, servers do not.

#[test]
fn server_receives_unmasked_frame_fails_1002() {
    // checks [6455-5.1-2, 6455-5.1-3, 6455-7.1.7-2]
    server_fails([0x81, 0x01, b'a'], ProtocolError::UnmaskedFrame);
    server_fails([0x89, 0x00], ProtocolError::UnmaskedFrame);
    server_fails([0x88, 0x02, 0x03, 0xe8], ProtocolError::UnmaskedFrame);
}

#[test]
fn client_receives_masked_frame_fails_1002() {
    // checks [6455-5.1-5, 6455-5.1-6, 6455-7.1.7-1]
    client_fails([0x81, 0x81, 1, 2, 3, 4, b'a' ^ 1], ProtocolError::MaskedFrame);
    client_fails(masked_empty(0x89), ProtocolError::MaskedFrame);
    client_fails([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], ProtocolError::MaskedFrame);
}

#[test]
fn server_receives_frame_masked_with_zeros_and_accepts_it() {
    server_receives([0x81, 0x81, 0, 0, 0, 0, b'a'], &[Got::text("a")]);
}

#[test]
fn server_receives_the_masked_hello_of_the_rfc() {
    // checks [6455-5.2-7, 6455-6.2-5]
    // RFC 6455 §5.7.
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    server_receives(hello, &[Got::text("Hello")]);
}

#[test]
fn client_receives_the_unmasked_hello_of_the_rfc() {
    // RFC 6455 §5.7, unfragmented and in fragments.
    client_receives([0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], &[Got::text("Hello")]);
    client_receives(
        [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f],
        &[Got::text("Hello")],
    );
}

// RFC 6455 §5.2: reserved bits and opcodes.

#[test]
fn server_receives_reserved_bits_fails_1002() {
    // checks [6455-5.2-2]
    for rsv in 1..8 {
        for opcode in [0x1, 0x2, 0x8, 0x9, 0xa] {
            server_fails(masked_empty(0x80 | rsv << 4 | opcode), ProtocolError::ReservedBits);
        }
        // The opcode is checked first.
        server_fails(masked_empty(0x83 | rsv << 4), ProtocolError::ReservedOpcode(3));
    }
}

#[test]
fn client_receives_reserved_bits_fails_1002() {
    // checks [6455-5.2-2]
    for rsv in 1..8 {
        for opcode in [0x1, 0x2, 0x8, 0x9, 0xa] {
            client_fails([0x80 | rsv << 4 | opcode, 0], ProtocolError::ReservedBits);
        }
    }
}

#[test]
fn server_receives_reserved_bits_on_a_continuation_fails_1002() {
    // Text without FIN, then a continuation with RSV1.
    let wire = [&masked_empty(0x01)[..], &masked_empty(0xc0)].concat();
    server_fails(wire, ProtocolError::ReservedBits);
}

#[test]
fn client_receives_reserved_bits_on_a_continuation_fails_1002() {
    client_fails([0x01, 0x00, 0xc0, 0x00], ProtocolError::ReservedBits);
}

#[test]
fn server_receives_reserved_opcode_fails_1002() {
    // checks [6455-5.2-3]
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        server_fails(masked_empty(0x80 | opcode), ProtocolError::ReservedOpcode(opcode));
        server_fails(masked_empty(opcode), ProtocolError::ReservedOpcode(opcode));
    }
}

#[test]
fn client_receives_reserved_opcode_fails_1002() {
    // checks [6455-5.2-3]
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        client_fails([0x80 | opcode, 0], ProtocolError::ReservedOpcode(opcode));
        client_fails([opcode, 0], ProtocolError::ReservedOpcode(opcode));
    }
}

// RFC 6455 §5.2: the three encodings of the payload length.

#[test]
fn server_receives_lengths_at_every_encoding_boundary() {
    // checks [6455-5.2-6, 6455-5.3-6, 6455-6.2-1]
    for len in [0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537] {
        let payload = vec![b'x'; len];
        server_receives(binary(&payload).masked([9, 8, 7, 6]).bytes(), &[Got::binary(&payload)]);
    }
}

#[test]
fn client_receives_lengths_at_every_encoding_boundary() {
    for len in [0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 65_537] {
        let payload = "x".repeat(len);
        client_receives(text(&payload).bytes(), &[Got::text(&payload)]);
    }
}

#[test]
fn server_receives_non_minimal_length_fails_1002() {
    // checks [6455-5.2-5]
    for len in [0, 1, 125] {
        server_fails([0x82, 0xfe, 0, len, 0, 0, 0, 0], ProtocolError::NonMinimalLength);
        server_fails(
            [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, len, 0, 0, 0, 0],
            ProtocolError::NonMinimalLength,
        );
    }
    server_fails(
        [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        ProtocolError::NonMinimalLength,
    );
}

#[test]
fn client_receives_non_minimal_length_fails_1002() {
    for len in [0, 1, 125] {
        client_fails([0x82, 0x7e, 0, len], ProtocolError::NonMinimalLength);
        client_fails([0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0, len], ProtocolError::NonMinimalLength);
    }
    client_fails(
        [0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        ProtocolError::NonMinimalLength,
    );
}

#[test]
fn server_receives_length_with_the_top_bit_fails_1002() {
    // checks [6455-5.2-4]
    server_fails(
        [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ProtocolError::LengthOverflow,
    );
    server_fails(
        [0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        ProtocolError::LengthOverflow,
    );
}

#[test]
fn client_receives_length_with_the_top_bit_fails_1002() {
    // checks [6455-5.2-4]
    client_fails([0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], ProtocolError::LengthOverflow);
    client_fails(
        [0x82, 0x7f, 255, 255, 255, 255, 255, 255, 255, 255],
        ProtocolError::LengthOverflow,
    );
}

#[test]
fn server_receives_the_largest_legal_length_fails_1009() {
    server_fails(
        [0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        ProtocolError::MessageTooBig,
    );
}

#[test]
fn client_receives_the_largest_legal_length_fails_1009() {
    client_fails(
        [0x82, 0x7f, 0x7f, 255, 255, 255, 255, 255, 255, 255],
        ProtocolError::MessageTooBig,
    );
}

#[test]
fn length_checks_are_independent_of_message_state() {
    // Lengths at which implementations have overflowed: around the bounds of integer types.
    let lengths = [
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 1,
        (1 << 53) + 1,
        (1 << 62) - 1,
        (1 << 63) - 14,
        (1 << 63) - 4,
        (1 << 63) - 1,
        1 << 63,
        (1 << 63) + 1,
        u64::MAX - 13,
        u64::MAX - 4,
        u64::MAX - 1,
        u64::MAX,
    ];
    for len in lengths {
        let error = if len >> 63 == 0 {
            ProtocolError::MessageTooBig
        } else {
            ProtocolError::LengthOverflow
        };
        for (local, key) in [(Local::Server, Some([1, 2, 3, 4])), (Local::Client, None)] {
            for already in ["", "0123456789"] {
                let mut begin = binary(already).fin(false);
                let mut huge = frame(0x0, "").declaring(len);
                (begin.mask, huge.mask) = (key, key);
                check_fails(local, &[begin.bytes(), huge.bytes()].concat(), &[], error);
            }
            let mut alone = frame(0x1, "").declaring(len);
            alone.mask = key;
            check_fails(local, &alone.bytes(), &[], error);
        }
    }
}

// RFC 6455 §5.5: control frames.

#[test]
fn server_receives_fragmented_control_fails_1002() {
    // checks [6455-5.4-4, 6455-5.5-2]
    for opcode in [0x8, 0x9, 0xa] {
        server_fails(masked_empty(opcode), ProtocolError::FragmentedControl);
    }
}

#[test]
fn client_receives_fragmented_control_fails_1002() {
    // checks [6455-5.4-4, 6455-5.5-2]
    for opcode in [0x8, 0x9, 0xa] {
        client_fails([opcode, 0], ProtocolError::FragmentedControl);
    }
}

#[test]
fn server_receives_control_of_126_bytes_fails_1002() {
    // checks [6455-5.5-1]
    for opcode in [0x8, 0x9, 0xa] {
        let oversized = frame(opcode, [b'x'; 126]).masked([0; 4]);
        server_fails(oversized.bytes(), ProtocolError::OversizedControl);
        // The first two bytes suffice.
        server_fails([0x80 | opcode, 0xff], ProtocolError::OversizedControl);
    }
}

#[test]
fn client_receives_control_of_126_bytes_fails_1002() {
    // checks [6455-5.5-1]
    for opcode in [0x8, 0x9, 0xa] {
        client_fails(frame(opcode, [b'x'; 126]).bytes(), ProtocolError::OversizedControl);
        client_fails([0x80 | opcode, 0x7f], ProtocolError::OversizedControl);
    }
}

#[test]
fn server_receives_ping_and_pong_of_124_and_125_bytes() {
    for len in [0, 124, 125] {
        let payload = vec![7; len];
        server_receives(
            frame(0x9, &payload).masked([1, 2, 3, 4]).bytes(),
            &[Got::ping(&payload)],
        );
        server_receives(
            frame(0xa, &payload).masked([1, 2, 3, 4]).bytes(),
            &[Got::pong(&payload)],
        );
    }
}

#[test]
fn client_receives_ping_and_pong_of_124_and_125_bytes() {
    for len in [0, 124, 125] {
        let payload = vec![7; len];
        client_receives(frame(0x9, &payload).bytes(), &[Got::ping(&payload)]);
        client_receives(frame(0xa, &payload).bytes(), &[Got::pong(&payload)]);
    }
}
