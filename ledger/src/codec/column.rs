//! Columns of whole chunks: their length, then the list in whichever of these forms is smallest.
//!
//! | tag | form | after the tag |
//! |---|---|---|
//! | — | default | nothing: a column of length 0 holds the default in every row |
//! | 0 | blocks | [`super::block`]: for what changes along the chunk |
//! | 1, 2 | classes | a base; a prefix code of the classes of the distances above (1) or below (2) it; class and distance of each value |
//! | 3 | steps | the first value; the same for the zigzag of each step |
//! | 4 | palette | the distinct values; a prefix code of their numbers; the number of each value |
//!
//! The class of a distance is its number of bits. So a value takes the bits that it has, and two or three that say how
//! many those are: what is spread evenly costs what packing costs, and rare large values cost nobody else. A length in
//! front of every column lets a reader step over those that it was not asked for.

use super::Malformed;
use super::bits::{BitReader, BitWriter, width};
use super::block::{self, read_varint, take, unzigzag, varint, zigzag};
use super::prefix::{Code, MAX_SYMBOLS, PrefixTable};

const BLOCKS: u8 = 0;
const ABOVE: u8 = 1;
const BELOW: u8 = 2;
const STEPS: u8 = 3;
const PALETTE: u8 = 4;

/// Classes of 64-bit distances.
const CLASSES: usize = 65;

/// How many values are looked at before a palette is tried, and how many distinct ones they may have.
const SAMPLE: usize = 256;
const SAMPLE_DISTINCT: usize = 96;

/// Encodes a column; `default` is the value expected where a figure does not apply.
pub(super) fn encode(values: &[u64], default: u64, out: &mut Vec<u8>) {
    if values.iter().all(|value| *value == default) {
        return varint(0, out);
    }
    let mut best = vec![BLOCKS];
    block::encode(values, default, &mut best);
    for tag in [ABOVE, BELOW, STEPS] {
        let classes = Classes::new(tag, values);
        if classes.bytes < best.len() {
            best.clear();
            classes.write(values, &mut best);
        }
    }
    if let Some(palette) = Palette::new(values).filter(|palette| palette.bytes < best.len()) {
        best.clear();
        palette.write(values, &mut best);
    }
    varint(best.len() as u64, out);
    out.append(&mut best);
}

/// The bytes of the next column.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = read_varint(rest)?;
    take(rest, usize::try_from(length).unwrap_or(usize::MAX))
}

/// Decodes a column of `count` values to the end of `values`.
pub(super) fn decode(mut column: &[u8], count: usize, default: u64, values: &mut Vec<u64>) -> Result<(), Malformed> {
    let Some((tag, rest)) = column.split_first() else {
        values.resize(values.len() + count, default);
        return Ok(());
    };
    column = rest;
    match *tag {
        BLOCKS => {
            block::decode(&mut column, count, values)?;
            if column.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over in a column")) }
        }
        tag @ (ABOVE | BELOW | STEPS) => {
            let mut base = read_varint(&mut column)?;
            let table = PrefixTable::read(&mut column, CLASSES)?;
            let mut reader = BitReader::new(column);
            values.reserve(count);
            for _ in 0..count {
                let class = table.symbol(&mut reader) as u32;
                let distance = if class < 2 { u64::from(class) } else { 1 << (class - 1) | reader.read(class - 1) };
                values.push(match tag {
                    ABOVE => base.wrapping_add(distance),
                    BELOW => base.wrapping_sub(distance),
                    _ => {
                        base = base.wrapping_add(unzigzag(distance) as u64);
                        base
                    }
                });
            }
            reader.finish()
        }
        PALETTE => {
            let entries = read_varint(&mut column)?;
            if entries == 0 || entries > MAX_SYMBOLS as u64 {
                return Err(Malformed("a palette has no valid size"));
            }
            let mut distinct = [0; MAX_SYMBOLS];
            let mut value: u64 = 0;
            for entry in &mut distinct[..entries as usize] {
                value = value.wrapping_add(read_varint(&mut column)?);
                *entry = value;
            }
            let table = PrefixTable::read(&mut column, entries as usize)?;
            let mut reader = BitReader::new(column);
            values.reserve(count);
            values.extend((0..count).map(|_| distinct[table.symbol(&mut reader)]));
            reader.finish()
        }
        _ => Err(Malformed("a column has an unknown form")),
    }
}

/// A column as distances.
struct Classes {
    tag: u8,
    base: u64,
    code: Code,
    bytes: usize,
}

impl Classes {
    fn new(tag: u8, values: &[u64]) -> Classes {
        let base = match tag {
            ABOVE => values.iter().copied().min(),
            BELOW => values.iter().copied().max(),
            _ => values.first().copied(),
        };
        let base = base.unwrap_or(0);
        let mut counts = [0; CLASSES];
        distances(tag, base, values, |distance| counts[width(distance) as usize] += 1);
        let code = Code::new(&counts);
        let bits = |(class, count): (usize, &u32)| {
            u64::from(*count) * u64::from(code.length(class) + (class as u32).saturating_sub(1))
        };
        let bits: u64 = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bits).sum();
        let bytes = 1 + (width(base) as usize).div_ceil(7).max(1) + code.description() + bits.div_ceil(8) as usize;
        Classes { tag, base, code, bytes }
    }

    fn write(&self, values: &[u64], out: &mut Vec<u8>) {
        out.push(self.tag);
        varint(self.base, out);
        self.code.describe(out);
        let mut writer = BitWriter::new(out);
        distances(self.tag, self.base, values, |distance| {
            let class = width(distance);
            self.code.write(class as usize, &mut writer);
            if class > 1 {
                // The top bit is known from the class.
                writer.write(distance ^ 1 << (class - 1), class - 1);
            }
        });
        writer.finish();
    }
}

fn distances(tag: u8, base: u64, values: &[u64], mut sink: impl FnMut(u64)) {
    match tag {
        ABOVE => values.iter().for_each(|value| sink(value.wrapping_sub(base))),
        BELOW => values.iter().for_each(|value| sink(base.wrapping_sub(*value))),
        _ => {
            let mut previous = base;
            for value in values {
                sink(zigzag(value.wrapping_sub(previous) as i64));
                previous = *value;
            }
        }
    }
}

/// A column as numbers of few distinct values.
struct Palette {
    distinct: Vec<u64>,
    code: Code,
    bytes: usize,
}

impl Palette {
    /// `None` if there are too many distinct values, or probably so.
    fn new(values: &[u64]) -> Option<Palette> {
        let step = (values.len() / SAMPLE).max(1);
        let mut sample: Vec<u64> = values.iter().copied().step_by(step).collect();
        sample.sort_unstable();
        sample.dedup();
        if sample.len() > SAMPLE_DISTINCT || sample.len() * 2 > values.len() {
            return None;
        }
        let mut distinct = sample;
        for value in values {
            if let Err(place) = distinct.binary_search(value) {
                if distinct.len() == MAX_SYMBOLS {
                    return None;
                }
                distinct.insert(place, *value);
            }
        }
        let mut counts = vec![0; distinct.len()];
        values.iter().for_each(|value| counts[number(&distinct, *value)] += 1);
        let code = Code::new(&counts);
        let bits: u64 = counts.iter().enumerate().map(|(n, count)| u64::from(*count) * u64::from(code.length(n))).sum();
        let varints: usize = distinct.iter().map(|value| (width(*value) as usize).div_ceil(7).max(1)).sum();
        let bytes = 3 + varints + code.description() + bits.div_ceil(8) as usize;
        Some(Palette { distinct, code, bytes })
    }

    fn write(&self, values: &[u64], out: &mut Vec<u8>) {
        out.push(PALETTE);
        varint(self.distinct.len() as u64, out);
        let mut previous = 0;
        for value in &self.distinct {
            varint(value - previous, out);
            previous = *value;
        }
        self.code.describe(out);
        let mut writer = BitWriter::new(out);
        values.iter().for_each(|value| self.code.write(number(&self.distinct, *value), &mut writer));
        writer.finish();
    }
}

/// The place of a value that is there.
fn number(distinct: &[u64], value: u64) -> usize {
    distinct.partition_point(|known| *known < value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[u64], default: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, default, &mut out);
        let mut rest = &out[..];
        let column = next(&mut rest).expect("a column");
        assert!(rest.is_empty());
        let mut decoded = Vec::new();
        assert_eq!(decode(column, values.len(), default, &mut decoded), Ok(()));
        assert_eq!(decoded, values);
        out
    }

    #[test]
    fn what_says_nothing_takes_nothing() {
        assert_eq!(bytes(&[7; 4096], 7), [0]);
        assert_eq!(bytes(&[], 0), [0]);
        assert!(bytes(&[7; 4096], 0).len() < 10, "a constant takes no bits per value");
    }

    #[test]
    fn rare_large_values_cost_nobody_else() {
        let values: Vec<u64> =
            (0..4096u64).map(|i| if i % 50 == 7 { (1 << 40) + i } else { i * 2_654_435_761 % 16 }).collect();
        // Four bits each, and forty for every fiftieth.
        assert!(bytes(&values, 0).len() < 4096 * 6 / 8, "{}", bytes(&values, 0).len());
    }

    #[test]
    fn few_distinct_wide_values_become_numbers() {
        let values: Vec<u64> = (0..4096u32).map(|i| u64::from((((i * i) % 21) as f32 / 20.0).to_bits())).collect();
        assert!(bytes(&values, 0).len() < 4096 * 4 / 8, "{}", bytes(&values, 0).len());
    }

    #[test]
    fn extremes_survive() {
        bytes(&[u64::MAX, 0, u64::MAX, 1, i64::MAX as u64, 1 << 63], 0);
        bytes(&[u64::MAX], 0);
        bytes(&(0..64).map(|bit| 1 << bit).collect::<Vec<_>>(), 0);
    }

    proptest! {
        #[test]
        fn every_list_survives(
            values in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..4, Just(9), 1u64 << 40..(1 << 40) + 99], 0..900),
            narrow in prop::collection::vec(0u64..9, 0..900),
            default in prop_oneof![Just(0u64), Just(9)],
        ) {
            bytes(&values, default);
            bytes(&narrow, default);
        }

        #[test]
        fn arbitrary_bytes_never_panic(tag in 0u8..6, junk in prop::collection::vec(any::<u8>(), 0..300), count in 0usize..400) {
            let column: Vec<u8> = std::iter::once(tag).chain(junk).collect();
            let mut values = Vec::new();
            if decode(&column, count, 0, &mut values).is_ok() {
                prop_assert_eq!(values.len(), count);
            }
        }
    }
}
