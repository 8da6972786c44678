//! Parser for `Sec-WebSocket-Extensions` (RFC 6455 §9.1), independent of specific extensions.
//!
//! Elements are parsed lazily and in place, without allocation for the list.

use alloc::borrow::Cow;
use alloc::string::String;

use super::token::is_token_byte;
use super::{HandshakeError, Headers, header_name};

/// One element of an extension list: a name and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    name: &'a str,
    params: &'a [u8],
}

/// A parameter: its name, and its value if it has one.
type Param<'a> = (&'a str, Option<Cow<'a, str>>);

impl<'a> Extension<'a> {
    /// The name, such as `permessage-deflate`. Names are case-sensitive.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Iterates over the parameters in order. Each is a name and an optional value, without quotes.
    pub fn params(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut cursor = Cursor { rest: self.params };
        // The parameters were validated when the element was parsed, so there is no error.
        core::iter::from_fn(move || cursor.param().ok().flatten())
    }

    /// Parses text that consists of exactly one element.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut cursor = Cursor { rest: text.as_bytes() };
        let element = cursor.element().ok()?;
        cursor.rest.is_empty().then_some(element)
    }
}

impl Headers {
    /// Iterates over the elements of all `Sec-WebSocket-Extensions` fields. Stops at the first malformed element.
    // [6455-9.1-2, 6455-11.3.2-2]
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'_>> {
        elements(self).map_while(Result::ok)
    }
}

/// Validates the syntax of all extension lists in a head.
///
/// The grammar requires at least one element, but some peers send an empty header. It is treated as absent.
// [6455-4.2.1-11, 6455-9.1-1]
pub(super) fn check(headers: &Headers) -> Result<(), HandshakeError> {
    for element in elements(headers) {
        element.map_err(|Malformed| HandshakeError::ExtensionsInvalid)?;
    }
    Ok(())
}

fn elements(headers: &Headers) -> impl Iterator<Item = Result<Extension<'_>, Malformed>> {
    let lines = headers.get_all(header_name::EXTENSIONS);
    lines.flat_map(|value| {
        let mut cursor = Cursor { rest: value.as_bytes() };
        core::iter::from_fn(move || cursor.next_element())
    })
}

/// Error for text that does not match the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// The unparsed text. Each method consumes what it parses.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Returns the next element, if any. Returns `None` after an error.
    fn next_element(&mut self) -> Option<Result<Extension<'a>, Malformed>> {
        // RFC 9110 §5.6.1: empty elements are ignored.
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let element = self.element();
        if element.is_err() {
            self.rest = &[];
        }
        Some(element)
    }

    /// `token *( ";" param )`, up to a comma or the end.
    fn element(&mut self) -> Result<Extension<'a>, Malformed> {
        let name = self.token()?;
        let params = self.rest;
        while self.param()?.is_some() {}
        let params = &params[..params.len() - self.rest.len()];
        match self.rest {
            [] | [b',', ..] => Ok(Extension { name, params }),
            _ => Err(Malformed),
        }
    }

    /// `";" token [ "=" ( token / quoted-string ) ]`, or nothing if no semicolon is next.
    fn param(&mut self) -> Result<Option<Param<'a>>, Malformed> {
        self.skip_spaces();
        if !self.take(b';') {
            return Ok(None);
        }
        self.skip_spaces();
        let name = self.token()?;
        self.skip_spaces();
        if !self.take(b'=') {
            return Ok(Some((name, None)));
        }
        self.skip_spaces();
        let value = match self.take(b'"') {
            true => self.quoted()?,
            false => Cow::Borrowed(self.token()?),
        };
        Ok(Some((name, Some(value))))
    }

    /// RFC 6455 §9.1: the unescaped contents of a quoted string must be a token.
    // [6455-4.3-1]
    fn quoted(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let plain_len = self.rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        let (plain, rest) = self.rest.split_at(plain_len);
        if let ([_, ..], [b'"', rest @ ..]) = (plain, rest) {
            self.rest = rest;
            return Ok(Cow::Borrowed(text(plain)));
        }
        let mut value = String::new();
        loop {
            let (byte, rest) = match self.rest {
                [b'"', rest @ ..] if !value.is_empty() => {
                    self.rest = rest;
                    return Ok(Cow::Owned(value));
                }
                [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (*byte, rest),
                [] => return Err(Malformed),
            };
            if !is_token_byte(byte) {
                return Err(Malformed);
            }
            value.push(char::from(byte));
            self.rest = rest;
        }
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let len = self.rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        match token {
            [] => Err(Malformed),
            _ => Ok(text(token)),
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_spaces(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

/// Converts token bytes to text. They are ASCII, so this never falls back to the empty string.
fn text(token: &[u8]) -> &str {
    core::str::from_utf8(token).unwrap_or_default()
}
