//! Prefix codes (canonical Huffman): frequent symbols take few bits, and a table decodes them in one look.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Malformed;
use super::bits::{BitReader, BitWriter, pack, size, unpack};
use super::block::{read_varint, take, varint};

/// Most bits of a code: a table of this many bits lies in the processor's first cache.
const LONGEST: u32 = 12;

/// Most symbols of a code.
pub(super) const MAX_SYMBOLS: usize = 256;

/// The codes of a list of symbols, for writing.
pub(super) struct Code {
    /// Symbols below the first that occurs are left out.
    first: usize,
    /// Bits of each symbol's code, from `first` to the last that occurs; 0 for one that does not occur.
    lengths: Vec<u8>,
    /// The codes, lowest bit first.
    codes: Vec<u16>,
}

impl Code {
    /// The best code for symbols that occur this often; at least one does.
    pub(super) fn new(counts: &[u32]) -> Code {
        let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or(first);
        let mut counts = counts[first..=last].to_vec();
        let mut lengths = huffman(&counts);
        while lengths.iter().any(|length| u32::from(*length) > LONGEST) {
            // Evener counts make shorter codes.
            counts.iter_mut().filter(|count| **count > 0).for_each(|count| *count = *count / 2 + 1);
            lengths = huffman(&counts);
        }
        let codes = canonical(&lengths);
        Code { first, lengths, codes }
    }

    /// Bits that the symbol's code takes.
    pub(super) fn length(&self, symbol: usize) -> u32 {
        u32::from(self.lengths[symbol - self.first])
    }

    /// Bytes of [`Code::describe`], about.
    pub(super) fn description(&self) -> usize {
        3 + size(self.lengths.len(), 4)
    }

    /// Writes what [`PrefixTable::read`] needs.
    pub(super) fn describe(&self, out: &mut Vec<u8>) {
        varint(self.first as u64, out);
        varint(self.lengths.len() as u64, out);
        pack(self.lengths.iter().map(|length| u64::from(*length)), 4, out);
    }

    pub(super) fn write(&self, symbol: usize, out: &mut BitWriter<'_>) {
        let symbol = symbol - self.first;
        out.write(u64::from(self.codes[symbol]), u32::from(self.lengths[symbol]));
    }
}

/// Bits of each symbol's code, without a limit; 0 for those that do not occur, and for a symbol that is alone.
fn huffman(counts: &[u32]) -> Vec<u8> {
    let mut lengths = vec![0; counts.len()];
    // Each tree: its weight, its number (so that equal weights have one order), its symbols.
    let mut trees: BinaryHeap<Reverse<(u64, usize, Vec<usize>)>> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(symbol, count)| Reverse((u64::from(*count), symbol, vec![symbol])))
        .collect();
    let mut number = counts.len();
    while let (Some(Reverse(a)), Some(Reverse(b))) = (trees.pop(), trees.pop()) {
        let mut symbols = a.2;
        symbols.extend(b.2);
        symbols.iter().for_each(|symbol| lengths[*symbol] += 1);
        if trees.is_empty() {
            break;
        }
        trees.push(Reverse((a.0 + b.0, number, symbols)));
        number += 1;
    }
    lengths
}

/// Codes of these lengths, shorter ones first and symbols in order, written lowest bit first.
fn canonical(lengths: &[u8]) -> Vec<u16> {
    let mut codes = vec![0; lengths.len()];
    let mut next: u32 = 0;
    for length in 1..=LONGEST {
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, of)| u32::from(**of) == length) {
            codes[symbol] = (next as u16).reverse_bits() >> (16 - length);
            next += 1;
        }
        next <<= 1;
    }
    codes
}

/// A code, for reading.
pub(super) struct PrefixTable {
    first: usize,
    /// Bits that index `entries`.
    bits: u32,
    /// For each continuation of the stream: the symbol that it starts with, and the bits of its code.
    entries: Vec<(u8, u8)>,
}

impl PrefixTable {
    /// Reads what [`Code::describe`] wrote. `symbols` bounds the symbols.
    pub(super) fn read(rest: &mut &[u8], symbols: usize) -> Result<PrefixTable, Malformed> {
        let bound = |value: u64| usize::try_from(value).ok().filter(|value| *value <= symbols);
        let malformed = Malformed("a prefix code has no valid size");
        let first = bound(read_varint(rest)?).ok_or(malformed.clone())?;
        let count = bound(read_varint(rest)?).ok_or(malformed.clone())?;
        if count == 0 || first + count > symbols {
            return Err(malformed);
        }
        let mut lengths = Vec::with_capacity(count);
        let mut packed = take(rest, size(count, 4))?;
        unpack(&mut packed, count, 4, |length| lengths.push(length as u8))?;
        let bits = u32::from(lengths.iter().copied().max().unwrap_or(0));
        // Every continuation of the stream must mean one symbol: only a single symbol may have an empty code.
        let used: u32 = lengths.iter().filter(|length| **length > 0).map(|length| (1 << bits) >> length).sum();
        if bits > LONGEST || (bits > 0 && used != 1 << bits) || (bits == 0 && count != 1) {
            return Err(Malformed("a prefix code is not complete"));
        }
        let mut entries = vec![(0, 0); 1 << bits];
        for (symbol, (code, length)) in canonical(&lengths).into_iter().zip(&lengths).enumerate() {
            if *length > 0 {
                for entry in (usize::from(code)..1 << bits).step_by(1 << length) {
                    entries[entry] = (symbol as u8, *length);
                }
            }
        }
        Ok(PrefixTable { first, bits, entries })
    }

    pub(super) fn symbol(&self, from: &mut BitReader<'_>) -> usize {
        let (symbol, length) = self.entries[from.peek(self.bits) as usize];
        from.skip(u32::from(length));
        self.first + usize::from(symbol)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_survives(counts in prop::collection::vec(prop_oneof![Just(0u32), 1u32..9, 1u32..1_000_000], 1..256)) {
            prop_assume!(counts.iter().any(|count| *count > 0));
            let code = Code::new(&counts);
            let symbols: Vec<usize> = (0..counts.len()).filter(|symbol| counts[*symbol] > 0).collect();
            let mut out = Vec::new();
            code.describe(&mut out);
            let mut writer = BitWriter::new(&mut out);
            symbols.iter().for_each(|symbol| code.write(*symbol, &mut writer));
            writer.finish();
            let mut rest = &out[..];
            let table = PrefixTable::read(&mut rest, MAX_SYMBOLS).expect("a code");
            let mut reader = BitReader::new(rest);
            let read: Vec<usize> = symbols.iter().map(|_| table.symbol(&mut reader)).collect();
            prop_assert_eq!(read, symbols);
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn frequent_symbols_are_short_and_no_code_is_too_long() {
        let code = Code::new(&[8, 4, 2, 2]);
        assert_eq!((0..4).map(|symbol| code.length(symbol)).collect::<Vec<_>>(), [1, 2, 3, 3]);
        // Fibonacci's numbers make the longest codes.
        let mut counts = vec![1u32, 1];
        while counts.len() < 40 {
            counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
        }
        let code = Code::new(&counts);
        assert!((0..40).all(|symbol| code.length(symbol) <= LONGEST));
        assert_eq!(Code::new(&[0, 0, 7]).length(2), 0, "a symbol alone takes no bits");
    }
}
