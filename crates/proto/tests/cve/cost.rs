//! Measures the cost of an attack: memory with a counting allocator, steps as the number of calls.
//!
//! A growing vector is counted with both its old and its new allocation, as if the allocator always copied. A message
//! buffer of at most twice the received bytes may therefore be counted as three times as much.

use std::sync::Arc;

use sockeye_proto::{Config, Connection, Event, ProtocolError, Role};

use crate::common::{Frame, KEY, Local, at, check_fails, mask, wire};

/// Memory that a failing connection needs for its close info and the reason of its close frame, in bytes.
pub(crate) const FAILURE: u64 = 512;

/// The result of an attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) error: Option<ProtocolError>,
    /// Number of messages, pings, pongs and close frames delivered.
    pub(crate) event_count: usize,
    /// Peak memory, in bytes.
    pub(crate) bytes_max: u64,
    /// Peak number of allocations.
    pub(crate) count_max: u64,
    /// Bytes still allocated afterwards.
    pub(crate) bytes_left: i64,
}

/// The default configuration with another message size limit.
pub(crate) fn limited(message_size_max: u64) -> Config {
    let mut config = Config::default();
    config.limits.message_size_max = message_size_max;
    config
}

pub(crate) fn connection(local: Local, config: Config) -> Connection {
    let role = match local {
        Local::Server => Role::Server,
        Local::Client => Role::Client { mask },
    };
    Connection::new(role, Arc::new(config), at(0))
}

/// Encodes frames as the peer of `local` sends them.
pub(crate) fn sent_to(local: Local, frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    wire(frames.into_iter().map(|frame| match local {
        Local::Server => frame.masked(KEY),
        Local::Client => frame,
    }))
}

/// Passes `first` to `connection` and then `piece` repeatedly, until it fails or all are received.
pub(crate) fn flood(connection: &mut Connection, first: &[u8], piece: &[u8], times: usize) -> Cost {
    let mut input = [first, piece].concat();
    let (mut error, mut event_count) = (None, 0);
    let info = allocation_counter::measure(|| {
        for round in 0..=times {
            let sent = if round == 0 { first } else { piece };
            input[..sent.len()].copy_from_slice(sent);
            receive(connection, &mut input[..sent.len()], &mut error, &mut event_count);
            if error.is_some() {
                break;
            }
        }
    });
    Cost {
        error,
        event_count,
        bytes_max: info.bytes_max,
        count_max: info.count_max,
        bytes_left: info.bytes_current,
    }
}

/// Passes one input. Each call must consume bytes or be the last, so there are at most as many calls as bytes.
fn receive(
    connection: &mut Connection,
    mut input: &mut [u8],
    error: &mut Option<ProtocolError>,
    event_count: &mut usize,
) {
    for _ in 0..=input.len() {
        let received = connection.handle_bytes(at(0), input);
        let consumed = received.consumed;
        match received.event {
            Some(Event::ProtocolError(found)) => *error = Some(found),
            Some(_) => *event_count += 1,
            None => {
                assert_eq!(consumed, input.len(), "without an event, all input is consumed");
                return;
            }
        }
        input = &mut input[consumed..];
    }
    panic!("more calls than bytes");
}

/// Checks that `local` rejects `wire` with this error and close code for every split, with no more memory than
/// necessary.
#[track_caller]
pub(crate) fn rejects(local: Local, wire: impl AsRef<[u8]>, error: ProtocolError, code: u16) {
    let wire = wire.as_ref();
    assert_eq!(error.close_code().0, code);
    check_fails(local, wire, &[], error);
    let cost = flood(&mut connection(local, Config::default()), wire, &[], 0);
    assert_eq!(cost.error, Some(error));
    // Input before the error may have been buffered.
    let allowed = FAILURE + 3 * wire.len() as u64;
    assert!(cost.bytes_max <= allowed, "{cost:?}, allowed: {allowed}");
}

#[test]
fn memory_is_counted() {
    // Otherwise, all bounds would hold trivially.
    let cost = flood(
        &mut connection(Local::Server, Config::default()),
        &[0x82, 0xff],
        &[0],
        20,
    );
    assert_eq!(cost.error, Some(ProtocolError::NonMinimalLength));
    assert!(
        cost.bytes_max > 0 && cost.count_max > 0 && cost.bytes_left > 0,
        "{cost:?}"
    );
    let info = allocation_counter::measure(|| drop(vec![0_u8; 1000]));
    assert!(info.bytes_max >= 1000, "{info:?}");
}
