//! Tables from JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ExportError;
use crate::import::{missing, wrong_type};
use crate::schema::Column;
use crate::values::{Batch, Lists, NO_WORD, Values};

/// Lines that are read at a time.
const STEP: usize = 4_096;

/// Longest line, in bytes: a chunk of the store holds 64 KiB, which is less than this in any form.
const LONGEST_LINE: u64 = 16 << 20;

/// Calls `each` with the rows of a file, some at a time, and the number of the first of them. `empty` has the columns.
pub(crate) fn read(
    path: &Path,
    columns: &[Column],
    empty: &Batch,
    mut each: impl FnMut(&Batch, u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::io(path, source);
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let (mut text, mut first, mut row) = (Vec::new(), 0, 0);
    let mut batch: Option<Batch> = None;
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
        let fields: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| ExportError::not_importable(path, format!("line {row}: {error}")))?;
        let lacking: Vec<&str> = columns
            .iter()
            .filter(|column| !column.derived && !fields.contains_key(column.name))
            .map(|column| column.name)
            .collect();
        if !lacking.is_empty() {
            return Err(missing(path, &lacking));
        }
        let batch = batch.get_or_insert_with(|| start(columns, empty));
        for (column, values) in columns.iter().zip(&mut batch.columns) {
            if let Some(values) = values {
                let value = &fields[column.name];
                push(value, values).ok_or_else(|| wrong_type(path, column, &format!("{value} in line {row}")))?;
            }
        }
        if batch.rows() == STEP {
            each(batch, first)?;
            batch.clear();
            first = row;
        }
    }
    batch.map_or(Ok(()), |batch| each(&batch, first))
}

/// Columns to read into: no import needs those that repeat others.
fn start(columns: &[Column], empty: &Batch) -> Batch {
    let columns = columns.iter().zip(&empty.columns);
    Batch { columns: columns.map(|(column, values)| if column.derived { None } else { values.clone() }).collect() }
}

/// Appends a value; `None` if it is of another type.
fn push(value: &Value, values: &mut Values) -> Option<()> {
    match values {
        Values::Integers(values) => values.push(value.as_i64()?),
        Values::MaybeIntegers(values) => values.push(if value.is_null() { None } else { Some(value.as_i64()?) }),
        Values::Floats(values) => values.push(float(value)?),
        Values::Booleans(values) => values.push(value.as_bool()?),
        Values::Words { codes, known } => {
            let word = value.as_str()?;
            let place = known.iter().position(|known| known == word).unwrap_or_else(|| {
                known.push(word.to_owned());
                known.len() - 1
            });
            codes.push(u32::try_from(place).unwrap_or(NO_WORD));
        }
        Values::IntegerLists(lists) => push_list(value, Value::as_i64, lists)?,
        Values::FloatLists(lists) => push_list(value, float, lists)?,
    }
    Some(())
}

fn push_list<T: Copy>(value: &Value, one: impl Fn(&Value) -> Option<T>, lists: &mut Lists<T>) -> Option<()> {
    let list = value.as_array()?.iter().map(one).collect::<Option<Vec<T>>>()?;
    lists.push(list.into_iter());
    Some(())
}

fn float(value: &Value) -> Option<f32> {
    match value {
        Value::Null => Some(f32::NAN),
        Value::String(word) if word == "Infinity" => Some(f32::INFINITY),
        Value::String(word) if word == "-Infinity" => Some(f32::NEG_INFINITY),
        value => value.as_f64().map(|value| value as f32),
    }
}
