//! Tables from JSON lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ExportError, clip};
use crate::import::{missing, wrong_type};
use crate::schema::ExportColumn;
use crate::values::{ColumnValues, NO_WORD, ValueBatch};

/// Lines that are read at a time.
const STEP: usize = 4_096;

/// Numbers in lists after which no more lines are read at a time.
const STEP_VALUES: usize = 1 << 20;

/// Longest line, in bytes: a chunk of the store holds 64 KiB, which is less than this in any form.
const LONGEST_LINE: u64 = 16 << 20;

/// Calls `each` with the rows of a file, some at a time, and the number of the first of them. `empty` has the columns.
pub(crate) fn read(
    path: &Path,
    columns: &[ExportColumn],
    empty: &ValueBatch,
    mut each: impl FnMut(&ValueBatch, u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::io(path, source);
    let mut file = BufReader::with_capacity(1 << 20, specfleet_files::open(path, u64::MAX).map_err(failed)?);
    let (mut text, mut first, mut row) = (Vec::new(), 0, 0);
    let mut batch: Option<ValueBatch> = None;
    loop {
        text.clear();
        let read = file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        if read == 0 {
            break;
        }
        if read as u64 == LONGEST_LINE {
            return Err(ExportError::not_importable(path, format!("line {}: it is too long to be a row", row + 1)));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        row += 1;
        let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(&text)
            .map_err(|error| ExportError::not_importable(path, format!("line {row}: {error}")))?;
        let batch = batch.get_or_insert_with(|| start(columns, empty, |name| fields.contains_key(name)));
        let wanted = columns.iter().zip(&batch.columns).filter(|(_, values)| values.is_some());
        let lacking: Vec<&str> =
            wanted.map(|(column, _)| column.name).filter(|name| !fields.contains_key(*name)).collect();
        if !lacking.is_empty() {
            return Err(missing(path, &lacking));
        }
        for (column, values) in columns.iter().zip(&mut batch.columns) {
            if let Some(values) = values {
                let value = fields[column.name].get();
                push(value, values)
                    .ok_or_else(|| wrong_type(path, column, &format!("{} in line {row}", clip(value))))?;
            }
        }
        if batch.rows() == STEP || batch.list_values() >= STEP_VALUES {
            each(batch, first)?;
            batch.clear();
            first = row;
        }
    }
    batch.map_or(Ok(()), |batch| each(&batch, first))
}

/// Columns to read into: no import needs those that repeat others, and a file of an earlier version lacks those that came
/// later.
fn start(columns: &[ExportColumn], empty: &ValueBatch, has: impl Fn(&str) -> bool) -> ValueBatch {
    let left_out = |column: &ExportColumn| column.derived || column.added && !has(column.name);
    let columns = columns.iter().zip(&empty.columns);
    ValueBatch {
        columns: columns.map(|(column, values)| if left_out(column) { None } else { values.clone() }).collect(),
    }
}

/// Appends a value; `None` if it is of another type.
fn push(value: &str, values: &mut ColumnValues) -> Option<()> {
    match values {
        ColumnValues::Integers(values) => values.push(parse(value)?),
        ColumnValues::MaybeIntegers(values) => values.push(parse(value)?),
        ColumnValues::Floats(values) => values.push(float(value)?),
        ColumnValues::Booleans(values) => values.push(parse(value)?),
        ColumnValues::Words { codes, known } => {
            let word: Cow<'_, str> = parse(value)?;
            let word = clip(&word);
            let place = known.iter().position(|known| *known == word).unwrap_or_else(|| {
                known.push(word.into_owned());
                known.len() - 1
            });
            codes.push(u32::try_from(place).unwrap_or(NO_WORD));
        }
        ColumnValues::IntegerLists(lists) => lists.push(parse::<Vec<i64>>(value)?.into_iter()),
        ColumnValues::FloatLists(lists) => {
            let list = parse::<Vec<&RawValue>>(value)?;
            lists.push(list.iter().map(|value| float(value.get())).collect::<Option<Vec<f32>>>()?.into_iter());
        }
    }
    Some(())
}

/// A float, read as one of 32 bits: by way of 64 bits, 7.038531e-26 would come back as its neighbour.
fn float(value: &str) -> Option<f32> {
    match value {
        "null" => Some(f32::NAN),
        "\"Infinity\"" => Some(f32::INFINITY),
        "\"-Infinity\"" => Some(f32::NEG_INFINITY),
        number => parse(number),
    }
}

fn parse<'a, T: Deserialize<'a>>(value: &'a str) -> Option<T> {
    serde_json::from_str(value).ok()
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_come_back() {
        // The first one lies so near the middle of two that its text rounded to 64 bits is in the middle.
        let bits = [0x15ae_43fd, 0x95ae_43fd, 0, 0x8000_0000, 1, 0x7f7f_ffff, 0x3dcc_cccd, 0x7f80_0000, 0xff80_0000];
        for bits in bits {
            let mut text = String::new();
            crate::text::json_float(f32::from_bits(bits), &mut text);
            assert_eq!(float(&text).map(f32::to_bits), Some(bits), "{text}");
        }
    }
}
