/// What one opening handshake may cost.
///
/// There is no time here: the crate has no clock. Whoever drives the handshake keeps one
/// deadline over all of it, not one per read (10 s is a good figure), and on the server answers it
/// with [`ServerHandshake::handle_timeout`](super::ServerHandshake::handle_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Bytes of a request or response head, from its first byte to the empty line included;
    /// of all heads together where a server sends informational responses first.
    ///
    /// Default 16 KiB: browsers send 1 to 2 KiB, long cookies and tokens bring that to 8 KiB.
    /// Memory follows the bytes that arrived, so a silent peer costs nothing of this.
    /// Raise it when clients carry larger cookies; they get 431 otherwise.
    pub head_size_max: usize,
    /// Header lines of one head.
    ///
    /// Default 100: browsers send about 15, proxies add a few. Costs 24 bytes per line received.
    pub header_count_max: usize,
    /// Bytes kept of the body of a response that refuses a client.
    ///
    /// Default 16 KiB: the body is there to be read by a person. What is longer is cut, and
    /// [`Response::is_body_truncated`](super::Response::is_body_truncated) says so. Zero keeps none.
    pub body_size_max: usize,
    /// Informational responses (1xx) a client skips before the final one.
    ///
    /// Default 10: one or two (100, 103) happen in practice.
    pub informational_count_max: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            head_size_max: 16 * 1024,
            header_count_max: 100,
            body_size_max: 16 * 1024,
            informational_count_max: 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_finite_and_as_documented() {
        let expect = HandshakeLimits {
            head_size_max: 16_384,
            header_count_max: 100,
            body_size_max: 16_384,
            informational_count_max: 10,
        };
        assert_eq!(HandshakeLimits::default(), expect);
    }
}
