//! Tables from Parquet files, ours or what another tool made of them: columns are found by name, in any order. Nothing that a file
//! says of itself is believed: what the library takes on trust is looked at before (here and in `pages`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parquet::basic::{CompressionCodec, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use specfleet_files::guard;
use specfleet_ledger::MAX_LIST_ELEMENTS;

use crate::error::{ExportError, clip};
use crate::import::{missing, wrong_type};
use crate::pages::Pages;
use crate::schema::{ColumnKind, ExportColumn};
use crate::values::{ColumnValues, Lists, NO_WORD, ValueBatch};

/// Rows that are read at a time, whatever the size of the row groups.
const STEP: usize = 16_384;

/// Numbers in lists after which no more rows are read at a time.
const STEP_VALUES: usize = 1 << 20;

/// Values that one list may take from the pages that it lies in: its own, and those behind it in the last one.
const MOST_VALUES: usize = 2 * MAX_LIST_ELEMENTS;

/// Most different words of a column. Those that are known are a few, and an unknown one ends the import.
const MOST_WORDS: usize = 256;

/// Values of a column, their definition levels and their repetition levels.
type Levels<V> = (Vec<V>, Vec<i16>, Vec<i16>);

/// Calls `each` with the rows of a file, some at a time; the first of them has the number that comes with them. Columns that
/// repeat others are not read.
pub(crate) fn read(
    path: &Path,
    columns: &[ExportColumn],
    mut each: impl FnMut(&ValueBatch, u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let file = specfleet_files::open(path, u64::MAX).map_err(|source| ExportError::io(path, source))?;
    let length = file.metadata().map_err(|source| ExportError::io(path, source))?.len();
    let file = Arc::new(file);
    // What is no Parquet file is the user's mistake, not ours.
    let failed = |source: ParquetError| ExportError::not_importable(path, source.to_string());
    let own = file.try_clone().map_err(|source| ExportError::io(path, source))?;
    let reader = SerializedFileReader::new(own).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let mut places = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate().filter(|(_, column)| !column.derived) {
        if let Some(place) = place_of(path, column, schema)? {
            places.push((index, place));
        }
    }
    let has = |index: usize| places.iter().any(|(found, _)| *found == index);
    let absent = columns.iter().enumerate().filter(|(index, column)| !column.derived && !column.added && !has(*index));
    let lacking: Vec<&str> = absent.map(|(_, column)| column.name).collect();
    if !lacking.is_empty() {
        return Err(missing(path, &lacking));
    }
    // Lists come first: how long they are decides how many rows are read.
    places.sort_by_key(|(index, _)| !columns[*index].kind.is_list());
    let mut first = 0;
    for group in reader.metadata().row_groups() {
        // Of every column: a file that is wrong in one that is not read is damaged all the same.
        group.columns().iter().try_for_each(|chunk| check_place(path, chunk, length))?;
        let mut sources = Vec::with_capacity(places.len());
        for &(index, place) in &places {
            let (column, room) = (&columns[index], Arc::new(AtomicUsize::new(usize::MAX)));
            let Some(chunk) = group.columns().get(place) else { return Err(missing(path, &[column.name])) };
            check_chunk(path, column, chunk, group.num_rows())?;
            let pages = Pages::new(&file, chunk, room.clone()).map_err(failed)?;
            let reader = get_column_reader(schema.column(place), Box::new(pages));
            sources.push((
                index,
                reader,
                ParquetSource { path, column, shape: Shape::of(&schema.column(place)), room },
            ));
        }
        let mut left = usize::try_from(group.num_rows())
            .map_err(|_| ExportError::not_importable(path, "a row group has less than no rows"))?;
        while left > 0 {
            let mut step = left.min(STEP);
            let mut enough = STEP_VALUES;
            let mut batch = ValueBatch { columns: vec![None; columns.len()] };
            for (index, reader, source) in &mut sources {
                let values = source.read(reader, step, enough)?;
                if source.column.kind.is_list() {
                    if values.len() < step && enough == MOST_VALUES {
                        return Err(source.bad("its lists are much longer than those of the other columns"));
                    }
                    (step, enough) = (values.len(), MOST_VALUES);
                }
                batch.columns[*index] = Some(values);
            }
            each(&batch, first)?;
            first += step as u64;
            left -= step;
        }
    }
    Ok(())
}

/// Where a column lies in the file, if it is there.
fn place_of(path: &Path, column: &ExportColumn, schema: &SchemaDescriptor) -> Result<Option<usize>, ExportError> {
    let own = |place: &usize| schema.column(*place).path().parts().first().is_some_and(|name| name == column.name);
    let mut places = (0..schema.num_columns()).filter(own);
    let Some(place) = places.next() else { return Ok(None) };
    let several = places.next().is_some();
    let found = schema.column(place);
    let (parts, lists) = (found.path().parts().len(), found.max_rep_level());
    let physical = match found.physical_type() {
        Physical::FLOAT => "float32".to_owned(),
        other => other.to_string().to_lowercase(),
    };
    // A list's path has the parts `list` and `element`, or other words; a column of one value has none.
    let what = match (several, parts, lists) {
        (true, 1, _) => "there twice".to_owned(),
        (true, ..) => "a structure".to_owned(),
        (false, 1, 0) => physical,
        (false, _, 0) => "a structure".to_owned(),
        (false, 1..=3, 1) => format!("a list of {physical}"),
        _ => "a list of lists or structures".to_owned(),
    };
    let wanted = match column.kind {
        ColumnKind::Integer => "int64",
        ColumnKind::Float => "float32",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Text => "byte_array",
        ColumnKind::Integers => "a list of int64",
        ColumnKind::Floats => "a list of float32",
    };
    if what == wanted { Ok(Some(place)) } else { Err(wrong_type(path, column, &what)) }
}

/// Refuses a part of a column that cannot lie where it is said to: the library would believe it.
fn check_place(path: &Path, chunk: &ColumnChunkMetaData, length: u64) -> Result<(), ExportError> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let (start, bytes) = (u64::try_from(start), u64::try_from(chunk.compressed_size()));
    let end = start.ok().zip(bytes.ok()).and_then(|(start, bytes)| start.checked_add(bytes));
    if end.is_some_and(|end| end <= length) && chunk.data_page_offset() >= 0 && chunk.num_values() >= 0 {
        return Ok(());
    }
    let column = chunk.column_path().string();
    let why = format!("column {}: its place or size in the file is impossible", clip(&column));
    Err(ExportError::not_importable(path, why))
}

/// Refuses a part of a column that does not go with its rows, or that nothing here unpacks.
fn check_chunk(path: &Path, column: &ExportColumn, chunk: &ColumnChunkMetaData, rows: i64) -> Result<(), ExportError> {
    let bad = |why: String| Err(ExportError::not_importable(path, format!("column {}: {why}", column.name)));
    let codec = chunk.compression_codec();
    if !matches!(codec, CompressionCodec::UNCOMPRESSED | CompressionCodec::SNAPPY) {
        return bad(format!("it is compressed with {codec:?}; files without compression and with SNAPPY are read"));
    }
    let values = chunk.num_values();
    if values < rows || (values > rows && !column.kind.is_list()) {
        return bad(format!("it is said to have {values} values in {rows} rows"));
    }
    Ok(())
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

struct ParquetSource<'a> {
    path: &'a Path,
    column: &'a ExportColumn,
    shape: Shape,
    /// Of the pages that come.
    room: Arc<AtomicUsize>,
}

impl ParquetSource<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> ExportError {
        ExportError::not_importable(self.path, format!("column {}: {why}", self.column.name))
    }

    /// Reads so many rows; of lists fewer, once it has values enough.
    fn read(&self, reader: &mut ColumnReader, rows: usize, enough: usize) -> Result<ColumnValues, ExportError> {
        let null = || self.bad("a value is missing");
        match (self.column.kind, reader) {
            (ColumnKind::Integer, ColumnReader::Int64ColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                if self.column.nullable {
                    return Ok(ColumnValues::MaybeIntegers(values));
                }
                Ok(ColumnValues::Integers(values.into_iter().collect::<Option<_>>().ok_or_else(null)?))
            }
            (ColumnKind::Float, ColumnReader::FloatColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                Ok(ColumnValues::Floats(values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect()))
            }
            (ColumnKind::Boolean, ColumnReader::BoolColumnReader(reader)) => {
                let values = self.flat(reader, rows)?;
                Ok(ColumnValues::Booleans(values.into_iter().collect::<Option<_>>().ok_or_else(null)?))
            }
            (ColumnKind::Text, ColumnReader::ByteArrayColumnReader(reader)) => self.words(&self.flat(reader, rows)?),
            (ColumnKind::Integers, ColumnReader::Int64ColumnReader(reader)) => {
                let lists = self.lists(reader, rows, enough)?;
                let values = lists.values.into_iter().collect::<Option<_>>().ok_or_else(null)?;
                Ok(ColumnValues::IntegerLists(Lists { ends: lists.ends, values }))
            }
            (ColumnKind::Floats, ColumnReader::FloatColumnReader(reader)) => {
                let lists = self.lists(reader, rows, enough)?;
                let values = lists.values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect();
                Ok(ColumnValues::FloatLists(Lists { ends: lists.ends, values }))
            }
            _ => Err(self.bad(format!("its values are no {}", self.column.kind.name()))),
        }
    }

    /// Reads records: levels and the values that are there. A column may hand out fewer at a time than it is asked for.
    fn raw<T: DataType>(&self, reader: &mut ColumnReaderImpl<T>, rows: usize) -> Result<Levels<T::T>, ExportError> {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = 0;
        while done < rows {
            let definitions = (self.shape.whole > 0).then_some(&mut definitions);
            let repetitions = self.shape.list.then_some(&mut repetitions);
            // It panics on numbers that are longer than any; nothing that a panic left half done is used again.
            let read = || reader.read_records(rows - done, definitions, repetitions, &mut values);
            let read = guard::guarded(read).ok_or_else(|| self.bad("a page is damaged"))?;
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
        enough: usize,
    ) -> Result<Lists<Option<T::T>>, ExportError> {
        let mut lists = Lists { ends: Vec::with_capacity(rows), values: Vec::new() };
        while lists.ends.len() < rows && lists.values.len() < enough {
            // One at a time: nobody knows how long the next one is.
            self.room.store(MOST_VALUES, Ordering::Relaxed);
            let (values, definitions, repetitions) = self.raw(reader, 1)?;
            let mut values = values.into_iter();
            let starts = repetitions.iter().filter(|level| **level == 0).count();
            if starts != 1 || repetitions.first() != Some(&0) {
                return Err(self.bad("its lists do not begin where its rows do"));
            }
            for definition in definitions {
                if definition == self.shape.whole {
                    lists.values.push(values.next());
                } else if definition >= self.shape.entry {
                    lists.values.push(None);
                } else if definition + 1 < self.shape.entry {
                    return Err(self.bad("a list is missing"));
                }
            }
            let start = lists.ends.last().copied().unwrap_or(0);
            if lists.values.len() - start > MAX_LIST_ELEMENTS {
                let length = lists.values.len() - start;
                return Err(self.bad(format!("a list has {length} values, a row holds {MAX_LIST_ELEMENTS}")));
            }
            lists.ends.push(lists.values.len());
        }
        Ok(lists)
    }

    /// Words by codes; columns have few different ones.
    fn words(&self, values: &[Option<ByteArray>]) -> Result<ColumnValues, ExportError> {
        let mut known: Vec<String> = Vec::new();
        let mut codes = Vec::with_capacity(values.len());
        for value in values {
            let Some(value) = value else {
                codes.push(NO_WORD);
                continue;
            };
            let word = clip(value.as_utf8().map_err(|error| self.bad(error))?);
            let place = known.iter().position(|known| *known == word).unwrap_or_else(|| {
                known.push(word.into_owned());
                known.len() - 1
            });
            if place == MOST_WORDS {
                return Err(self.bad(format!("it has more than {MOST_WORDS} different words")));
            }
            codes.push(place as u32);
        }
        Ok(ColumnValues::Words { codes, known })
    }
}
