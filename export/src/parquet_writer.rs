//! Tables as Parquet: columns go straight into the library's column writers, one row group per batch.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, PrimitiveTypeBuilder, Type};

use crate::error::ExportError;
use crate::schema::{ColumnKind, ExportColumn, SCHEMA};
use crate::values::{ColumnValues, Lists, NO_WORD, ValueBatch};

/// A file of one table.
pub(crate) struct ParquetFile {
    path: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
    scratch: WriterScratch,
}

/// Memory for a column on its way.
#[derive(Default)]
struct WriterScratch {
    levels: Vec<i16>,
    repetitions: Vec<i16>,
    integers: Vec<i64>,
    floats: Vec<f32>,
    words: Vec<ByteArray>,
}

impl ParquetFile {
    pub(crate) fn create(path: &Path, columns: &[ExportColumn]) -> Result<ParquetFile, ExportError> {
        let file = File::create(path).map_err(|source| ExportError::io(path, source))?;
        let failed = |source| ExportError::parquet(path, source);
        let schema = schema(columns).map_err(failed)?;
        let buffered = BufWriter::with_capacity(1 << 20, file);
        let writer = SerializedFileWriter::new(buffered, schema, Arc::new(properties(columns))).map_err(failed)?;
        Ok(ParquetFile { path: path.to_path_buf(), writer, scratch: WriterScratch::default() })
    }

    /// Writes a row group.
    pub(crate) fn write(&mut self, batch: &ValueBatch) -> Result<(), ExportError> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let scratch = &mut self.scratch;
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            for values in batch.columns.iter().flatten() {
                let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("too few columns".into()))?;
                scratch.column(values, &mut column)?;
                column.close()?;
            }
            group.close().map(|_| ())
        };
        write().map_err(|source| ExportError::parquet(&self.path, source))
    }

    /// Writes what readers start with.
    pub(crate) fn finish(self) -> Result<(), ExportError> {
        let ParquetFile { path, writer, .. } = self;
        let file = writer.into_inner().map_err(|source| ExportError::parquet(&path, source))?;
        let file = file.into_inner().map_err(|error| ExportError::io(&path, error.into_error()))?;
        file.sync_all().map_err(|source| ExportError::io(&path, source))
    }
}

/// Integers are packed as differences: most are small or go up. Words have a dictionary, floats lie as they are.
fn properties(columns: &[ExportColumn]) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("specfleet {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![KeyValue::new("specfleet.export_schema".to_owned(), SCHEMA.to_string())]))
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for column in columns {
        let path = ColumnPath::from(column.name);
        properties = match column.kind {
            ColumnKind::Text => properties.set_column_dictionary_enabled(path, true),
            ColumnKind::Integer => properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            _ => properties,
        };
    }
    properties.build()
}

fn schema(columns: &[ExportColumn]) -> Result<Arc<Type>, ParquetError> {
    let mut fields = Vec::with_capacity(columns.len());
    for &ExportColumn { name, kind, nullable, .. } in columns {
        let repetition = if nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        fields.push(Arc::new(match kind {
            ColumnKind::Integer => leaf(name, Physical::INT64, repetition).build()?,
            ColumnKind::Float => leaf(name, Physical::FLOAT, repetition).build()?,
            ColumnKind::Boolean => leaf(name, Physical::BOOLEAN, repetition).build()?,
            ColumnKind::Text => {
                leaf(name, Physical::BYTE_ARRAY, repetition).with_logical_type(Some(LogicalType::String)).build()?
            }
            ColumnKind::Integers => list(name, leaf("element", Physical::INT64, Repetition::REQUIRED).build()?)?,
            ColumnKind::Floats => list(name, leaf("element", Physical::FLOAT, Repetition::OPTIONAL).build()?)?,
        }));
    }
    Type::group_type_builder("specfleet").with_fields(fields).build().map(Arc::new)
}

fn leaf(name: &str, physical: Physical, repetition: Repetition) -> PrimitiveTypeBuilder<'_> {
    Type::primitive_type_builder(name, physical).with_repetition(repetition)
}

fn list(name: &str, element: Type) -> Result<Type, ParquetError> {
    let repeated = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(element)])
        .build()?;
    Type::group_type_builder(name)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(repeated)])
        .build()
}

impl WriterScratch {
    fn column(&mut self, values: &ColumnValues, to: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        self.levels.clear();
        match values {
            ColumnValues::Integers(values) => to.typed::<Int64Type>().write_batch(values, None, None),
            ColumnValues::MaybeIntegers(values) => {
                self.levels.extend(values.iter().map(|value| i16::from(value.is_some())));
                self.integers.clear();
                self.integers.extend(values.iter().flatten());
                to.typed::<Int64Type>().write_batch(&self.integers, Some(&self.levels), None)
            }
            ColumnValues::Floats(values) => {
                self.levels.extend(values.iter().map(|value| i16::from(!value.is_nan())));
                self.floats.clear();
                self.floats.extend(values.iter().filter(|value| !value.is_nan()));
                to.typed::<FloatType>().write_batch(&self.floats, Some(&self.levels), None)
            }
            ColumnValues::Booleans(values) => to.typed::<BoolType>().write_batch(values, None, None),
            ColumnValues::Words { codes, known } => {
                let known: Vec<ByteArray> = known.iter().map(|word| ByteArray::from(word.as_str())).collect();
                self.words.clear();
                self.words.extend(codes.iter().filter_map(|code| known.get(*code as usize).cloned()));
                self.levels.extend(codes.iter().map(|code| i16::from(*code != NO_WORD)));
                let levels =
                    (to.typed::<ByteArrayType>().get_descriptor().max_def_level() > 0).then_some(&self.levels[..]);
                to.typed::<ByteArrayType>().write_batch(&self.words, levels, None)
            }
            ColumnValues::IntegerLists(lists) => {
                self.list_levels(lists, |_| 1);
                to.typed::<Int64Type>().write_batch(&lists.values, Some(&self.levels), Some(&self.repetitions))
            }
            ColumnValues::FloatLists(lists) => {
                self.list_levels(lists, |value| if value.is_nan() { 1 } else { 2 });
                self.floats.clear();
                self.floats.extend(lists.values.iter().filter(|value| !value.is_nan()));
                to.typed::<FloatType>().write_batch(&self.floats, Some(&self.levels), Some(&self.repetitions))
            }
        }
        .map(|_| ())
    }

    /// Levels of lists: 0 for an empty one, `level` of each value, and where a list begins.
    fn list_levels<T: Copy>(&mut self, lists: &Lists<T>, level: impl Fn(T) -> i16) {
        self.repetitions.clear();
        for row in 0..lists.ends.len() {
            let list = lists.get(row);
            if list.is_empty() {
                self.levels.push(0);
                self.repetitions.push(0);
            }
            self.levels.extend(list.iter().map(|value| level(*value)));
            self.repetitions.extend((0..list.len()).map(|place| i16::from(place > 0)));
        }
    }
}
