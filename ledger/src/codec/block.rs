//! Lists of integers in blocks of at most 128 values, each block in whichever of four forms is smallest.
//!
//! | tag | form | after the tag |
//! |---|---|---|
//! | 0 ..= 64 | packed | smallest value; the differences to it in `tag` bits each |
//! | 65 ..= 129 | deltas | first value; smallest step; the steps' differences to it in `tag − 65` bits each |
//! | 130 | sparse | a bit per value (1 = not the default); the others as a packed block |
//! | 131 | dictionary | number of distinct values, these; an index per value |
//!
//! A block is small so that one outlier (a slow round, a pause) widens only its neighbours. A constant block is a packed
//! one of 0 bits: two or three bytes.

use super::Malformed;
use super::bits::{pack, size, unpack, width};

const BLOCK: usize = 128;
const DELTAS: u8 = 65;
const SPARSE: u8 = 130;
const DICTIONARY: u8 = 131;
/// Beyond this many distinct values the search for them costs more than it saves.
const MAX_DISTINCT: usize = 32;
const MAX_ENTRIES: u64 = MAX_DISTINCT as u64;

/// Maps small magnitudes of either sign to small integers: 0, −1, 1, −2, … → 0, 1, 2, 3, …
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// LEB128: seven bits a byte, the top bit says that more follow.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn read_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("an integer has too many bytes"))
}

pub(super) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Malformed("the chunk ends too early"))?;
    *rest = left;
    Ok(taken)
}

/// Encodes a column; `default` is the value expected where a figure does not apply.
pub(super) fn encode(values: &[u64], default: u64, out: &mut Vec<u8>) {
    for block in values.chunks(BLOCK) {
        encode_block(block, default, out);
    }
}

/// Decodes a column of `count` values to the end of `values`.
pub(super) fn decode(rest: &mut &[u8], count: usize, values: &mut Vec<u64>) -> Result<(), Malformed> {
    values.reserve(count);
    for start in (0..count).step_by(BLOCK) {
        decode_block(rest, (count - start).min(BLOCK), values)?;
    }
    Ok(())
}

/// What the choice of a form needs to know about a block.
struct Survey {
    min: u64,
    max: u64,
    min_step: i64,
    max_step: i64,
    /// Of the values that are not the default.
    others: usize,
    others_min: u64,
    others_max: u64,
}

fn survey(values: &[u64], default: u64) -> Survey {
    let mut survey = Survey {
        min: u64::MAX,
        max: 0,
        min_step: i64::MAX,
        max_step: i64::MIN,
        others: 0,
        others_min: u64::MAX,
        others_max: 0,
    };
    let mut previous = None;
    for &value in values {
        survey.min = survey.min.min(value);
        survey.max = survey.max.max(value);
        if value != default {
            survey.others += 1;
            survey.others_min = survey.others_min.min(value);
            survey.others_max = survey.others_max.max(value);
        }
        if let Some(previous) = previous.replace(value) {
            let step = value.wrapping_sub(previous) as i64;
            survey.min_step = survey.min_step.min(step);
            survey.max_step = survey.max_step.max(step);
        }
    }
    survey
}

fn encode_block(values: &[u64], default: u64, out: &mut Vec<u8>) {
    let count = values.len();
    let survey = survey(values, default);
    // Base values take about this many bytes; an estimate is enough to choose.
    const BASE: usize = 3;
    let packed_width = width(survey.max - survey.min);
    let mut best = (BASE + size(count, packed_width), packed_width as u8);
    if count > 1 {
        let step_width = width(survey.max_step.wrapping_sub(survey.min_step) as u64);
        best = best.min((2 * BASE + size(count - 1, step_width), DELTAS + step_width as u8));
    }
    if survey.others > 0 && survey.others < count {
        let others_width = width(survey.others_max - survey.others_min);
        best = best.min((size(count, 1) + 1 + BASE + size(survey.others, others_width), SPARSE));
    }
    // Worth a look only where the other forms need many bits per value.
    let mut distinct = Distinct::default();
    if best.0 > count && distinct.collect(values) {
        best = best.min((1 + distinct.bytes() + size(count, distinct.index_width()), DICTIONARY));
    }
    let tag = best.1;
    out.push(tag);
    match tag {
        SPARSE => {
            pack(values.iter().map(|value| u64::from(*value != default)), 1, out);
            varint(default, out);
            let others: Vec<u64> = values.iter().copied().filter(|value| *value != default).collect();
            let others_width = width(survey.others_max - survey.others_min);
            out.push(others_width as u8);
            varint(survey.others_min, out);
            pack(others.into_iter().map(|value| value - survey.others_min), others_width, out);
        }
        DICTIONARY => {
            varint(distinct.values.len() as u64, out);
            for value in &distinct.values {
                varint(*value, out);
            }
            pack(distinct.indices.iter().map(|index| u64::from(*index)), distinct.index_width(), out);
        }
        DELTAS.. => {
            varint(values[0], out);
            varint(zigzag(survey.min_step), out);
            let steps = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
            pack(steps.map(|step| step.wrapping_sub(survey.min_step as u64)), u32::from(tag - DELTAS), out);
        }
        _ => {
            varint(survey.min, out);
            pack(values.iter().map(|value| value - survey.min), packed_width, out);
        }
    }
}

fn decode_block(rest: &mut &[u8], count: usize, values: &mut Vec<u64>) -> Result<(), Malformed> {
    let tag = take(rest, 1)?[0];
    match tag {
        SPARSE => {
            let mut others = Vec::with_capacity(count);
            unpack(rest, count, 1, |bit| others.push(bit == 1))?;
            let default = read_varint(rest)?;
            let width = others_width(rest)?;
            let min = read_varint(rest)?;
            let mut decoded = Vec::with_capacity(count);
            let present = others.iter().filter(|other| **other).count();
            unpack(rest, present, width, |offset| decoded.push(min.wrapping_add(offset)))?;
            let mut decoded = decoded.into_iter();
            values.extend(
                others.into_iter().map(|other| {
                    if other { decoded.next().expect("invariant: one value per set bit") } else { default }
                }),
            );
        }
        DICTIONARY => {
            let entries = dictionary_entries(rest)?;
            let distinct = (0..entries).map(|_| read_varint(rest)).collect::<Result<Vec<u64>, Malformed>>()?;
            let mut indices = Vec::with_capacity(count);
            unpack(rest, count, width(entries - 1), |index| indices.push(index as usize))?;
            for index in indices {
                values.push(*distinct.get(index).ok_or(Malformed("an index is outside its dictionary"))?);
            }
        }
        DELTAS..SPARSE => {
            let mut value = read_varint(rest)?;
            let min_step = unzigzag(read_varint(rest)?) as u64;
            values.push(value);
            unpack(rest, count - 1, u32::from(tag - DELTAS), |offset| {
                value = value.wrapping_add(min_step).wrapping_add(offset);
                values.push(value);
            })?;
        }
        0..DELTAS => {
            let min = read_varint(rest)?;
            unpack(rest, count, u32::from(tag), |offset| values.push(min.wrapping_add(offset)))?;
        }
        _ => return Err(Malformed("a block has an unknown form")),
    }
    Ok(())
}

/// The bits per value of a sparse block.
fn others_width(rest: &mut &[u8]) -> Result<u32, Malformed> {
    let width = u32::from(take(rest, 1)?[0]);
    if width > u64::BITS { Err(Malformed("a block has an unknown form")) } else { Ok(width) }
}

/// The size of a block's dictionary.
fn dictionary_entries(rest: &mut &[u8]) -> Result<u64, Malformed> {
    match read_varint(rest)? {
        entries @ 1..=MAX_ENTRIES => Ok(entries),
        _ => Err(Malformed("a block's dictionary has no valid size")),
    }
}

/// The distinct values of a block, in order of appearance, and each value's index among them.
#[derive(Default)]
struct Distinct {
    values: Vec<u64>,
    indices: Vec<u8>,
}

impl Distinct {
    /// Collects a block; `false` as soon as it has too many distinct values.
    fn collect(&mut self, block: &[u64]) -> bool {
        for value in block {
            let index = match self.values.iter().position(|known| known == value) {
                Some(index) => index,
                None if self.values.len() == MAX_DISTINCT => return false,
                None => {
                    self.values.push(*value);
                    self.values.len() - 1
                }
            };
            self.indices.push(index as u8);
        }
        true
    }

    fn bytes(&self) -> usize {
        self.values.iter().map(|value| (width(*value) as usize).div_ceil(7).max(1)).sum()
    }

    fn index_width(&self) -> u32 {
        width(self.values.len() as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[u64], default: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, default, &mut out);
        let (mut rest, mut decoded) = (&out[..], Vec::new());
        assert_eq!(decode(&mut rest, values.len(), &mut decoded), Ok(()));
        assert_eq!(decoded, values);
        assert!(rest.is_empty());
        out
    }

    #[test]
    fn a_constant_and_a_count_take_a_few_bytes_per_block() {
        assert_eq!(bytes(&[7; 128], 0), [0, 7]);
        let count: Vec<u64> = (5..133).collect();
        assert_eq!(bytes(&count, 0), [DELTAS, 5, 2]);
    }

    #[test]
    fn rare_values_cost_a_bit_where_they_are_absent() {
        let values: Vec<u64> = (0..128).map(|i| if i % 32 == 5 { (1 << 40) + i * i } else { 0 }).collect();
        assert!(bytes(&values, 0).len() < 40);
    }

    #[test]
    fn few_distinct_wide_values_become_indices() {
        // u(t) = i/20 as float bits: 21 distinct values of 30 bits, an index of 5 bits each.
        let values: Vec<u64> = (0..128u8).map(|i| u64::from((f32::from(i * 2 % 21) / 20.0).to_bits())).collect();
        assert!(bytes(&values, 0).len() < 200);
    }

    #[test]
    fn extremes_survive() {
        bytes(&[u64::MAX, 0, u64::MAX, 1, i64::MAX as u64, 1 << 63], 0);
        bytes(&[u64::MAX], u64::MAX);
        bytes(&[], 0);
    }

    proptest! {
        #[test]
        fn every_list_survives(
            values in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..4, Just(9), 1u64 << 40..(1 << 40) + 99], 0..400),
            default in prop_oneof![Just(0u64), Just(9)],
        ) {
            bytes(&values, default);
        }

        #[test]
        fn arbitrary_bytes_never_panic(junk in prop::collection::vec(any::<u8>(), 0..300), count in 0usize..400) {
            let _ = decode(&mut &junk[..], count, &mut Vec::new());
        }
    }
}
