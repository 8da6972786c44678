//! Limits of the opening handshake.

/// Resource limits for an opening handshake.
///
/// There is no timeout, because this crate has no clock. The caller must enforce one deadline for the whole handshake,
/// not one per read; 10 s is a good value. When it passes, call
/// [`ServerHandshake::handle_timeout`](super::ServerHandshake::handle_timeout) or
/// [`AwaitingResponse::handle_timeout`](super::AwaitingResponse::handle_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Maximum size of a request or response head, in bytes, including the final empty line. Default 16 KiB.
    ///
    /// Browsers send 1 to 2 KiB, up to 8 KiB with long cookies and tokens. Raise this if clients send larger cookies;
    /// otherwise they receive 431. Memory is allocated only as bytes arrive. On the client, the limit applies to the
    /// sum of the final response and all informational responses before it.
    pub head_size_max: usize,
    /// Maximum number of header lines in one head. Default 100.
    ///
    /// Browsers send about 15, and proxies add a few. Each received line costs 24 bytes in addition to its text.
    pub header_count_max: usize,
    /// Maximum size of the body kept from a response that rejects the request, in bytes. Default 16 KiB.
    ///
    /// Such bodies are error messages for people. Longer ones are truncated; see
    /// [`Response::is_body_truncated`](super::Response::is_body_truncated). Zero discards the body.
    pub body_size_max: usize,
    /// Maximum number of informational responses (1xx) before the final one. Default 10.
    ///
    /// In practice, servers send at most one or two (100, 103).
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
