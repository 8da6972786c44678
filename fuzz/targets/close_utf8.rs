//! Text messages and close frames, compared with UTF-8 validation of the standard library and a list of close codes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sockeye_fuzz::cuts::Cuts;
use sockeye_fuzz::reading::{CLIENT, SERVER};
use sockeye_proto::{
    CloseCode, Config, Connection, Event, Instant, MaskingKey, MessageKind, ProtocolError, ReceiveMode, Role,
    frame::{FrameHeader, Opcode},
};

const NOW: Instant = Instant::ORIGIN;

fuzz_target!(|input: &[u8]| {
    let [choices, seed, bytes @ ..] = input else { return };
    let role = if choices & 1 == 0 { SERVER } else { CLIENT };
    let receive_mode = if choices & 2 == 0 {
        ReceiveMode::Whole
    } else {
        ReceiveMode::Chunks
    };
    let mut cuts = Cuts::new(*seed);
    text_is_received_if_it_is_utf8(role, receive_mode, bytes, &mut cuts);
    text_fails_at_the_first_invalid_byte(role, receive_mode, bytes);
    let body = &bytes[..bytes.len().min(125)];
    close_frame_is_received_if_it_is_valid(role, body, &mut cuts);
    close_is_sent_if_it_is_valid(role, body);
});

/// Sends the text in fragments, with frames and input split anywhere.
fn text_is_received_if_it_is_utf8(role: Role, receive_mode: ReceiveMode, text: &[u8], cuts: &mut Cuts) {
    let mut wire = vec![];
    let mut rest = text;
    let mut opcode = Opcode::Text;
    loop {
        let len = if rest.is_empty() { 0 } else { cuts.next_len(rest.len()) };
        let fragment = rest.split_off(..len).unwrap_or_default();
        append_frame(role, rest.is_empty(), opcode, fragment, &mut wire);
        opcode = Opcode::Continuation;
        if rest.is_empty() {
            break;
        }
    }
    let mut received = vec![];
    let mut error = None;
    let mut is_whole = false;
    let mut connection = connection(role, receive_mode);
    feed(&mut connection, &mut wire, cuts, |event| match event {
        Event::Message { kind, payload } => {
            assert_eq!(kind, MessageKind::Text);
            received.extend_from_slice(&payload);
            is_whole = true;
        }
        Event::Chunk { data, last, .. } => {
            received.extend_from_slice(data);
            is_whole |= last;
        }
        Event::ProtocolError(found) => error = Some(found),
        event => panic!("unexpected event: {event:?}"),
    });
    match std::str::from_utf8(text) {
        Ok(_) => assert_eq!((is_whole, error, &received[..]), (true, None, text)),
        Err(_) => assert_eq!((is_whole, error), (false, Some(ProtocolError::InvalidUtf8))),
    }
}

/// Sends one frame byte by byte. The error must occur at the first byte that no continuation could make valid.
fn text_fails_at_the_first_invalid_byte(role: Role, receive_mode: ReceiveMode, text: &[u8]) {
    let mut wire = vec![];
    append_frame(role, true, Opcode::Text, text, &mut wire);
    let header_len = wire.len() - text.len();
    let mut connection = connection(role, receive_mode);
    let mut failed_at = None;
    for (at, byte) in wire.iter_mut().enumerate() {
        let received = connection.handle_bytes(NOW, std::slice::from_mut(byte));
        if let Some(Event::ProtocolError(ProtocolError::InvalidUtf8)) = received.event {
            failed_at = Some(at);
        }
    }
    let expected = std::str::from_utf8(text).err().map(|error| {
        // The shortest invalid prefix, at most four bytes longer than the valid prefix.
        let first = error.valid_up_to();
        let is_wrong = |end: &usize| {
            let error = std::str::from_utf8(&text[..*end]).err();
            error.is_some_and(|error| error.error_len().is_some())
        };
        let end = (first + 1..=text.len()).find(is_wrong).unwrap_or(text.len());
        header_len + end - 1
    });
    assert_eq!(failed_at, expected);
}

fn close_frame_is_received_if_it_is_valid(role: Role, body: &[u8], cuts: &mut Cuts) {
    let mut wire = vec![];
    append_frame(role, true, Opcode::Close, body, &mut wire);
    let mut told = None;
    let mut connection = connection(role, ReceiveMode::Whole);
    feed(&mut connection, &mut wire, cuts, |event| match event {
        Event::Close(frame) => told = Some(Ok((frame.code.0, frame.reason.into_bytes()))),
        Event::ProtocolError(error) => told = Some(Err(error.close_code().0)),
        event => panic!("unexpected event: {event:?}"),
    });
    let expected = match body {
        [] => Ok((1005, vec![])),
        [_] => Err(1002),
        [high, low, reason @ ..] => match (u16::from_be_bytes([*high, *low]), std::str::from_utf8(reason)) {
            (code, _) if !is_valid_on_wire(code) => Err(1002),
            (_, Err(_)) => Err(1007),
            (code, Ok(_)) => Ok((code, reason.to_vec())),
        },
    };
    assert_eq!(told, Some(expected.clone()));

    // RFC 6455 §5.5.1: the answer has the received code, or the code of the error.
    let mut answer = vec![];
    assert!(connection.poll_transmit(&mut answer));
    let payload = read_frame(&answer, Opcode::Close);
    match expected {
        Ok((1005, _)) => assert_eq!(payload, b""),
        Ok((code, _)) | Err(code) => assert_eq!(payload[..2], code.to_be_bytes()),
    }
}

fn close_is_sent_if_it_is_valid(role: Role, body: &[u8]) {
    let (code, reason) = match body {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        _ => (1005, &[][..]),
    };
    let Ok(reason) = std::str::from_utf8(reason) else {
        return;
    };
    let mut connection = connection(role, ReceiveMode::Whole);
    let is_sent = connection.close(CloseCode(code), reason).is_ok();
    assert_eq!(is_sent, is_valid_on_wire(code) || code == 1005 && reason.is_empty());
    let mut out = vec![];
    assert_eq!(connection.poll_transmit(&mut out), is_sent);
    if is_sent {
        let payload = read_frame(&out, Opcode::Close);
        let expected = if code == 1005 { &[][..] } else { body };
        assert_eq!(payload, expected);
    }
}

/// Whether a code may be sent (RFC 6455 §7.4 and the registry).
fn is_valid_on_wire(code: u16) -> bool {
    match code {
        1004..=1006 | 1015 => false,
        1000..=1014 => true,
        _ => (3000..5000).contains(&code),
    }
}

fn connection(role: Role, receive_mode: ReceiveMode) -> Connection {
    let mut connection = Connection::new(role, Arc::new(Config::default()), NOW);
    connection.set_receive_mode(receive_mode);
    connection
}

fn feed(connection: &mut Connection, wire: &mut [u8], cuts: &mut Cuts, mut on_event: impl FnMut(Event<'_>)) {
    let mut left = wire;
    while !left.is_empty() {
        let mut piece = cuts.take(&mut left);
        loop {
            let received = connection.handle_bytes(NOW, piece);
            let consumed = received.consumed;
            let Some(event) = received.event else { break };
            on_event(event);
            piece = &mut piece[consumed..];
        }
    }
}

/// Appends a frame as sent to `role`.
fn append_frame(role: Role, fin: bool, opcode: Opcode, payload: &[u8], wire: &mut Vec<u8>) {
    let mask = matches!(role, Role::Server).then_some(MaskingKey([0xa5, 0x00, 0xff, 0x3c]));
    let payload_len = payload.len() as u64;
    let header = FrameHeader {
        fin,
        rsv: 0,
        opcode,
        mask,
        payload_len,
    };
    header.encode(wire);
    let key = mask.map_or([0; 4], |key| key.0);
    wire.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Returns the payload of the only frame in `wire`.
fn read_frame(wire: &[u8], opcode: Opcode) -> Vec<u8> {
    let Ok(Some((header, header_len))) = FrameHeader::decode(wire) else {
        panic!("no header: {wire:02x?}");
    };
    assert_eq!((header.opcode, header.fin, header.rsv), (opcode, true, 0));
    assert_eq!(header.payload_len, (wire.len() - header_len) as u64);
    let key = header.mask.map_or([0; 4], |key| key.0);
    let payload = wire[header_len..].iter().zip(key.iter().cycle());
    payload.map(|(byte, key)| byte ^ key).collect()
}
