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
    let mut bytes = super::block::take(rest, size(count, width))?.iter();
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let mut waiting: u128 = 0;
    let mut bits = 0;
    for _ in 0..count {
        while bits < width {
            let byte = bytes.next().expect("invariant: `size` bytes hold `count` values");
            waiting |= u128::from(*byte) << bits;
            bits += 8;
        }
        sink(waiting as u64 & mask);
        waiting >>= width;
        bits -= width;
    }
    Ok(())
}
