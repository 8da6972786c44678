//! The client side of the opening handshake (RFC 6455 §4).

use anyhow::{Context, Result, bail, ensure};

use crate::{
    plan::{Protocol, Target},
    transport::Transport,
};

/// Maximum length of a response head.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// The sample key of RFC 6455 §1.3 and its accept value. A constant is fine, because the handshake is not measured.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opens a connection and makes it non-blocking.
pub(crate) fn open(target: &Target, idx: usize) -> Result<Transport> {
    let transport = open_waiting(target, idx)?;
    transport.start()?;
    Ok(transport)
}

/// Connects and completes the handshakes of the protocol. Blocks, with deadlines.
pub(crate) fn open_waiting(target: &Target, idx: usize) -> Result<Transport> {
    let mut transport =
        Transport::connect(target, idx).with_context(|| format!("cannot connect to {}", target.address))?;
    if target.protocol != Protocol::Raw {
        transport.write_waiting(request(target).as_bytes())?;
        let head = read_head(&mut transport).context("no answer to the opening handshake")?;
        check(&head, target.protocol).with_context(|| format!("answer to the opening handshake: {head:?}"))?;
    }
    Ok(transport)
}

fn request(target: &Target) -> String {
    let extensions = match target.protocol {
        Protocol::Deflate => {
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
        }
        _ => "",
    };
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n{extensions}\r\n",
        target.path, target.address
    )
}

fn read_head(transport: &mut Transport) -> Result<String> {
    let mut head = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let len = transport.read_waiting(&mut bytes)?;
        ensure!(len > 0, "the connection ended");
        head.extend(&bytes[..len]);
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            ensure!(end + 4 == head.len(), "the server sent data before the first message");
            return Ok(String::from_utf8(head)?);
        }
        ensure!(head.len() <= HEAD_LEN_MAX, "the response head is too long");
    }
}

/// Checks that the server agreed to what is to be measured.
fn check(head: &str, protocol: Protocol) -> Result<()> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    ensure!(status == Some("101"), "the status is not 101");
    let fields: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    ensure!(
        field("sec-websocket-accept") == Some(ACCEPT),
        "Sec-WebSocket-Accept is wrong"
    );
    match (protocol, field("sec-websocket-extensions")) {
        (Protocol::Deflate, Some(value))
            if value.starts_with("permessage-deflate") && value.contains("server_no_context_takeover") =>
        {
            Ok(())
        }
        (Protocol::Deflate, _) => bail!("the server did not negotiate permessage-deflate without context takeover"),
        (_, None | Some("")) => Ok(()),
        (_, Some(_)) => bail!("the server negotiated an extension that was not offered"),
    }
}

#[cfg(test)]
mod tests {
    use super::{ACCEPT, check};
    use crate::plan::Protocol;

    fn head(status: &str, more: &str) -> String {
        format!("HTTP/1.1 {status} X\r\nsec-websocket-accept: {ACCEPT}\r\n{more}\r\n")
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        let takeover = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        for (is_good, protocol, head) in [
            (true, Protocol::WebSocket, head("101", "")),
            (false, Protocol::WebSocket, head("200", "")),
            (false, Protocol::WebSocket, head("101", deflate)),
            (false, Protocol::WebSocket, head("101", "").replace(ACCEPT, "other")),
            (true, Protocol::Deflate, head("101", deflate)),
            (false, Protocol::Deflate, head("101", takeover)),
            (false, Protocol::Deflate, head("101", "")),
        ] {
            assert_eq!(check(&head, protocol).is_ok(), is_good, "{head}");
        }
    }
}
