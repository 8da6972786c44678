//! Memory grows with received bytes, never with a declared length.

mod common;

use common::{Endpoint, Frame, Got, Local, at, binary, close, continuation, frame, ping, text};
use sockeye_proto::{Config, Connection};

const BOTH: [Local; 2] = [Local::Server, Local::Client];

/// Memory allowed in addition to twice the received bytes: the smallest allocation of a vector.
const SLACK: usize = 8;

#[test]
fn header_declaring_16_mib_allocates_nothing() {
    for local in BOTH {
        for declared in [16 << 20, (16 << 20) - 1, 70_000, 1] {
            for opcode in [0x1, 0x2] {
                let mut endpoint = Endpoint::new(local);
                assert_eq!(endpoint.receives([frame(opcode, "").declaring(declared)]), []);
                assert_eq!(endpoint.connection.buffered_len(), 0);
                assert!(
                    endpoint.connection.direct_read_buffer().is_none(),
                    "no way around the rule"
                );
            }
        }
    }
}

#[test]
fn buffer_is_at_most_twice_the_bytes_received() {
    for local in BOTH {
        for piece_len in [1, 7, 1000, 16_384, 100_000] {
            let mut endpoint = Endpoint::new(local);
            let header = endpoint.as_peer_sends(binary("").declaring(16 << 20)).bytes();
            endpoint.receives_bytes(&header);
            let piece = vec![0; piece_len];
            let mut arrived = 0;
            while arrived < 600_000.min(piece_len * 3000) {
                assert_eq!(endpoint.receives_bytes(&piece), []);
                arrived += piece_len;
                check_held(&endpoint.connection, arrived);
            }
        }
    }
}

#[test]
fn direct_reads_buffer_at_most_twice_the_bytes_or_16_mib_more() {
    const MIB: usize = 1 << 20;
    for local in BOTH {
        for total in [16 * MIB, 40 * MIB] {
            let mut config = Config::default();
            config.limits.message_size_max = total as u64;
            let mut endpoint = Endpoint::with(local, config);
            let header = endpoint.as_peer_sends(binary("").declaring(total as u64)).bytes();
            endpoint.receives_bytes(&header);
            endpoint.receives_bytes(&[0; 40_000]);
            let mut arrived = 40_000;
            while let Some((buffer, at_most)) = endpoint.connection.direct_read_buffer() {
                let room = arrived.max(if arrived < MIB { 0 } else { 16 * MIB });
                assert!(buffer.capacity() <= arrived + room);
                let len = at_most.min(buffer.capacity() - buffer.len()).min(30_000);
                buffer.resize(buffer.len() + len, 0);
                arrived += len;
                assert!(endpoint.connection.handle_direct_read(at(0)).is_none());
                assert!(
                    endpoint.connection.buffered_len() <= total,
                    "the buffer of a known frame does not outgrow it"
                );
            }
            assert!(
                arrived > total - 64 * 1024,
                "direct reads stay possible until near the end"
            );
        }
    }
}

#[test]
fn one_byte_fragments_use_no_more_memory_than_one_fragment() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([binary("x").fin(false)]);
        for arrived in 2..20_000 {
            endpoint.receives([continuation("x").fin(false)]);
            check_held(&endpoint.connection, arrived);
        }
    }
}

#[test]
fn empty_fragments_allocate_nothing() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([text("").fin(false)]);
        for _ in 0..999 {
            endpoint.receives([continuation("").fin(false), ping("")]);
            assert_eq!(endpoint.connection.buffered_len(), 0);
        }
    }
}

#[test]
fn rejected_message_is_freed_for_every_split() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        endpoint.receives([binary(vec![1; 100_000]).fin(false)]);
        let got = endpoint.receives([continuation("").declaring(16 << 20)]);
        assert_eq!(got, [Got::ProtocolError(sockeye_proto::ProtocolError::MessageTooBig)]);
        assert_eq!(endpoint.connection.buffered_len(), 0);
    }
}

#[test]
fn close_frees_the_buffer_of_an_unfinished_message() {
    let unfinished: fn(&mut Endpoint) = |endpoint| drop(endpoint.receives([binary(vec![1; 100_000]).fin(false)]));
    let ends: [fn(&mut Endpoint); 4] = [
        |endpoint| drop(endpoint.receives([close(1000, "")])),
        |endpoint| drop(endpoint.receives([frame(0x3, "")])),
        |endpoint| endpoint.connection.handle_transport_end(),
        |endpoint| {
            // First the ping, then the timeout.
            endpoint.connection.handle_timeout(at(20_000));
            endpoint.now_ms = 20_000;
            endpoint.transmits();
            endpoint.connection.handle_timeout(at(30_000));
        },
    ];
    for local in BOTH {
        for end in ends {
            let mut endpoint = Endpoint::new(local);
            unfinished(&mut endpoint);
            assert!(endpoint.connection.buffered_len() >= 100_000);
            end(&mut endpoint);
            assert_eq!(endpoint.connection.buffered_len(), 0);
        }
    }
}

#[test]
fn split_control_frame_buffers_at_most_twice_its_payload() {
    for local in BOTH {
        let mut endpoint = Endpoint::new(local);
        for _ in 0..10 {
            for sent in [ping([7; 125]), frame(0xa, [7; 125])] {
                let wire: Vec<Frame> = vec![sent, text("between").fin(false), continuation("")];
                let wire: Vec<u8> = wire
                    .into_iter()
                    .flat_map(|frame| endpoint.as_peer_sends(frame).bytes())
                    .collect();
                for byte in wire.chunks(1) {
                    endpoint.receives_bytes(byte);
                    assert!(endpoint.connection.buffered_len() <= 2 * 125);
                }
            }
        }
    }
}

#[test]
fn an_idle_connection_is_small() {
    // An idle connection must need only hundreds of bytes in total, including the driver.
    let size = size_of::<Connection>();
    assert!(size <= 384, "{size} bytes");
}

#[track_caller]
fn check_held(connection: &Connection, arrived: usize) {
    let held = connection.buffered_len();
    assert!(held <= 2 * arrived + SLACK, "{held} bytes held after {arrived} arrived");
}
