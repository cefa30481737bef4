//! A small columnar codec: every column of a chunk is a list of integers, and every list takes the form that is smallest.
//!
//! One integer codec serves all columns: floats go through their bits (which keeps every NaN), enums through a
//! dictionary of their serialised names (so that a chunk explains itself), lists through their lengths and their joined
//! elements.

mod bits;
mod block;
mod column;
mod prefix;

use serde::Serialize;
use serde::de::DeserializeOwned;
use specfleet_engine::time::{Span, Time};

pub(crate) use block::{unzigzag, zigzag};

/// The bits of NaN as Rust writes it: the value that most float columns hold where a figure does not apply.
const NAN: u64 = f32::NAN.to_bits() as u64;

/// Most elements that the lists of one column of a chunk may hold together; a bound on what a damaged length can make us
/// allocate. A row whose list is longer is refused.
pub const MAX_LIST_ELEMENTS: usize = 1 << 22;

/// Bytes that are not what an encoder writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What an integer column can hold.
pub(crate) trait Integer: Copy {
    fn widen(self) -> u64;
    fn narrow(value: u64) -> Option<Self>;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            fn widen(self) -> u64 {
                u64::from(self)
            }
            fn narrow(value: u64) -> Option<Self> {
                value.try_into().ok()
            }
        }
    )*};
}
integer!(u8, u16, u32, u64);

impl Integer for bool {
    fn widen(self) -> u64 {
        u64::from(self)
    }
    fn narrow(value: u64) -> Option<Self> {
        (value < 2).then_some(value == 1)
    }
}

impl Integer for Span {
    fn widen(self) -> u64 {
        self.0
    }
    fn narrow(value: u64) -> Option<Self> {
        Some(Span(value))
    }
}

impl Integer for Time {
    fn widen(self) -> u64 {
        self.0
    }
    fn narrow(value: u64) -> Option<Self> {
        Some(Time(value))
    }
}

/// Builds the payload of a chunk, column after column.
#[derive(Default)]
pub(crate) struct ColumnEncoder {
    out: Vec<u8>,
    /// The column under work; kept to save allocations.
    scratch: Vec<u64>,
}

impl ColumnEncoder {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A column of integers.
    pub(crate) fn integers<T: Integer>(&mut self, values: impl Iterator<Item = T>) {
        self.scratch.clear();
        self.scratch.extend(values.map(Integer::widen));
        column::encode(&self.scratch, 0, &mut self.out);
    }

    /// A column of floats, bit for bit.
    pub(crate) fn floats(&mut self, values: impl Iterator<Item = f32>) {
        self.scratch.clear();
        self.scratch.extend(values.map(|value| u64::from(value.to_bits())));
        column::encode(&self.scratch, NAN, &mut self.out);
    }

    /// A column of integers that are mostly absent: a flag and a value each.
    pub(crate) fn optional<T: Integer>(&mut self, values: impl Iterator<Item = Option<T>> + Clone) {
        self.integers(values.clone().map(|value| value.is_some()));
        self.integers(values.map(|value| value.map_or(0, Integer::widen)));
    }

    /// A column of few distinct values: their names as JSON, then an index per row.
    pub(crate) fn dictionary<T: Copy + PartialEq + Serialize>(&mut self, values: impl Iterator<Item = T>) {
        let mut distinct: Vec<T> = Vec::new();
        self.scratch.clear();
        for value in values {
            let index = distinct.iter().position(|known| *known == value).unwrap_or_else(|| {
                distinct.push(value);
                distinct.len() - 1
            });
            self.scratch.push(index as u64);
        }
        block::varint(distinct.len() as u64, &mut self.out);
        for value in &distinct {
            let name = serde_json::to_vec(value).expect("invariant: the enums of the record types serialise to JSON");
            block::varint(name.len() as u64, &mut self.out);
            self.out.extend_from_slice(&name);
        }
        column::encode(&self.scratch, 0, &mut self.out);
    }

    /// A column of integer lists: their lengths, then all their elements.
    pub(crate) fn integer_lists<'a>(&mut self, lists: impl Iterator<Item = &'a [u32]> + Clone) {
        self.integers(lists.clone().map(|list| list.len() as u64));
        self.integers(lists.flatten().copied());
    }

    /// A column of float lists.
    pub(crate) fn float_lists<'a>(&mut self, lists: impl Iterator<Item = &'a [f32]> + Clone) {
        self.integers(lists.clone().map(|list| list.len() as u64));
        self.floats(lists.flatten().copied());
    }
}

/// Reads the columns of a payload back, in the order in which they were written.
pub(crate) struct ColumnDecoder<'a> {
    rest: &'a [u8],
    rows: usize,
    /// The column under work; kept to save allocations.
    scratch: Vec<u64>,
}

impl<'a> ColumnDecoder<'a> {
    /// A decoder of a payload of `rows` rows.
    pub(crate) fn new(payload: &'a [u8], rows: usize) -> ColumnDecoder<'a> {
        ColumnDecoder { rest: payload, rows, scratch: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Checks that everything was read.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }

    /// A column of integers.
    pub(crate) fn integers<T: Integer>(&mut self) -> Result<Vec<T>, Malformed> {
        let mut column = Vec::new();
        self.integers_into(&mut column)?;
        Ok(column)
    }

    /// A column of integers, to the end of `column`.
    pub(crate) fn integers_into<T: Integer>(&mut self, column: &mut Vec<T>) -> Result<(), Malformed> {
        self.elements(self.rows, 0, T::narrow, column)
    }

    /// A column of floats.
    pub(crate) fn floats(&mut self) -> Result<Vec<f32>, Malformed> {
        let mut column = Vec::new();
        self.floats_into(&mut column)?;
        Ok(column)
    }

    /// A column of floats, to the end of `column`.
    pub(crate) fn floats_into(&mut self, column: &mut Vec<f32>) -> Result<(), Malformed> {
        self.elements(self.rows, NAN, float, column)
    }

    /// A column of `count` integers, of some of the rows.
    pub(crate) fn some_integers<T: Integer>(&mut self, count: usize) -> Result<Vec<T>, Malformed> {
        let mut column = Vec::new();
        self.elements(count, 0, T::narrow, &mut column)?;
        Ok(column)
    }

    /// A column of `count` floats, of some of the rows.
    pub(crate) fn some_floats(&mut self, count: usize) -> Result<Vec<f32>, Malformed> {
        let mut column = Vec::new();
        self.elements(count, NAN, float, &mut column)?;
        Ok(column)
    }

    /// Steps over a column of integers or floats.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        column::next(&mut self.rest).map(|_| ())
    }

    /// A column of optional integers.
    pub(crate) fn optional<T: Integer>(&mut self) -> Result<Vec<Option<T>>, Malformed> {
        let present: Vec<bool> = self.integers()?;
        let values: Vec<T> = self.integers()?;
        Ok(present.into_iter().zip(values).map(|(present, value)| present.then_some(value)).collect())
    }

    pub(crate) fn dictionary<T: Copy + DeserializeOwned>(&mut self) -> Result<Vec<T>, Malformed> {
        let mut column = Vec::new();
        self.dictionary_into(&mut column)?;
        Ok(column)
    }

    /// A dictionary column, to the end of `column`.
    pub(crate) fn dictionary_into<T: Copy + DeserializeOwned>(&mut self, column: &mut Vec<T>) -> Result<(), Malformed> {
        let mut distinct: Vec<T> = Vec::new();
        for name in self.names()? {
            distinct.push(serde_json::from_slice(name).map_err(|_| Malformed("a dictionary holds an unknown name"))?);
        }
        self.unpack(self.rows, 0)?;
        column.reserve(self.rows);
        for index in &self.scratch {
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            column.push(*distinct.get(index).ok_or(Malformed("an index is outside its dictionary"))?);
        }
        Ok(())
    }

    /// Steps over a dictionary column.
    pub(crate) fn skip_dictionary(&mut self) -> Result<(), Malformed> {
        self.names()?;
        self.skip()
    }

    /// A column of integer lists.
    pub(crate) fn integer_lists(&mut self) -> Result<Vec<Vec<u32>>, Malformed> {
        self.lists(0, u32::narrow)
    }

    /// A column of float lists.
    pub(crate) fn float_lists(&mut self) -> Result<Vec<Vec<f32>>, Malformed> {
        self.lists(NAN, float)
    }

    /// The names of a dictionary.
    fn names(&mut self) -> Result<Vec<&'a [u8]>, Malformed> {
        let count = block::read_varint(&mut self.rest)?;
        if count > self.rows as u64 {
            return Err(Malformed("a dictionary is larger than its column"));
        }
        let mut names = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let length = block::read_varint(&mut self.rest)?;
            names.push(block::take(&mut self.rest, usize::try_from(length).unwrap_or(usize::MAX))?);
        }
        Ok(names)
    }

    /// The lengths of a column of lists, then their elements.
    fn lists<T>(&mut self, default: u64, narrow: impl Fn(u64) -> Option<T>) -> Result<Vec<Vec<T>>, Malformed> {
        let lengths: Vec<u64> = self.integers()?;
        let total = lengths.iter().fold(0u64, |sum, length| sum.saturating_add(*length));
        if total > MAX_LIST_ELEMENTS as u64 {
            return Err(Malformed("lists are longer than a chunk can hold"));
        }
        let mut elements = Vec::new();
        self.elements(total as usize, default, narrow, &mut elements)?;
        let mut elements = elements.into_iter();
        Ok(lengths.into_iter().map(|length| elements.by_ref().take(length as usize).collect()).collect())
    }

    /// `count` packed values, to the end of `column`.
    fn elements<T>(
        &mut self,
        count: usize,
        default: u64,
        narrow: impl Fn(u64) -> Option<T>,
        column: &mut Vec<T>,
    ) -> Result<(), Malformed> {
        self.unpack(count, default)?;
        column.reserve(count);
        for value in &self.scratch {
            column.push(narrow(*value).ok_or(Malformed("a value is out of its column's range"))?);
        }
        Ok(())
    }

    /// `count` packed values, as the column under work.
    fn unpack(&mut self, count: usize, default: u64) -> Result<(), Malformed> {
        self.scratch.clear();
        column::decode(column::next(&mut self.rest)?, count, default, &mut self.scratch)
    }
}

/// A float by its bits.
fn float(bits: u64) -> Option<f32> {
    u32::narrow(bits).map(f32::from_bits)
}
