//! Names of the headers that the handshake reads and writes.

pub(super) const ALLOW: &str = "Allow";
pub(super) const CONNECTION: &str = "Connection";
pub(super) const CONTENT_LENGTH: &str = "Content-Length";
pub(super) const CONTENT_TYPE: &str = "Content-Type";
pub(super) const HOST: &str = "Host";
pub(super) const ORIGIN: &str = "Origin";
pub(super) const TRAILER: &str = "Trailer";
pub(super) const TRANSFER_ENCODING: &str = "Transfer-Encoding";
pub(super) const UPGRADE: &str = "Upgrade";
pub(super) const ACCEPT: &str = "Sec-WebSocket-Accept";
pub(super) const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
pub(super) const KEY: &str = "Sec-WebSocket-Key";
pub(super) const PROTOCOL: &str = "Sec-WebSocket-Protocol";
pub(super) const VERSION: &str = "Sec-WebSocket-Version";

/// Headers that an application cannot add: those that determine the message framing, and those of the handshake itself.
pub(super) const RESERVED: [&str; 9] = [
    ACCEPT,
    CONNECTION,
    CONTENT_LENGTH,
    EXTENSIONS,
    KEY,
    PROTOCOL,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that an application additionally cannot add to a request: they have their own method or a fixed value.
pub(super) const RESERVED_IN_REQUEST: [&str; 3] = [HOST, ORIGIN, VERSION];

/// Whether `names` contains `name`, compared ASCII case-insensitively.
pub(super) fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}
