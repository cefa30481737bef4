//! Files that are wrong, by accident or on purpose: one line says where, nothing is left behind, and memory is bounded.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::*;
use parquet::basic::{CompressionCodec, Repetition, Type as Physical};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::metadata::{ColumnChunkMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use specfleet_engine::id::DeviceId;
use specfleet_export::{ExportError, ExportFormat, ExportTable, ImportOptions, Imported, Options, export, import};
use specfleet_ledger::{MAX_LIST_ELEMENTS, RunReader, RunState, RunWriter};
use tempfile::{TempDir, tempdir};

/// Ends no export and no import.
static NOBODY: AtomicBool = AtomicBool::new(false);

fn import_from(dir: &Path, ledger: &Path, name: Option<&str>) -> Result<Imported, ExportError> {
    import(&ImportOptions { dir, ledger, name, interrupted: &NOBODY })
}

/// A run of five generations, exported, with nothing in its description that would give a change away.
fn exported(format: ExportFormat) -> TempDir {
    let dir = tempdir().expect("a temporary folder");
    let mut writer = RunWriter::create(&dir.path().join("ledger"), meta("r")).expect("a new run");
    let mut noise = Noise(1);
    for prompt in 0..5 {
        let rounds = plausible_rounds(&mut noise, 80, 60);
        let record = plausible_generation(id(0, prompt), DeviceId(prompt), &rounds);
        writer.close_generation(record, &rounds).expect("a closing");
    }
    writer.finish(RunState::Completed).expect("an end");
    export_to(&dir, format).expect("an export");
    take_digests_out(&dir.path().join("out"));
    dir
}

/// As exports of earlier versions are.
fn take_digests_out(out: &Path) {
    let path = out.join("run.json");
    let mut about: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("a file")).expect("it was written so");
    about.as_object_mut().expect("an object").remove("digests").expect("it was written so");
    fs::write(path, about.to_string()).expect("a file");
}

fn export_to(dir: &TempDir, format: ExportFormat) -> Result<(), String> {
    let reader = RunReader::open(&dir.path().join("ledger/r")).expect("the run has ended");
    let options =
        Options { format, tables: &ExportTable::ALL, out: &dir.path().join("out"), force: false, interrupted: &NOBODY };
    export(&reader, &options, &mut |damage| panic!("{damage}")).map(|_| ()).map_err(|error| error.to_string())
}

fn imported(dir: &TempDir) -> Imported {
    let imported = import_from(&dir.path().join("out"), &dir.path().join("other"), None).expect("an import");
    fs::remove_dir_all(dir.path().join("other")).expect("it was made");
    imported
}

/// Why the export cannot be imported.
fn refusal(dir: &TempDir) -> String {
    let dir = dir.path();
    let error = import_from(&dir.join("out"), &dir.join("other"), None).expect_err("it cannot be imported");
    assert!(error.is_mistake(), "{error}");
    assert!(!dir.join("other").exists(), "a failed import leaves nothing");
    let text = error.to_string();
    assert!(text.lines().count() == 1 && text.len() < 1_500, "{text}");
    text.replace(&format!("{}/out/", dir.display()), "")
}

/// Says something else of a column in the metadata, the data as they are.
fn claim(path: &Path, column: &str, change: impl FnOnce(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder) {
    let bytes = fs::read(path).expect("a file");
    let mut metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&File::open(path).expect("a file"))
        .expect("a Parquet file")
        .into_builder();
    let mut groups = metadata.take_row_groups();
    let mut group = groups.remove(0).into_builder();
    let mut columns = group.take_columns();
    let chunk = columns.iter_mut().find(|chunk| chunk.column_path().parts()[0] == column).expect("a column");
    *chunk = change(chunk.clone().into_builder()).build().expect("a chunk");
    groups.insert(0, group.set_column_metadata(columns).build().expect("a group"));
    let metadata = metadata.set_row_groups(groups).build();
    let length: [u8; 4] = bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes");
    let mut changed = bytes[..bytes.len() - 8 - u32::from_le_bytes(length) as usize].to_vec();
    ParquetMetaDataWriter::new(&mut changed, &metadata).finish().expect("room");
    fs::write(path, changed).expect("a file");
}

/// Other values in place of a column's, of another type if that is said.
fn replace<T: DataType>(path: &Path, column: &str, new: Option<Type>, values: &[T::T], levels: [Option<&[i16]>; 2]) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).expect("a file");
    let metadata =
        ParquetMetaDataReader::new().parse_and_finish(&File::open(path).expect("a file")).expect("a Parquet file");
    let schema = metadata.file_metadata().schema_descr().root_schema();
    let mut fields: Vec<TypePtr> = schema.get_fields().to_vec();
    let field = fields.iter_mut().find(|field| field.name() == column).expect("a column");
    if let Some(new) = new {
        *field = Arc::new(new);
    }
    let schema = Arc::new(Type::group_type_builder("r").with_fields(fields).build().expect("a schema"));
    let file = File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::default())).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let old = metadata.row_group(0);
    let source = File::open(&copy).expect("a file");
    for chunk in old.columns() {
        if chunk.column_path().parts()[0] == column {
            let mut to = group.next_column().expect("a column").expect("a column");
            to.typed::<T>().write_batch(values, levels[0], levels[1]).expect("values");
            to.close().expect("a column");
            continue;
        }
        let close = ColumnCloseResult {
            bytes_written: chunk.compressed_size() as u64,
            rows_written: old.num_rows() as u64,
            metadata: chunk.clone(),
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&source, close).expect("a column");
    }
    group.close().expect("a group");
    writer.close().expect("a file");
    fs::remove_file(copy).expect("a file");
}

fn list(repetition: Repetition) -> Type {
    let element = Type::primitive_type_builder("element", Physical::INT64).with_repetition(Repetition::REQUIRED);
    let repeated = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(element.build().expect("a type"))]);
    let fields = vec![Arc::new(repeated.build().expect("a type"))];
    Type::group_type_builder("tokens").with_repetition(repetition).with_fields(fields).build().expect("a type")
}

#[test]
fn what_metadata_say_is_not_believed() {
    let dir = exported(ExportFormat::Parquet);
    let rounds = dir.path().join("out/rounds.parquet");
    let good = fs::read(&rounds).expect("a file");
    let claimed = |column, change: fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder| {
        fs::write(&rounds, &good).expect("a file");
        claim(&rounds, column, change);
    };
    let outside = "rounds.parquet: column token: its place or size in the file is impossible";
    claimed("token", |chunk| chunk.set_total_compressed_size(-1));
    assert_eq!(refusal(&dir), outside);
    claimed("token", |chunk| chunk.set_data_page_offset(-7));
    assert_eq!(refusal(&dir), outside);
    claimed("token", |chunk| chunk.set_dictionary_page_offset(Some(i64::MIN)));
    assert_eq!(refusal(&dir), outside);
    claimed("token", |chunk| chunk.set_total_compressed_size(i64::MAX));
    assert_eq!(refusal(&dir), outside);
    claimed("token", |chunk| chunk.set_num_values(-200));
    assert_eq!(refusal(&dir), outside);
    claimed("token", |chunk| chunk.set_num_values(7));
    assert_eq!(refusal(&dir), "rounds.parquet: column token: it is said to have 7 values in 400 rows");
    claimed("token", |chunk| chunk.set_compression_codec(CompressionCodec::ZSTD));
    assert_eq!(
        refusal(&dir),
        "rounds.parquet: column token: it is compressed with ZSTD; files without compression and with SNAPPY are read"
    );
    // The dictionary is stepped over.
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&rounds).expect("a file"));
    let metadata = metadata.expect("a Parquet file");
    let source = metadata.row_group(0).columns().iter().find(|chunk| chunk.column_path().parts()[0] == "source");
    let source = source.expect("a column");
    let dictionary = source.data_page_offset() - source.dictionary_page_offset().expect("a dictionary");
    let left = source.compressed_size() - dictionary;
    fs::write(&rounds, &good).expect("a file");
    claim(&rounds, "source", |chunk| chunk.set_dictionary_page_offset(None).set_total_compressed_size(left));
    assert!(refusal(&dir).contains("a page needs a dictionary, and there is none"));
    // What nobody needs is not read.
    claimed("method", |chunk| chunk.set_compression_codec(CompressionCodec::ZSTD));
    imported(&dir);
    claimed("method", |chunk| chunk.set_total_compressed_size(-1));
    assert_eq!(refusal(&dir), outside.replace("token", "method"));
}

#[test]
fn lists_are_as_long_as_a_row_holds() {
    let dir = exported(ExportFormat::Parquet);
    let generations = dir.path().join("out/generations.parquet");
    let good = fs::read(&generations).expect("a file");
    let refused = |lengths: [usize; 5]| {
        fs::write(&generations, &good).expect("a file");
        let starts = lengths.iter().flat_map(|length| (0..*length).map(|place| i16::from(place > 0)));
        let repetitions: Vec<i16> = starts.collect();
        let (values, definitions) = (vec![7; repetitions.len()], vec![1; repetitions.len()]);
        let levels = [Some(&definitions[..]), Some(&repetitions[..])];
        replace::<Int64Type>(&generations, "tokens", None, &values, levels);
    };
    refused([1, 2 * MAX_LIST_ELEMENTS, 1, 1, 1]);
    assert!(refusal(&dir).contains("column tokens: "), "{}", refusal(&dir));
    assert!(refusal(&dir).contains("a list or a page of lists has more than 8388608 values"));
    refused([1, MAX_LIST_ELEMENTS + 1, 1, 1, 1]);
    let long = "generations.parquet: column tokens: a list has 4194305 values, a row holds 4194304";
    assert_eq!(refusal(&dir), long);
    refused([1, MAX_LIST_ELEMENTS, 1_000_000, 1_000_000, 1]);
    assert_eq!(imported(&dir).generations, 5);
    // NULL, which is no empty list.
    fs::write(&generations, &good).expect("a file");
    let levels = [Some(&[2, 1, 0, 2, 2][..]), Some(&[0; 5][..])];
    replace::<Int64Type>(&generations, "tokens", Some(list(Repetition::OPTIONAL)), &[1, 2, 3], levels);
    assert_eq!(refusal(&dir), "generations.parquet: column tokens: a list is missing");
    fs::write(&generations, &good).expect("a file");
    let levels = [Some(&[2, 1, 1, 2, 2][..]), Some(&[0; 5][..])];
    replace::<Int64Type>(&generations, "tokens", Some(list(Repetition::OPTIONAL)), &[1, 2, 3], levels);
    assert_eq!(imported(&dir).generations, 5);
}

#[test]
fn a_column_has_the_form_that_it_must_have() {
    let dir = exported(ExportFormat::Parquet);
    let rounds = dir.path().join("out/rounds.parquet");
    let refused = |field: Type| {
        let schema = Type::group_type_builder("r").with_fields(vec![Arc::new(field)]).build().expect("a schema");
        let file = File::create(&rounds).expect("a file");
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(WriterProperties::default()));
        writer.expect("a writer").close().expect("a file");
        refusal(&dir)
    };
    let leaf = |name| {
        let leaf = Type::primitive_type_builder(name, Physical::INT64).with_repetition(Repetition::REQUIRED);
        Arc::new(leaf.build().expect("a type"))
    };
    let structure = |fields| {
        let group = Type::group_type_builder("token").with_repetition(Repetition::REQUIRED).with_fields(fields);
        group.build().expect("a type")
    };
    let must = |found| format!("rounds.parquet: column token must be int64, it is {found}");
    assert_eq!(refused(structure(vec![leaf("a")])), must("a structure"));
    assert_eq!(refused(structure(vec![leaf("a"), leaf("b")])), must("a structure"));
    let repeated = Type::primitive_type_builder("token", Physical::INT64).with_repetition(Repetition::REPEATED);
    assert_eq!(refused(repeated.build().expect("a type")), must("a list of int64"));
}

#[test]
fn long_names_are_cut() {
    let dir = exported(ExportFormat::Parquet);
    let rounds = dir.path().join("out/rounds.parquet");
    let good = fs::read(&rounds).expect("a file");
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&rounds).expect("a file"));
    let rows = metadata.expect("a Parquet file").file_metadata().num_rows() as usize;
    let long = vec![ByteArray::from("x".repeat(1_000_000).as_str()); rows];
    replace::<ByteArrayType>(&rounds, "source", None, &long, [None, None]);
    let cut = format!("rounds.parquet: row 1, column source: \"{}…\" is unknown; ", "x".repeat(64));
    assert!(refusal(&dir).starts_with(&cut), "{}", refusal(&dir));
    fs::write(&rounds, &good).expect("a file");
    let different: Vec<ByteArray> = (0..rows).map(|row| ByteArray::from(row.to_string().as_str())).collect();
    replace::<ByteArrayType>(&rounds, "source", None, &different, [None, None]);
    assert_eq!(refusal(&dir), "rounds.parquet: column source: it has more than 256 different words");

    let dir = exported(ExportFormat::Jsonl);
    let rounds = dir.path().join("out/rounds.jsonl");
    let good = fs::read_to_string(&rounds).expect("a file");
    let long = "x".repeat(100_000);
    fs::write(&rounds, good.replacen("\"source\":\"", &format!("\"source\":\"{long}"), 1)).expect("a file");
    assert!(refusal(&dir).contains("column source: \"xxx"));
    fs::write(&rounds, good.replacen("\"position\":0", &format!("\"position\":\"{long}\""), 1)).expect("a file");
    assert!(refusal(&dir).contains("column position must be int64, it is \"xxx"));
    fs::write(&rounds, &good).expect("a file");
    let about = dir.path().join("out/run.json");
    let mut text: serde_json::Value =
        serde_json::from_slice(&fs::read(&about).expect("a file")).expect("it was written so");
    text["meta"]["data_sets"] = serde_json::json!(["d".repeat(257)]);
    fs::write(&about, text.to_string()).expect("a file");
    let cut = format!("the name of a data set has 257 bytes, 256 are allowed: \"{}…\"", "d".repeat(64));
    assert_eq!(refusal(&dir), format!("run.json: {cut}"));
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let dir = exported(ExportFormat::Jsonl);
    let (out, ledger) = (dir.path().join("out"), dir.path().join("ledger"));
    fs::remove_dir_all(&out).expect("a folder");
    for left in [out.join(".exporting-1"), ledger.join(".importing-1")] {
        fs::create_dir_all(left.join("r/store")).expect("a folder");
        fs::write(left.join(".lock"), "").expect("a file");
        fs::write(left.join("rounds.jsonl"), "{").expect("a file");
    }
    // One that somebody still fills.
    let live = ledger.join(".importing-2");
    fs::create_dir_all(&live).expect("a folder");
    let held = File::create(live.join(".lock")).expect("a file");
    held.lock().expect("a lock");
    export_to(&dir, ExportFormat::Jsonl).expect("nothing is in the way");
    import_from(&out, &ledger, Some("again")).expect("an import");
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&ledger), [".importing-2", "again", "r"]);
    assert!(names(&out).iter().all(|name| !name.starts_with('.')), "{:?}", names(&out));
}

#[test]
fn a_name_that_no_system_takes_is_a_mistake() {
    let dir = exported(ExportFormat::Jsonl);
    let reader = RunReader::open(&dir.path().join("ledger/r")).expect("the run has ended");
    let out = dir.path().join("n".repeat(300));
    let options = Options {
        format: ExportFormat::Csv,
        tables: &[ExportTable::Rounds],
        out: &out,
        force: false,
        interrupted: &NOBODY,
    };
    assert!(export(&reader, &options, &mut |_| ()).expect_err("the name is too long").is_mistake());
    let error = import_from(&dir.path().join("out"), &dir.path().join("other"), Some(&"n".repeat(300)));
    assert!(error.expect_err("the name is too long").is_mistake());
    let error = import_from(&dir.path().join("out"), &out, None);
    assert!(error.expect_err("the name is too long").is_mistake());
}
