//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 §9.1), whatever the extension.
//!
//! Elements are read in place, one after the other; a list of any length costs no memory.

use alloc::borrow::Cow;
use alloc::string::String;

use super::headers::is_token_byte;
use super::{HandshakeError, Headers, name};

/// One element of an extension list: a name and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    name: &'a str,
    params: &'a [u8],
}

/// A parameter: its name, and its value if it has one.
type Param<'a> = (&'a str, Option<Cow<'a, str>>);

impl<'a> Extension<'a> {
    /// The name, such as `permessage-deflate`. It is compared exactly.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The parameters in order: a name, and a value if there is one, without its quotes.
    pub fn params(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut cursor = Cursor { rest: self.params };
        // The parameters were checked when the element was read.
        core::iter::from_fn(move || cursor.param().ok().flatten())
    }

    /// Reads text that is one element, as an application writes it.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut cursor = Cursor { rest: text.as_bytes() };
        let element = cursor.element().ok()?;
        cursor.rest.is_empty().then_some(element)
    }
}

/// The extensions listed over all header lines, up to the first that is malformed.
// [6455-9.1-2, 6455-11.3.2-2]
pub(super) fn list(headers: &Headers) -> impl Iterator<Item = Extension<'_>> {
    let elements = elements(headers);
    elements.map_while(Result::ok)
}

/// Checks the grammar of all lists of a head.
///
/// The grammar requires at least one element, but some peers send the header empty when they have
/// nothing to list. A list without elements therefore counts as an absent header.
// [6455-4.2.1-11, 6455-9.1-1]
pub(super) fn check(headers: &Headers) -> Result<(), HandshakeError> {
    for element in elements(headers) {
        element.map_err(|Malformed| HandshakeError::ExtensionsInvalid)?;
    }
    Ok(())
}

fn elements(headers: &Headers) -> impl Iterator<Item = Result<Extension<'_>, Malformed>> {
    let lines = headers.get_all(name::EXTENSIONS);
    lines.flat_map(|value| {
        let mut cursor = Cursor { rest: value.as_bytes() };
        core::iter::from_fn(move || cursor.next_element())
    })
}

/// The text is not of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// What is left to read. Each method takes what it reads off the front.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The next element of the list, if there is one. After an error nothing more comes.
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

    /// RFC 6455 §9.1: what a quoted string says, without its escapes, is a token.
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

/// Token bytes as text. They are ASCII, so the empty string is never reached.
fn text(token: &[u8]) -> &str {
    core::str::from_utf8(token).unwrap_or_default()
}
