//! A reference parser for `Sec-WebSocket-Extensions` (RFC 6455 §9.1) and the parameters of permessage-deflate (RFC 7692
//! §7.1). Works character by character and copies everything.

use crate::http::is_token_byte;

/// One element of the list: a name and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The name of the extension.
    pub name: String,
    /// Its parameters.
    pub params: Vec<(String, Option<String>)>,
}

/// Parses the elements of one header. Returns `None` if it does not match the grammar.
#[must_use]
pub fn list(value: &[u8]) -> Option<Vec<Element>> {
    let mut reader = Reader { bytes: value, at: 0 };
    let mut elements = vec![];
    loop {
        while matches!(reader.peek(), Some(b' ' | b'\t' | b',')) {
            reader.at += 1;
        }
        if reader.peek().is_none() {
            return Some(elements);
        }
        elements.push(reader.element()?);
        if !matches!(reader.peek(), None | Some(b',')) {
            return None;
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn element(&mut self) -> Option<Element> {
        let mut element = Element {
            name: self.token()?,
            params: vec![],
        };
        loop {
            self.spaces();
            if self.peek() != Some(b';') {
                return Some(element);
            }
            self.at += 1;
            self.spaces();
            let name = self.token()?;
            self.spaces();
            let mut value = None;
            if self.peek() == Some(b'=') {
                self.at += 1;
                self.spaces();
                value = Some(if self.peek() == Some(b'"') {
                    self.quoted()?
                } else {
                    self.token()?
                });
            }
            element.params.push((name, value));
        }
    }

    fn token(&mut self) -> Option<String> {
        let mut token = String::new();
        while let Some(byte) = self.peek().filter(|byte| is_token_byte(*byte)) {
            token.push(char::from(byte));
            self.at += 1;
        }
        Some(token).filter(|token| !token.is_empty())
    }

    /// The unescaped contents of a quoted string must be a token.
    fn quoted(&mut self) -> Option<String> {
        self.at += 1;
        let mut value = String::new();
        loop {
            let byte = match self.next()? {
                b'"' => return Some(value).filter(|value| !value.is_empty()),
                b'\\' => self.next()?,
                byte => byte,
            };
            if !is_token_byte(byte) {
                return None;
            }
            value.push(char::from(byte));
        }
    }
}

/// The parameters of permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// Whether `server_no_context_takeover` is present.
    pub server_reset: bool,
    /// Whether `client_no_context_takeover` is present.
    pub client_reset: bool,
    /// `server_max_window_bits`.
    pub server_bits: Option<u8>,
    /// `client_max_window_bits`, whose value is optional.
    pub client_bits: Option<Option<u8>>,
}

impl Element {
    /// Parses the parameters of permessage-deflate. Returns `None` if one is unknown, repeated or invalid.
    #[must_use]
    pub fn deflate(&self) -> Option<Deflate> {
        let mut deflate = Deflate::default();
        for (i, (name, value)) in self.params.iter().enumerate() {
            if self.params[..i].iter().any(|(earlier, _)| earlier == name) {
                return None;
            }
            let bits = match value {
                None => None,
                Some(value) => Some((8..=15).find(|bits| bits.to_string() == *value)?),
            };
            match (name.as_str(), bits) {
                ("server_no_context_takeover", None) => deflate.server_reset = true,
                ("client_no_context_takeover", None) => deflate.client_reset = true,
                ("server_max_window_bits", Some(bits)) => deflate.server_bits = Some(bits),
                ("client_max_window_bits", bits) => deflate.client_bits = Some(bits),
                _ => return None,
            }
        }
        Some(deflate)
    }
}

impl Deflate {
    /// Whether a server may answer `offer` with these parameters (RFC 7692 §7.1).
    #[must_use]
    pub fn may_answer(&self, offer: &Self) -> bool {
        let server_keeps_its_word = self.server_reset || !offer.server_reset;
        let server_window = match (offer.server_bits, self.server_bits) {
            (Some(asked), Some(answered)) => answered <= asked,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let client_window = match (offer.client_bits, self.client_bits) {
            (_, None) => true,
            // §7.1.2.2: only if the client offered it, and always with a value.
            (None, Some(_)) | (Some(_), Some(None)) => false,
            (Some(None), Some(Some(_))) => true,
            (Some(Some(able)), Some(Some(answered))) => answered <= able,
        };
        server_keeps_its_word && server_window && client_window
    }
}
