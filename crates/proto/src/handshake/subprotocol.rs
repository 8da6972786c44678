//! Subprotocols: application protocols over WebSocket, offered by the client and chosen by the server (RFC 6455 §1.9).

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use super::token::is_token;
use super::{HandshakeBuildError, HandshakeError, Headers, header_name};

/// The name of a subprotocol: an HTTP token, compared case-sensitively.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subprotocol(String);

impl Subprotocol {
    /// Validates a name.
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidSubprotocol`] if it is empty or not an HTTP token.
    pub fn new(name: &str) -> Result<Self, HandshakeBuildError> {
        // RFC 6455 §4.1 (10): U+0021 to U+007E without separators, which is an HTTP token. [6455-4.1-26, 6455-4.2.2-11]
        if is_token(name.as_bytes()) {
            Ok(Self(name.to_owned()))
        } else {
            Err(HandshakeBuildError::InvalidSubprotocol)
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Subprotocol {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Subprotocol {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Subprotocol {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Validates a client's offer: RFC 6455 §4.1 (10) requires unique tokens.
///
/// The RFC also requires at least one, but centrifuge-python up to 0.6 and React Native send an empty header if they
/// offer no subprotocol. An empty header is therefore treated as absent.
///
/// Copies nothing: for a head of 16 KiB, owned strings could take ten times that memory.
// [6455-4.2.1-10, 6455-11.3.4-2]
pub(super) fn check_offer(headers: &Headers) -> Result<(), HandshakeError> {
    let mut seen = BTreeSet::new();
    for element in headers.list(header_name::PROTOCOL) {
        if !is_token(element) || !seen.insert(element) {
            return Err(HandshakeError::SubprotocolsInvalid);
        }
    }
    Ok(())
}

/// Iterates over the subprotocols of a validated offer.
pub(super) fn offered(headers: &Headers) -> impl Iterator<Item = &str> {
    let elements = headers.list(header_name::PROTOCOL);
    elements.filter_map(|element| core::str::from_utf8(element).ok())
}
