//! Counters of a connection, as the application sees them.

/// What a connection has sent and received since the opening handshake, returned by
/// [`WebSocket::stats`](crate::WebSocket::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// What this side has sent.
    pub sent: DirectionStats,
    /// What this side has received.
    pub received: DirectionStats,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectionStats {
    /// The number of messages. A message counts once it is encoded, or once it is completely received and decoded.
    pub messages: u64,
    /// The number of bytes that the transport has taken or delivered: frame headers, payloads and control frames. The
    /// overhead of TLS and TCP and the opening handshake are not included.
    pub bytes: u64,
    /// The number of compressed messages, which are included in `messages`. A message of up to 64 KiB that compression
    /// would not make smaller is sent uncompressed; a larger one is, if its first 64 KiB would not become smaller.
    pub compressed_messages: u64,
    /// The payload bytes of the compressed messages before compression.
    pub payload_bytes_before_compression: u64,
    /// The payload bytes of the compressed messages after compression. Can be more than before, if only the beginning
    /// of large messages can be compressed.
    pub payload_bytes_after_compression: u64,
}
