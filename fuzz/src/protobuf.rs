//! A reference reader for frames in Protobuf: splits them into messages, and reads the id of each.

/// The messages of a frame; the last one is `None` if the frame ends inside it.
#[must_use]
pub fn messages(mut frame: &[u8]) -> Vec<Option<&[u8]>> {
    let mut found = vec![];
    while !frame.is_empty() {
        let message = varint(&mut frame)
            .and_then(|len| usize::try_from(len).ok())
            .and_then(|len| frame.split_at_checked(len));
        let Some((message, rest)) = message else {
            found.push(None);
            break;
        };
        found.push(Some(message));
        frame = rest;
    }
    found
}

/// The last field with the number 1, which is the id of a command. `None` if the message is not a list of fields.
#[must_use]
pub fn id(mut message: &[u8]) -> Option<u64> {
    let mut id = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let (number, kind) = (key >> 3, key & 7);
        if number == 0 || key > u64::from(u32::MAX) {
            return None;
        }
        match kind {
            0 => {
                let value = varint(&mut message)?;
                if number == 1 {
                    id = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(len..)?;
            }
            5 => message = message.get(4..)?,
            // Groups, which the reference does not read.
            _ => return None,
        }
    }
    Some(id)
}

/// A number of up to ten bytes, 7 bits each, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for at in 0..10 {
        let byte = *bytes.get(at)?;
        if at == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}
