//! JSON files that carry a checksum of themselves, so that a flipped bit in a figure does not pass for another figure.
//!
//! The checksum is the last field of the object: the XXH3 (64 bits, in hexadecimal digits) of the whole text, with zeros in
//! the checksum's own place. It guards against accidents, not against people: who changes a file on purpose can compute it
//! anew.

use twox_hash::XxHash3_64;

/// What stands before the checksum's digits.
const FIELD: &str = "\"checksum\": \"";

/// Digits of a checksum.
const DIGITS: usize = 16;

/// What a text says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It is what was written.
    Whole,
    /// It carries no checksum.
    Absent,
    /// It is not what was written.
    Broken,
}

/// The text of a JSON object without a field `checksum`, with its checksum as the last field.
pub fn seal(object: &[u8]) -> Vec<u8> {
    let fields = object.trim_ascii_end();
    let fields = fields.strip_suffix(b"}").unwrap_or(fields).trim_ascii_end();
    let comma = if fields.ends_with(b"{") { "" } else { "," };
    let mut text = fields.to_vec();
    text.extend_from_slice(format!("{comma}\n  {FIELD}").as_bytes());
    let digits = text.len()..text.len() + DIGITS;
    text.extend_from_slice(&[b'0'; DIGITS]);
    text.extend_from_slice(b"\"\n}");
    let sum = digest(&text);
    text[digits].copy_from_slice(sum.as_bytes());
    text
}

/// Whether a text is what [`seal`] made.
pub fn check(text: &[u8]) -> Seal {
    let Some(at) = digits(text) else { return Seal::Absent };
    let mut plain = text.to_vec();
    plain[at..at + DIGITS].fill(b'0');
    if digest(&plain).as_bytes() == &text[at..at + DIGITS] { Seal::Whole } else { Seal::Broken }
}

/// The object that [`seal`] was given, up to white space at its end; a text without a checksum as it is.
pub fn without(text: &[u8]) -> Vec<u8> {
    let Some(at) = digits(text) else { return text.to_vec() };
    let fields = text[..at - FIELD.len()].trim_ascii_end();
    let fields = fields.strip_suffix(b",").unwrap_or(fields);
    let mut object = fields.to_vec();
    object.extend_from_slice(text.get(at + DIGITS + 1..).unwrap_or_default());
    object
}

/// The XXH3 of some bytes, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:016x}", XxHash3_64::oneshot(bytes))
}

/// Where the digits of the last checksum in a text begin.
fn digits(text: &[u8]) -> Option<usize> {
    let last = text.windows(FIELD.len()).rposition(|window| window == FIELD.as_bytes())?;
    let at = last + FIELD.len();
    (at + DIGITS <= text.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        // A name that looks like the field is no checksum.
        let object = b"{\n  \"name\": \"\\\"checksum\\\": \\\"0123456789abcdef\",\n  \"count\": 7\n}";
        let text = seal(object);
        assert_eq!(check(&text), Seal::Whole);
        assert_eq!(without(&text), object);
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A bit of the field's name hides the checksum: who knows that there must be one takes that for damage.
            assert_ne!(check(&flipped), Seal::Whole, "bit {bit}");
        }
    }

    #[test]
    fn an_object_may_be_empty_or_have_no_checksum() {
        assert_eq!(check(b"{\"count\": 7}"), Seal::Absent);
        assert_eq!(check(b"{\"checksum\": \"12\"}"), Seal::Absent);
        let empty = seal(b"{}");
        assert_eq!(check(&empty), Seal::Whole);
        assert_eq!(without(&empty), b"{\n}");
    }
}
