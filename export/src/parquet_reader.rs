//! Tables from Parquet files, ours or what another tool made of them: columns are found by name, in any order.

use std::fs::File;
use std::path::Path;

use parquet::basic::Type as Physical;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use crate::error::ExportError;
use crate::import::{missing, wrong_type};
use crate::schema::{Column, Kind};
use crate::values::{Batch, Lists, NO_WORD, Values};

/// Rows that are read at a time, whatever the size of the row groups.
const STEP: usize = 16_384;

/// Calls `each` with the rows of a file, some at a time; the first of them has the number that comes with them.
pub(crate) fn read(
    path: &Path,
    columns: &[Column],
    mut each: impl FnMut(&Batch, u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let file = File::open(path).map_err(|source| ExportError::io(path, source))?;
    // What is no Parquet file is the user's mistake, not ours.
    let failed = |source: ParquetError| ExportError::not_importable(path, source.to_string());
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let mut places = Vec::with_capacity(columns.len());
    for column in columns {
        let leaf = |place: &usize| schema.column(*place).path().parts().first().is_some_and(|name| name == column.name);
        let place = (0..schema.num_columns()).find(leaf);
        if let Some(place) = place {
            check_type(path, column, &schema.column(place))?;
        }
        places.push(place);
    }
    let absent = columns.iter().zip(&places).filter(|(column, place)| place.is_none() && !column.derived);
    let lacking: Vec<&str> = absent.map(|(column, _)| column.name).collect();
    if !lacking.is_empty() {
        return Err(missing(path, &lacking));
    }
    let mut first = 0;
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(failed)?;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut readers = Vec::with_capacity(columns.len());
        for place in &places {
            readers.push(place.map(|place| group.get_column_reader(place)).transpose().map_err(failed)?);
        }
        let mut left = rows;
        while left > 0 {
            let step = left.min(STEP);
            let mut batch = Batch { columns: Vec::with_capacity(columns.len()) };
            for ((column, place), reader) in columns.iter().zip(&places).zip(&mut readers) {
                batch.columns.push(match (place, reader) {
                    (Some(place), Some(reader)) => {
                        let source = Source { path, column, shape: Shape::of(&schema.column(*place)) };
                        Some(source.read(reader, step)?)
                    }
                    _ => None,
                });
            }
            each(&batch, first)?;
            first += step as u64;
            left -= step;
        }
    }
    Ok(())
}

fn check_type(path: &Path, column: &Column, found: &ColumnDescriptor) -> Result<(), ExportError> {
    let (physical, list) = match column.kind {
        Kind::Integer => (Physical::INT64, false),
        Kind::Float => (Physical::FLOAT, false),
        Kind::Boolean => (Physical::BOOLEAN, false),
        Kind::Text => (Physical::BYTE_ARRAY, false),
        Kind::Integers => (Physical::INT64, true),
        Kind::Floats => (Physical::FLOAT, true),
    };
    let fits = found.physical_type() == physical && found.max_rep_level() == i16::from(list);
    if fits { Ok(()) } else { Err(wrong_type(path, column, &found.physical_type().to_string().to_lowercase())) }
}

/// What the levels of a column mean.
#[derive(Clone, Copy)]
struct Shape {
    /// Definition level of a value that is there.
    whole: i16,
    /// Definition level from which an entry of a list is there, if only as NULL.
    entry: i16,
    list: bool,
}

impl Shape {
    fn of(column: &ColumnDescriptor) -> Shape {
        let whole = column.max_def_level();
        let entry = whole - i16::from(column.self_type().is_optional());
        Shape { whole, entry, list: column.max_rep_level() > 0 }
    }
}

struct Source<'a> {
    path: &'a Path,
    column: &'a Column,
    shape: Shape,
}

impl Source<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> ExportError {
        ExportError::not_importable(self.path, format!("column {}: {why}", self.column.name))
    }

    fn read(&self, reader: &mut ColumnReader, rows: usize) -> Result<Values, ExportError> {
        let null = || self.bad("a value is missing");
        match (self.column.kind, reader) {
            (Kind::Integer, ColumnReader::Int64ColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                if self.column.nullable {
                    return Ok(Values::MaybeIntegers(values));
                }
                Ok(Values::Integers(values.into_iter().collect::<Option<_>>().ok_or_else(null)?))
            }
            (Kind::Float, ColumnReader::FloatColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                Ok(Values::Floats(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect()))
            }
            (Kind::Boolean, ColumnReader::BoolColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                Ok(Values::Booleans(values.into_iter().collect::<Option<_>>().ok_or_else(null)?))
            }
            (Kind::Text, ColumnReader::ByteArrayColumnReader(reader)) => self.words(&self.flat(reader, rows)?),
            (Kind::Integers, ColumnReader::Int64ColumnReader(reader)) => {
                let lists = self.lists(reader, rows)?;
                let values = lists.values.into_iter().collect::<Option<_>>().ok_or_else(null)?;
                Ok(Values::IntegerLists(Lists { ends: lists.ends, values }))
            }
            (Kind::Floats, ColumnReader::FloatColumnReader(reader)) => {
                let lists = self.lists(reader, rows)?;
                let values = lists.values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect();
                Ok(Values::FloatLists(Lists { ends: lists.ends, values }))
            }
            _ => Err(self.bad(format!("its values are no {}", self.column.kind.name()))),
        }
    }

    /// Reads records: levels and the values that are there. A column may hand out fewer at a time than it is asked for.
    fn raw<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
    ) -> Result<(Vec<T::T>, Vec<i16>, Vec<i16>), ExportError> {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = 0;
        while done < rows {
            let definitions = (self.shape.whole > 0).then_some(&mut definitions);
            let repetitions = self.shape.list.then_some(&mut repetitions);
            let read = reader.read_records(rows - done, definitions, repetitions, &mut values);
            let (records, ..) = read.map_err(|error| self.bad(error))?;
            if records == 0 {
                return Err(self.bad(format!("it ends {} rows before the others", rows - done)));
            }
            done += records;
        }
        Ok((values, definitions, repetitions))
    }

    fn flat<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
    ) -> Result<Vec<Option<T::T>>, ExportError> {
        let (values, definitions, _) = self.raw(reader, rows)?;
        if self.shape.whole == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(definitions.iter().map(|level| if *level == self.shape.whole { values.next() } else { None }).collect())
    }

    fn lists<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
    ) -> Result<Lists<Option<T::T>>, ExportError> {
        let (values, definitions, repetitions) = self.raw(reader, rows)?;
        let mut values = values.into_iter();
        let mut lists = Lists { ends: Vec::with_capacity(rows), values: Vec::with_capacity(values.len()) };
        for (definition, repetition) in definitions.into_iter().zip(repetitions) {
            if repetition == 0 {
                lists.ends.push(lists.values.len());
            }
            if definition == self.shape.whole {
                lists.values.push(values.next());
            } else if definition >= self.shape.entry {
                lists.values.push(None);
            }
            if let Some(end) = lists.ends.last_mut() {
                *end = lists.values.len();
            }
        }
        Ok(lists)
    }

    /// Words by codes; columns have few different ones.
    fn words(&self, values: &[Option<ByteArray>]) -> Result<Values, ExportError> {
        let mut known: Vec<String> = Vec::new();
        let mut codes = Vec::with_capacity(values.len());
        for value in values {
            let Some(value) = value else {
                codes.push(NO_WORD);
                continue;
            };
            let word = value.as_utf8().map_err(|error| self.bad(error))?;
            let place = known.iter().position(|known| known == word).unwrap_or_else(|| {
                known.push(word.to_owned());
                known.len() - 1
            });
            codes.push(place as u32);
        }
        Ok(Values::Words { codes, known })
    }
}
