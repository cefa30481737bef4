//! Integers of a fixed number of bits, packed without gaps, least significant bit first.

use super::Malformed;

/// Bits that hold every value up to `largest`.
pub(super) fn width(largest: u64) -> u32 {
    u64::BITS - largest.leading_zeros()
}

/// Bytes that `count` values of `width` bits take.
pub(super) fn size(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Packs values that all fit `width` bits.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    // At most 7 bits wait between two values, and a value has 64: 71 fit the accumulator.
    let mut waiting: u128 = 0;
    let mut bits = 0;
    for value in values {
        waiting |= u128::from(value) << bits;
        bits += width;
        while bits >= 8 {
            out.push(waiting as u8);
            waiting >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(waiting as u8);
    }
}

/// Unpacks `count` values of `width` ≤ 64 bits and hands each to `sink`.
pub(super) fn unpack(rest: &mut &[u8], count: usize, width: u32, mut sink: impl FnMut(u64)) -> Result<(), Malformed> {
    let bytes = super::block::take(rest, size(count, width))?;
    if width == 0 {
        (0..count).for_each(|_| sink(0));
        return Ok(());
    }
    let width = width as usize;
    let mask = u64::MAX >> (64 - width);
    for at in (0..count).map(|index| index * width) {
        let (byte, shift) = (at / 8, at % 8);
        // Eight bytes hold any value of up to 57 bits at any of the eight shifts; a wider one may need a ninth.
        let low = window(bytes, byte) >> shift;
        let value = if shift + width > 64 { low | u64::from(bytes[byte + 8]) << (64 - shift) } else { low };
        sink(value & mask);
    }
    Ok(())
}

/// Eight bytes from `at` on, little-endian; zeros behind the end.
fn window(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8) {
        Some(window) => u64::from_le_bytes(window.try_into().expect("invariant: eight bytes")),
        None => bytes.get(at..).unwrap_or_default().iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

/// Appends values of any number of bits.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    waiting: u64,
    /// Fewer than 8 between two writes.
    bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> BitWriter<'a> {
        BitWriter { out, waiting: 0, bits: 0 }
    }

    /// Appends a value that fits `width` bits.
    pub(super) fn write(&mut self, value: u64, width: u32) {
        if width > 56 {
            self.write(value & 0xffff_ffff, 32);
            return self.write(value >> 32, width - 32);
        }
        self.waiting |= value << self.bits;
        self.bits += width;
        let whole = (self.bits / 8) as usize;
        self.out.extend_from_slice(&self.waiting.to_le_bytes()[..whole]);
        // Eight whole bytes are more than a shift can take away.
        self.waiting = if whole == 8 { 0 } else { self.waiting >> (8 * whole) };
        self.bits %= 8;
    }

    /// Appends what is left of the last byte.
    pub(super) fn finish(self) {
        if self.bits > 0 {
            self.out.push(self.waiting as u8);
        }
    }
}

/// Reads values of any number of bits. Behind the end there are zeros; [`BitReader::finish`] tells whether that came to pass.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, at: 0 }
    }

    /// The next `width` ≤ 56 bits.
    pub(super) fn peek(&self, width: u32) -> u64 {
        let window = window(self.bytes, self.at / 8) >> (self.at % 8);
        window & ((1 << width) - 1)
    }

    pub(super) fn skip(&mut self, width: u32) {
        self.at += width as usize;
    }

    /// The next `width` ≤ 64 bits.
    pub(super) fn read(&mut self, width: u32) -> u64 {
        if width > 56 {
            return self.read(32) | self.read(width - 32) << 32;
        }
        let value = self.peek(width);
        self.skip(width);
        value
    }

    /// Checks that everything was read, and nothing else.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.at.div_ceil(8) == self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed("a column ends at the wrong place"))
        }
    }
}
