//! What an attack may cost: memory is counted by the allocator, steps by the calls that it takes.
//!
//! A vector that grows is counted with its old and its new memory at once, as a copying allocator has them. So a
//! message that is held within twice what arrived may show three times as much here.

use std::sync::Arc;

use sockeye_proto::{Config, Connection, Event, ProtocolError, Role};

use crate::common::{Frame, KEY, Local, at, check_fails, mask, wire};

/// What a connection needs to fail: its closure, and the reason in its close frame.
pub(crate) const FAILURE: u64 = 512;

/// What an attack came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) error: Option<ProtocolError>,
    /// Messages, pings, pongs and close frames delivered.
    pub(crate) event_count: usize,
    /// Memory at its highest, in bytes.
    pub(crate) bytes_max: u64,
    /// Allocations at their highest.
    pub(crate) count_max: u64,
    /// Bytes that are still allocated.
    pub(crate) bytes_left: i64,
}

/// The default configuration with another limit on messages.
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

/// The bytes of frames as the peer of `local` sends them.
pub(crate) fn sent_to(local: Local, frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    wire(frames.into_iter().map(|frame| match local {
        Local::Server => frame.masked(KEY),
        Local::Client => frame,
    }))
}

/// `connection` receives `first`, and then `piece` again and again, until it fails or all are received.
pub(crate) fn flood(connection: &mut Connection, first: &[u8], piece: &[u8], times: usize) -> Cost {
    let mut input = [first, piece].concat();
    let (mut error, mut event_count) = (None, 0);
    let info = allocation_counter::measure(|| {
        for turn in 0..=times {
            let sent = if turn == 0 { first } else { piece };
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

/// One input. Each call takes something or is the last, so that there are no more calls than bytes.
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
                assert_eq!(consumed, input.len(), "without an event all is consumed");
                return;
            }
        }
        input = &mut input[consumed..];
    }
    panic!("more calls than bytes");
}

/// `local` refuses `wire` with this fault and close code, however it is cut, and for no more memory than that takes.
#[track_caller]
pub(crate) fn refuses(local: Local, wire: impl AsRef<[u8]>, error: ProtocolError, code: u16) {
    let wire = wire.as_ref();
    assert_eq!(error.close_code().0, code);
    check_fails(local, wire, &[], error);
    let cost = flood(&mut connection(local, Config::default()), wire, &[], 0);
    assert_eq!(cost.error, Some(error));
    // What lay in the wire before the fault may have been kept until then.
    let allowed = FAILURE + 3 * wire.len() as u64;
    assert!(cost.bytes_max <= allowed, "{cost:?}, allowed are {allowed}");
}

#[test]
fn memory_is_counted() {
    // Or else every bound would hold.
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
