//! Header fields, with their original order and spelling.
//!
//! [`Headers`] contains only validated names and values. Neither can contain a line end, so writing them cannot inject
//! headers.

use alloc::vec::Vec;
use core::fmt;

use super::HandshakeBuildError;
use super::token::is_token;

/// The name of a header field: an HTTP token, compared ASCII case-insensitively.
// [6455-4.1-37]
#[derive(Clone, Copy, Debug)]
pub struct HeaderName<'a>(&'a str);

impl<'a> HeaderName<'a> {
    /// Validates a name.
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidHeaderName`] if it is empty or not an HTTP token.
    pub fn new(name: &'a str) -> Result<Self, HandshakeBuildError> {
        if is_token(name.as_bytes()) {
            Ok(Self(name))
        } else {
            Err(HandshakeBuildError::InvalidHeaderName)
        }
    }

    /// Returns the name in its original spelling.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl PartialEq for HeaderName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for HeaderName<'_> {}

impl fmt::Display for HeaderName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The value of a header field: bytes other than control bytes, without surrounding whitespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderValue<'a>(&'a [u8]);

impl<'a> HeaderValue<'a> {
    /// Validates a value and trims surrounding spaces and tabs, which have no meaning in HTTP.
    ///
    /// # Errors
    ///
    /// [`HandshakeBuildError::InvalidHeaderValue`] if it contains a control byte other than tab.
    pub fn new(value: &'a [u8]) -> Result<Self, HandshakeBuildError> {
        // RFC 9110 §5.5: visible characters, space, tab, and bytes above 0x7f. [6455-4.1-33]
        if value.iter().any(|byte| is_control(*byte)) {
            return Err(HandshakeBuildError::InvalidHeaderValue);
        }
        Ok(Self(trim(value)))
    }

    /// Returns the value as bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the value as text, or `None` if it is not valid UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        core::str::from_utf8(self.0).ok()
    }
}

impl fmt::Debug for HeaderValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// An ordered list of header fields in their original spelling.
///
/// All text is stored in one buffer, with 24 bytes of overhead per field. Look-ups are linear. `Debug` hides the values
/// of headers that can contain credentials, such as Authorization and Cookie.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Position of one field in [`Headers::text`]: the name, immediately followed by the value.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    name_len: usize,
    value_len: usize,
}

impl Headers {
    /// Creates an empty list. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Appends a field. Keeps existing fields of the same name.
    pub fn append(&mut self, name: HeaderName<'_>, value: HeaderValue<'_>) {
        self.fields.push(Field {
            start: self.text.len(),
            name_len: name.0.len(),
            value_len: value.0.len(),
        });
        self.text.extend_from_slice(name.0.as_bytes());
        self.text.extend_from_slice(value.0);
    }

    /// Validates a name and a value and appends the field.
    ///
    /// # Errors
    ///
    /// The errors of [`HeaderName::new`] and [`HeaderValue::new`].
    pub fn try_append(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), HandshakeBuildError> {
        self.append(HeaderName::new(name)?, HeaderValue::new(value.as_ref())?);
        Ok(())
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Iterates over all fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderName<'_>, HeaderValue<'_>)> {
        self.fields.iter().map(|field| self.at(*field))
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<HeaderValue<'_>> {
        self.iter()
            .find(|(other, _)| other.0.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Iterates over the values of all fields with this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = HeaderValue<'a>> {
        self.iter()
            .filter(move |(other, _)| other.0.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether there is a field with this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Iterates over the elements of a comma-separated list in all fields with this name.
    ///
    /// Skips empty elements (RFC 9110 §5.6.1). Only for lists of tokens: does not recognize quoted strings.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name)
            .flat_map(|value| value.0.split(|byte| *byte == b','))
            .map(trim)
            .filter(|element| !element.is_empty())
    }

    /// Whether a comma-separated list contains this token, compared ASCII case-insensitively.
    #[must_use]
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns the value of a field that must not be repeated.
    pub(super) fn single<'a>(&'a self, name: &'a str) -> Single<'a> {
        let mut values = self.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Single::Absent,
            (Some(value), None) => Single::One(value.0),
            (Some(_), Some(_)) => Single::Repeated,
        }
    }

    /// Appends a field created by this crate, which is known to be valid.
    pub(super) fn push(&mut self, name: &'static str, value: &str) {
        debug_assert!(is_token(name.as_bytes()), "{name}");
        debug_assert!(HeaderValue::new(value.as_bytes()).is_ok(), "{name}");
        self.append(HeaderName(name), HeaderValue(value.as_bytes()));
    }

    /// Appends all fields of another list.
    pub(super) fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(name, value)| self.append(name, value));
    }

    /// Appends the fields as HTTP/1.1 lines, without the final empty line.
    pub(super) fn write_lines(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(name.0.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.0);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn at(&self, field: Field) -> (HeaderName<'_>, HeaderValue<'_>) {
        let value_start = field.start + field.name_len;
        let name = &self.text[field.start..value_start];
        let value = &self.text[value_start..value_start + field.value_len];
        // Names are ASCII, so this never falls back to the empty string.
        let name = core::str::from_utf8(name).unwrap_or_default();
        (HeaderName(name), HeaderValue(value))
    }
}

/// Look-up result for a field that must not be repeated.
pub(super) enum Single<'a> {
    Absent,
    One(&'a [u8]),
    Repeated,
}

/// Compares names (case-insensitively) and values, in order.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            if CREDENTIALS.iter().any(|secret| name.0.eq_ignore_ascii_case(secret)) {
                map.entry(&name.0, &format_args!("(hidden)"));
            } else {
                map.entry(&name.0, &value);
            }
        }
        map.finish()
    }
}

/// Headers whose values must not be logged.
const CREDENTIALS: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    // Browsers cannot set Authorization for a WebSocket, so some applications send tokens as subprotocols.
    "sec-websocket-protocol",
];

/// Whether a byte is a control byte that may only occur in line ends.
pub(super) const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Trims surrounding spaces and tabs (optional whitespace, RFC 9110 §5.6.3).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
