//! Incremental UTF-8 validation (RFC 6455 §5.6, §8.1).

/// Error for text that is not valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

/// Validates text that arrives in pieces. Fails at the first byte that cannot be part of valid UTF-8.
///
/// simdutf8 checks the bulk of each piece. Only a code point split between two pieces is validated byte by byte.
// [6455-5.6-1, 6455-8.1-1]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Utf8Validator {
    /// Number of continuation bytes missing from the current code point.
    needed: u8,
    /// Inclusive range of the next continuation byte. Meaningful only while `needed > 0`.
    next: (u8, u8),
}

impl Utf8Validator {
    /// Validates the next piece of the text.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.needed > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            self.push_byte(byte)?;
            piece = rest;
        }
        let (whole, cut) = piece.split_at(piece.len() - cut_code_point_len(piece));
        if !is_utf8(whole) {
            return Err(InvalidUtf8);
        }
        cut.iter().try_for_each(|&byte| self.push_byte(byte))
    }

    /// Ends the text. Fails if the last code point is incomplete. Resets the validator for the next text.
    pub(crate) fn finish(&mut self) -> Result<(), InvalidUtf8> {
        match core::mem::take(self).needed {
            0 => Ok(()),
            _ => Err(InvalidUtf8),
        }
    }

    /// Advances the state machine of Unicode Table 3-7, "Well-Formed UTF-8 Byte Sequences".
    fn push_byte(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        const ANY: (u8, u8) = (0x80, 0xbf);
        if self.needed > 0 {
            if byte < self.next.0 || byte > self.next.1 {
                return Err(InvalidUtf8);
            }
            *self = Self {
                needed: self.needed - 1,
                next: ANY,
            };
            return Ok(());
        }
        let (needed, next) = match byte {
            0x00..=0x7f => (0, ANY),
            0xc2..=0xdf => (1, ANY),
            0xe0 => (2, (0xa0, 0xbf)), // no overlong forms
            0xed => (2, (0x80, 0x9f)), // no surrogates
            0xe1..=0xef => (2, ANY),
            0xf0 => (3, (0x90, 0xbf)), // no overlong forms
            0xf1..=0xf3 => (3, ANY),
            0xf4 => (3, (0x80, 0x8f)), // nothing above U+10FFFF
            _ => return Err(InvalidUtf8),
        };
        *self = Self { needed, next };
        Ok(())
    }
}

/// Whether `bytes` is valid UTF-8.
#[inline]
pub(crate) fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// Returns the length of an incomplete code point at the end of `piece`, or zero.
fn cut_code_point_len(piece: &[u8]) -> usize {
    for (back, &byte) in piece.iter().rev().take(3).enumerate() {
        let code_point_len = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        let present = back + 1;
        return if present < code_point_len { present } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), InvalidUtf8> {
        let mut validator = Utf8Validator::default();
        pieces.into_iter().try_for_each(|piece| validator.push(piece))?;
        validator.finish()
    }

    #[track_caller]
    fn check_at_every_split(bytes: &[u8]) {
        let expected = core::str::from_utf8(bytes).is_ok();
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(in_pieces([head, tail]).is_ok(), expected, "{bytes:02x?} split at {cut}");
        }
        assert_eq!(
            in_pieces(bytes.chunks(1)).is_ok(),
            expected,
            "{bytes:02x?} byte by byte"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn agrees_with_the_standard_library_on_every_two_bytes_at_every_split() {
        for first in 0..=255 {
            for second in 0..=255 {
                check_at_every_split(&[first, second]);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn agrees_at_the_boundaries_of_every_row_of_table_3_7() {
        // checks [6455-8.1-1]
        let leads = [
            0x7f, 0x80, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        let seconds = [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0];
        let rest = [0x7f, 0x80, 0xbf, 0xc0];
        for a in leads {
            for b in seconds {
                for c in rest {
                    check_at_every_split(&[a, b, c]);
                    for d in rest {
                        check_at_every_split(&[a, b, c, d]);
                        check_at_every_split(&[b'x', a, b, c, d, b'y']);
                    }
                }
            }
        }
    }

    #[test]
    fn text_longer_than_a_simd_block_may_be_cut_anywhere() {
        let text: String = "aé漢😀".chars().cycle().take(300).collect();
        check_at_every_split(text.as_bytes());
        let mut broken: Vec<u8> = text.into_bytes();
        let middle = broken.len() / 2;
        broken[middle] = 0xff;
        check_at_every_split(&broken);
    }

    #[test]
    fn fails_at_the_first_bad_byte_not_at_the_end_of_the_code_point() {
        let mut validator = Utf8Validator::default();
        // Autobahn 6.4.3: U+110000 is wrong from its second byte on.
        assert_eq!(validator.push(&[0xf4]), Ok(()));
        assert_eq!(validator.push(&[0x90]), Err(InvalidUtf8));
    }
}
