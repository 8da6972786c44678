//! A reference parser for HTTP/1.1 heads and base64, for inputs that the code under test accepted. Only splits and
//! compares.

/// A head, split at its line ends.
#[derive(Debug)]
pub struct Head<'a> {
    /// The first line.
    pub first_line: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
    /// The bytes after the empty line.
    pub rest: &'a [u8],
}

impl<'a> Head<'a> {
    /// Splits a head. Returns `None` if there is no empty line, or a line without a colon.
    #[must_use]
    pub fn split(bytes: &'a [u8]) -> Option<Self> {
        // RFC 9112 §2.2: one empty line before a request is ignored.
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let mut lines = vec![];
        let mut left = &bytes[..end];
        while let Some(len) = left.windows(2).position(|window| window == b"\r\n") {
            lines.push(&left[..len]);
            left = &left[len + 2..];
        }
        lines.push(left);
        let mut fields = vec![];
        for line in &lines[1..] {
            let colon = line.iter().position(|byte| *byte == b':')?;
            fields.push((&line[..colon], trim(&line[colon + 1..])));
        }
        Some(Self {
            first_line: lines[0],
            fields,
            rest: &bytes[end + 4..],
        })
    }

    /// The values of all fields with this name.
    pub fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        let of_name = self
            .fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        of_name.map(|(_, value)| *value)
    }

    /// The value of the field with this name, if there is exactly one.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether a list in all fields with this name contains this element.
    #[must_use]
    pub fn lists(&self, name: &str, element: &str) -> bool {
        let mut elements = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        elements.any(|other| trim(other).eq_ignore_ascii_case(element.as_bytes()))
    }

    /// Whether all names are tokens and no value contains a control byte.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.fields.iter().all(|(name, value)| {
            let is_token = !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte));
            is_token
                && value
                    .iter()
                    .all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f)
        })
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.fields.iter().map(|(name, _)| *name)
    }
}

/// Trims optional whitespace, which is only spaces and tabs (RFC 9110 §5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Decodes a key: 22 base64 digits and two equals signs.
#[must_use]
pub fn decode_key(text: &[u8]) -> Option<[u8; 16]> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.strip_suffix(b"==").filter(|digits| digits.len() == 22)?;
    let mut bits = vec![];
    for digit in digits {
        let value = DIGITS.iter().position(|other| other == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let bytes = bits
        .chunks_exact(8)
        .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    bytes.collect::<Vec<_>>().try_into().ok()
}
