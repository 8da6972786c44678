//! Header fields in the order and spelling they have on the wire.
//!
//! Nothing enters [`Headers`] but a [`HeaderName`] and a [`HeaderValue`], and neither can be made of
//! bytes that would end a line. So whatever is here can be written as it stands.

use alloc::vec::Vec;
use core::fmt;

use super::{Extension, HandshakeBuildError, extension};

/// The name of a header field: an HTTP token, compared without regard to ASCII case.
// [6455-4.1-37]
#[derive(Clone, Copy, Debug)]
pub struct HeaderName<'a>(&'a str);

impl<'a> HeaderName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`HandshakeBuildError::InvalidHeaderName`] if it is empty or not an HTTP token.
    pub fn new(name: &'a str) -> Result<Self, HandshakeBuildError> {
        if is_token(name.as_bytes()) {
            Ok(Self(name))
        } else {
            Err(HandshakeBuildError::InvalidHeaderName)
        }
    }

    /// The name in its original spelling.
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

/// The value of a header field: any bytes but controls, without spaces around.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderValue<'a>(&'a [u8]);

impl<'a> HeaderValue<'a> {
    /// Checks a value, and leaves out spaces and tabs around it, which mean nothing in HTTP.
    ///
    /// # Errors
    /// [`HandshakeBuildError::InvalidHeaderValue`] if it holds a control byte other than the tab.
    pub fn new(value: &'a [u8]) -> Result<Self, HandshakeBuildError> {
        // RFC 9110 §5.5: visible characters, space, tab, and bytes above 0x7f. [6455-4.1-33]
        if value.iter().any(|byte| is_control(*byte)) {
            return Err(HandshakeBuildError::InvalidHeaderValue);
        }
        Ok(Self(trim(value)))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value as text; `None` if it is not UTF-8.
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

/// Header fields, in order, each in its original spelling.
///
/// All text lies in one buffer, so a head of 16 KiB costs little more than its 16 KiB.
/// `Debug` hides the values of headers that carry credentials.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where one field lies in [`Headers::text`]: its name, and right after it its value.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    name_len: usize,
    value_len: usize,
}

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Adds a field after the others, beside those of the same name.
    pub fn append(&mut self, name: HeaderName<'_>, value: HeaderValue<'_>) {
        self.fields.push(Field {
            start: self.text.len(),
            name_len: name.0.len(),
            value_len: value.0.len(),
        });
        self.text.extend_from_slice(name.0.as_bytes());
        self.text.extend_from_slice(value.0);
    }

    /// Checks a name and a value and adds the field.
    ///
    /// # Errors
    /// Those of [`HeaderName::new`] and [`HeaderValue::new`].
    pub fn try_append(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), HandshakeBuildError> {
        self.append(HeaderName::new(name)?, HeaderValue::new(value.as_ref())?);
        Ok(())
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderName<'_>, HeaderValue<'_>)> {
        self.fields.iter().map(|field| self.at(*field))
    }

    /// The value of the first field of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<HeaderValue<'_>> {
        self.iter()
            .find(|(other, _)| other.0.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The values of all fields of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = HeaderValue<'a>> {
        self.iter()
            .filter(move |(other, _)| other.0.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether there is a field of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The elements of all `Sec-WebSocket-Extensions` fields, up to the first that is malformed.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'_>> {
        extension::list(self)
    }

    /// The elements of a comma-separated list, over all fields of this name.
    ///
    /// RFC 9110 §5.6.1: empty elements count for nothing. For lists of tokens: a comma inside a
    /// quoted string would be taken for a separator.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name)
            .flat_map(|value| value.0.split(|byte| *byte == b','))
            .map(trim)
            .filter(|element| !element.is_empty())
    }

    /// Whether a comma-separated list has this token, in any ASCII case.
    #[must_use]
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The value of the field that must not be repeated.
    pub(super) fn single<'a>(&'a self, name: &'a str) -> Single<'a> {
        let mut values = self.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Single::Absent,
            (Some(value), None) => Single::One(value.0),
            (Some(_), Some(_)) => Single::Repeated,
        }
    }

    /// Adds a field of our own making, which is known to be well formed.
    pub(super) fn push(&mut self, name: &'static str, value: &str) {
        debug_assert!(is_token(name.as_bytes()), "{name}");
        debug_assert!(HeaderValue::new(value.as_bytes()).is_ok(), "{name}");
        self.append(HeaderName(name), HeaderValue(value.as_bytes()));
    }

    /// Adds fields that were checked when they entered the other list.
    pub(super) fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(name, value)| self.append(name, value));
    }

    /// Writes the fields as HTTP/1.1 lines, without the empty line after them.
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
        // A token is ASCII, so the empty string is never reached.
        let name = core::str::from_utf8(name).unwrap_or_default();
        (HeaderName(name), HeaderValue(value))
    }
}

/// How often a field that must not be repeated is there.
pub(super) enum Single<'a> {
    Absent,
    One(&'a [u8]),
    Repeated,
}

/// Same names (in any case) and same values in the same order.
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

/// Headers whose values do not belong in a log.
const CREDENTIALS: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    // Browsers cannot set Authorization on a WebSocket, so tokens travel as subprotocols.
    "sec-websocket-protocol",
];

/// RFC 9110 §5.6.2: one or more of these bytes.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Whether a byte may stand nowhere in a head but in its line ends.
pub(super) const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Without the spaces and tabs around (RFC 9110 §5.6.3, optional whitespace).
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
