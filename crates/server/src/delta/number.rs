//! Integers of the format: base 64, most significant digit first, with digits in ASCII order.

use super::DeltaError;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// Value of each byte as a digit; `NOT_A_DIGIT` for all others.
const VALUES: [u8; 256] = {
    let mut values = [NOT_A_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

const NOT_A_DIGIT: u8 = 0xff;

/// Takes an integer off the front. One without digits is zero, as in other implementations.
pub(super) fn read(rest: &mut &[u8]) -> Result<u32, DeltaError> {
    let mut number = 0u32;
    while let Some((&byte, after)) = rest.split_first() {
        let digit = VALUES[usize::from(byte)];
        if digit == NOT_A_DIGIT {
            return Ok(number);
        }
        if number >> (u32::BITS - 6) != 0 {
            return Err(DeltaError::NumberTooLarge);
        }
        number = number << 6 | u32::from(digit);
        *rest = after;
    }
    // Every integer is followed by something.
    Err(DeltaError::Truncated)
}

pub(super) fn write(out: &mut Vec<u8>, number: u32) {
    for index in (0..len(number)).rev() {
        let digit = number >> (6 * index) & 0x3f;
        out.push(DIGITS[digit as usize]);
    }
}

/// How many digits an integer takes.
pub(super) fn len(number: u32) -> usize {
    let bits = u32::BITS - (number | 1).leading_zeros();
    bits.div_ceil(6) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_width() {
        for (number, expect) in [
            (0, "0"),
            (1, "1"),
            (9, "9"),
            (10, "A"),
            (35, "Z"),
            (36, "_"),
            (37, "a"),
            (62, "z"),
            (63, "~"),
            (64, "10"),
            (4095, "~~"),
            (4096, "100"),
            (u32::MAX, "3~~~~~"),
        ] {
            let mut text = Vec::new();
            write(&mut text, number);
            assert_eq!(text, expect.as_bytes());
            assert_eq!(len(number), text.len());
            text.push(b',');
            let mut rest = &text[..];
            assert_eq!(read(&mut rest), Ok(number));
            assert_eq!(rest, b",");
        }
    }

    #[test]
    fn numbers_of_more_than_32_bits_are_refused() {
        assert_eq!(read(&mut &b"400000,"[..]), Err(DeltaError::NumberTooLarge));
        assert_eq!(read(&mut &b"~~~~~~~~~~~~,"[..]), Err(DeltaError::NumberTooLarge));
        assert_eq!(read(&mut &b"00000003~~~~~,"[..]), Ok(u32::MAX));
    }

    #[test]
    fn bytes_with_the_high_bit_are_no_digits() {
        let mut rest = &b"1\xb1,"[..];
        assert_eq!(read(&mut rest), Ok(1));
        assert_eq!(rest, b"\xb1,");
    }
}
