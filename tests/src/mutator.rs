//! Damaged copies of an input, for tests that whatever somebody feeds to a parser ends in an answer. The same seed gives the
//! same copies on every machine, so a failure is found again by its kind, seed and number.

use std::ops::Range;

/// What replaces a number in a text: the edges of the integer and float types, and what is no number at all.
const EXTREMES: [&str; 22] = [
    "0",
    "-0",
    "-1",
    "1",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e308",
    "-1e400",
    "1e-400",
    "0.5",
    "NaN",
    "999999999999999999999999999999999999999999",
];

/// Bytes of the same edges where numbers are stored in binary, as varints and in little endian.
const BINARY_EXTREMES: [&[u8]; 7] = [
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0xc0, 0x7f],
    &[0xff; 8],
    &[0; 8],
];

/// Most copies of a span that one change adds.
const MOST_COPIES: u64 = 256;

/// Most bytes that one change adds, so that a damaged copy stays an input that somebody could have written by accident.
const MOST_ADDED: usize = 1 << 16;

/// What the numbers of an input look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Decimal digits.
    Text,
    /// Bytes.
    Binary,
}

/// A stream of changes (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator { state: seed }
    }

    /// The next number of the stream.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % (bound as u64).max(1)) as usize
    }

    /// `input` with one to three changes.
    pub fn mutate(&mut self, input: &[u8], notation: Notation) -> Vec<u8> {
        let mut output = input.to_vec();
        for _ in 0..1 + self.below(3) {
            match self.below(8) {
                0 => self.flip_bits(&mut output),
                1 => self.cut(&mut output),
                2 => self.swap_spans(&mut output),
                3 => self.repeat_span(&mut output),
                // Numbers go deepest: what has a wrong syntax is refused at once.
                _ => self.put_extreme(&mut output, notation),
            }
        }
        output
    }

    fn flip_bits(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.below(8);
            }
        }
    }

    /// Takes out a span, half the time everything up to the end.
    fn cut(&mut self, bytes: &mut Vec<u8>) {
        let span = self.span(bytes.len());
        if self.below(2) == 0 {
            bytes.truncate(span.start);
        } else {
            bytes.drain(span);
        }
    }

    fn swap_spans(&mut self, bytes: &mut Vec<u8>) {
        let (one, other) = (self.span(bytes.len()), self.span(bytes.len()));
        let (first, second) = if one.start <= other.start { (one, other) } else { (other, one) };
        // Where the two overlap, the first ends where the second begins.
        let first = first.start..first.end.min(second.start);
        let parts = [
            &bytes[..first.start],
            &bytes[second.clone()],
            &bytes[first.end..second.start],
            &bytes[first.clone()],
            &bytes[second.end..],
        ];
        *bytes = parts.concat();
    }

    fn repeat_span(&mut self, bytes: &mut Vec<u8>) {
        let span = self.span(bytes.len());
        // Few copies as often as many: many of an opening bracket nest, few of a field come twice.
        let copies = self.next_u64() % (1 + self.next_u64() % MOST_COPIES) + 1;
        let copies = (copies as usize).min(MOST_ADDED / span.len().max(1));
        let copy = bytes[span.clone()].repeat(copies);
        bytes.splice(span.end..span.end, copy);
    }

    fn put_extreme(&mut self, bytes: &mut Vec<u8>, notation: Notation) {
        match notation {
            Notation::Text => {
                let numbers = numbers_of(bytes);
                if let Some(number) = numbers.get(self.below(numbers.len())) {
                    let extreme = EXTREMES[self.below(EXTREMES.len())];
                    bytes.splice(number.clone(), extreme.bytes());
                }
            }
            Notation::Binary => {
                let at = self.below(bytes.len());
                let extreme = BINARY_EXTREMES[self.below(BINARY_EXTREMES.len())];
                // In place of as many bytes, or of one: a varint is longer where its number is larger.
                let replaced = if self.below(2) == 0 { extreme.len() } else { 1 };
                let end = (at + replaced).min(bytes.len());
                bytes.splice(at..end, extreme.iter().copied());
            }
        }
    }

    /// Part of `len` bytes: mostly short, anywhere, and empty only where there is nothing.
    fn span(&mut self, len: usize) -> Range<usize> {
        let start = self.below(len);
        let longest = if self.below(4) == 0 { len } else { 16 };
        let end = start + 1 + self.below(longest);
        start..end.min(len)
    }
}

/// Where the runs of digits in a text are, with the sign and the fraction that belong to them.
fn numbers_of(text: &[u8]) -> Vec<Range<usize>> {
    let mut numbers: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = if at > 0 && text[at - 1] == b'-' { at - 1 } else { at };
        let length = text[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        at += length;
        numbers.push(start..at);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"{\"a\": [1, -2.5, 300], \"b\": \"text\"}";

    #[test]
    fn numbers_are_found_whole() {
        let numbers: Vec<&[u8]> = numbers_of(TEXT).into_iter().map(|number| &TEXT[number]).collect();
        assert_eq!(numbers, [&b"1"[..], b"-2.5", b"300"]);
    }

    #[test]
    fn a_seed_names_its_changes() {
        let copies = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..50).map(|_| mutator.mutate(TEXT, Notation::Text)).collect::<Vec<_>>()
        };
        assert_eq!(copies(7), copies(7));
        assert_ne!(copies(7), copies(8));
    }

    #[test]
    fn every_kind_of_change_comes_up() {
        let mut mutator = Mutator::new(1);
        let copies: Vec<Vec<u8>> = (0..1000).map(|_| mutator.mutate(TEXT, Notation::Text)).collect();
        let count = |has: &dyn Fn(&[u8]) -> bool| copies.iter().filter(|copy| has(copy)).count();
        assert!(count(&|copy| copy != TEXT) > 950);
        assert!(count(&|copy| copy.len() < TEXT.len()) > 50, "cuts");
        assert!(count(&|copy| copy.len() > 10 * TEXT.len()) > 20, "repeats");
        for extreme in EXTREMES.iter().filter(|extreme| extreme.len() > 3) {
            assert!(count(&|copy| copy.windows(extreme.len()).any(|part| part == extreme.as_bytes())) > 0, "{extreme}");
        }
    }

    #[test]
    fn nothing_is_too_small_and_the_copies_are_bounded() {
        let mut mutator = Mutator::new(1);
        for input in [&b""[..], b"1", b"ab"] {
            for _ in 0..1000 {
                let copy = mutator.mutate(input, Notation::Binary);
                assert!(copy.len() <= input.len() + 3 * (MOST_ADDED + 64));
                let copy = mutator.mutate(input, Notation::Text);
                assert!(copy.len() <= input.len() + 3 * (MOST_ADDED + 64));
            }
        }
    }
}
